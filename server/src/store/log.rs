//! What the sequencers stand on: a durable log for each cluster. Postgres in earnest (`postgres`), memory for pure tests
//! (`volatile`), which can be told to fail in every way that Postgres can.

use super::cluster::ClusterInfo;
use super::error::StoreError;
use super::lease::Renewal;
use super::object::{ChangeKind, Key, ResourceName, Revision};
use bytes::Bytes;
use futures::future::BoxFuture;
use longshore_api::ids::ClusterId;
use std::sync::Arc;

/// Events are kept apart: by this resource.
pub(super) const EVENTS: &str = "events";

/// The log's partitions: an hour each, by `at`. SQL in `postgres/partitions.rs` has the same number.
pub(super) const PARTITION_MILLIS: i64 = 60 * 60 * 1000;

/// A change as it lies in the log.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub kind: ChangeKind,
    pub key: Key,
    pub revision: Revision,
    /// Milliseconds since the epoch, by Postgres's clock.
    pub at: i64,
    pub text: Text,
    /// The revision of the state before, where there was one.
    pub previous: Option<Revision>,
    /// Its text, where the log could lose it before this row (or, when read, wherever it was found).
    pub previous_text: Option<Text>,
}

/// An object's JSON as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub sealed: bool,
    pub bytes: Bytes,
}

/// Who may write to a cluster, from where to where.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    pub cluster: ClusterId,
    pub epoch: i64,
    pub expected: Revision,
    pub new: Revision,
}

/// One cluster's share of a flush.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub fence: Fence,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FlushError {
    /// Surely not applied, and Postgres may be away.
    Away(String),
    /// Surely not applied: Postgres has no room left on its disk.
    Full(String),
    /// Surely not applied: Postgres refused what was in it.
    Rejected(String),
    /// Sent, and no answer came.
    Unknown(String),
}

/// What a cluster's row says after a flush of unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Still ours, under a new epoch: nothing sent before can arrive any more.
    Ours { epoch: i64, revision: Revision },
    /// Another replica took it.
    Lost,
}

/// A cluster as its new owner finds it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub info: ClusterInfo,
    pub epoch: i64,
    pub revision: Revision,
    pub compacted: Compacted,
    /// Wrapped by the key ring.
    pub data_key: Vec<u8>,
    /// The current state, Events included.
    pub rows: Vec<Row>,
}

/// Up to which revisions the log is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compacted {
    pub changes: Revision,
    pub events: Revision,
}

impl Compacted {
    /// The bound for a watch of `resource` (None: of everything).
    pub fn of(&self, resource: Option<&str>) -> Revision {
        match resource {
            Some(EVENTS) => self.events,
            Some(_) => self.changes,
            None => self.changes.max(self.events),
        }
    }
}

/// Which part of a cluster's log to read: changes after `after` up to `until`, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    pub cluster: ClusterId,
    pub resource: Option<ResourceName>,
    pub namespace: Option<Arc<str>>,
    pub after: Revision,
    pub until: Revision,
    pub limit: i64,
}

#[derive(Debug)]
pub(super) struct Replayed {
    /// What was compacted when the rows were read.
    pub compacted: Compacted,
    pub rows: Vec<Row>,
}

/// A cluster to be written down.
#[derive(Debug)]
pub(super) struct Founding {
    pub info: ClusterInfo,
    pub data_key: Vec<u8>,
}

pub(super) trait Log: Send + Sync + 'static {
    fn found(&self, founding: Founding) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Renews this replica's lease.
    fn renew(&self) -> BoxFuture<'_, Result<Renewal, String>>;

    /// Makes this replica the cluster's owner, under a new epoch, and reads it.
    fn take<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Loaded, StoreError>>;

    /// One transaction: for each flight whose fence holds, counts the revision on and writes its rows. The answer says
    /// which fences held, in order.
    fn flush<'a>(&'a self, flights: &'a [Flight]) -> BoxFuture<'a, Result<Vec<bool>, FlushError>>;

    /// Takes the clusters' rows under new epochs, on a fresh connection, and says what they hold.
    fn settle<'a>(&'a self, fences: &'a [Fence]) -> BoxFuture<'a, Result<Vec<Settled>, String>>;

    /// The clusters' revisions as the log has them now; those that it doesn't know are left out.
    fn revisions<'a>(
        &'a self,
        clusters: &'a [ClusterId],
    ) -> BoxFuture<'a, Result<Vec<(ClusterId, Revision)>, StoreError>>;

    /// Moves a cluster's revision ahead without a change, and marks all before as compacted. False when the fence fails.
    fn leap<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Whether the log can be reached.
    fn ping(&self) -> BoxFuture<'_, Result<(), String>>;

    fn replay<'a>(&'a self, replay: &'a Replay) -> BoxFuture<'a, Result<Replayed, StoreError>>;

    /// Notes when an unloaded cluster wants to be loaded again.
    fn set_wake_at<'a>(&'a self, cluster: &'a ClusterId, wake_at: Option<i64>)
    -> BoxFuture<'a, Result<(), StoreError>>;

    /// The clusters whose time has come and which nobody serves.
    fn due(&self, now: i64) -> BoxFuture<'_, Result<Vec<ClusterId>, StoreError>>;

    /// Makes partitions ahead of time and drops those that are past retention.
    fn maintain(&self, now: i64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Gives everything back that this replica owns.
    fn release(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
