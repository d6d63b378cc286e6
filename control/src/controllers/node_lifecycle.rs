//! A node's health: what its conditions say, and what silence says about it.
//!
//! A node that hasn't been heard for its grace period (see [`crate::contacts`]) has unknown conditions, and its pods count
//! as not ready, so that traffic stops going there. Bad conditions become `NoSchedule` taints. Nothing is evicted here.

use super::{Change, Controller, sooner, whole_seconds, wire_time};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::{Condition, Effect, Lease, Node, Pod, Status, Taint};
use crate::view::{Applied, Item, Kind, Record, View};
use jiff::Timestamp;
use serde_json::{Value, json};

pub struct NodeLifecycleController;

pub(super) const NAME: &str = "node-controller";
pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status that is bad, and the taint for it.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const STOPPED: &str = "Kubelet stopped posting node status.";
const NEVER: &str = "Kubelet never posted node status.";

impl Controller for NodeLifecycleController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Node::RESOURCE => vec![(*change.key).clone()],
            Lease::RESOURCE if change.key.namespace == "kube-node-lease" => self.contact_keys(view, &change.key.name),
            // A pod that says it is ready on a node that isn't.
            Pod::RESOURCE => {
                let pod = change.after.as_ref().and_then(Record::get::<Pod>).filter(|p| p.ready.ready);
                let node =
                    pod.and_then(|p| view.get::<Node>("", &p.node_name)).filter(|n| readiness(n) == Status::Unknown);
                node.map(|n| (*n.key).clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn contact_keys(&self, view: &View, node: &str) -> Vec<ObjectKey> {
        view.get::<Node>("", node).map(|n| (*n.key).clone()).into_iter().collect()
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Outcome {
        let (Some(node), Some(record)) = (view.item::<Node>(key), view.record(key)) else { return Outcome::default() };
        let silent = view.contacts.is_silent(&key.name, now);
        let mut outcome = Outcome::default();
        if silent {
            outcome.actions.extend(call_unknown(&node, record, now));
        } else {
            outcome.again_at = view.contacts.unreachable_at(&key.name);
        }
        let ready = if silent { Status::Unknown } else { readiness(&node) };
        outcome.actions.extend(taint(&node, record, ready, now));
        if ready != Status::True {
            let pods =
                view.pods_on(&key.name).filter(|p| p.ready.ready && (silent || !view.contacts.is_connected(&key.name)));
            for pod in pods {
                outcome.actions.extend(mark_not_ready(view, &pod, now));
            }
        }
        outcome.again_at = sooner(outcome.again_at, None);
        outcome
    }
}

pub(super) fn readiness(node: &Node) -> Status {
    node.condition("Ready").map_or(Status::Unknown, |c| c.status)
}

/// The conditions a kubelet answers for, unknown since now.
fn call_unknown(node: &Item<Node>, record: &Record, now: Timestamp) -> Option<Action> {
    let all = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let unknown: Vec<Value> = all
        .into_iter()
        .filter(|t| node.condition(t).is_none_or(|c| c.status != Status::Unknown))
        .map(|t| {
            let known: Option<&Condition> = node.condition(t);
            let (reason, message) = match known {
                Some(_) => ("NodeStatusUnknown", STOPPED),
                None => ("NodeStatusNeverUpdated", NEVER),
            };
            let heartbeat = known.and_then(|c| c.last_heartbeat_time).or(node.meta.creation_timestamp);
            json!({"type": t, "status": "Unknown", "reason": reason, "message": message,
                "lastHeartbeatTime": heartbeat, "lastTransitionTime": wire_time(now)})
        })
        .collect();
    let patch = json!({"status": {"conditions": unknown}});
    (!unknown.is_empty()).then(|| Change::of(record).strategic(Some("status"), patch))
}

/// The `NoSchedule` taints that conditions (and `spec.unschedulable`) call for; others' taints are left alone.
fn taint(node: &Item<Node>, record: &Record, ready: Status, now: Timestamp) -> Option<Action> {
    let mut wanted: Vec<&str> = Vec::new();
    match ready {
        Status::True => {}
        Status::False => wanted.push(NOT_READY),
        Status::Unknown => wanted.push(UNREACHABLE),
    }
    let bad = |c: &str| node.condition(c).is_some_and(|c| c.status == Status::True);
    wanted.extend(PRESSURES.iter().filter(|(c, _)| bad(c)).map(|(_, taint)| *taint));
    if node.unschedulable {
        wanted.push(UNSCHEDULABLE);
    }
    let ours = |t: &Taint| {
        t.effect == Effect::NoSchedule
            && ([NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&t.key.as_str())
                || PRESSURES.iter().any(|(_, key)| *key == t.key))
    };
    let mut taints: Vec<Taint> =
        node.taints.iter().filter(|t| !ours(t) || wanted.contains(&t.key.as_str())).cloned().collect();
    for key in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == Effect::NoSchedule) {
            let time_added = Some(whole_seconds(now));
            taints.push(Taint { key: key.into(), value: String::new(), effect: Effect::NoSchedule, time_added });
        }
    }
    set_taints(node, record, taints)
}

pub(super) fn set_taints(node: &Node, record: &Record, taints: Vec<Taint>) -> Option<Action> {
    let value = if taints.is_empty() { Value::Null } else { json!(taints) };
    (taints != node.taints).then(|| Change::of(record).exact(None, json!({"spec": {"taints": value}})))
}

fn mark_not_ready(view: &View, pod: &Item<Pod>, now: Timestamp) -> Vec<Action> {
    let Some(record) = view.record(&pod.key) else { return Vec::new() };
    let change = Change::of(record);
    let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": wire_time(now)});
    vec![
        Action::Event(change.event(NAME, EventType::Warning, "NodeNotReady", "Node is not ready".into())),
        change.strategic(Some("status"), json!({"status": {"conditions": [condition]}})),
    ]
}
