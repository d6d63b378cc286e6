//! Pods that nobody will ever clean up: of nodes that are gone, never scheduled but deleted, and too many finished ones.

use super::{Change, Controller, sooner, wire_time};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::{Node, Pod};
use crate::view::{Applied, Item, Kind, Record, View};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

pub struct PodGarbageCollector;

const NAME: &str = "pod-garbage-collector";
/// How long a node must be gone before its pods are given up: it may only have been made anew.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Finished pods that are kept (Kubernetes's `terminated-pod-gc-threshold`).
const FINISHED_KEPT: usize = 12_500;
/// Pods removed in one look.
const BATCH: usize = 500;
/// Finished pods are counted again at most this often: counting looks at every pod.
const COUNT_EVERY: SignedDuration = SignedDuration::from_secs(60);

impl Controller for PodGarbageCollector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Node::RESOURCE if change.after.is_none() => vec![(*change.key).clone()],
            Pod::RESOURCE => {
                let Some(pod) = change.after.as_ref().and_then(Record::get::<Pod>) else { return Vec::new() };
                let mut keys = Vec::new();
                if pod.is_finished() && change.before.is_none() {
                    // On loading; afterwards the count looks at itself by time.
                    keys.push(ObjectKey::all_of(Pod::RESOURCE));
                }
                if !pod.node_name.is_empty() && !view.exists(Node::RESOURCE, "", &pod.node_name) {
                    keys.push(ObjectKey::new(Node::RESOURCE, "", pod.node_name.clone()));
                }
                if pod.node_name.is_empty() && pod.meta.is_terminating() {
                    keys.push((*change.key).clone());
                }
                if change.before.as_ref().and_then(Record::get::<Pod>).is_some_and(|b| !b.is_finished())
                    && pod.is_finished()
                {
                    keys.push(ObjectKey::all_of(Pod::RESOURCE));
                }
                keys
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Outcome {
        if *key == ObjectKey::all_of(Pod::RESOURCE) {
            return too_many_finished(view, now);
        }
        if key.resource == Pod::RESOURCE {
            let pod = view.item::<Pod>(key).filter(|p| p.node_name.is_empty() && p.meta.is_terminating());
            let actions = pod.and_then(|p| Some(Change::of(view.record(&p.key)?).delete(Some(0))));
            return Outcome { actions: actions.into_iter().collect(), again_at: None };
        }
        node_is_gone(view, &key.name, now)
    }
}

fn node_is_gone(view: &View, node: &str, now: Timestamp) -> Outcome {
    if view.exists(Node::RESOURCE, "", node) || view.pods_on(node).next().is_none() {
        return Outcome::default();
    }
    let due = view.gone_since(node) + QUARANTINE;
    if due > now {
        return Outcome { actions: Vec::new(), again_at: Some(due) };
    }
    let actions = view.pods_on(node).take(BATCH).flat_map(|pod| give_up(view, &pod, now)).collect();
    Outcome { actions, again_at: sooner(None, None) }
}

fn give_up(view: &View, pod: &Item<Pod>, now: Timestamp) -> Vec<Action> {
    let Some(record) = view.record(&pod.key) else { return Vec::new() };
    let change = Change::of(record);
    let mut actions = Vec::new();
    if !pod.is_finished() {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": wire_time(now)});
        actions
            .push(change.strategic(Some("status"), json!({"status": {"phase": "Failed", "conditions": [condition]}})));
        let message = format!("PodGC: node {} no longer exists", pod.node_name);
        actions.push(Action::Event(change.event(NAME, EventType::Normal, "DeletionByPodGC", message)));
    }
    actions.push(change.delete(Some(0)));
    actions
}

fn too_many_finished(view: &View, now: Timestamp) -> Outcome {
    let mut finished: Vec<Item<Pod>> =
        view.list::<Pod>().filter(|p| p.is_finished() && !p.meta.is_terminating()).collect();
    let surplus = finished.len().saturating_sub(FINISHED_KEPT);
    if surplus == 0 {
        let some = !finished.is_empty();
        return Outcome { actions: Vec::new(), again_at: some.then(|| now + COUNT_EVERY) };
    }
    finished.sort_by_key(|p| (p.meta.created(), p.meta.name.clone()));
    let oldest = finished.into_iter().take(surplus.min(BATCH));
    let actions = oldest.filter_map(|p| Some(Change::of(view.record(&p.key)?).delete(Some(0)))).collect();
    Outcome { actions, again_at: Some(now + SignedDuration::from_secs(1)) }
}
