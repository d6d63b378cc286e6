//! What a controller asks for. The server carries it out through the same path, preconditions and admission as anyone.

use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;

/// An object's coordinates: `resource` is `pods` or `deployments.apps`; `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub resource: Cow<'static, str>,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    /// A key that stands for all objects of a kind, for controllers whose decisions hang together (one pod range for all
    /// nodes). No object can have this name.
    pub fn all_of(resource: &'static str) -> Self {
        Self::new(resource, "", "*")
    }

    pub fn new(resource: impl Into<Cow<'static, str>>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// JSON merge patch: lists are replaced whole.
    Merge,
    /// Strategic merge patch: lists of conditions and the like are merged by their key, so that who writes one condition
    /// need not know the others.
    Strategic,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates `object` (whole, with `generateName` or `name`). Creates that stand in a row are carried out by slow start:
    /// one, then two, then four …, so that what can't work is tried once, not a thousand times.
    Create { resource: &'static str, namespace: String, object: Value, report: Option<Report> },
    /// Refused when the object is no longer the one (`uid`) or, where given, no longer at `revision`.
    Patch {
        key: ObjectKey,
        subresource: Option<&'static str>,
        uid: String,
        revision: Option<i64>,
        kind: PatchKind,
        patch: Value,
    },
    Delete {
        key: ObjectKey,
        uid: String,
        grace_seconds: Option<i64>,
        propagation: Option<Propagation>,
        report: Option<Report>,
    },
    /// Deletes all of a kind in a namespace, for kinds the view doesn't keep (Events).
    DeleteCollection { resource: &'static str, namespace: String },
    /// Takes `kubernetes` off `spec.finalizers` of a namespace whose content is gone.
    FinalizeNamespace { name: String, uid: String },
    /// Binds a pod to a node; conditions and `spec.nodeName` are set in one write.
    Bind {
        namespace: String,
        name: String,
        uid: String,
        node: String,
        /// Told once it is bound.
        success: Option<Event>,
    },
    /// An Event about an object; repeated ones are folded by the server as client-go's recorder does.
    Event(Event),
}

/// Something worth telling people about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub about: ObjectKey,
    pub uid: String,
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
    /// `deployment-controller`, `default-scheduler`, …
    pub component: &'static str,
}

/// What to tell once it is known how a creation or deletion went. `{}` in the message of `success` stands for the object's
/// name (known only then, where it was generated), in that of `failure` for the error's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub success: Option<Event>,
    pub failure: Event,
}

/// The answer of one look at one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Carried out in order; a failure ends the list, and the key is looked at again with back-off.
    pub actions: Vec<Action>,
    /// When to look again even if nothing changes.
    pub again_at: Option<Timestamp>,
}
