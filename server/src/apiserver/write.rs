//! Create, update, patch: one path for all kinds and all callers.
//!
//! A write is judged against the newest state, writes in flight included, so that a busy object never makes a client wait
//! for a conflict it doesn't have. Whatever is answered from such a state (a refusal, "unchanged") waits for its commit
//! first; where that commit failed, everything is judged anew.

use super::api::{self, Api, Context, Written};
use super::decode::Target;
use super::options::{CreateOptions, PatchOptions, UpdateOptions};
use super::patch::{self, PatchKind};
use super::{apply, errors, metadata};
use crate::resources::{self, Resource};
use crate::store::{Key, Object, Revision, Write, WriteError};
use longshore_api::Status;
use longshore_api::field;
use serde_json::{Map, Value};
use std::sync::Arc;

/// How often a write is judged anew. In-flight writes are part of what it is judged against, so more than a few rounds
/// mean that one object is written by many at the very same moment.
const ATTEMPTS: usize = 32;
/// How many names are tried for `generateName`.
const NAME_ATTEMPTS: usize = 8;

/// A patch as it came.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'a> {
    pub kind: PatchKind,
    pub body: &'a [u8],
}

/// What one look at the newest state leads to.
pub(super) enum Step {
    /// Replace the object by this tree.
    Write(Value),
    /// Remove it; the tree is its final state.
    Remove(Value),
    Unchanged,
}

/// How `amend` ended.
pub(super) enum Amended {
    Written(Arc<Object>),
    Removed(Arc<Object>),
    Unchanged(Arc<Object>),
}

impl Amended {
    pub fn object(self) -> Arc<Object> {
        let (Self::Written(object) | Self::Removed(object) | Self::Unchanged(object)) = self;
        object
    }
}

/// Whose an object's fields are after a write.
pub(super) enum Owners {
    /// What was written is the writer's, where owners are noted.
    Noted,
    /// As apply has found (`metadata.managedFields`).
    Are(Option<Value>),
}

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
    Scale,
}

impl Part {
    pub fn of(subresource: Option<&str>) -> Result<Self, Status> {
        match subresource {
            None | Some("") => Ok(Self::Main),
            Some("status") => Ok(Self::Status),
            Some("finalize") => Ok(Self::Finalize),
            Some("scale") => Ok(Self::Scale),
            Some(_) => Err(Status::method_not_allowed()),
        }
    }
}

impl Api {
    /// Creates `body`, a tree of `resource`'s own version. `namespace` is empty for cluster-scoped kinds.
    pub async fn create(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        body: Value,
        options: &CreateOptions,
    ) -> Result<Written, Status> {
        self.make(cx, resource, namespace, body, options, None).await
    }

    /// Creates an object whose fields have these owners (`metadata.managedFields`), or none.
    pub(super) async fn make(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        body: Value,
        options: &CreateOptions,
        managed: Option<Value>,
    ) -> Result<Written, Status> {
        let kind = api::stored(resource);
        let mut body = own_version(resource, body);
        let given = metadata::text(&body, "namespace");
        if !namespace.is_empty() && !given.is_empty() && given != namespace {
            return Err(namespaces_differ());
        }
        (kind.default)(&mut body);
        let generated = metadata::text(&body, "name").is_empty() && !metadata::text(&body, "generateName").is_empty();
        super::admission::await_dependencies(&cx.cluster, kind, namespace, &body).await;
        for _ in 0..NAME_ATTEMPTS {
            // Only a generated name is ever tried twice.
            let mut tree = if generated { body.clone() } else { std::mem::take(&mut body) };
            if generated {
                let name = metadata::generated_name(metadata::text(&body, "generateName"), rand::random);
                metadata::of(&mut tree).insert("name".into(), name.into());
            }
            let warnings = self.judge_create(cx, kind, namespace, &mut tree)?;
            if let Some(managed) = &managed {
                metadata::of(&mut tree).insert("managedFields".into(), managed.clone());
            }
            if resource.stored.is_some() {
                // A newer view of a kind may ask more of new objects than the stored one: Events do.
                refuse(kind, &tree, &(resource.validate)(&tree))?;
            }
            let name = metadata::text(&tree, "name").to_string();
            let key = api::key(kind, namespace, &name);
            let outcome = match options.dry_run {
                true => self.try_create(cx, kind, key, &tree).await,
                false => cx.cluster.commit(Write::Create(api::draft(kind, key, &tree))).await,
            };
            match outcome {
                Ok(object) => return Ok(Written { object, warnings, created: true }),
                Err(WriteError::AlreadyExists) if generated => {}
                Err(error) => return Err(errors::write(error, resource, &name)),
            }
        }
        let mut status = Status::already_exists(&resource.group_resource(), metadata::text(&body, "generateName"));
        status.message.push_str(", the server was not able to generate a unique name for the object");
        Err(status)
    }

    fn judge_create(
        &self,
        cx: &Context,
        kind: &'static Resource,
        namespace: &str,
        tree: &mut Value,
    ) -> Result<Vec<String>, Status> {
        metadata::fill_create(tree, namespace, api::random_uuid(), cx.now);
        (kind.prepare_create)(&request(cx, namespace), tree);
        self.admit(cx, kind, super::admission::Operation::Create, "", None, tree)?;
        let mut problems = metadata::validate(kind, tree);
        problems.extend((kind.validate)(tree));
        refuse(kind, tree, &problems)?;
        Ok((kind.warnings)(tree, None))
    }

    /// What `commit` would say of a create.
    async fn try_create(
        &self,
        cx: &Context,
        kind: &Resource,
        key: Key,
        tree: &Value,
    ) -> Result<Arc<Object>, WriteError> {
        let newest = cx.cluster.newest(&key).map_err(|error| WriteError::Unavailable(error.to_string()))?;
        if let Some(commit) = newest.commit {
            commit.wait().await?;
        }
        match newest.object {
            Some(_) => Err(WriteError::AlreadyExists),
            None => Ok(api::unstored(kind, key, tree)),
        }
    }

    /// Replaces an object, or its part behind `subresource`, by `body` (for `scale` a Scale).
    pub async fn update(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        body: Value,
        options: &UpdateOptions,
    ) -> Result<Written, Status> {
        let part = Part::of(subresource)?;
        let body = match part {
            Part::Scale => body,
            _ => own_version(resource, body),
        };
        same_place(&body, namespace, name)?;
        let kind = api::stored(resource);
        let key = api::key(kind, namespace, name);
        let mut warnings = Vec::new();
        let amended = self
            .amend(cx, resource, key, options.dry_run, |old, object| {
                same_object(resource, &body, object)?;
                let (step, said) = self.judge_update(cx, resource, part, body.clone(), old, Owners::Noted)?;
                warnings = said;
                Ok(step)
            })
            .await;
        match amended {
            Ok(amended) => Ok(Written { object: amended.object(), warnings, created: false }),
            Err(status) if status.code == 404 && part == Part::Main && kind.create_on_update => {
                if !metadata::text(&body, "resourceVersion").is_empty() {
                    return Err(status);
                }
                let body = api::from_storage(resource, body);
                self.create(cx, resource, namespace, body, &options.into()).await
            }
            Err(status) => Err(status),
        }
    }

    /// Applies a patch to an object, or to its part behind `subresource`.
    pub async fn patch(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: Patch<'_>,
        options: &PatchOptions,
    ) -> Result<Written, Status> {
        let part = Part::of(subresource)?;
        let target = if part == Part::Scale { Target::SCALE } else { Target::from(resource) };
        let key = api::key(api::stored(resource), namespace, name);
        let mut warnings = Vec::new();
        let amended = self
            .amend(cx, resource, key, options.dry_run, |old, object| {
                let current = match part {
                    Part::Scale => super::scale::read(resource, old)?,
                    _ => api::from_storage(resource, old.clone()),
                };
                let patched = patch::apply(patch.kind, current, patch.body, &target, options.field_validation)?;
                let body = match part {
                    Part::Scale => patched.tree,
                    _ => api::to_storage(resource, patched.tree),
                };
                same_place(&body, namespace, name)?;
                same_object(resource, &body, object)?;
                let (step, said) = self.judge_update(cx, resource, part, body, old, Owners::Noted)?;
                warnings = patched.warnings;
                warnings.extend(said);
                Ok(step)
            })
            .await?;
        Ok(Written { object: amended.object(), warnings, created: false })
    }

    /// What becomes of `old` when `body` is to replace it (or a part of it).
    pub(super) fn judge_update(
        &self,
        cx: &Context,
        resource: &'static Resource,
        part: Part,
        body: Value,
        old: &Value,
        owners: Owners,
    ) -> Result<(Step, Vec<String>), Status> {
        let kind = api::stored(resource);
        let mut new = match part {
            Part::Main => body,
            Part::Status => with_status(kind, old, body),
            Part::Finalize => with_finalizers(old, &body),
            Part::Scale => super::scale::written(resource, old, &body)?,
        };
        if matches!(part, Part::Main | Part::Scale) {
            (kind.default)(&mut new);
            metadata::fill_update(&mut new, old);
            (kind.prepare_update)(&request(cx, metadata::text(old, "namespace")), &mut new, old);
        }
        if part == Part::Status {
            (kind.default)(&mut new);
            (kind.prepare_status)(&mut new, old);
        }
        let subresource = match part {
            Part::Main => "",
            Part::Status => "status",
            Part::Finalize => "finalize",
            Part::Scale => "scale",
        };
        self.admit(cx, kind, super::admission::Operation::Update, subresource, Some(old), &mut new)?;
        let mut problems = Vec::new();
        match part {
            Part::Main | Part::Scale => {
                problems.extend(metadata::validate_update(&new, old));
                problems.extend((kind.validate)(&new));
                problems.extend((kind.validate_update)(&new, old));
            }
            Part::Status => {
                problems.extend(metadata::validate_update(&new, old));
                problems.extend((kind.validate_status_update)(&new, old));
            }
            Part::Finalize => {}
        }
        refuse(kind, &new, &problems)?;
        match owners {
            Owners::Noted if !apply::is_noted(&new) => {}
            Owners::Noted => {
                let message = Target::from(kind).message()?;
                let (manager, api_version) = (&cx.field_manager, resource.api_version());
                let now = metadata::time(cx.now);
                let note = apply::Note { message, manager, api_version: &api_version, subresource, now: &now };
                note.updated(old, &mut new);
            }
            Owners::Are(Some(managed)) => drop(metadata::of(&mut new).insert("managedFields".into(), managed)),
            Owners::Are(None) => drop(metadata::of(&mut new).remove("managedFields")),
        }
        let warnings = if part == Part::Main { (kind.warnings)(&new, Some(old)) } else { Vec::new() };
        let step = if is_released(&new) {
            Step::Remove(new)
        } else if new == *old {
            Step::Unchanged
        } else {
            Step::Write(new)
        };
        Ok((step, warnings))
    }

    /// Looks at the newest state, decides, writes; again where someone else was quicker. The error is about `resource`, the
    /// kind as the client named it.
    pub(super) async fn amend(
        &self,
        cx: &Context,
        resource: &'static Resource,
        key: Key,
        dry_run: bool,
        mut decide: impl FnMut(&Value, &Object) -> Result<Step, Status> + Send,
    ) -> Result<Amended, Status> {
        let kind = api::stored(resource);
        for _ in 0..ATTEMPTS {
            let newest = cx.cluster.newest(&key).map_err(errors::store)?;
            let Some(object) = newest.object else {
                match settled(newest.commit).await.map_err(|error| errors::write(error, resource, &key.name))? {
                    true => return Err(Status::not_found(&resource.group_resource(), &key.name)),
                    false => continue,
                }
            };
            let old = object.tree();
            let step = decide(&old, &object);
            let write = match (step, dry_run) {
                (Ok(Step::Write(tree)), false) => {
                    Write::Update { draft: api::draft(kind, key.clone(), &tree), expected: object.revision }
                }
                (Ok(Step::Remove(tree)), false) => {
                    Write::Delete { draft: api::draft(kind, key.clone(), &tree), expected: object.revision }
                }
                (answer, _) => {
                    if !settled(newest.commit).await.map_err(|error| errors::write(error, resource, &key.name))? {
                        continue;
                    }
                    return answer.map(|step| match step {
                        Step::Unchanged => Amended::Unchanged(object),
                        Step::Write(tree) => Amended::Written(api::unstored(kind, key.clone(), &tree)),
                        Step::Remove(tree) => Amended::Removed(api::unstored(kind, key.clone(), &tree)),
                    });
                }
            };
            let removes = matches!(write, Write::Delete { .. });
            match cx.cluster.commit(write).await {
                Ok(object) if removes => return Ok(Amended::Removed(object)),
                Ok(object) => return Ok(Amended::Written(object)),
                Err(WriteError::Conflict | WriteError::NotFound) => {}
                Err(error) => return Err(errors::write(error, resource, &key.name)),
            }
        }
        Err(Status::modified(&resource.group_resource(), &key.name))
    }

    pub(super) fn admit(
        &self,
        cx: &Context,
        kind: &'static Resource,
        operation: super::admission::Operation,
        subresource: &str,
        old: Option<&Value>,
        tree: &mut Value,
    ) -> Result<(), Status> {
        super::node_restriction::identify(&cx.identity, kind, operation, subresource, tree);
        super::node_restriction::check(&cx.identity, kind, operation, subresource, old, tree)?;
        let admission = super::admission::Admission {
            cluster: &cx.cluster,
            resource: kind,
            identity: &cx.identity,
            operation,
            subresource,
            old,
        };
        super::admission::admit(&admission, tree)
    }
}

/// Whether what was looked at is committed. False: it came to nothing, look again. Err: nobody can say in time.
async fn settled(commit: Option<crate::store::CommitWait>) -> Result<bool, WriteError> {
    match commit {
        None => Ok(true),
        Some(commit) => match commit.wait().await {
            Ok(()) => Ok(true),
            Err(WriteError::Unknown) => Err(WriteError::Unknown),
            Err(_) => Ok(false),
        },
    }
}

fn request<'a>(cx: &'a Context, namespace: &'a str) -> resources::Request<'a> {
    resources::Request { now: cx.now, user: &cx.identity.username, namespace }
}

/// The body in the stored version, with the kind's own names over whatever it says.
fn own_version(resource: &'static Resource, mut body: Value) -> Value {
    metadata::of(&mut body);
    body["kind"] = resource.kind.into();
    body["apiVersion"] = resource.api_version().into();
    api::to_storage(resource, body)
}

fn namespaces_differ() -> Status {
    Status::bad_request("the namespace of the provided object does not match the namespace sent on the request")
}

/// The body of an update names the object that the path names.
pub(super) fn same_place(body: &Value, namespace: &str, name: &str) -> Result<(), Status> {
    match metadata::text(body, "name") {
        "" => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        given if given != name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        _ => {}
    }
    match metadata::text(body, "namespace") {
        given if !namespace.is_empty() && !given.is_empty() && given != namespace => Err(namespaces_differ()),
        _ => Ok(()),
    }
}

/// The body was made from the object as it is, where it says from which.
pub(super) fn same_object(resource: &'static Resource, body: &Value, object: &Object) -> Result<(), Status> {
    let name = &object.key.name;
    let uid = metadata::text(body, "uid");
    if !uid.is_empty() && *uid != *object.uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object.uid);
        return Err(Status::conflict(&resource.group_resource(), name, &why));
    }
    match metadata::text(body, "resourceVersion") {
        "" | "0" if api::stored(resource).unconditional_update => Ok(()),
        "" | "0" => {
            let at = field::Path::new("metadata").child("resourceVersion");
            let problem = field::Error::invalid(&at, "", "must be specified for an update");
            Err(Status::invalid(resource.group, resource.kind, name, &[problem]))
        }
        version => match version.parse().map(Revision) {
            Ok(revision) if revision == object.revision => Ok(()),
            Ok(_) => Err(Status::modified(&resource.group_resource(), name)),
            Err(_) => {
                let at = field::Path::new("metadata").child("resourceVersion");
                let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
                let problem = field::Error::invalid(&at, version, why);
                Err(Status::invalid(resource.group, resource.kind, name, &[problem]))
            }
        },
    }
}

/// `old` with the finalizers that a namespace's spec has in `body`.
fn with_finalizers(old: &Value, body: &Value) -> Value {
    let mut new = old.clone();
    if !new["spec"].is_object() {
        new["spec"] = Value::Object(Map::new());
    }
    match (body["spec"].get("finalizers").filter(|value| !value.is_null()), new["spec"].as_object_mut()) {
        (Some(value), Some(spec)) => drop(spec.insert("finalizers".into(), value.clone())),
        (None, Some(spec)) => drop(spec.remove("finalizers")),
        (_, None) => {}
    }
    new
}

/// A status as it was written, and what may be written with it: annotations (a Deployment's revision is one) and, except
/// for Deployments, labels. A body that leaves them out leaves them as they are.
fn with_status(kind: &Resource, old: &Value, mut body: Value) -> Value {
    let mut metadata = old["metadata"].clone();
    let fields: &[&str] = if kind.plural == "deployments" { &["annotations"] } else { &["annotations", "labels"] };
    for field in fields {
        if let Some(value) = body["metadata"].get_mut(*field).map(Value::take).filter(|value| !value.is_null()) {
            metadata[*field] = value;
        }
    }
    let empty = Map::new();
    let (Value::Object(mut new), old) = (body, old.as_object().unwrap_or(&empty)) else { return Value::Null };
    new.retain(|field, value| field == "status" && !value.is_null() || old.contains_key(field));
    // The rest is as it was, which a patch of the status says, too: only what differs is copied.
    for (field, was) in old.iter().filter(|(field, _)| !matches!(field.as_str(), "status" | "metadata")) {
        if new.get(field) != Some(was) {
            new.insert(field.clone(), was.clone());
        }
    }
    new.insert("metadata".into(), metadata);
    new.into()
}

/// Whether nothing holds a deleted object back any more: no finalizers, no grace period to wait for.
pub(super) fn is_released(tree: &Value) -> bool {
    let held = |finalizers: &Value| finalizers.as_array().is_some_and(|all| !all.is_empty());
    let namespace_held = tree["kind"] == "Namespace" && held(&tree["spec"]["finalizers"]);
    metadata::is_set(tree, "deletionTimestamp")
        && !held(&tree["metadata"]["finalizers"])
        && !namespace_held
        && metadata::number(tree, "deletionGracePeriodSeconds").unwrap_or(0) == 0
}

pub(super) fn refuse(kind: &Resource, tree: &Value, problems: &[field::Error]) -> Result<(), Status> {
    match problems {
        [] => Ok(()),
        problems => Err(Status::invalid(kind.group, kind.kind, metadata::text(tree, "name"), problems)),
    }
}
