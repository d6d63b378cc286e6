//! What pods and nodes are given on their way in: priorities, tolerations, the first taint.

use crate::resources::tree::child;
use longshore_api::Status;
use longshore_api::meta::GroupResource;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long a pod stays on a node that has fallen silent, where it doesn't say itself.
const TOLERATED_SECONDS: i64 = 300;
/// The classes that every cluster has.
const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

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

/// Priority: every pod has one, so that what reads pods needs no classes.
pub fn priority(pod: &mut Value) -> Result<(), Status> {
    let pods = GroupResource::new("", "pods");
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_string();
    let class = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let computed = match SYSTEM_CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => return Err(Status::forbidden(&pods, &name, &format!("no PriorityClass with name {class} was found"))),
    };
    let given = pod["spec"]["priority"].as_i64();
    if given.is_some_and(|given| given != i64::from(computed)) {
        let why = "the integer value of priority";
        let given = given.unwrap_or_default();
        let why = format!(
            "{why} ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        );
        return Err(Status::forbidden(&pods, &name, &why));
    }
    if let Some(spec) = child(pod, "spec") {
        spec.insert("priority".into(), computed.into());
        let policy = spec.entry("preemptionPolicy").or_insert(Value::Null);
        if policy.is_null() {
            *policy = "PreemptLowerPriority".into();
        }
    }
    Ok(())
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

    #[test]
    fn every_pod_has_a_priority() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {}});
        priority(&mut pod).unwrap();
        assert_eq!(pod["spec"], json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"priorityClassName": "gold"}});
        let refused = priority(&mut pod).unwrap_err();
        assert_eq!(refused.message, "pods \"a\" is forbidden: no PriorityClass with name gold was found");
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"priority": 7}});
        let refused = priority(&mut pod).unwrap_err();
        assert_eq!(
            refused.message,
            "pods \"a\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name"
        );
    }
}
