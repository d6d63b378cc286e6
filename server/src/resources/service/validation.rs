//! The rules for Services.

use super::{is_external, needs_health_check};
use crate::resources::addresses::{PROTOCOLS, cidr, dual_stack, endpoint_ip, ip, port_number, port_number_or_name};
use crate::resources::findings::{Findings, all, text};
use crate::resources::labels::labels;
use crate::resources::tree::str_at;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use longshore_api::field::{Error, Path};
use longshore_api::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const MAX_AFFINITY_SECONDS: i32 = 86_400;
const ONE_PER_FAMILY: &str = "may specify no more than one IP for each IP family";

pub fn service(tree: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    let Some(spec) = found.part::<ServiceSpec>(tree, "spec") else { return found.into_errors() };
    let headless = all(&spec.cluster_ips) == ["None"];
    let ports = all(&spec.ports);
    if ports.is_empty() && !headless && text(&spec.type_) != "ExternalName" {
        found.required(&path.child("ports"), "");
    }
    of_type(&spec, headless, &path, &mut found);
    let mut names_seen = BTreeSet::new();
    for (i, item) in ports.iter().enumerate() {
        port(item, ports.len() > 1, &mut names_seen, &path.child("ports").index(i), &mut found);
    }
    labels(spec.selector.as_ref(), &path.child("selector"), &mut found);
    affinity(&spec, &path, &mut found);
    cluster_ips(&spec, headless, &path, &mut found);
    for (i, external) in all(&spec.external_ips).iter().enumerate() {
        let path = path.child("externalIPs").index(i);
        if ip(external, &path, &mut found).is_some() {
            endpoint_ip(external, &path, &mut found);
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    found.one_of(&path.child("type"), text(&spec.type_), &types);
    unique_ports(&spec, &path.child("ports"), &mut found);
    balancer(&spec, &path, &mut found);
    traffic(tree, &spec, &path, &mut found);
    found.into_errors()
}

fn of_type(spec: &ServiceSpec, headless: bool, path: &Path, found: &mut Findings) {
    let kind = text(&spec.type_);
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            found.invalid(&path.child("clusterIPs").index(0), "None", why);
        }
        "ExternalName" => {
            for (field, set) in [
                ("clusterIPs", !all(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !all(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if set {
                    found.forbidden(&path.child(field), "may not be set for ExternalName services");
                }
            }
            let name = text(&spec.external_name);
            let path = path.child("externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => found.required(&path, ""),
                name => found.each(&path, name, names::dns1123_subdomain(name)),
            }
        }
        _ => {}
    }
}

fn port<'a>(port: &'a ServicePort, named: bool, seen: &mut BTreeSet<&'a str>, path: &Path, found: &mut Findings) {
    match text(&port.name) {
        "" if named => found.required(&path.child("name"), ""),
        "" => {}
        name => {
            found.each(&path.child("name"), name, names::dns1123_label(name));
            if !seen.insert(name) {
                found.duplicate(&path.child("name"), name);
            }
        }
    }
    port_number(port.port, &path.child("port"), found);
    found.one_of(&path.child("protocol"), text(&port.protocol), &PROTOCOLS);
    let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
    port_number_or_name(&target, &path.child("targetPort"), found);
    if let Some(protocol) = &port.app_protocol {
        found.each(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

fn affinity(spec: &ServiceSpec, path: &Path, found: &mut Findings) {
    found.one_of(&path.child("sessionAffinity"), text(&spec.session_affinity), &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig");
    let config = spec.session_affinity_config.as_ref();
    match text(&spec.session_affinity) {
        "ClientIP" => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let client = config.and_then(|c| c.client_ip.as_ref());
            let path_of = path.child("clientIP");
            match client.map(|c| c.timeout_seconds) {
                _ if config.is_none() => found.required(&path, WHEN),
                None => found.required(&path_of, WHEN),
                Some(None) => found.required(&path_of.child("timeoutSeconds"), WHEN),
                Some(Some(1..=MAX_AFFINITY_SECONDS)) => {}
                Some(Some(seconds)) => {
                    let why = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                    found.invalid(&path_of.child("timeoutSeconds"), seconds, why);
                }
            }
        }
        "None" if config.is_some() => {
            found.forbidden(&path, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

/// Judges addresses and families alone, before any are given.
pub fn families(tree: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    if let Some(spec) = found.part::<ServiceSpec>(tree, "spec") {
        cluster_ips(&spec, all(&spec.cluster_ips) == ["None"], &Path::new("spec"), &mut found);
    }
    found.into_errors()
}

fn cluster_ips(spec: &ServiceSpec, headless: bool, path: &Path, found: &mut Findings) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let (single, list) = (text(&spec.cluster_ip), all(&spec.cluster_ips));
    let path_of = path.child("clusterIPs");
    match list.first() {
        None if !single.is_empty() => found.required(&path_of, ""),
        Some(_) if single.is_empty() => {
            found.invalid(&path_of, list.to_vec(), "must be empty when `clusterIP` is not specified");
        }
        Some(first) if first != single => found.invalid(&path_of, list.to_vec(), "first value must match `clusterIP`"),
        _ => {}
    }
    let families = all(&spec.ip_families);
    for (i, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(i);
        found.none_or_one_of(&path, Some(family), &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            found.duplicate(&path, family.as_str());
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    found.none_or_one_of(&path.child("ipFamilyPolicy"), spec.ip_family_policy.as_deref(), &policies);
    let mut valid = true;
    for (i, value) in list.iter().enumerate() {
        if i == 0 && value == "None" {
            if list.len() > 1 {
                valid = false;
                found.invalid(&path_of, list.to_vec(), "'None' must be the first and only value");
            }
            continue;
        }
        valid &= ip(value, &path_of.index(i), found).is_some();
    }
    if list.len() > 2 {
        found.invalid(&path_of, list.to_vec(), "may only hold up to 2 values");
    }
    let ips: Vec<_> = list.iter().map(String::as_str).collect();
    if !valid || headless {
        return;
    }
    if list.len() > 1 && !dual_stack(&ips) {
        found.invalid(&path_of, list.to_vec(), ONE_PER_FAMILY);
    }
    for (i, (value, family)) in list.iter().zip(families).enumerate() {
        if value.contains(':') != (family == "IPv6") {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            found.invalid(&path_of.index(i), value.as_str(), why);
        }
    }
}

fn unique_ports(spec: &ServiceSpec, path: &Path, found: &mut Findings) {
    let ports = all(&spec.ports);
    if text(&spec.type_) == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, p)| p.node_port.unwrap_or_default() != 0) {
            found.forbidden(&path.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let number = port.node_port.unwrap_or_default();
        if number != 0 && !seen.insert((&port.protocol, number)) {
            found.duplicate(&path.index(i).child("nodePort"), number);
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !seen.insert((&port.protocol, port.port)) {
            // Kubernetes shows its internal type here, zero fields and all.
            let shown = json!({"Name": "", "Protocol": port.protocol, "AppProtocol": null, "Port": port.port,
                "TargetPort": 0, "NodePort": 0});
            found.duplicate(&path.index(i), shown);
        }
    }
}

fn balancer(spec: &ServiceSpec, path: &Path, found: &mut Findings) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_balancer = text(&spec.type_) == "LoadBalancer";
    let ranges = all(&spec.load_balancer_source_ranges);
    let path_of = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        found.forbidden(&path_of, ONLY);
    }
    for (i, range) in ranges.iter().enumerate() {
        cidr(range.trim(), &path_of.index(i), found);
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !is_balancer {
        found.forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY);
    }
    if let Some(class) = &spec.load_balancer_class {
        let path = path.child("loadBalancerClass");
        match is_balancer {
            true => found.each(&path, class, names::qualified_name(class)),
            false => found.forbidden(&path, ONLY),
        }
    }
}

fn traffic(tree: &Value, spec: &ServiceSpec, path: &Path, found: &mut Findings) {
    let kind = text(&spec.type_);
    let policy = text(&spec.external_traffic_policy);
    let path_of = path.child("externalTrafficPolicy");
    if is_external(kind, !all(&spec.external_ips).is_empty()) {
        found.one_of(&path_of, policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        found.invalid(&path_of, policy, "may only be set for externally-accessible services");
    }
    let health = spec.health_check_node_port.unwrap_or_default();
    let path_of = path.child("healthCheckNodePort");
    if needs_health_check(tree) {
        // Zero is one that admission hasn't given yet.
        if health != 0 {
            port_number(health, &path_of, found);
        }
    } else if health != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        found.invalid(&path_of, health, why);
    }
    let path_of = path.child("internalTrafficPolicy");
    if spec.internal_traffic_policy.is_none() && ["NodePort", "LoadBalancer", "ClusterIP"].contains(&kind) {
        found.required(&path_of, "");
    }
    found.none_or_one_of(&path_of, spec.internal_traffic_policy.as_deref(), &["Cluster", "Local"]);
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = spec.traffic_distribution.as_deref();
    found.none_or_one_of(&path.child("trafficDistribution"), distribution, &distributions);
}

pub fn update(tree: &Value, old: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    let (Some(new), Some(was)) = (found.part::<ServiceSpec>(tree, "spec"), found.part::<ServiceSpec>(old, "spec"))
    else {
        return found.into_errors();
    };
    const ONCE: &str = "may not change once set";
    let named = |spec: &ServiceSpec| text(&spec.type_) == "ExternalName";
    let headless = |spec: &ServiceSpec| all(&spec.cluster_ips) == ["None"];
    let both_headless = headless(&new) && headless(&was);
    if !named(&new) && !named(&was) && !both_headless {
        let (ips, old_ips) = (all(&new.cluster_ips), all(&was.cluster_ips));
        let path = path.child("clusterIPs");
        if ips.is_empty() && !old_ips.is_empty() {
            found.invalid(&path.index(0), Value::Array(vec![]), "primary clusterIP can not be unset");
        }
        for (i, _) in ips.iter().zip(old_ips).enumerate().filter(|(_, (new, old))| new != old) {
            found.invalid(&path.index(i), ips.to_vec(), ONCE);
        }
    }
    if !named(&new) && !named(&was) && !headless(&new) && !headless(&was) {
        let (families, old_families) = (all(&new.ip_families), all(&was.ip_families));
        for _ in families.iter().zip(old_families).filter(|(new, old)| new != old) {
            found.invalid(&path.child("ipFamilies").index(0), families.to_vec(), ONCE);
        }
    }
    let balancer = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if balancer(&new) && balancer(&was) && new.load_balancer_class != was.load_balancer_class {
        found.invalid(&path.child("loadBalancerClass"), new.load_balancer_class.clone(), ONCE);
    }
    if needs_health_check(tree) && needs_health_check(old) && new.health_check_node_port != was.health_check_node_port {
        found.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
    found.into_errors()
}

pub fn status(tree: &Value, _: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let Some(status) = found.part::<ServiceStatus>(tree, "status") else { return found.into_errors() };
    let ingress = status.load_balancer.map(|b| b.ingress.unwrap_or_default()).unwrap_or_default();
    if !ingress.is_empty() && str_at(tree, "/spec/type") != "LoadBalancer" {
        found.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return found.into_errors();
    }
    for (i, item) in ingress.iter().enumerate() {
        let path = path.index(i);
        if let Some(address) = item.ip.as_deref().filter(|a| !a.is_empty()) {
            ip(address, &path.child("ip"), &mut found);
        } else if item.ip_mode.is_some() {
            found.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set");
        }
        found.none_or_one_of(&path.child("ipMode"), item.ip_mode.as_deref(), &["Proxy", "VIP"]);
        if let Some(name) = item.hostname.as_deref().filter(|n| !n.is_empty()) {
            found.each(&path.child("hostname"), name, names::dns1123_subdomain(name));
            if name.parse::<std::net::IpAddr>().is_ok() {
                found.invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address");
            }
        }
    }
    found.into_errors()
}

/// What is likely a mistake.
pub fn warnings(tree: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = |field: &str| str_at(tree, &format!("/spec/{field}"));
    let was = |field: &str| old.map(|old| str_at(old, &format!("/spec/{field}")));
    if !spec("externalName").is_empty() && spec("type") != "ExternalName" {
        let what = "spec.externalName is ignored when spec.type is not";
        warnings.push(format!("{what} \"ExternalName\""));
    }
    if spec("trafficDistribution") == "PreferClose" && was("trafficDistribution") != Some("PreferClose") {
        let what = "spec.trafficDistribution: \"PreferClose\" is deprecated in v1.35+;";
        warnings.push(format!("{what} use \"PreferSameZone\""));
    }
    if spec("clusterIP") == "None" {
        if !spec("loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_string());
        }
        if spec("sessionAffinity") != "None" && was("sessionAffinity") != Some(spec("sessionAffinity")) {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_string());
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::service::RESOURCE;

    fn wrong(spec: Value) -> Vec<String> {
        let mut tree = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec});
        (RESOURCE.default)(&mut tree);
        service(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn judges_services() {
        for (spec, expected) in [
            (json!({"ports": [{"port": 80}]}), vec![]),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), vec![]),
            (json!({"type": "ExternalName", "externalName": "example.com."}), vec![]),
            (json!({}), vec!["spec.ports: Required value"]),
            (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
            (
                json!({"type": "Odd", "ports": [{"port": 80}]}),
                vec![
                    "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                json!({"ports": [{"port": 80}, {"port": 0, "name": "b"}]}),
                vec![
                    "spec.ports[0].name: Required value",
                    "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[1].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a", "protocol": "tcp"}]}),
                vec![
                    "spec.ports[1].name: Duplicate value: \"a\"",
                    "spec.ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.300", "clusterIPs": ["10.96.0.300"]}),
                vec![
                    "spec.clusterIPs[0]: Invalid value: \"10.96.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
                vec!["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
            ),
            (
                json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}),
                vec![
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
        ] {
            assert_eq!(wrong(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn keeps_its_address() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}});
        let mut new = old.clone();
        new["spec"]["clusterIP"] = json!("10.96.0.10");
        new["spec"]["clusterIPs"] = json!(["10.96.0.10"]);
        let got: Vec<_> = update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"]);
    }
}
