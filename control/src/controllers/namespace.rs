//! Namespaces that are being deleted: their content goes first, then the finalizer that holds them.

use super::{Change, Controller, whole_seconds};
use crate::action::{Action, ObjectKey, Outcome};
use crate::projection::{Condition, Namespace, Pod, Status};
use crate::view::{Applied, Kind, Record, View};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;

pub struct NamespaceController;

const NAME: &str = "namespace-controller";
/// What holds a namespace until its content is gone.
pub const FINALIZER: &str = "kubernetes";
/// Deletions asked for in one look; the next look goes on with what is left.
const BATCH: usize = 500;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        if change.key.resource == Namespace::RESOURCE {
            return vec![(*change.key).clone()];
        }
        let namespace = view.get::<Namespace>("", &change.key.namespace).filter(|n| n.meta.is_terminating());
        namespace.map(|n| (*n.key).clone()).into_iter().collect()
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Outcome {
        let Some(namespace) = view.item::<Namespace>(key).filter(|n| n.meta.is_terminating()) else {
            return Outcome::default();
        };
        let Some(record) = view.record(key) else { return Outcome::default() };
        if !namespace.finalizers.iter().any(|f| f == FINALIZER) {
            return Outcome::default();
        }
        let content: Vec<&Record> = view.content(&key.name).collect();
        let mut actions = Vec::new();
        if content.is_empty() {
            actions.push(Action::DeleteCollection { resource: "events", namespace: key.name.clone() });
            actions.push(Action::FinalizeNamespace { name: key.name.clone(), uid: namespace.meta.uid.clone() });
            return Outcome { actions, again_at: None };
        }
        let mut conditions = namespace.conditions.clone();
        for (r#type, status, reason, message) in report(&content) {
            set(&mut conditions, r#type, status, reason, message, now);
        }
        if conditions != namespace.conditions {
            actions.push(
                Change::of(record)
                    .exact(Some("status"), json!({"status": {"phase": "Terminating", "conditions": conditions}})),
            );
        }
        // Pods first: what they use is there until they are gone.
        let pods_left = content.iter().any(|r| r.key.resource == Pod::RESOURCE);
        let due =
            content.iter().filter(|r| !r.meta().is_terminating() && (!pods_left || r.key.resource == Pod::RESOURCE));
        actions.extend(due.take(BATCH).map(|r| Change::of(r).delete(None)));
        Outcome { actions, again_at: None }
    }
}

/// Kubernetes's five conditions of a namespace on its way out.
fn report(content: &[&Record]) -> [(&'static str, Status, &'static str, String); 5] {
    let mut by_resource: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_finalizer: BTreeMap<&str, usize> = BTreeMap::new();
    for record in content {
        *by_resource.entry(&record.key.resource).or_default() += 1;
        for finalizer in &record.meta().finalizers {
            *by_finalizer.entry(finalizer).or_default() += 1;
        }
    }
    // `pods.` is how Kubernetes writes a resource of the core group here.
    let name = |r: &str| if r.contains('.') { r.to_string() } else { format!("{r}.") };
    let resources: Vec<_> =
        by_resource.iter().map(|(r, n)| format!("{} has {n} resource instances", name(r))).collect();
    let finalizers: Vec<_> = by_finalizer.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let remaining = format!("Some resources are remaining: {}", resources.join(", "));
    let held = match finalizers.is_empty() {
        true => (Status::False, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_string()),
        false => {
            let message = format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", "));
            (Status::True, "SomeFinalizersRemain", message)
        }
    };
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            Status::False,
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            Status::False,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        (
            "NamespaceDeletionContentFailure",
            Status::False,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".into(),
        ),
        ("NamespaceContentRemaining", Status::True, "SomeResourcesRemain", remaining),
        ("NamespaceFinalizersRemaining", held.0, held.1, held.2),
    ]
}

fn set(all: &mut Vec<Condition>, r#type: &str, status: Status, reason: &str, message: String, now: Timestamp) {
    let now = whole_seconds(now);
    match all.iter_mut().find(|c| c.r#type == r#type) {
        Some(c) => {
            if c.status != status {
                c.last_transition_time = Some(now);
            }
            (c.status, c.reason, c.message) = (status, reason.into(), message);
        }
        None => all.push(Condition {
            r#type: r#type.into(),
            status,
            last_transition_time: Some(now),
            reason: reason.into(),
            message,
            ..Condition::default()
        }),
    }
}
