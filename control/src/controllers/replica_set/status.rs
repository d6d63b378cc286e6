//! A ReplicaSet's counts and its one condition.

use crate::controllers::whole_seconds;
use crate::projection::{Condition, Pod, ReplicaSet, ReplicaSetStatus, Status};
use crate::view::{Failure, Item};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) fn of(
    set: &ReplicaSet,
    active: &[Item<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let count = |matches: &dyn Fn(&Pod) -> bool| to_count(active.iter().filter(|p| matches(p)).count());
    let fully_labeled = |pod: &Pod| set.template.labels.iter().all(|(k, v)| pod.meta.labels.get(k) == Some(v));
    let mut conditions = set.status.conditions.clone();
    let failing = Condition::find(&conditions, "ReplicaFailure").is_some();
    match failure {
        Some(failure) if !failing => conditions.push(Condition {
            r#type: "ReplicaFailure".into(),
            status: Status::True,
            last_transition_time: Some(whole_seconds(now)),
            reason: if failure.verb == "delete" { "FailedDelete" } else { "FailedCreate" }.into(),
            message: failure.message.clone(),
            ..Condition::default()
        }),
        None if failing => conditions.retain(|c| c.r#type != "ReplicaFailure"),
        _ => {}
    }
    ReplicaSetStatus {
        observed_generation: set.meta.generation,
        replicas: to_count(active.len()),
        fully_labeled_replicas: count(&fully_labeled),
        ready_replicas: count(&|p| p.ready.ready),
        available_replicas: count(&|p| p.is_available(i64::from(set.min_ready_seconds), now)),
        terminating_replicas: Some(to_count(terminating)),
        conditions,
    }
}

fn to_count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The status as a merge patch; none when nothing is new. Zero counts but `replicas` are left out on the wire.
pub(super) fn patch(set: &ReplicaSet, status: &ReplicaSetStatus) -> Option<Value> {
    if *status == set.status {
        return None;
    }
    let count = |n: i32| if n == 0 { Value::Null } else { json!(n) };
    let conditions = if status.conditions.is_empty() { Value::Null } else { json!(status.conditions) };
    Some(json!({"status": {
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "fullyLabeledReplicas": count(status.fully_labeled_replicas),
        "readyReplicas": count(status.ready_replicas),
        "availableReplicas": count(status.available_replicas),
        "terminatingReplicas": status.terminating_replicas,
        "conditions": conditions,
    }}))
}
