//! The scheduler: a function from (view, pending pods) to a node for each, or the reasons why there is none.
//!
//! A whole batch is assigned in one go over one picture of the nodes, each assignment taken off what the next one sees,
//! so that a thousand pods cost one look at the cluster. Equal input and seed give equal output. It says nothing about
//! writing: a binding holds only if the pod is still unbound when it is committed.

mod filter;
mod nodes;
mod reasons;
mod score;

use crate::action::{Action, Event, EventType, ObjectKey};
use crate::projection::{Pod, PodScheduled};
use crate::view::{Item, View};
use jiff::Timestamp;
use nodes::Nodes;
use serde_json::json;
use std::cmp::Reverse;
use std::collections::HashMap;

/// The name by which pods ask for this scheduler, and with which it signs events.
pub const NAME: &str = "default-scheduler";
/// The account it writes as.
pub const ACCOUNT: &str = "kube-scheduler";

/// What was decided about one pod.
#[derive(Clone, Debug)]
pub struct Decision {
    pub pod: Item<Pod>,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Bind {
        node: String,
    },
    /// No node will do; why, in Kubernetes's words.
    Wait {
        message: String,
    },
}

/// Pods that wait for this scheduler, most important first, then in the order in which they came.
pub fn pending(view: &View) -> Vec<Item<Pod>> {
    let mut pods: Vec<Item<Pod>> = view.unbound_pods().filter(|p| is_ours(p)).collect();
    pods.sort_by_cached_key(|p| (Reverse(p.priority), p.meta.created(), p.meta.namespace.clone(), p.meta.name.clone()));
    pods
}

/// Whether this scheduler is to find a node for `pod`.
pub fn is_ours(pod: &Pod) -> bool {
    pod.node_name.is_empty()
        && pod.is_active()
        && (pod.scheduler_name.is_empty() || pod.scheduler_name == NAME)
        && pod.scheduling_gates.is_empty()
}

/// Assigns `pods` in their order.
pub fn schedule(view: &View, pods: &[Item<Pod>], seed: u64) -> Vec<Decision> {
    let mut nodes = Nodes::of(view);
    let mut groups = score::Groups::new(view);
    let mut classes: HashMap<String, filter::Class> = HashMap::new();
    let mut start = 0;
    pods.iter()
        .map(|pod| {
            let class = classes.entry(filter::Class::name(pod)).or_insert_with(|| filter::Class::of(pod, &nodes));
            let verdict = place(&mut nodes, &mut groups, class, pod, seed, &mut start);
            Decision { pod: pod.clone(), verdict }
        })
        .collect()
}

fn place(
    nodes: &mut Nodes,
    groups: &mut score::Groups<'_>,
    class: &mut filter::Class,
    pod: &Item<Pod>,
    seed: u64,
    start: &mut usize,
) -> Verdict {
    // Within a batch nodes only fill up: what found no place keeps finding none.
    if let Some(message) = &class.hopeless {
        return Verdict::Wait { message: message.clone() };
    }
    let found = filter::feasible(nodes, class, pod, start);
    let Some(index) = score::best(nodes, groups, class, pod, &found, seed) else {
        let message = reasons::no_node(nodes, class, pod);
        class.hopeless = Some(message.clone());
        return Verdict::Wait { message };
    };
    nodes.take(index, pod);
    groups.place(pod, index, nodes);
    Verdict::Bind { node: nodes.name(index).to_string() }
}

/// A decision as actions. `remind` repeats what a waiting pod was already told.
pub fn actions(decision: &Decision, now: Timestamp, remind: bool) -> Vec<Action> {
    let pod = &decision.pod;
    let key: ObjectKey = (*pod.key).clone();
    let event = |kind, reason, message| Event {
        about: key.clone(),
        uid: pod.meta.uid.clone(),
        kind,
        reason,
        message,
        component: NAME,
    };
    match &decision.verdict {
        Verdict::Bind { node } => {
            let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
            vec![Action::Bind {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: pod.meta.uid.clone(),
                node: node.clone(),
                success: Some(event(EventType::Normal, "Scheduled", message)),
            }]
        }
        Verdict::Wait { message } => {
            let told = PodScheduled::No { reason: "Unschedulable".into(), message: message.clone() };
            let mut actions = Vec::new();
            if pod.scheduled != told {
                let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": message, "lastTransitionTime": crate::controllers::wire_time(now)});
                actions.push(Action::Patch {
                    key: key.clone(),
                    subresource: Some("status"),
                    uid: pod.meta.uid.clone(),
                    revision: Some(pod.revision),
                    kind: crate::action::PatchKind::Strategic,
                    patch: json!({"status": {"conditions": [condition]}}),
                });
            }
            if pod.scheduled != told || remind {
                actions.push(Action::Event(event(EventType::Warning, "FailedScheduling", message.clone())));
            }
            actions
        }
    }
}

#[cfg(test)]
mod tests;
