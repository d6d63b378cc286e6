//! Decisions as actions: bindings, what pods are told, and whom they have to make room for.

use super::preempt::Preemption;
use super::queue::profile_of;
use super::{Decision, NAME, Verdict};
use crate::action::{Action, Event, EventType, ObjectKey, PatchKind};
use crate::controllers::wire_time;
use crate::projection::{Pod, PodScheduled};
use crate::view::Item;
use jiff::Timestamp;
use serde_json::{Value, json};

fn event(pod: &Item<Pod>, kind: EventType, reason: &'static str, message: String) -> Event {
    let about: ObjectKey = (*pod.key).clone();
    Event { about, uid: pod.meta.uid.clone(), kind, reason, message, component: NAME }
}

/// A patch of a pod's status.
fn status(pod: &Item<Pod>, revision: Option<i64>, status: Value) -> Action {
    Action::Patch {
        key: (*pod.key).clone(),
        subresource: Some("status"),
        uid: pod.meta.uid.clone(),
        revision,
        kind: PatchKind::Strategic,
        patch: json!({ "status": status }),
    }
}

/// A decision as actions, in the order in which they should be carried out. `remind` repeats what a waiting pod was
/// already told.
pub fn actions(decision: &Decision, now: Timestamp, remind: bool) -> Vec<Action> {
    let pod = &decision.pod;
    match &decision.verdict {
        Verdict::Bind { node } => {
            let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
            vec![Action::Bind {
                namespace: pod.key.namespace.clone(),
                name: pod.key.name.clone(),
                uid: pod.meta.uid.clone(),
                node: node.clone(),
                success: Some(event(pod, EventType::Normal, "Scheduled", message)),
            }]
        }
        Verdict::Wait { message, nominated } => {
            let told = PodScheduled::No { reason: "Unschedulable".into(), message: message.to_string() };
            let is_news = pod.scheduled != told;
            let mut actions = Vec::new();
            if is_news || pod.nominated_node != *nominated {
                let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": &**message, "lastTransitionTime": wire_time(now)});
                let mut new = json!({ "conditions": [condition] });
                if pod.nominated_node != *nominated {
                    new["nominatedNodeName"] = if nominated.is_empty() { Value::Null } else { json!(nominated) };
                }
                actions.push(status(pod, Some(pod.revision), new));
            }
            if is_news || remind {
                let message = message.to_string();
                actions.push(Action::Event(event(pod, EventType::Warning, "FailedScheduling", message)));
            }
            actions
        }
        Verdict::Preempt { message, preemption } => {
            let waiting = Verdict::Wait { message: message.clone(), nominated: preemption.node.clone() };
            let waiting = Decision { pod: pod.clone(), verdict: waiting, why: Default::default() };
            let mut all = make_room(pod, preemption, now);
            all.extend(actions(&waiting, now, remind));
            all
        }
    }
}

/// Victims are marked, so that whoever made them knows why they went, then deleted with the grace they have.
fn make_room(pod: &Item<Pod>, preemption: &Preemption, now: Timestamp) -> Vec<Action> {
    let victims = || preemption.victims.iter().filter(|v| !v.meta.is_terminating());
    let mark = |victim: &Item<Pod>| {
        let message = format!("{}: preempting to accommodate a higher priority pod", profile_of(pod));
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": message, "lastTransitionTime": wire_time(now)});
        status(victim, None, json!({ "conditions": [condition] }))
    };
    let delete = |victim: &Item<Pod>| Action::Delete {
        key: (*victim.key).clone(),
        uid: victim.meta.uid.clone(),
        grace_seconds: None,
        propagation: None,
        report: None,
    };
    let tell = |victim: &Item<Pod>| {
        let message = format!("Preempted by pod {} on node {}", pod.meta.uid, preemption.node);
        Action::Event(event(victim, EventType::Normal, "Preempted", message))
    };
    let step_back = |other: &Item<Pod>| status(other, None, json!({ "nominatedNodeName": null }));
    let moved = preemption.outranked.iter().map(step_back);
    victims().map(mark).chain(moved).chain(victims().map(delete)).chain(victims().map(tell)).collect()
}

/// The order in which actions of many decisions are carried out: bindings first and together (they are one batch of the
/// log), then what pods are told, then deletions, then events.
pub fn in_order(actions: &mut [Action]) {
    actions.sort_by_key(|a| match a {
        Action::Bind { .. } => 0,
        Action::Patch { .. } => 1,
        Action::Delete { .. } => 2,
        _ => 3,
    });
}
