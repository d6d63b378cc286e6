//! Server-side apply: who applies says what it wants, and owns just that.
//!
//! Each writer of an object is noted with the fields that it has set (`metadata.managedFields`). What an applier left out
//! since its last time goes, unless somebody else has set it, too; what it would change of another's is a conflict, unless
//! it forces. Pure: from trees to trees.
//!
//! Objects that nobody has ever applied carry no `managedFields`: noting each controller's write would cost more than the
//! write. When somebody does, all that is there belongs to `before-first-apply`, as in Kubernetes for objects that are older
//! than its server-side apply. From then on every write is noted.

mod fields;
mod managers;
mod shape;
#[cfg(test)]
mod tests;
mod verb;

pub use managers::is_reset;
pub use verb::is_spoken;

use crate::apiserver::metadata;
use crate::apiserver::schema::Message;
use fields::Fields;
use longshore_api::Status;
use managers::{Manager, Who};
use serde_json::Value;
use shape::Shape;
use std::collections::HashSet;

/// Of a patch that is applied; its body is YAML or JSON.
pub const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// Who owns what was there when somebody applied for the first time.
const BEFORE: &str = "before-first-apply";
/// Where kubectl notes what it applied by itself, and its own name: fields it has noted are its own to take over.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const KUBECTL: &str = "kubectl";

/// What is the server's own, or tells which object is meant: nobody's.
const UNOWNED: [&[&str]; 11] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
    &["f:metadata", "f:deletionTimestamp"],
];

const METADATA: &str = "f:metadata";

/// A write, as it is noted.
#[derive(Clone, Copy, Debug)]
pub struct Note<'a> {
    pub message: &'static Message,
    pub manager: &'a str,
    /// The version that the client speaks: `apps/v1`.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// As `metav1.Time` prints it.
    pub now: &'a str,
}

/// Why nothing was applied.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The manager's name and the path of each field that others have set.
    Conflicts(Vec<(String, String)>),
    /// The place of a list whose items can't be told apart, and why.
    Unclear(String, shape::Unclear),
}

impl Note<'_> {
    fn shape(&self) -> Shape {
        Shape::Struct(self.message)
    }

    fn fields(&self, tree: &Value) -> Fields {
        owned(self.shape().fields(tree))
    }

    /// Of what somebody wants the part that is written here: an object without its status, or what a write of the status
    /// may change.
    fn of_this_part(&self, mut wanted: Value) -> Value {
        let Some(tree) = wanted.as_object_mut() else { return wanted };
        if self.subresource.is_empty() {
            tree.remove("status");
            return wanted;
        }
        tree.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        const WITH_IT: [&str; 6] = ["name", "namespace", "uid", "resourceVersion", "annotations", "labels"];
        metadata::of(&mut wanted).retain(|field, _| WITH_IT.contains(&field.as_str()));
        wanted
    }

    /// What was set (also anew), and what is gone.
    fn difference(&self, old: &Value, new: &Value) -> (Fields, Fields) {
        let (before, after) = (self.fields(old), self.fields(new));
        let mut set = owned(self.shape().changed(old, new));
        set.add(&after.clone().without(&before));
        (set, before.without(&after))
    }

    /// Notes an update of an object whose owners are noted ([`is_noted`]): `new` gets its `managedFields`.
    pub fn updated(&self, old: &Value, new: &mut Value) {
        let (set, gone) = self.difference(old, new);
        if set.is_empty() && gone.is_empty() {
            return;
        }
        let mut managers = managers::read(new);
        for manager in &mut managers {
            manager.fields.subtract(&set);
            manager.fields.subtract(&gone);
        }
        let who = Who { name: self.manager.into(), applies: false, subresource: self.subresource.into() };
        if !set.is_empty() {
            match managers.iter_mut().find(|manager| manager.is(&who, self.api_version)) {
                Some(own) => {
                    own.fields.add(&set);
                    own.time = self.now.into();
                }
                None => managers.push(self.entry(who, set)),
            }
        }
        put(new, managers);
    }

    /// Applies `wanted` to `live` (none: the object is to be made). The answer has its `managedFields`.
    pub fn applied(&self, live: Option<&Value>, wanted: &Value, force: bool) -> Result<Value, Refusal> {
        let wanted = &self.of_this_part(wanted.clone());
        self.shape().check(wanted).map_err(|(at, why)| Refusal::Unclear(at, why))?;
        match self.try_applied(live, wanted, force) {
            Err(Refusal::Conflicts(conflicts)) if self.manager == KUBECTL => {
                let noted = live.map(|live| self.last_applied(live)).unwrap_or_default();
                let left: Vec<_> = conflicts.into_iter().filter(|(_, path)| !noted.contains(path)).collect();
                match left.is_empty() {
                    true => self.try_applied(live, wanted, true),
                    false => Err(Refusal::Conflicts(left)),
                }
            }
            result => result,
        }
    }

    fn try_applied(&self, live: Option<&Value>, wanted: &Value, force: bool) -> Result<Value, Refusal> {
        let mut managers = live.map(managers::read).unwrap_or_default();
        if let (Some(live), true) = (live, managers.is_empty()) {
            let who = Who { name: BEFORE.into(), applies: false, subresource: String::new() };
            let mut fields = self.fields(live);
            fields.cut(&["f:status"]);
            managers.push(self.entry(who, fields));
        }
        let who = Who { name: self.manager.into(), applies: true, subresource: self.subresource.into() };
        let at = managers.iter().position(|manager| manager.is(&who, self.api_version));
        let last = at.map(|at| managers.remove(at));
        let fields = self.fields(wanted);

        let empty = Value::Object(Default::default());
        let mut new = self.shape().merge(live.unwrap_or(&empty), wanted);
        if let Some(last) = &last {
            let mut owned = fields.clone();
            managers.iter().for_each(|manager| owned.add(&manager.fields));
            self.shape().prune(&mut new, &last.fields, &owned);
        }
        let (set, gone) = self.difference(live.unwrap_or(&empty), &new);
        let mut conflicts = Vec::new();
        for manager in &mut managers {
            let conflict = manager.fields.common(&set);
            let shown = manager.shown();
            conflicts.extend(conflict.paths().into_iter().map(|path| (shown.clone(), path)));
            manager.fields.subtract(&conflict);
            manager.fields.subtract(&gone);
        }
        if !force && !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
        let mut own = self.entry(who, fields);
        let same = |last: &&Manager| last.fields == own.fields && set.is_empty() && gone.is_empty();
        if let Some(last) = last.as_ref().filter(same) {
            own.time = last.time.clone();
            own.api_version = last.api_version.clone();
        }
        managers.push(own);
        put(&mut new, managers);
        Ok(new)
    }

    fn entry(&self, who: Who, fields: Fields) -> Manager {
        Manager { who, api_version: self.api_version.into(), time: self.now.into(), fields }
    }

    /// What kubectl has noted at the object by its own way of applying.
    fn last_applied(&self, live: &Value) -> HashSet<String> {
        let noted = live["metadata"]["annotations"][LAST_APPLIED].as_str();
        let tree = noted.and_then(|text| serde_json::from_str::<Value>(text).ok());
        tree.map(|tree| self.fields(&tree).paths().into_iter().collect()).unwrap_or_default()
    }
}

/// Whether an object's fields have owners: somebody has applied it.
pub fn is_noted(tree: &Value) -> bool {
    metadata::is_set(tree, "managedFields")
}

/// Without what is nobody's.
fn owned(mut fields: Fields) -> Fields {
    UNOWNED.iter().for_each(|path| fields.cut(path));
    // Every object has its metadata.
    if fields.below.get(METADATA).is_some_and(|metadata| metadata.below.is_empty()) {
        fields.below.remove(METADATA);
    }
    fields
}

fn put(tree: &mut Value, all: Vec<Manager>) {
    match managers::write(all) {
        Some(managed) => metadata::of(tree).insert("managedFields".into(), managed),
        None => metadata::of(tree).remove("managedFields"),
    };
}

impl Refusal {
    /// In Kubernetes's words. `object`: `default/web; apps/v1, Kind=Deployment`.
    pub fn status(self, object: &str) -> Status {
        match self {
            Self::Unclear(at, why) => {
                Status::failure(500, "", format!("failed to create typed patch object ({object}): {at}: {why}"))
            }
            Self::Conflicts(conflicts) => {
                let message = match &conflicts[..] {
                    [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
                    all => {
                        let mut names: Vec<&String> = all.iter().map(|(name, _)| name).collect();
                        names.sort_unstable();
                        names.dedup();
                        let of = |name: &String| {
                            let paths = all.iter().filter(|(owner, _)| owner == name);
                            let paths = paths.map(|(_, path)| format!("\n- {path}"));
                            format!("conflicts with {name}:{}", paths.collect::<String>())
                        };
                        let said: Vec<String> = names.into_iter().map(of).collect();
                        format!("Apply failed with {} conflicts: {}", all.len(), said.join("\n"))
                    }
                };
                conflicts.iter().fold(Status::failure(409, "Conflict", message), |status, (manager, path)| {
                    status.with_cause("FieldManagerConflict", format!("conflict with {manager}"), path)
                })
            }
        }
    }
}
