//! Pods on nodes with `NoExecute` taints: deleted when they don't tolerate them, or no longer.
//!
//! Deleted means marked: the pod's object stays until its node confirms that it stopped, or somebody forces it. How long
//! a pod tolerates a node that is out counts from the latest of the taint, this owner's loading, and the moment we heard
//! anybody again, so that the time a server was away is on no one's account.

use super::node_eviction::may_evict;
use super::node_lifecycle::{NOT_READY, UNREACHABLE};
use super::{Change, Controller, sooner, wire_time};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::{Effect, Node, Pod, Taint};
use crate::view::{Applied, Item, Kind, Record, View};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

pub struct TaintEvictionController;

const NAME: &str = "taint-eviction-controller";
/// When to look again at a zone of which most is out.
const LATER: SignedDuration = SignedDuration::from_secs(10);

impl Controller for TaintEvictionController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn account(&self) -> &'static str {
        "node-controller"
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Node::RESOURCE => {
                let taints = |r: Option<&Record>| r.and_then(Record::get::<Node>).map(|n| n.taints.clone());
                let changed = taints(change.before.as_ref()) != taints(change.after.as_ref());
                if changed && change.after.is_some() { vec![(*change.key).clone()] } else { Vec::new() }
            }
            Pod::RESOURCE => {
                let pod = change.after.as_ref().and_then(Record::get::<Pod>);
                let node = pod.and_then(|p| view.get::<Node>("", &p.node_name));
                let tainted = node.filter(|n| n.taints.iter().any(|t| t.effect == Effect::NoExecute));
                tainted.map(|n| (*n.key).clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Outcome {
        let Some(node) = view.item::<Node>(key) else { return Outcome::default() };
        let taints: Vec<&Taint> = node.taints.iter().filter(|t| t.effect == Effect::NoExecute).collect();
        let mut outcome = Outcome::default();
        if taints.is_empty() {
            return outcome;
        }
        let from_outage = |t: &&Taint| t.key == NOT_READY || t.key == UNREACHABLE;
        let outage_counts = !taints.iter().any(from_outage) || may_evict(view, &node);
        let judged: Vec<&Taint> = taints.into_iter().filter(|t| outage_counts || !from_outage(t)).collect();
        if !outage_counts {
            outcome.again_at = Some(now + LATER);
        }
        for pod in view.pods_on(&key.name).filter(|p| p.is_active()) {
            match due(view, &pod, &judged) {
                Due::Never => {}
                Due::At(at) if at > now => outcome.again_at = sooner(outcome.again_at, Some(at)),
                Due::At(_) => outcome.actions.extend(evict(view, &pod, now)),
            }
        }
        outcome
    }
}

enum Due {
    Never,
    At(Timestamp),
}

/// When a pod has to go: at once if a taint isn't tolerated, else when the shortest toleration ends.
fn due(view: &View, pod: &Pod, taints: &[&Taint]) -> Due {
    let counted_from = |t: &Taint| {
        let floor = view.contacts.loaded_at().max(view.contacts.hearing_since());
        let own = t.time_added.unwrap_or(Timestamp::UNIX_EPOCH);
        if t.key == NOT_READY || t.key == UNREACHABLE { own.max(floor) } else { own }
    };
    let mut at: Option<Timestamp> = None;
    for taint in taints {
        let tolerations: Vec<_> = pod.tolerations.iter().filter(|t| t.tolerates(taint)).collect();
        if tolerations.is_empty() {
            return Due::At(Timestamp::UNIX_EPOCH);
        }
        if let Some(seconds) = tolerations.iter().filter_map(|t| t.toleration_seconds).min() {
            let end = counted_from(taint) + SignedDuration::from_secs(seconds.clamp(0, MOST_SECONDS));
            at = sooner(at, Some(end));
        }
    }
    at.map_or(Due::Never, Due::At)
}

/// A century: what is longer is for ever, and would not fit a timestamp.
const MOST_SECONDS: i64 = 100 * 365 * 86_400;

fn evict(view: &View, pod: &Item<Pod>, now: Timestamp) -> Vec<Action> {
    let Some(record) = view.record(&pod.key) else { return Vec::new() };
    let change = Change::of(record);
    let message = format!("Marking for deletion Pod {}/{}", pod.meta.namespace, pod.meta.name);
    let mut actions = vec![Action::Event(change.event(NAME, EventType::Normal, "TaintManagerEviction", message))];
    if !pod.disruption_target {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": wire_time(now)});
        actions.push(change.strategic(Some("status"), json!({"status": {"conditions": [condition]}})));
    }
    actions.push(change.delete(None));
    actions
}
