//! Service.
//!
//! Addresses and node ports are given by `apiserver::admission`, which knows what is taken; everything here is decided
//! from the object alone.

mod update;
pub mod validation;

pub use update::{carry_over, drop_what_type_lacks};

use super::age::age;
use super::tree::{child, child_of, each, fill, fill_zero, int_at, list_at, map_at, put, str_at};
use super::*;
use serde_json::json;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    type_name: "io.k8s.api.core.v1.Service",
    subresources: &[
        Subresource { name: "proxy", group: "", version: "v1", kind: "ServiceProxyOptions", verbs: PROXY_VERBS },
        Subresource::status("", "Service"),
    ],
    columns: COLUMNS,
    cells,
    // A name may start with a digit since 1.37.
    name_rule: longshore_api::names::dns1123_label,
    default,
    prepare_create,
    prepare_update,
    validate: validation::service,
    validate_update: validation::update,
    validate_status_update: validation::status,
    warnings: validation::warnings,
    fields: |tree| {
        BTreeMap::from([
            ("spec.clusterIP", str_at(tree, "/spec/clusterIP").to_string()),
            ("spec.type", str_at(tree, "/spec/type").to_string()),
        ])
    },
    ..BASE
};

const COLUMNS: &[Column] = &[
    Column::new(
        "Type",
        "string",
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
    ),
    Column::new(
        "Cluster-IP",
        "string",
        "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    Column::new(
        "External-IP",
        "string",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system.",
    ),
    Column::new(
        "Port(s)",
        "string",
        "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    Column::AGE,
    Column::wide(
        "Selector",
        "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
    ),
];

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let ports = list_at(tree, "/spec/ports").iter().map(|port| {
        let (number, protocol) = (int_at(port, "/port"), str_at(port, "/protocol"));
        match int_at(port, "/nodePort") {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    });
    let or_none = |text: String| if text.is_empty() { "<none>".to_string() } else { text };
    let selector = map_at(tree, "/spec/selector").map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()));
    vec![
        str_at(tree, "/spec/type").into(),
        or_none(str_at(tree, "/spec/clusterIPs/0").to_string()).into(),
        external_ip(tree).into(),
        or_none(ports.collect::<Vec<_>>().join(",")).into(),
        age(tree, now),
        selectors::shown_labels(selector).into(),
    ]
}

fn external_ip(tree: &Value) -> String {
    let given: Vec<_> = list_at(tree, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match str_at(tree, "/spec/type") {
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".to_string(),
        "ClusterIP" | "NodePort" => given.join(","),
        "LoadBalancer" => {
            let ingress = list_at(tree, "/status/loadBalancer/ingress").iter().map(|i| match str_at(i, "/ip") {
                "" => str_at(i, "/hostname"),
                ip => ip,
            });
            let mut all: Vec<_> = ingress.filter(|a| !a.is_empty()).collect();
            all.sort_unstable();
            all.dedup();
            all.extend(given);
            if all.is_empty() { "<pending>".to_string() } else { all.join(",") }
        }
        "ExternalName" => str_at(tree, "/spec/externalName").to_string(),
        _ => "<unknown>".to_string(),
    }
}

fn default(tree: &mut Value) {
    // `status.loadBalancer` is always there in Kubernetes's own types.
    if let Some(status) = child(tree, "status") {
        child_of(status, "loadBalancer");
    }
    let Some(spec) = child(tree, "spec") else { return };
    fill_zero(spec, "sessionAffinity", "None");
    fill_zero(spec, "type", "ClusterIP");
    match spec["sessionAffinity"].as_str() {
        Some("None") => drop(spec.remove("sessionAffinityConfig")),
        Some("ClientIP") => {
            if let Some(client) = child_of(spec, "sessionAffinityConfig").and_then(|c| child_of(c, "clientIP")) {
                fill(client, "timeoutSeconds", 10_800);
            }
        }
        _ => {}
    }
    for port in each(spec, "ports") {
        fill_zero(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        fill_zero(port, "targetPort", number);
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_string();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if is_external(&kind, external) {
        fill_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether traffic from outside the cluster may arrive.
fn is_external(kind: &str, external_ips: bool) -> bool {
    ["NodePort", "LoadBalancer"].contains(&kind) || (kind == "ClusterIP" && external_ips)
}

/// Whether the kind of service has an address in the cluster (which may be `None`).
pub fn needs_cluster_ip(tree: &Value) -> bool {
    ["ClusterIP", "NodePort", "LoadBalancer"].contains(&str_at(tree, "/spec/type"))
}

pub fn needs_node_ports(tree: &Value) -> bool {
    match str_at(tree, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => tree["spec"]["allocateLoadBalancerNodePorts"] != Value::Bool(false),
        _ => false,
    }
}

pub fn is_headless(tree: &Value) -> bool {
    str_at(tree, "/spec/clusterIP") == "None"
}

/// Balancers ask nodes on a port of its own whether they have endpoints.
pub fn needs_health_check(tree: &Value) -> bool {
    str_at(tree, "/spec/type") == "LoadBalancer" && str_at(tree, "/spec/externalTrafficPolicy") == "Local"
}

fn prepare_create(_: &Request<'_>, tree: &mut Value) {
    put(tree, "status", json!({"loadBalancer": {}}));
    both_addresses(tree);
}

fn prepare_update(_: &Request<'_>, tree: &mut Value, old: &Value) {
    put(tree, "status", tree::at(old, "/status").clone());
    carry_over(tree, old);
    drop_what_type_lacks(tree, old);
    both_addresses(tree);
}

/// `clusterIP` is the first of `clusterIPs`: who sets one sets the other.
pub fn both_addresses(tree: &mut Value) {
    let single = str_at(tree, "/spec/clusterIP").to_string();
    if let Some(spec) = child(tree, "spec")
        && !single.is_empty()
        && spec.get("clusterIPs").and_then(Value::as_array).is_none_or(Vec::is_empty)
    {
        spec.insert("clusterIPs".into(), json!([single]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(spec: Value) -> Value {
        let mut tree = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec});
        default(&mut tree);
        prepare_create(&Request { now: jiff::Timestamp::UNIX_EPOCH, user: "", namespace: "a" }, &mut tree);
        tree
    }

    #[test]
    fn fills_what_was_left_out() {
        let got = made(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
        let expected = json!({"ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}], "selector": {"app": "web"},
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"});
        assert_eq!(got["spec"], expected);
        assert_eq!(got["status"], json!({"loadBalancer": {}}));
        let mut again = got.clone();
        default(&mut again);
        assert_eq!(again, got);
    }

    #[test]
    fn shows_addresses_and_ports() {
        let mut tree = made(json!({"type": "NodePort", "clusterIP": "10.96.0.9", "selector": {"b": "2", "a": "1"},
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}));
        tree["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let got = Value::from(cells(&tree, "2026-01-01T00:01:00Z".parse().unwrap()));
        assert_eq!(got, json!(["NodePort", "10.96.0.9", "<none>", "80:30080/TCP,53/UDP", "60s", "a=1,b=2"]));
        let named = made(json!({"type": "ExternalName", "externalName": "example.com"}));
        let got = cells(&named, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(got[..4], [json!("ExternalName"), json!("<none>"), json!("example.com"), json!("<none>")]);
        let balancer = made(json!({"type": "LoadBalancer"}));
        assert_eq!(cells(&balancer, jiff::Timestamp::UNIX_EPOCH)[2], "<pending>");
    }
}
