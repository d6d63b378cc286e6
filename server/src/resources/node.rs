//! Node.

use super::addresses::{cidr, dual_stack};
use super::age::age;
use super::findings::{Findings, all, text};
use super::labels::label_name;
use super::pod::resources::amount;
use super::pod::scheduling::taint_effect;
use super::tree::{at, bool_at, child, list_at, map_at, put, str_at};
use super::*;
use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus, Taint};
use longshore_api::field::{Path, Problem};
use longshore_api::names;
use serde_json::json;
use std::collections::BTreeSet;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    type_name: "io.k8s.api.core.v1.Node",
    subresources: &[
        Subresource::status("", "Node"),
        Subresource { name: "proxy", group: "", version: "v1", kind: "NodeProxyOptions", verbs: &["get"] },
    ],
    columns: COLUMNS,
    cells,
    default,
    prepare_update: |_, tree, old| put(tree, "status", at(old, "/status").clone()),
    validate,
    validate_update,
    validate_status_update,
    fields: |tree| BTreeMap::from([("spec.unschedulable", bool_at(tree, "/spec/unschedulable").to_string())]),
    ..BASE
};

const COLUMNS: &[Column] = &[
    Column::new("Status", "string", "The status of the node"),
    Column::new("Roles", "string", "The roles of the node"),
    Column::AGE,
    Column::new("Version", "string", "Kubelet Version reported by the node."),
    Column::wide(
        "Internal-IP",
        "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
    ),
    Column::wide(
        "External-IP",
        "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
    ),
    Column::wide("OS-Image", "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy))."),
    Column::wide("Kernel-Version", "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64)."),
    Column::wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let ready = list_at(tree, "/status/conditions").iter().rfind(|c| str_at(c, "/type") == "Ready");
    let mut status = match ready.map(|c| str_at(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if bool_at(tree, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let known = |pointer: &str| match str_at(tree, pointer) {
        "" => "<unknown>",
        text => text,
    };
    vec![
        status.into(),
        roles(tree).into(),
        age(tree, now),
        str_at(tree, "/status/nodeInfo/kubeletVersion").into(),
        address(tree, "InternalIP").into(),
        address(tree, "ExternalIP").into(),
        known("/status/nodeInfo/osImage").into(),
        known("/status/nodeInfo/kernelVersion").into(),
        known("/status/nodeInfo/containerRuntimeVersion").into(),
    ]
}

fn roles(tree: &Value) -> String {
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_string()),
        None if key == "kubernetes.io/role" => value.as_str().map(String::from),
        None => None,
    };
    let roles: BTreeSet<_> = map_at(tree, "/metadata/labels").filter_map(role).filter(|r| !r.is_empty()).collect();
    if roles.is_empty() { "<none>".to_string() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(tree: &'a Value, kind: &str) -> &'a str {
    let addresses = list_at(tree, "/status/addresses");
    addresses.iter().find(|a| str_at(a, "/type") == kind).map_or("<none>", |a| str_at(a, "/address"))
}

fn default(tree: &mut Value) {
    // The old name of the first range; both always say the same.
    if let Some(spec) = tree.get_mut("spec").and_then(Value::as_object_mut) {
        let first = spec.get("podCIDRs").and_then(|list| list.get(0)).and_then(Value::as_str).map(String::from);
        let single = spec.get("podCIDR").and_then(Value::as_str).filter(|s| !s.is_empty()).map(String::from);
        match (single, first) {
            (Some(range), None) => drop(spec.insert("podCIDRs".into(), json!([range]))),
            (None, Some(range)) => drop(spec.insert("podCIDR".into(), range.into())),
            _ => {}
        }
    }
    let Some(status) = child(tree, "status") else { return };
    if status.get("allocatable").is_none_or(Value::is_null)
        && let Some(capacity) = status.get("capacity").filter(|c| c.is_object()).cloned()
    {
        status.insert("allocatable".into(), capacity);
    }
    // What Kubernetes's own types always carry, so that every client finds it.
    let port = json!({"kubeletEndpoint": {"Port": 0}});
    status.entry("daemonEndpoints").or_insert(port);
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let Some(spec) = found.part::<NodeSpec>(tree, "spec") else { return found.into_errors() };
    taints(all(&spec.taints), &Path::new("metadata").child("taints"), &mut found);
    resources(tree, &mut found);
    let path = Path::new("spec").child("podCIDRs");
    let ranges = all(&spec.pod_cidrs);
    for (i, range) in ranges.iter().enumerate() {
        cidr(range, &path.index(i), &mut found);
    }
    let networks: Vec<_> = ranges.iter().map(|r| r.split('/').next().unwrap_or_default()).collect();
    if ranges.len() > 2 || !dual_stack(&networks) {
        found.invalid(&path, ranges.to_vec(), "may specify no more than one CIDR for each IP family");
    }
    if let (Some(single), Some(first)) = (&spec.pod_cidr, ranges.first())
        && single != first
    {
        found.invalid(&Path::new("spec").child("podCIDR"), single.as_str(), "must match first value of podCIDRs");
    }
    found.into_errors()
}

fn taints(taints: &[Taint], path: &Path, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        label_name(&taint.key, &path.child("key"), found);
        let value = text(&taint.value);
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            found.invalid(&path.child("value"), value, wrong.join(";"));
        }
        match taint.effect.as_str() {
            "" => found.required(&path.child("effect"), ""),
            effect => taint_effect(effect, &path.child("effect"), found),
        }
        if !seen.insert((&taint.effect, &taint.key)) {
            let problem = Problem::Duplicate(serde_json::to_value(taint).unwrap_or(Value::Null));
            found.push(&path, problem, "taints must be unique by key and effect pair");
        }
    }
}

fn resources(tree: &Value, found: &mut Findings) {
    let Some(status) = found.part::<NodeStatus>(tree, "status") else { return };
    for (field, list) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, quantity) in list.iter().flatten() {
            amount(name, &quantity.0, &Path::new("status").child(field).child(name), found);
        }
    }
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    let (new, was) = (list_at(tree, "/spec/podCIDRs"), list_at(old, "/spec/podCIDRs"));
    if !was.is_empty() && new != was {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        found.forbidden(&path.child("podCIDRs"), why);
    }
    let (new, was) = (str_at(tree, "/spec/providerID"), str_at(old, "/spec/providerID"));
    if !was.is_empty() && new != was {
        let why = "node updates may not change providerID except from \"\" to valid";
        found.forbidden(&path.child("providerID"), why);
    }
    found.into_errors()
}

fn validate_status_update(tree: &Value, _: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    resources(tree, &mut found);
    let mut seen = Vec::new();
    for (i, address) in list_at(tree, "/status/addresses").iter().enumerate() {
        if seen.contains(&address) {
            found.duplicate(&Path::new("status").child("addresses").index(i), address.clone());
        }
        seen.push(address);
    }
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_state_and_roles() {
        let node = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"node-role.kubernetes.io/edge": "", "kubernetes.io/role": "db", "node-role.kubernetes.io/": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}],
                "addresses": [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian"}}});
        let got = cells(&node, "2026-01-01T00:01:00Z".parse().unwrap());
        let expected = json!([
            "NotReady,SchedulingDisabled",
            "db,edge",
            "60s",
            "v1.37.0",
            "10.0.0.1",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>"
        ]);
        assert_eq!(Value::from(got), expected);
        let empty = cells(&json!({}), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(empty[..3], [json!("Unknown"), json!("<none>"), json!("<unknown>")]);
    }

    #[test]
    fn taints_are_unique_and_ranges_stay() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let errors = validate(&json!({"spec": {"taints": [taint, taint]}}));
        let shown = "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair";
        assert_eq!(errors[0].to_string(), shown);
        let (new, old) =
            (json!({"spec": {"podCIDRs": ["10.1.0.0/24"]}}), json!({"spec": {"podCIDRs": ["10.2.0.0/24"]}}));
        let why = "Forbidden: node updates may not change podCIDR except from \"\" to valid";
        assert_eq!(validate_update(&new, &old)[0].to_string(), format!("spec.podCIDRs: {why}"));
    }
}
