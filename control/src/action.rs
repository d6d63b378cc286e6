//! What a controller asks for. The server carries it out through the same path, preconditions and admission as anyone.

use jiff::Timestamp;
use serde_json::Value;

/// An object's coordinates: `resource` is `pods` or `deployments.apps`; `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub resource: &'static str,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates `object` (whole, with `generateName` or `name`).
    Create {
        resource: &'static str,
        namespace: String,
        object: Value,
    },
    /// A JSON merge patch, refused when the object is no longer the one (`uid`) or, where given, no longer at `revision`.
    Patch {
        key: ObjectKey,
        subresource: Option<&'static str>,
        uid: String,
        revision: Option<i64>,
        patch: Value,
    },
    Delete {
        key: ObjectKey,
        uid: String,
        grace_seconds: Option<i64>,
        propagation: Option<Propagation>,
    },
    /// Binds a pod to a node; conditions and `spec.nodeName` are set in one write.
    Bind {
        namespace: String,
        name: String,
        uid: String,
        node: String,
    },
    /// An Event about an object; repeated ones are folded by the server as client-go's recorder does.
    Event {
        about: ObjectKey,
        uid: String,
        kind: EventType,
        reason: &'static str,
        message: String,
        component: &'static str,
    },
}

/// The answer of one look at one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Carried out in order; a failure ends the list, and the key is looked at again with back-off.
    pub actions: Vec<Action>,
    /// When to look again even if nothing changes.
    pub again_at: Option<Timestamp>,
}
