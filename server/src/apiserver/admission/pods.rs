//! What pods and nodes are given on their way in: tolerations, the first taint.

use crate::resources::tree::child;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long a pod stays on a node that has fallen silent, where it doesn't say itself.
const TOLERATED_SECONDS: i64 = 300;
/// DefaultTolerationSeconds.
pub fn tolerations(pod: &mut Value) {
    let tolerates = |pod: &Value, taint: &str| {
        let list = pod["spec"]["tolerations"].as_array().into_iter().flatten();
        let is = |toleration: &Value, field: &str, value: &str| match toleration[field].as_str() {
            None | Some("") => true,
            Some(other) => other == value,
        };
        list.into_iter().any(|t| is(t, "key", taint) && is(t, "effect", "NoExecute"))
    };
    for taint in [NOT_READY, UNREACHABLE] {
        if tolerates(pod, taint) {
            continue;
        }
        let toleration = json!({
            "key": taint,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": TOLERATED_SECONDS,
        });
        push(pod, "tolerations", toleration);
    }
}

/// TaintNodesByCondition: nothing is put on a node before its first sign of health.
pub fn not_ready(node: &mut Value) {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    if !taints.into_iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule") {
        push(node, "taints", json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// Adds to a list of `spec`, made where there is none.
pub fn push(tree: &mut Value, field: &str, item: Value) {
    let Some(spec) = child(tree, "spec") else { return };
    match spec.get_mut(field) {
        Some(Value::Array(list)) => list.push(item),
        _ => drop(spec.insert(field.into(), json!([item]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerates_silent_nodes_for_five_minutes() {
        let mut pod =
            json!({"spec": {"tolerations": [{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute"}]}});
        tolerations(&mut pod);
        let added = json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        assert_eq!(pod["spec"]["tolerations"][1], added);
        let once = pod.clone();
        tolerations(&mut pod);
        assert_eq!(pod, once);
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        tolerations(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
