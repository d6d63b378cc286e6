//! Deletion: grace, finalizers, propagation, preconditions; the same rules for every kind.
//!
//! The order is Kubernetes's (`registry/generic/registry/store.go`): what the kind's grace period asks for first, then
//! what propagation adds to or takes from the finalizers, then removal if nothing holds the object. A pod whose grace is
//! nought goes in one write; Kubernetes takes two, of which nobody needs to see the first.

use super::admission::Operation;
use super::api::{self, Api, Context, Deleted};
use super::metadata::{self, FOREGROUND, ORPHAN};
use super::options::{DeleteOptions, ListOptions, Propagation};
use super::write::{Amended, Step};
use crate::resources::Resource;
use crate::store::Object;
use futures::StreamExt;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use longshore_api::Status;
use serde_json::Value;
use std::sync::Arc;

/// How many objects of a collection are deleted at once. The store gathers them into batches.
const AT_ONCE: usize = 64;

impl Api {
    pub async fn delete(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let kind = api::stored(resource);
        let key = api::key(kind, namespace, name);
        let amended = self
            .amend(cx, resource, key, options.dry_run, |old, object| {
                preconditions(resource, options, object)?;
                let mut tree = old.clone();
                self.admit(cx, kind, Operation::Delete, "", Some(old), &mut tree)?;
                Ok(step(kind, options, cx.now, old))
            })
            .await?;
        Ok(match amended {
            Amended::Removed(object) => Deleted::Gone(object),
            Amended::Written(object) | Amended::Unchanged(object) => Deleted::Marked(object),
        })
    }

    /// Deletes all that `list` selects; answers with them as they were when listed. What is gone already is no error.
    pub async fn delete_collection(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: Option<&str>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<super::read::Page, Status> {
        let page = self.list(cx, resource, namespace, list).await?;
        let mut answers = futures::stream::iter(page.items.clone())
            .map(async |object| self.delete(cx, resource, &object.key.namespace, &object.key.name, options).await)
            .buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            match answer {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
        drop(answers);
        Ok(page)
    }
}

fn preconditions(resource: &Resource, options: &DeleteOptions, object: &Object) -> Result<(), Status> {
    let conflict = |why: String| Err(Status::conflict(&resource.group_resource(), &object.key.name, &why));
    if let Some(uid) = options.uid.as_deref().filter(|uid| **uid != *object.uid) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            object.uid
        ));
    }
    let revision = object.revision.0.to_string();
    if let Some(version) = options.resource_version.as_deref().filter(|v| **v != revision) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        ));
    }
    Ok(())
}

/// What a delete does to `old`: a pure function, so that all its cases can be shown.
fn step(kind: &Resource, options: &DeleteOptions, now: Timestamp, old: &Value) -> Step {
    let mut tree = old.clone();
    let marked = metadata::is_set(old, "deletionTimestamp");
    if let Some(grace) = kind.grace {
        let left = metadata::number(old, "deletionGracePeriodSeconds").unwrap_or(0);
        if marked && left > 0 {
            // Deletion is under way: a client may only make it quicker.
            return match options.grace_period_seconds.filter(|wanted| *wanted < left) {
                None => Step::Unchanged,
                Some(wanted) => {
                    let wanted = grace(old, Some(wanted)).clamp(0, left);
                    let began = metadata::text(old, "deletionTimestamp").parse::<Timestamp>().unwrap_or(now);
                    mark(&mut tree, later(began, wanted - left), Some(wanted));
                    finish(tree)
                }
            };
        }
        let seconds = grace(old, options.grace_period_seconds).max(0);
        if !marked && seconds > 0 {
            mark(&mut tree, later(now, seconds), Some(seconds));
            count_generation(&mut tree);
            propagate(kind, options, &mut tree);
            return Step::Write(tree);
        }
    }
    propagate(kind, options, &mut tree);
    if kind.kind == "Namespace" {
        if !marked {
            mark(&mut tree, now, None);
            if !tree["status"].is_object() {
                tree["status"] = Value::Object(Default::default());
            }
            tree["status"]["phase"] = "Terminating".into();
        }
    } else if !marked {
        mark(&mut tree, now, Some(0));
        count_generation(&mut tree);
    }
    if tree == *old && !super::write::is_released(&tree) {
        return Step::Unchanged;
    }
    finish(tree)
}

fn finish(tree: Value) -> Step {
    if super::write::is_released(&tree) { Step::Remove(tree) } else { Step::Write(tree) }
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

fn mark(tree: &mut Value, at: Timestamp, grace: Option<i64>) {
    let fields = metadata::of(tree);
    fields.insert("deletionTimestamp".into(), metadata::time(at).into());
    if let Some(grace) = grace {
        fields.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
}

fn count_generation(tree: &mut Value) {
    if let Some(generation) = metadata::number(tree, "generation").filter(|g| *g > 0) {
        metadata::of(tree).insert("generation".into(), (generation + 1).into());
    }
}

/// Adds and takes the finalizers by which the garbage collector knows what to do with dependents.
fn propagate(kind: &Resource, options: &DeleteOptions, tree: &mut Value) {
    let has = |tree: &Value, finalizer| metadata::finalizers(tree).contains(&finalizer);
    let by_default = || match kind.default_propagation {
        "Foreground" => Propagation::Foreground,
        "Orphan" => Propagation::Orphan,
        _ => Propagation::Background,
    };
    let wanted = match options.propagation {
        Some(propagation) => propagation,
        // What was asked for by an earlier delete, or put there by the object's maker, stands.
        None if has(tree, ORPHAN) => Propagation::Orphan,
        None if has(tree, FOREGROUND) => Propagation::Foreground,
        None => by_default(),
    };
    let before: Vec<String> = metadata::finalizers(tree).into_iter().map(String::from).collect();
    let mut after: Vec<&str> = before.iter().map(String::as_str).filter(|f| *f != ORPHAN && *f != FOREGROUND).collect();
    match wanted {
        Propagation::Orphan => after.push(ORPHAN),
        Propagation::Foreground => after.push(FOREGROUND),
        Propagation::Background => {}
    }
    if after != before {
        metadata::set_finalizers(tree, &after);
    }
}

/// The last state of what a deletion removed, as `kind` shows it, or what a `Status` says of it.
pub fn answers_with_object(resource: &Resource) -> bool {
    // Kubernetes's own choice, kind by kind (`ReturnDeletedObject`).
    matches!(resource.plural, "pods" | "services" | "serviceaccounts")
}

/// The code of an answer about an object that stays for now: 202 only where the client said how dependents should go,
/// because older clients took it for a failure elsewhere.
pub fn marked_code(options: &DeleteOptions) -> StatusCode {
    match options.propagation {
        Some(Propagation::Foreground | Propagation::Background) => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    }
}

/// The `Status` of a removal.
pub fn removal_status(resource: &Resource, object: &Arc<Object>) -> Value {
    let mut details = serde_json::json!({"name": &*object.key.name, "kind": resource.plural, "uid": &*object.uid});
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::BASE;
    use serde_json::json;

    const PLAIN: Resource = Resource { kind: "ConfigMap", plural: "configmaps", ..BASE };
    const GRACEFUL: Resource = Resource {
        kind: "Pod",
        plural: "pods",
        grace: Some(|pod, wanted| match pod["spec"]["nodeName"].is_string() {
            true => wanted.unwrap_or(30),
            false => 0,
        }),
        ..BASE
    };
    const NAMESPACE: Resource = Resource { kind: "Namespace", plural: "namespaces", ..BASE };

    fn now() -> Timestamp {
        "2024-01-01T00:00:00Z".parse().unwrap()
    }

    /// What is written, or None when the object goes; with its metadata.
    fn after(kind: &Resource, options: DeleteOptions, old: Value) -> (&'static str, Value) {
        match step(kind, &options, now(), &old) {
            Step::Write(tree) => ("write", tree),
            Step::Remove(tree) => ("remove", tree),
            Step::Unchanged => ("unchanged", old),
        }
    }

    fn running_pod() -> Value {
        json!({"kind": "Pod", "metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": "n"}})
    }

    #[test]
    fn a_plain_object_goes_at_once() {
        let (what, tree) =
            after(&PLAIN, DeleteOptions::default(), json!({"kind": "ConfigMap", "metadata": {"name": "a"}}));
        assert_eq!(what, "remove");
        assert_eq!(tree["metadata"]["deletionTimestamp"], "2024-01-01T00:00:00Z");
    }

    #[test]
    fn finalizers_hold_it_back_once() {
        let old = json!({"kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["x/y"]}});
        let (what, marked) = after(&PLAIN, DeleteOptions::default(), old);
        assert_eq!((what, &marked["metadata"]["deletionGracePeriodSeconds"]), ("write", &json!(0)));
        assert_eq!(after(&PLAIN, DeleteOptions::default(), marked).0, "unchanged");
    }

    #[test]
    fn propagation_is_written_as_finalizers() {
        let delete = |propagation, old| {
            after(&PLAIN, DeleteOptions { propagation: Some(propagation), ..Default::default() }, old)
        };
        let plain = || json!({"kind": "ConfigMap", "metadata": {"name": "a"}});
        let (what, foreground) = delete(Propagation::Foreground, plain());
        assert_eq!((what, &foreground["metadata"]["finalizers"]), ("write", &json!([FOREGROUND])));
        assert_eq!(delete(Propagation::Orphan, plain()).1["metadata"]["finalizers"], json!([ORPHAN]));
        assert_eq!(delete(Propagation::Background, foreground).0, "remove");
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_may_only_lose_some() {
        let wait = |seconds| DeleteOptions { grace_period_seconds: Some(seconds), ..Default::default() };
        let (what, dying) = after(&GRACEFUL, DeleteOptions::default(), running_pod());
        assert_eq!(what, "write");
        let expected = json!({
            "name": "p", "generation": 2, "deletionTimestamp": "2024-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30,
        });
        assert_eq!(dying["metadata"], expected);
        assert_eq!(after(&GRACEFUL, wait(60), dying.clone()).0, "unchanged");
        let (what, sooner) = after(&GRACEFUL, wait(5), dying.clone());
        assert_eq!((what, &sooner["metadata"]["deletionTimestamp"]), ("write", &json!("2024-01-01T00:00:05Z")));
        assert_eq!(after(&GRACEFUL, wait(0), dying).0, "remove");
    }

    #[test]
    fn a_pod_without_a_node_goes_at_once() {
        assert_eq!(
            after(&GRACEFUL, DeleteOptions::default(), json!({"kind": "Pod", "metadata": {"name": "p"}})).0,
            "remove"
        );
    }

    #[test]
    fn a_pod_with_finalizers_outlives_its_grace() {
        let mut pod = running_pod();
        metadata::set_finalizers(&mut pod, &["x/y"]);
        let wait = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
        assert_eq!(after(&GRACEFUL, wait, pod).0, "write");
    }

    #[test]
    fn a_namespace_terminates_and_goes_when_its_finalizers_have() {
        let old = json!({"kind": "Namespace", "metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}});
        let (what, terminating) = after(&NAMESPACE, DeleteOptions::default(), old);
        assert_eq!((what, &terminating["status"]["phase"]), ("write", &json!("Terminating")));
        assert_eq!(after(&NAMESPACE, DeleteOptions::default(), terminating.clone()).0, "unchanged");
        let mut finalized = terminating;
        finalized["spec"] = json!({});
        assert_eq!(after(&NAMESPACE, DeleteOptions::default(), finalized).0, "remove");
    }
}
