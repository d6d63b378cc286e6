//! The controllers: each a function from what is to what should change, one file (or folder) each.
//!
//! A controller is told a key, never why; it looks at the view and says what to do next, at most one step ahead of what
//! it has seen. It is not asked about a key again before the view holds what it did last, so it needs no memory. Names and
//! messages on the wire are Kubernetes's.

mod claim;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod garbage;
pub mod name_servers;
pub mod namespace;
pub mod node_eviction;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_garbage;
pub mod replica_set;
pub mod root_ca;
pub mod service_account;
pub mod taint_eviction;

use crate::action::{Action, Event, EventType, ObjectKey, Outcome, PatchKind};
use crate::projection::OwnerReference;
use crate::view::{Applied, Record, View};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

pub trait Controller: Send + Sync {
    /// The name it signs events with and has in logs.
    fn name(&self) -> &'static str;

    /// The account it writes as: `system:serviceaccount:kube-system:{name}`, as Kubernetes's controllers do.
    fn account(&self) -> &'static str {
        self.name()
    }

    /// Which keys a change may concern. Called for every change, and for every object once when a cluster is loaded.
    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey>;

    /// Which keys the coming or going of a node's tunnel may concern.
    fn contact_keys(&self, _view: &View, _node: &str) -> Vec<ObjectKey> {
        Vec::new()
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Outcome;
}

/// All controllers there are.
pub fn all() -> Vec<Arc<dyn Controller>> {
    vec![
        Arc::new(deployment::DeploymentController),
        Arc::new(replica_set::ReplicaSetController),
        Arc::new(endpoint_slice::EndpointSliceController),
        Arc::new(endpoints::EndpointsController),
        Arc::new(namespace::NamespaceController),
        Arc::new(garbage::GarbageCollector),
        Arc::new(node_lifecycle::NodeLifecycleController),
        Arc::new(node_eviction::NodeEvictionController),
        Arc::new(taint_eviction::TaintEvictionController),
        Arc::new(pod_garbage::PodGarbageCollector),
        Arc::new(service_account::ServiceAccountController),
        Arc::new(root_ca::RootCaPublisher),
        Arc::new(node_ipam::NodeIpamController),
        Arc::new(name_servers::NameServersController),
    ]
}

/// A patch of one object, pinned to its uid.
struct Change<'a> {
    record: &'a Record,
}

impl<'a> Change<'a> {
    fn of(record: &'a Record) -> Self {
        Self { record }
    }

    /// A strategic merge patch, whatever else changed meanwhile.
    fn strategic(&self, subresource: Option<&'static str>, patch: Value) -> Action {
        self.patch(subresource, PatchKind::Strategic, None, patch)
    }

    /// A merge patch that holds only for the revision that was looked at: for lists that are replaced whole.
    fn exact(&self, subresource: Option<&'static str>, patch: Value) -> Action {
        self.patch(subresource, PatchKind::Merge, Some(self.record.revision), patch)
    }

    fn patch(&self, sub: Option<&'static str>, kind: PatchKind, revision: Option<i64>, patch: Value) -> Action {
        Action::Patch {
            key: (*self.record.key).clone(),
            subresource: sub,
            uid: self.record.meta().uid.clone(),
            revision,
            kind,
            patch,
        }
    }

    fn delete(&self, grace_seconds: Option<i64>) -> Action {
        Action::Delete {
            key: (*self.record.key).clone(),
            uid: self.record.meta().uid.clone(),
            grace_seconds,
            propagation: None,
            report: None,
        }
    }

    fn event(&self, component: &'static str, kind: EventType, reason: &'static str, message: String) -> Event {
        let uid = self.record.meta().uid.clone();
        Event { about: (*self.record.key).clone(), uid, kind, reason, message, component }
    }
}

/// The reference by which an object says that this one manages it.
fn controller_reference(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The earlier of two times to look again.
fn sooner(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Times on the wire have whole seconds.
pub(crate) fn wire_time(t: Timestamp) -> Value {
    json!(whole_seconds(t))
}

fn whole_seconds(t: Timestamp) -> Timestamp {
    Timestamp::from_second(t.as_second()).unwrap_or(t)
}
