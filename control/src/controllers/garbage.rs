//! Owner garbage collection: what belonged to something that is gone goes too, or is let go.
//!
//! Three ways of deleting an owner, as its finalizers say: `foregroundDeletion` (dependents that block first, then the
//! owner), `orphan` (dependents lose the reference, then the owner goes), none (the owner goes, its dependents after it).
//! The view is a prefix of the log, so an owner that isn't in it is gone for good: a dependent can only have learned its
//! uid after it was written. That spares the live look-ups and the graph of guesses that Kubernetes needs.

use super::{Change, Controller};
use crate::action::{Action, EventType, ObjectKey, Outcome, Propagation};
use crate::projection::{Meta, OwnerReference};
use crate::view::{Applied, Record, View};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub struct GarbageCollector;

const NAME: &str = "garbage-collector-controller";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Dependents orphaned in one look.
const BATCH: usize = 500;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn account(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        let mut keys = BTreeSet::new();
        if let Some(after) = &change.after
            && (!after.meta().owner_references.is_empty() || is_collecting(after.meta()))
        {
            keys.insert((*after.key).clone());
        }
        let gone = change.after.is_none();
        for record in change.sides() {
            let meta = record.meta();
            // What an owner's deletion means for those who name it.
            if gone || is_collecting(meta) {
                keys.extend(view.dependents(&meta.uid).map(|d| (*d.key).clone()));
            }
            // An owner that waits for this one.
            let owners = meta.owner_references.iter().filter_map(|o| view.by_uid(&o.uid));
            keys.extend(owners.filter(|o| is_collecting(o.meta())).map(|o| (*o.key).clone()));
        }
        keys.into_iter().collect()
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, _now: Timestamp) -> Outcome {
        let Some(record) = view.record(key) else { return Outcome::default() };
        let meta = record.meta();
        let actions = if meta.is_terminating() {
            if has(meta, ORPHAN) {
                orphan_dependents(view, record)
            } else if has(meta, FOREGROUND) {
                finish_foreground(view, record)
            } else {
                Vec::new()
            }
        } else {
            judge(view, record)
        };
        Outcome { actions, again_at: None }
    }
}

fn has(meta: &Meta, finalizer: &str) -> bool {
    meta.finalizers.iter().any(|f| f == finalizer)
}

fn is_collecting(meta: &Meta) -> bool {
    meta.is_terminating() && (has(meta, FOREGROUND) || has(meta, ORPHAN))
}

fn without_finalizer(record: &Record, finalizer: &str) -> Action {
    let left: Vec<&String> = record.meta().finalizers.iter().filter(|f| *f != finalizer).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left) };
    Change::of(record).exact(None, json!({"metadata": {"finalizers": left}}))
}

fn orphan_dependents(view: &View, owner: &Record) -> Vec<Action> {
    let uid = &owner.meta().uid;
    let freed: Vec<Action> = view.dependents(uid).take(BATCH).map(|d| release(d, [uid.as_str()].into())).collect();
    if freed.is_empty() { vec![without_finalizer(owner, ORPHAN)] } else { freed }
}

fn finish_foreground(view: &View, owner: &Record) -> Vec<Action> {
    let uid = &owner.meta().uid;
    let blocks =
        |d: &&Record| d.meta().owner_references.iter().any(|o| o.uid == *uid && o.block_owner_deletion == Some(true));
    if view.dependents(uid).any(|d| blocks(&d)) { Vec::new() } else { vec![without_finalizer(owner, FOREGROUND)] }
}

/// Takes the references to `uids` off an object.
fn release(record: &Record, uids: BTreeSet<&str>) -> Action {
    let references: Vec<Value> = uids.into_iter().map(|uid| json!({"$patch": "delete", "uid": uid})).collect();
    let patch = json!({"metadata": {"ownerReferences": references, "uid": record.meta().uid}});
    Change::of(record).strategic(None, patch)
}

enum Owner {
    /// There, and staying.
    Solid,
    /// Waits for its dependents to go.
    Waiting,
    Absent,
    /// The kind isn't known here, or the reference can't be meant: nothing is concluded from it.
    Unclear,
}

fn find(view: &View, dependent: &Record, reference: &OwnerReference) -> Owner {
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = if group.is_empty() { reference.kind.clone() } else { format!("{}.{group}", reference.kind) };
    let Some(info) = view.settings.kinds.get(&kind) else { return Owner::Unclear };
    if info.namespaced && dependent.key.namespace.is_empty() {
        return Owner::Unclear;
    }
    let there = view.by_uid(&reference.uid).filter(|owner| {
        owner.key.resource == info.resource
            && owner.key.name == reference.name
            && (!info.namespaced || owner.key.namespace == dependent.key.namespace)
    });
    match there {
        None => Owner::Absent,
        Some(owner) if owner.meta().is_terminating() && has(owner.meta(), FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::Solid,
    }
}

/// What is to become of an object with owners, as they are.
fn judge(view: &View, record: &Record) -> Vec<Action> {
    let meta = record.meta();
    let (mut solid, mut waiting, mut absent) = (false, BTreeSet::new(), BTreeSet::new());
    let mut actions = Vec::new();
    for reference in &meta.owner_references {
        match find(view, record, reference) {
            Owner::Solid => solid = true,
            Owner::Waiting => {
                waiting.insert(reference.uid.as_str());
            }
            Owner::Absent => {
                if let Some(event) = misplaced(view, record, reference) {
                    actions.push(event);
                }
                absent.insert(reference.uid.as_str());
            }
            Owner::Unclear => solid = true,
        }
    }
    if solid {
        waiting.append(&mut absent);
        if !waiting.is_empty() {
            actions.push(release(record, waiting));
        }
        return actions;
    }
    if waiting.is_empty() && absent.is_empty() {
        return actions;
    }
    let has_dependents = view.dependents(&meta.uid).next().is_some();
    let propagation = match () {
        () if !waiting.is_empty() && has_dependents => Propagation::Foreground,
        () if has(meta, ORPHAN) => Propagation::Orphan,
        () if has(meta, FOREGROUND) => Propagation::Foreground,
        () => Propagation::Background,
    };
    actions.push(Action::Delete {
        key: (*record.key).clone(),
        uid: meta.uid.clone(),
        grace_seconds: None,
        propagation: Some(propagation),
        report: None,
    });
    actions
}

/// Says that an owner was named across namespaces, which never works.
fn misplaced(view: &View, record: &Record, reference: &OwnerReference) -> Option<Action> {
    let owner = view.by_uid(&reference.uid)?;
    if owner.key.namespace.is_empty() || owner.key.namespace == record.key.namespace {
        return None;
    }
    let message = format!(
        "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace \"{}\"",
        reference.api_version,
        reference.kind,
        record.key.namespace,
        reference.name,
        reference.uid,
        record.key.namespace
    );
    Some(Action::Event(Change::of(record).event(NAME, EventType::Warning, "OwnerRefInvalidNamespace", message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::Projection;
    use crate::view::{Change as Entry, KindInfo};

    fn view(objects: &[Value]) -> View {
        let mut view = View::default();
        let info = KindInfo { resource: "configmaps".into(), namespaced: true };
        view.settings.kinds.insert("ConfigMap".into(), info);
        for (i, tree) in objects.iter().enumerate() {
            let name = tree["metadata"]["name"].as_str().unwrap();
            let entry = Entry {
                key: ObjectKey::new("configmaps", "d", name),
                revision: i as i64 + 1,
                projection: Some(Projection::of("configmaps", tree)),
            };
            view.apply(entry, Timestamp::UNIX_EPOCH);
        }
        view
    }

    fn object(name: &str, owners: &[&str], finalizers: &[&str], terminating: bool) -> Value {
        let owners: Vec<Value> = owners
            .iter()
            .map(|o| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o, "uid": o, "blockOwnerDeletion": true}))
            .collect();
        json!({"metadata": {"name": name, "namespace": "d", "uid": name, "ownerReferences": owners, "finalizers": finalizers,
            "deletionTimestamp": terminating.then_some("2026-01-01T00:00:00Z")}})
    }

    fn look(view: &View, name: &str) -> Vec<Action> {
        GarbageCollector.reconcile(view, &ObjectKey::new("configmaps", "d", name), Timestamp::UNIX_EPOCH).actions
    }

    #[test]
    fn what_lost_its_last_owner_goes() {
        let view = view(&[object("a", &["gone"], &[], false)]);
        assert!(matches!(&look(&view, "a")[..], [Action::Delete { propagation: Some(Propagation::Background), .. }]));
    }

    #[test]
    fn what_has_another_owner_only_loses_the_reference() {
        let view = view(&[object("o", &[], &[], false), object("a", &["o", "gone"], &[], false)]);
        let actions = look(&view, "a");
        let [Action::Patch { patch, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(patch["metadata"]["ownerReferences"], json!([{"$patch": "delete", "uid": "gone"}]));
    }

    #[test]
    fn an_owner_of_an_unknown_kind_is_never_absent() {
        let mut child = object("a", &["gone"], &[], false);
        child["metadata"]["ownerReferences"][0]["kind"] = json!("Widget");
        assert!(look(&view(&[child]), "a").is_empty());
    }

    #[test]
    fn foreground_waits_for_dependents_that_block() {
        let owner = object("o", &[], &[FOREGROUND], true);
        let both = view(&[owner.clone(), object("a", &["o"], &[], false)]);
        assert!(look(&both, "o").is_empty());
        assert!(matches!(&look(&both, "a")[..], [Action::Delete { .. }]));
        let actions = look(&view(&[owner]), "o");
        let [Action::Patch { patch, revision: Some(1), .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(patch["metadata"]["finalizers"], Value::Null);
    }

    #[test]
    fn orphaning_frees_dependents_first() {
        let owner = object("o", &[], &[ORPHAN], true);
        let both = view(&[owner.clone(), object("a", &["o"], &[], false)]);
        assert!(look(&both, "a").is_empty(), "its owner is still there");
        assert!(matches!(&look(&both, "o")[..], [Action::Patch { key, .. }] if key.name == "a"));
        assert!(matches!(&look(&view(&[owner]), "o")[..], [Action::Patch { key, .. }] if key.name == "o"));
    }
}
