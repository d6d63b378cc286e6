//! What an update of a Service keeps of what it doesn't mention, and what falls away with a change of type.

use super::{is_external, needs_cluster_ip, needs_health_check, needs_node_ports};
use crate::resources::tree::{at, child, each, int_at, list_at, str_at};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Clients may leave out what was allocated: it stays as it was. `kubectl replace` of the file that made the service works.
pub fn carry_over(tree: &mut Value, old: &Value) {
    if needs_cluster_ip(tree) && needs_cluster_ip(old) {
        let (was, list) = (str_at(old, "/spec/clusterIP").to_string(), at(old, "/spec/clusterIPs").clone());
        let (now, same_list) = (str_at(tree, "/spec/clusterIP").to_string(), at(tree, "/spec/clusterIPs") == &list);
        let no_list = list_at(tree, "/spec/clusterIPs").is_empty();
        let families = at(old, "/spec/ipFamilies").clone();
        let Some(spec) = child(tree, "spec") else { return };
        if now.is_empty() && no_list {
            spec.insert("clusterIP".into(), was.clone().into());
        }
        if no_list && (now.is_empty() || now == was) {
            spec.insert("clusterIPs".into(), list);
        } else if now != was && same_list {
            // A client that knows only the single field changed it.
            spec.insert("clusterIPs".into(), if now.is_empty() { Value::Null } else { json!([now]) });
        }
        if spec.get("ipFamilies").is_none_or(Value::is_null) && !families.is_null() {
            spec.insert("ipFamilies".into(), families);
        }
    }
    if needs_node_ports(tree) && needs_node_ports(old) {
        node_ports(tree, old);
    }
    if needs_health_check(tree) && needs_health_check(old) && int_at(tree, "/spec/healthCheckNodePort") == 0 {
        let port = at(old, "/spec/healthCheckNodePort").clone();
        if let Some(spec) = child(tree, "spec") {
            spec.insert("healthCheckNodePort".into(), port);
        }
    }
}

/// Node ports are carried over by the port's name.
fn node_ports(tree: &mut Value, old: &Value) {
    let used = |tree: &Value| -> BTreeSet<i64> {
        list_at(tree, "/spec/ports").iter().map(|p| int_at(p, "/nodePort")).filter(|p| *p != 0).collect()
    };
    let taken: BTreeSet<_> = used(tree).intersection(&used(old)).copied().collect();
    let by_name: BTreeMap<_, _> =
        list_at(old, "/spec/ports").iter().map(|p| (str_at(p, "/name").to_string(), int_at(p, "/nodePort"))).collect();
    let Some(spec) = child(tree, "spec") else { return };
    for port in each(spec, "ports") {
        let unset = port.get("nodePort").and_then(Value::as_i64).unwrap_or_default() == 0;
        let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
        if let Some(was) = by_name.get(name).filter(|was| unset && **was != 0 && !taken.contains(was)) {
            port.insert("nodePort".into(), (*was).into());
        }
    }
}

/// A field that made sense for the old type, makes none for the new one, and was left as it was, was merely forgotten.
pub fn drop_what_type_lacks(tree: &mut Value, old: &Value) {
    let unchanged = |tree: &Value, field: &str| tree["spec"].get(field) == old["spec"].get(field);
    let mut dropped = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(tree) {
        let fields = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"];
        if unchanged(tree, "clusterIP") && unchanged(tree, "clusterIPs") {
            dropped.extend(fields);
        }
    }
    if needs_node_ports(old) && !needs_node_ports(tree) {
        let ports = |tree: &Value| -> Vec<i64> {
            list_at(tree, "/spec/ports").iter().map(|p| int_at(p, "/nodePort")).collect()
        };
        let same_ports = ports(tree) == ports(old);
        if let Some(spec) = child(tree, "spec").filter(|_| same_ports) {
            each(spec, "ports").for_each(|port| drop(port.remove("nodePort")));
        }
    }
    if needs_health_check(old) && !needs_health_check(tree) && unchanged(tree, "healthCheckNodePort") {
        dropped.push("healthCheckNodePort");
    }
    let balancer = |tree: &Value| str_at(tree, "/spec/type") == "LoadBalancer";
    if balancer(old) && !balancer(tree) {
        dropped
            .extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|f| unchanged(tree, f)));
    }
    let external =
        |tree: &Value| is_external(str_at(tree, "/spec/type"), !list_at(tree, "/spec/externalIPs").is_empty());
    if external(old) && !external(tree) && unchanged(tree, "externalTrafficPolicy") {
        dropped.push("externalTrafficPolicy");
    }
    if let Some(spec) = child(tree, "spec") {
        for field in dropped {
            spec.remove(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_addresses_that_were_left_out() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ipFamilies": ["IPv4"], "ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30002}]}});
        let mut new =
            json!({"spec": {"type": "NodePort", "ports": [{"name": "b", "port": 82}, {"name": "c", "port": 83}]}});
        carry_over(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        assert_eq!(
            new["spec"]["ports"],
            json!([{"name": "b", "port": 82, "nodePort": 30002}, {"name": "c", "port": 83}])
        );
    }

    #[test]
    fn a_change_of_type_sheds_what_it_lacks() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        drop_what_type_lacks(&mut new, &old);
        let expected = json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]});
        assert_eq!(new["spec"], expected);
        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        drop_what_type_lacks(&mut new, &old);
        assert_eq!(new["spec"], json!({"type": "ExternalName", "ports": [{"port": 80}]}));
    }
}
