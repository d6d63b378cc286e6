//! Actions, carried out through the API in their order.
//!
//! A failure ends the list. Actions of one sort that stand in a row are independent of each other and go side by side,
//! which is what lets the store gather them into one batch; creations grow from one to many, so that what can't be created
//! is tried once, not five hundred times.

use super::events::Recorder;
use crate::apiserver::binding::Binding;
use crate::apiserver::patch::PatchKind;
use crate::apiserver::{
    Api, Context, CreateOptions, DeleteOptions, FieldValidation, ListOptions, Patch, PatchOptions, Propagation,
};
use crate::resources::{Resource, registry};
use crate::store::{Cluster, Key};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use jiff::Timestamp;
use longshore_api::Status;
use longshore_control::view::Failure;
use longshore_control::{self as control, Action, ObjectKey, Report};
use serde_json::{Value, json};
use std::sync::Arc;

/// Writes of one list that are under way at once.
const AT_ONCE: usize = 64;

/// How a list of actions ended.
pub(super) enum Ending {
    Done,
    /// Somebody else was quicker: look again, it is nobody's failure.
    Stale,
    Failed(Failure),
}

pub(super) struct Executor {
    pub api: Api,
    pub cluster: Arc<Cluster>,
    pub recorder: Recorder,
    /// The account that writes: `deployment-controller`.
    pub account: &'static str,
}

impl Executor {
    pub async fn run(&self, actions: Vec<Action>) -> Ending {
        let mut rest = actions.into_iter().peekable();
        while let Some(first) = rest.next() {
            let sort = std::mem::discriminant(&first);
            let mut row = vec![first];
            while let Some(next) = rest.next_if(|a| std::mem::discriminant(a) == sort) {
                row.push(next);
            }
            let ending = match &row[0] {
                Action::Event(_) => {
                    row.into_iter().for_each(|action| self.tell(action));
                    Ending::Done
                }
                Action::Bind { .. } => self.bind(row).await,
                Action::Create { .. } => self.slowly(row).await,
                _ => self.together(row).await,
            };
            if !matches!(ending, Ending::Done) {
                return ending;
            }
        }
        Ending::Done
    }

    fn tell(&self, action: Action) {
        if let Action::Event(event) = action {
            self.recorder.record(event);
        }
    }

    fn context(&self) -> Context {
        Context::system(self.cluster.clone(), self.account, Timestamp::now())
    }

    /// One, then two, then four …: the first failure ends it.
    async fn slowly(&self, row: Vec<Action>) -> Ending {
        let (mut rest, mut size) = (row, 1);
        while !rest.is_empty() {
            let later = rest.split_off(size.min(rest.len()));
            let ending = self.together(rest).await;
            if !matches!(ending, Ending::Done) {
                return ending;
            }
            (rest, size) = (later, size * 2);
        }
        Ending::Done
    }

    /// All of them, whatever becomes of one; the worst ending counts.
    async fn together(&self, row: Vec<Action>) -> Ending {
        let mut worst = Ending::Done;
        let mut rest = row.into_iter();
        let mut running: FuturesOrdered<_> = rest.by_ref().take(AT_ONCE).map(|a| self.one(a)).collect();
        while let Some(ending) = running.next().await {
            match (&worst, ending) {
                (Ending::Failed(_), _) | (_, Ending::Done) => {}
                (_, ending) => worst = ending,
            }
            if let Some(next) = rest.next() {
                running.push_back(self.one(next));
            }
        }
        worst
    }

    async fn one(&self, action: Action) -> Ending {
        let (verb, resource, report, outcome) = match action {
            Action::Create { resource, namespace, object, report } => {
                ("create", resource.to_string(), report, self.create(resource, &namespace, object).await)
            }
            Action::Patch { key, subresource, uid, revision, kind, patch } => {
                let outcome = self.patch(&key, subresource, &uid, revision, kind, patch).await;
                ("patch", key.resource.into_owned(), None, outcome)
            }
            Action::Delete { key, uid, grace_seconds, propagation, report } => {
                let outcome = self.delete(&key, uid, grace_seconds, propagation).await;
                ("delete", key.resource.into_owned(), report, outcome)
            }
            Action::DeleteCollection { resource, namespace } => {
                let outcome = self.delete_all(resource, &namespace).await;
                ("delete", resource.to_string(), None, outcome)
            }
            Action::FinalizeNamespace { name, uid } => {
                ("finalize", "namespaces".to_string(), None, self.finalize(&name, &uid).await)
            }
            Action::Bind { .. } | Action::Event(_) => return Ending::Done,
        };
        match outcome {
            Ok(name) => {
                if let Some(Report { success: Some(mut event), .. }) = report {
                    event.message = event.message.replace("{}", &name);
                    self.recorder.record(event);
                }
                Ending::Done
            }
            // Gone already is what a deletion wants; a patch of it is void, and the view will say so.
            Err(status) if status.code == 404 && verb != "create" => Ending::Done,
            Err(status) if status.code == 409 => Ending::Stale,
            Err(status) => {
                if let Some(Report { mut failure, .. }) = report {
                    failure.message = failure.message.replace("{}", &status.message);
                    self.recorder.record(failure);
                }
                Ending::Failed(Failure { verb, resource, reason: status.reason, message: status.message })
            }
        }
    }

    async fn create(&self, resource: &str, namespace: &str, object: Value) -> Result<String, Status> {
        let cx = self.context();
        let options = CreateOptions { dry_run: false, field_manager: cx.field_manager.clone() };
        let written = self.api.create(&cx, kind(resource)?, namespace, object, &options).await?;
        Ok(written.object.key.name.to_string())
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        subresource: Option<&str>,
        uid: &str,
        revision: Option<i64>,
        kind_of_patch: control::PatchKind,
        mut patch: Value,
    ) -> Result<String, Status> {
        let cx = self.context();
        patch["metadata"]["uid"] = json!(uid);
        if let Some(revision) = revision {
            patch["metadata"]["resourceVersion"] = json!(revision.to_string());
        }
        let body = patch.to_string();
        let patch = Patch {
            kind: match kind_of_patch {
                control::PatchKind::Merge => PatchKind::Merge,
                control::PatchKind::Strategic => PatchKind::Strategic,
            },
            body: body.as_bytes(),
        };
        let options = PatchOptions {
            dry_run: false,
            field_manager: cx.field_manager.clone(),
            field_validation: FieldValidation::Ignore,
            force: None,
        };
        let resource = kind(&key.resource)?;
        self.api.patch(&cx, resource, &key.namespace, &key.name, subresource, patch, &options).await?;
        Ok(key.name.clone())
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        uid: String,
        grace_period_seconds: Option<i64>,
        propagation: Option<control::Propagation>,
    ) -> Result<String, Status> {
        let options = DeleteOptions {
            grace_period_seconds,
            propagation: propagation.map(|p| match p {
                control::Propagation::Background => Propagation::Background,
                control::Propagation::Foreground => Propagation::Foreground,
                control::Propagation::Orphan => Propagation::Orphan,
            }),
            uid: Some(uid),
            ..DeleteOptions::default()
        };
        self.api.delete(&self.context(), kind(&key.resource)?, &key.namespace, &key.name, &options).await?;
        Ok(key.name.clone())
    }

    async fn delete_all(&self, resource: &str, namespace: &str) -> Result<String, Status> {
        let (list, options) = (ListOptions::default(), DeleteOptions::default());
        self.api.delete_collection(&self.context(), kind(resource)?, Some(namespace), &list, &options).await?;
        Ok(String::new())
    }

    async fn finalize(&self, name: &str, uid: &str) -> Result<String, Status> {
        let namespaces = kind("namespaces")?;
        let key = Key { resource: "namespaces".into(), namespace: "".into(), name: name.into() };
        let newest = self.cluster.newest(&key).map_err(|error| Status::unavailable(error.to_string()))?;
        let Some(object) = newest.object else { return Ok(String::new()) };
        let tree = object.tree();
        let left: Vec<&Value> = tree["spec"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|f| *f != control::controllers::namespace::FINALIZER)
            .collect();
        let body = json!({
            "metadata": {"uid": uid, "resourceVersion": object.revision.0.to_string()},
            "spec": {"finalizers": left},
        });
        let body = body.to_string();
        let patch = Patch { kind: PatchKind::Merge, body: body.as_bytes() };
        let options = PatchOptions::default();
        self.api.patch(&self.context(), namespaces, "", name, Some("finalize"), patch, &options).await?;
        Ok(String::new())
    }

    /// One batch of the log for all of them.
    async fn bind(&self, row: Vec<Action>) -> Ending {
        let (bindings, told): (Vec<Binding>, Vec<Option<control::Event>>) = row
            .into_iter()
            .filter_map(|action| match action {
                Action::Bind { namespace, name, uid, node, success } => {
                    Some((Binding { namespace, name, uid, node, annotations: Default::default() }, success))
                }
                _ => None,
            })
            .unzip();
        let answers = self.api.bind(&self.context(), &bindings).await;
        let mut ending = Ending::Done;
        for (success, answer) in told.into_iter().zip(answers) {
            let Err(status) = answer else {
                success.into_iter().for_each(|event| self.recorder.record(event));
                continue;
            };
            ending = match status.code {
                404 | 409 => Ending::Stale,
                _ => {
                    let (verb, resource) = ("bind", "pods".to_string());
                    Ending::Failed(Failure { verb, resource, reason: status.reason, message: status.message })
                }
            };
        }
        ending
    }
}

fn kind(resource: &str) -> Result<&'static Resource, Status> {
    registry().by_name(resource).ok_or_else(Status::no_such_path)
}
