//! ReplicaSets: as many pods of a template as asked for.

mod rank;
mod status;

use super::claim::Claimer;
use super::{Change, Controller, controller_reference};
use crate::action::{Action, EventType, ObjectKey, Outcome, Report};
use crate::projection::{Pod, ReplicaSet};
use crate::view::{Applied, Item, Kind, Record, View};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub struct ReplicaSetController;

pub(super) const NAME: &str = "replicaset-controller";
/// Pods made or deleted in one look: bounded, so that one set never holds up the others (Kubernetes's `BurstReplicas`).
const BURST: usize = 500;

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            ReplicaSet::RESOURCE => vec![(*change.key).clone()],
            Pod::RESOURCE => {
                let mut keys: Vec<ObjectKey> = change
                    .sides()
                    .filter_map(|r| r.meta().controller())
                    .filter(|c| c.kind == "ReplicaSet" && c.api_version.starts_with("apps/"))
                    .filter_map(|c| view.by_uid(&c.uid))
                    .map(|r| (*r.key).clone())
                    .collect();
                if let Some(after) = change.after.as_ref().filter(|r| r.meta().controller().is_none()) {
                    let labels = &after.meta().labels;
                    keys.extend(
                        view.list_in::<ReplicaSet>(&after.meta().namespace)
                            .filter(|s| !s.selector.0.is_empty() && s.selector.matches(labels))
                            .map(|s| (*s.key).clone()),
                    );
                }
                keys.dedup();
                keys
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Outcome {
        let (Some(set), Some(record)) = (view.item::<ReplicaSet>(key), view.record(key)) else {
            return Outcome::default();
        };
        let claimer = Claimer { api_version: "apps/v1", kind: "ReplicaSet", owner: &set.meta, selector: &set.selector };
        let claimed = claimer.claim::<Pod>(view);
        if !claimed.actions.is_empty() {
            return Outcome { actions: claimed.actions, again_at: None };
        }
        let (active, rest): (Vec<Item<Pod>>, Vec<Item<Pod>>) = claimed.owned.into_iter().partition(|p| p.is_active());
        let terminating = rest.iter().filter(|p| p.meta.is_terminating() && !p.is_finished()).count();
        let failure = view.failure(NAME, key);
        let status = status::of(&set, &active, terminating, failure, now);
        let me = Change::of(record);
        let mut actions: Vec<Action> =
            status::patch(&set, &status).map(|p| me.exact(Some("status"), p)).into_iter().collect();
        if !set.meta.is_terminating() {
            actions.extend(manage(view, &set, record, &active, now));
        }
        Outcome { actions, again_at: next_available(&set, &active, now) }
    }
}

/// When the next ready pod will have been ready for long enough.
fn next_available(set: &ReplicaSet, active: &[Item<Pod>], now: Timestamp) -> Option<Timestamp> {
    let wait = SignedDuration::from_secs(i64::from(set.min_ready_seconds));
    let due = active.iter().filter(|p| p.ready.ready).filter_map(|p| p.ready.since).map(|since| since + wait);
    due.filter(|t| *t > now).min()
}

fn manage(view: &View, set: &Item<ReplicaSet>, record: &Record, active: &[Item<Pod>], now: Timestamp) -> Vec<Action> {
    let wanted = usize::try_from(set.replicas).unwrap_or_default();
    if active.len() < wanted {
        let count = (wanted - active.len()).min(BURST);
        let pod = pod_of(set);
        return (0..count).map(|_| create(set, record, pod.clone())).collect();
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Vec::new();
    }
    let doomed = rank::first_to_go(active.to_vec(), &related(view, set), surplus, now);
    doomed.into_iter().map(|pod| delete(record, &pod)).collect()
}

/// Active pods of all sets with our owner: where two of them share a node, one of those goes first.
fn related(view: &View, set: &ReplicaSet) -> Vec<Item<Pod>> {
    let siblings = match set.meta.controller() {
        Some(owner) => view.controlled::<ReplicaSet>(&owner.uid).map(|s| s.meta.uid.clone()).collect(),
        None => vec![set.meta.uid.clone()],
    };
    siblings.iter().flat_map(|uid| view.controlled::<Pod>(uid)).filter(|p| p.is_active()).collect()
}

/// The pod that the template describes.
fn pod_of(set: &ReplicaSet) -> Value {
    let mut template = set.template.tree();
    let take = |tree: &mut Value, field: &str| tree.get_mut(field).map(Value::take).filter(|v| !v.is_null());
    let mut metadata = json!({
        "generateName": format!("{}-", set.meta.name),
        "namespace": set.meta.namespace,
        "ownerReferences": [controller_reference("apps/v1", "ReplicaSet", &set.meta.name, &set.meta.uid)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.get_mut("metadata").and_then(|m| take(m, field)) {
            metadata[field] = value;
        }
    }
    let spec = take(&mut template, "spec").unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn create(set: &ReplicaSet, record: &Record, object: Value) -> Action {
    let me = Change::of(record);
    Action::Create {
        resource: Pod::RESOURCE,
        namespace: set.meta.namespace.clone(),
        object,
        report: Some(Report {
            success: Some(me.event(NAME, EventType::Normal, "SuccessfulCreate", "Created pod: {}".into())),
            failure: me.event(NAME, EventType::Warning, "FailedCreate", "Error creating: {}".into()),
        }),
    }
}

fn delete(record: &Record, pod: &Item<Pod>) -> Action {
    let me = Change::of(record);
    Action::Delete {
        key: (*pod.key).clone(),
        uid: pod.meta.uid.clone(),
        grace_seconds: None,
        propagation: None,
        report: Some(Report {
            success: Some(me.event(NAME, EventType::Normal, "SuccessfulDelete", "Deleted pod: {}".into())),
            failure: me.event(NAME, EventType::Warning, "FailedDelete", "Error deleting: {}".into()),
        }),
    }
}
