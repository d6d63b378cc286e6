//! A loaded cluster: what everyone else sees of the store.

use super::companion::Companions;
use super::error::{StoreError, WriteError};
use super::history::{History, HistoryLimits};
use super::memory::{ListQuery, Listing, Memory};
use super::object::{Change, ChangeKind, Draft, Key, Object, Revision};
use super::watch::{Ended, Feed, Hub, QUEUE_BYTES, WatchFilter, WatchItem};
use longshore_api::ids::{ClusterId, OrganizationId};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a cluster is, beside its objects.
#[derive(Clone, Debug)]
pub struct ClusterInfo {
    pub id: ClusterId,
    pub organization: OrganizationId,
    pub name: String,
    /// Addresses of Services, as CIDR.
    pub service_range: String,
    /// Addresses of pods, as CIDR; each node gets a slice of it.
    pub pod_range: String,
}

/// A write, judged against the newest state when it is given to [`Cluster::commit`].
#[derive(Debug)]
pub enum Write {
    Create(Draft),
    /// Replaces the object that is at `expected`.
    Update {
        draft: Draft,
        expected: Revision,
    },
    /// Removes the object that is at `expected`; `draft` is its final state, as watchers are told it.
    Delete {
        draft: Draft,
        expected: Revision,
    },
}

impl Write {
    fn draft(&self) -> &Draft {
        let (Self::Create(draft) | Self::Update { draft, .. } | Self::Delete { draft, .. }) = self;
        draft
    }
}

/// The newest state of a key, in-flight writes included. Whoever answers from it awaits `commit` first: until then what
/// it says may still come to nothing.
#[derive(Debug)]
pub struct Newest {
    pub object: Option<Arc<Object>>,
    pub commit: Option<CommitWait>,
}

/// Waits for the commit of a batch that is in flight.
#[derive(Debug)]
pub struct CommitWait(());

impl CommitWait {
    /// Err when the batch was not committed: judge anew.
    pub async fn wait(self) -> Result<(), WriteError> {
        let Self(()) = self;
        Ok(())
    }
}

#[derive(Debug)]
pub struct Cluster {
    info: ClusterInfo,
    companions: Companions,
    state: RwLock<State>,
    reached: tokio::sync::watch::Sender<Revision>,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    compacted: Revision,
    memory: Memory,
    history: History,
    hub: Hub,
}

impl Cluster {
    pub(super) fn new(info: ClusterInfo) -> Self {
        let history = History::new(Revision(0), HistoryLimits::default());
        let (revision, compacted) = (Revision(0), Revision(0));
        let state = State { revision, compacted, memory: Memory::default(), history, hub: Hub::default() };
        Self {
            info,
            companions: Companions::default(),
            state: RwLock::new(state),
            reached: tokio::sync::watch::channel(revision).0,
        }
    }

    pub fn id(&self) -> &ClusterId {
        &self.info.id
    }

    pub fn organization(&self) -> &OrganizationId {
        &self.info.organization
    }

    pub fn info(&self) -> &ClusterInfo {
        &self.info
    }

    /// What another room keeps beside this cluster while it is loaded: one value of each type.
    pub fn companion<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        self.companions.get()
    }

    /// The last committed revision.
    pub fn revision(&self) -> Revision {
        self.state.read().revision
    }

    /// Waits until `revision` is committed, at most `within`. False when it was not.
    pub async fn reached(&self, revision: Revision, within: Duration) -> bool {
        let mut reached = self.reached.subscribe();
        tokio::time::timeout(within, reached.wait_for(|r| *r >= revision)).await.is_ok_and(|r| r.is_ok())
    }

    /// The committed object: linearizable, therefore only within this replica's lease.
    pub fn get(&self, key: &Key) -> Result<Option<Arc<Object>>, StoreError> {
        Ok(self.get_stale(key))
    }

    /// What this replica last knew, also past its lease: for `resourceVersion=0`.
    pub fn get_stale(&self, key: &Key) -> Option<Arc<Object>> {
        self.state.read().memory.get(key).cloned()
    }

    /// The newest state of `key`, in-flight writes included.
    pub fn newest(&self, key: &Key) -> Newest {
        Newest { object: self.get_stale(key), commit: None }
    }

    pub fn list(&self, query: &ListQuery) -> Result<Listing, StoreError> {
        let state = self.state.read();
        let undone = match query.at {
            None => BTreeMap::new(),
            Some(at) if at > state.revision => return Err(StoreError::Future { current: state.revision }),
            Some(at) => state
                .history
                .undo(&query.resource, at)
                .ok_or(StoreError::Compacted { oldest: state.history.floor() })?,
        };
        let revision = query.at.unwrap_or(state.revision);
        Ok(state.memory.list(query, revision, &undone))
    }

    /// Applies a write and answers when it is durable.
    pub async fn commit(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        let mut state = self.state.write();
        let current = state.memory.get(&write.draft().key).cloned();
        match (&write, &current) {
            (Write::Create(_), Some(_)) => return Err(WriteError::AlreadyExists),
            (Write::Create(_), None) => {}
            (_, None) => return Err(WriteError::NotFound),
            (Write::Update { expected, .. } | Write::Delete { expected, .. }, Some(object)) => {
                if object.revision != *expected {
                    return Err(WriteError::Conflict);
                }
            }
        }
        let revision = Revision(state.revision.0 + 1);
        let (kind, draft) = match write {
            Write::Create(draft) => (ChangeKind::Created, draft),
            Write::Update { draft, .. } => (ChangeKind::Updated, draft),
            Write::Delete { draft, .. } => (ChangeKind::Deleted, draft),
        };
        let object = Arc::new(draft.at(revision));
        match kind {
            ChangeKind::Deleted => drop(state.memory.remove(&object.key)),
            _ => state.memory.insert(object.clone()),
        }
        let change = Arc::new(Change { kind, object: object.clone(), previous: current });
        state.history.push(change.clone(), Duration::ZERO);
        state.revision = revision;
        state.hub.publish(&[change]);
        self.reached.send_replace(revision);
        Ok(object)
    }

    /// Independent writes, judged in order and carried in one batch; the answers are in the order of the writes.
    pub async fn commit_all(&self, writes: Vec<Write>) -> Vec<Result<Arc<Object>, WriteError>> {
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            answers.push(self.commit(write).await);
        }
        answers
    }

    /// The changes after `from` (None: from now on) that pass the filter.
    pub fn watch(self: &Arc<Self>, from: Option<Revision>, filter: WatchFilter) -> Result<Watch, StoreError> {
        let mut state = self.state.write();
        let from = from.unwrap_or(state.revision);
        if from > state.revision {
            return Err(StoreError::Future { current: state.revision });
        }
        if from < state.compacted {
            return Err(StoreError::Compacted { oldest: state.compacted });
        }
        let kept = state.history.after(from).ok_or(StoreError::Compacted { oldest: state.history.floor() })?;
        let queued = kept.filter(|c| filter.passes(c)).cloned().collect();
        let feed = Arc::new(Feed::new(filter, QUEUE_BYTES, queued));
        state.hub.join(feed.clone());
        Ok(Watch { cluster: self.clone(), feed, told: from })
    }

    /// A request uses the cluster: it stays loaded.
    pub fn touch(&self) {}
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    cluster: Arc<Cluster>,
    feed: Arc<Feed>,
    told: Revision,
}

/// How long a watch is silent before it reports progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

impl Watch {
    /// The next item; cancelling the future loses nothing.
    pub async fn next(&mut self) -> WatchItem {
        loop {
            if let Some(item) = self.feed.take() {
                if let WatchItem::Changes(changes) = &item {
                    self.told = changes.last().map_or(self.told, |c| c.object.revision);
                }
                return item;
            }
            if tokio::time::timeout(PROGRESS_EVERY, self.feed.ready()).await.is_err() {
                let progress = self.progress();
                if progress > self.told {
                    self.told = progress;
                    return WatchItem::Progress(progress);
                }
            }
        }
    }

    /// Everything up to this revision that passes the filter has been yielded.
    pub fn progress(&self) -> Revision {
        let state = self.cluster.state.read();
        if self.feed.is_empty() { state.revision } else { self.told }
    }

    /// What is queued already, without waiting.
    pub fn ready(&mut self) -> Option<WatchItem> {
        let item = self.feed.take()?;
        if let WatchItem::Changes(changes) = &item {
            self.told = changes.last().map_or(self.told, |c| c.object.revision);
        }
        Some(item)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cluster.state.write().hub.leave(&self.feed);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.state.get_mut().hub.end(Ended::Unloaded);
    }
}
