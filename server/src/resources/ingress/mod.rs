//! Ingress: which hosts and paths of the outside world lead to which Services. What serves it: `longshore-edge`.

mod validation;

use super::age::age;
use super::tree::{at, child, child_of, list_at, put, same, str_at};
use super::*;
use serde_json::json;
use std::collections::BTreeSet;

pub static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "Ingress",
    list_kind: "IngressList",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    type_name: "io.k8s.api.networking.v1.Ingress",
    subresources: &[Subresource::status(GROUP, "Ingress")],
    columns: &[
        Column::new(
            "Class",
            "string",
            "The name of the IngressClass resource that should be used for additional configuration",
        ),
        Column::new("Hosts", "string", "Hosts that incoming requests are matched against before the ingress rule"),
        Column::new("Address", "string", "Address is a list containing ingress points for the load-balancer"),
        Column::new("Ports", "string", "Ports of TLS configurations that open"),
        Column::AGE,
    ],
    cells,
    default,
    prepare_create: |_, tree| {
        put(tree, "status", json!({"loadBalancer": {}}));
        set_generation(tree, 1);
    },
    prepare_update: |_, tree, old| {
        put(tree, "status", at(old, "/status").clone());
        count_generation(tree, old, same(at(tree, "/spec"), at(old, "/spec")));
    },
    validate: validation::ingress,
    validate_status_update: validation::status,
    ..BASE
};

const GROUP: &str = "networking.k8s.io";

/// The class before there was a field for it.
const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";

fn default(tree: &mut Value) {
    // Always there in Kubernetes's own types.
    if let Some(status) = child(tree, "status") {
        child_of(status, "loadBalancer");
    }
    child(tree, "spec");
}

/// Hosts that are shown before the rest is counted.
const SHOWN_HOSTS: usize = 3;
/// Characters of an address that are shown.
const SHOWN_ADDRESS: usize = 16;

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let class = match (str_at(tree, "/spec/ingressClassName"), legacy_class(tree)) {
        ("", "") => "<none>",
        ("", legacy) => legacy,
        (class, _) => class,
    };
    let ports = if list_at(tree, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![class.into(), hosts(tree).into(), address(tree).into(), ports.into(), age(tree, now)]
}

fn legacy_class(tree: &Value) -> &str {
    at(tree, "/metadata/annotations").get(LEGACY_CLASS).and_then(Value::as_str).unwrap_or_default()
}

fn hosts(tree: &Value) -> String {
    let all: Vec<&str> = list_at(tree, "/spec/rules").iter().map(|rule| str_at(rule, "/host")).collect();
    let named: Vec<&str> = all.iter().copied().filter(|host| !host.is_empty()).collect();
    match named.len() {
        0 => "*".to_string(),
        1..=SHOWN_HOSTS => named.join(","),
        many => format!("{} + {} more...", named[..SHOWN_HOSTS].join(","), many - SHOWN_HOSTS),
    }
}

fn address(tree: &Value) -> String {
    let points = list_at(tree, "/status/loadBalancer/ingress").iter().map(|point| match str_at(point, "/ip") {
        "" => str_at(point, "/hostname"),
        ip => ip,
    });
    let sorted: BTreeSet<&str> = points.filter(|a| !a.is_empty()).collect();
    let all = sorted.into_iter().collect::<Vec<_>>().join(",");
    match all.get(..SHOWN_ADDRESS - 3).filter(|_| all.len() > SHOWN_ADDRESS) {
        Some(beginning) => format!("{beginning}..."),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_its_class_hosts_and_address() {
        let shown = |spec: Value, points: Value| {
            let mut tree = json!({"metadata": {"annotations": {LEGACY_CLASS: "old"}}, "spec": spec});
            tree["status"]["loadBalancer"]["ingress"] = points;
            Value::from(cells(&tree, jiff::Timestamp::UNIX_EPOCH)[..4].to_vec())
        };
        let rules: Vec<Value> = ["a.com", "b.com", "c.com", "d.com"].iter().map(|host| json!({"host": host})).collect();
        let ip = |ip: &str| json!({"ip": ip});
        assert_eq!(shown(json!({"rules": rules[..3]}), json!([])), json!(["old", "a.com,b.com,c.com", "", "80"]));
        assert_eq!(
            shown(
                json!({"ingressClassName": "edge", "rules": rules, "tls": [{"hosts": ["a.com"]}]}),
                json!([ip("192.0.2.20"), ip("192.0.2.10")])
            ),
            json!(["edge", "a.com,b.com,c.com + 1 more...", "192.0.2.10,19...", "80, 443"])
        );
        assert_eq!(shown(json!({}), json!([{"hostname": "edge.org"}])), json!(["old", "*", "edge.org", "80"]));
    }
}
