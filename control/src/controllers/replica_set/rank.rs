//! Whom to delete first: Kubernetes's `ActivePodsWithRanks`, as a struct whose order of fields is the order of what
//! matters, the uid last so that two looks choose alike.

use crate::projection::{Phase, Pod};
use crate::view::Item;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Smaller goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    /// Unassigned before assigned.
    assigned: bool,
    /// Pending before unknown before running.
    phase: u8,
    ready: bool,
    /// The cheaper one by `controller.kubernetes.io/pod-deletion-cost`.
    cost: i32,
    /// From the node that has more of us.
    doubled_up: Reverse<usize>,
    /// Ready for a shorter time (by powers of two, so that one age isn't always the victim).
    ready_age: i32,
    restarts: Reverse<i32>,
    /// Younger by powers of two.
    age: i32,
    uid: String,
}

impl Worth {
    fn of(pod: &Pod, on_node: usize, now: Timestamp) -> Self {
        Self {
            assigned: !pod.node_name.is_empty(),
            phase: match pod.phase {
                Phase::Pending => 0,
                Phase::Unknown => 1,
                _ => 2,
            },
            ready: pod.ready.ready,
            cost: pod.deletion_cost,
            doubled_up: Reverse(on_node),
            ready_age: pod.ready.since.filter(|_| pod.ready.ready).map_or(-1, |t| magnitude(now, t)),
            restarts: Reverse(pod.restarts),
            age: pod.meta.creation_timestamp.map_or(-1, |t| magnitude(now, t)),
            uid: pod.meta.uid.clone(),
        }
    }
}

/// The power of two of an age in nanoseconds, as Kubernetes takes it; -1 for none.
fn magnitude(now: Timestamp, since: Timestamp) -> i32 {
    let age = now.duration_since(since).as_nanos();
    if age > 0 { age.ilog2() as i32 } else { -1 }
}

/// The `count` pods that are missed least.
pub(super) fn first_to_go(pods: Vec<Item<Pod>>, related: &[Item<Pod>], count: usize, now: Timestamp) -> Vec<Item<Pod>> {
    if count == 0 {
        return Vec::new();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| !p.node_name.is_empty()) {
        *on_node.entry(&pod.node_name).or_default() += 1;
    }
    let rank = |pod: &Item<Pod>| Worth::of(pod, on_node.get(pod.node_name.as_str()).copied().unwrap_or_default(), now);
    let mut ranked: Vec<(Worth, Item<Pod>)> = pods.into_iter().map(|p| (rank(&p), p)).collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ObjectKey;
    use serde_json::json;
    use std::sync::Arc;

    fn pod(name: &str, node: &str, ready_since: Option<i64>, cost: i32, restarts: i32) -> Item<Pod> {
        let at = |s: i64| Timestamp::from_second(s).unwrap().to_string();
        let conditions = ready_since.map(|s| json!([{"type": "Ready", "status": "True", "lastTransitionTime": at(s)}]));
        let tree = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": at(0),
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost.to_string()}},
            "spec": {"nodeName": node},
            "status": {"phase": if ready_since.is_some() { "Running" } else { "Pending" }, "conditions": conditions,
                "containerStatuses": [{"restartCount": restarts}]}});
        Item { key: Arc::new(ObjectKey::new("pods", "d", name)), revision: 1, object: Arc::new(Pod::of(&tree)) }
    }

    #[test]
    fn the_least_useful_go_first() {
        let all = vec![
            pod("g-old", "n1", Some(1), 0, 0),
            pod("f-restarted", "n1", Some(1), 0, 3),
            pod("e-young", "n1", Some(99_000), 0, 0),
            pod("d-doubled", "n2", Some(1), 0, 0),
            pod("c-cheap", "n3", Some(1), -1, 0),
            pod("b-unready", "n3", None, 0, 0),
            pod("a-unassigned", "", None, 0, 0),
        ];
        let mut related = all.clone();
        related.extend((0..9).map(|i| pod(&format!("x{i}"), "n2", Some(1), 0, 0)));
        let order = first_to_go(all.clone(), &related, 7, Timestamp::from_second(100_000).unwrap());
        let mut names: Vec<_> = order.iter().map(|p| p.meta.name.as_str()).collect();
        assert_eq!(names.len(), 7);
        let sorted = {
            let mut s = names.clone();
            s.sort();
            s
        };
        assert_eq!(names, sorted);
        names.truncate(2);
        assert_eq!(first_to_go(all, &related, 2, Timestamp::from_second(100_000).unwrap()).len(), 2);
    }
}
