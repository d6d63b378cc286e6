//! Pod.
//!
//! The largest kind by far: its rules stand in files by what they are about, each a translation of the matching part of
//! Kubernetes's `pkg/apis/core/validation`.

mod columns;
mod containers;
mod defaults;
mod environment;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
mod signals;
mod update;
mod validation;
mod volumes;
mod warnings;

pub(super) use defaults::{template as template_defaults, without_status};
pub(super) use validation::template as validate_template;
pub(super) use warnings::template as template_warnings;

use super::tree::{at, bool_at, int_at, list_at, put, same, str_at};
use super::*;
use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::json;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    type_name: "io.k8s.api.core.v1.Pod",
    subresources: &[
        Subresource { name: "attach", group: "", version: "v1", kind: "PodAttachOptions", verbs: &["create", "get"] },
        Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: &["create"] },
        Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
        Subresource { name: "exec", group: "", version: "v1", kind: "PodExecOptions", verbs: &["create", "get"] },
        Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &["get"] },
        Subresource {
            name: "portforward",
            group: "",
            version: "v1",
            kind: "PodPortForwardOptions",
            verbs: &["create", "get"],
        },
        Subresource { name: "proxy", group: "", version: "v1", kind: "PodProxyOptions", verbs: PROXY_VERBS },
        Subresource::status("", "Pod"),
    ],
    columns: columns::COLUMNS,
    cells: columns::cells,
    row_conditions: columns::row_conditions,
    default: defaults::pod,
    prepare_create,
    prepare_update,
    prepare_status,
    validate: validation::pod,
    validate_update: update::spec,
    validate_status_update: update::status,
    warnings: warnings::pod,
    fields,
    grace: Some(grace),
    ..BASE
};

fn prepare_create(_: &Request<'_>, pod: &mut Value) {
    // A spec that doesn't fit its type is refused by validation; its class doesn't matter.
    let class = PodSpec::deserialize(at(pod, "/spec")).map_or("BestEffort", |spec| resources::qos_class(&spec));
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if !list_at(pod, "/spec/schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    put(pod, "status", status);
    set_generation(pod, 1);
    label_keys(pod);
}

/// `matchLabelKeys` stand for the values that the pod itself has: they become part of the selectors they refine, so that
/// the scheduler reads selectors only.
fn label_keys(pod: &mut Value) {
    let labels = at(pod, "/metadata/labels").clone();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    tree::each(spec, "topologySpreadConstraints").for_each(|term| merge_label_keys(term, &labels));
    let Some(affinity) = tree::there(spec, "affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = tree::there(affinity, kind) else { continue };
        tree::each(terms, "requiredDuringSchedulingIgnoredDuringExecution")
            .for_each(|term| merge_label_keys(term, &labels));
        tree::each(terms, "preferredDuringSchedulingIgnoredDuringExecution")
            .filter_map(|weighted| tree::there(weighted, "podAffinityTerm"))
            .for_each(|term| merge_label_keys(term, &labels));
    }
}

fn merge_label_keys(term: &mut serde_json::Map<String, Value>, labels: &Value) {
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        // Without a selector the keys are refused; nothing is made up for them here.
        let Some(selector) = tree::there(term, "labelSelector") else { return };
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(value) = labels.get(key) else { continue };
            let expression = json!({"key": key, "operator": operator, "values": [value]});
            match selector.entry("matchExpressions").or_insert_with(|| json!([])) {
                Value::Array(list) if !list.contains(&expression) => list.push(expression),
                _ => {}
            }
        }
    }
}

fn prepare_update(_: &Request<'_>, pod: &mut Value, old: &Value) {
    put(pod, "status", at(old, "/status").clone());
    count_generation(pod, old, same(at(pod, "/spec"), at(old, "/spec")));
}

/// A pod's class is decided once. Agents that leave it out of a status mean what it was.
fn prepare_status(pod: &mut Value, old: &Value) {
    let class = at(old, "/status/qosClass").clone();
    if let Some(status) = tree::child(pod, "status") {
        tree::fill_zero(status, "qosClass", class);
    }
}

fn fields(pod: &Value) -> BTreeMap<&'static str, String> {
    let text = |pointer: &str| str_at(pod, pointer).to_string();
    BTreeMap::from([
        ("spec.nodeName", text("/spec/nodeName")),
        ("spec.restartPolicy", text("/spec/restartPolicy")),
        ("spec.schedulerName", text("/spec/schedulerName")),
        ("spec.serviceAccountName", text("/spec/serviceAccountName")),
        ("spec.hostNetwork", bool_at(pod, "/spec/hostNetwork").to_string()),
        ("status.phase", text("/status/phase")),
        ("status.podIP", text("/status/podIPs/0/ip")),
        ("status.nominatedNodeName", text("/status/nominatedNodeName")),
    ])
}

/// How long a pod has to say farewell: what was asked for, else what its spec says. One that runs nowhere, or has ended,
/// goes at once.
fn grace(pod: &Value, requested: Option<i64>) -> i64 {
    let seconds = requested.unwrap_or_else(|| int_at(pod, "/spec/terminationGracePeriodSeconds"));
    let ended = ["Succeeded", "Failed"].contains(&str_at(pod, "/status/phase"));
    match seconds {
        _ if ended || str_at(pod, "/spec/nodeName").is_empty() => 0,
        ..0 => 1,
        seconds => seconds,
    }
}
