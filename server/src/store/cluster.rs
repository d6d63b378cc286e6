//! A loaded cluster: what everyone else sees of the store.
//!
//! Two locks, always taken in this order: `sequencer` (who may write next) and `state` (what is committed). Reads take
//! only the second. What was published is durable, what is durable is published before anyone is answered.

use super::audience::Round;
use super::companion::Companions;
use super::error::{StoreError, WriteError};
use super::history::History;
use super::log::{Compacted, EVENTS, Fence, Flight, Loaded, Row, Text};
use super::memory::{ListQuery, Listing, Memory};
use super::object::{Change, ChangeKind, Draft, Key, Object, ResourceName, Revision};
use super::replica::Shared;
use super::seal::DataKey;
use super::sequencer::{Batch, Judged, Outcome, Sequencer, Ticket, Write};
use super::watch::{Ended, Feed, Hub, WatchFilter};
use super::watcher::Watch;
use super::{AWAY, LEASE_OVER, MOVED, clock, log};
use longshore_api::ids::{ClusterId, OrganizationId};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A write is answered 504 after so long: Postgres neither confirmed nor refused it. Longer than a restart of Postgres
/// takes, shorter than what clients and load balancers wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// How often a write is judged anew because what it was judged against came to nothing.
const JUDGED_ANEW: usize = 3;

/// Expired Events that are deleted at once: one batch.
const EXPIRED_AT_ONCE: usize = 500;

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
    /// The same of IPv6; clusters from before there was any have none.
    pub service_range_v6: Option<String>,
    pub pod_range_v6: Option<String>,
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
pub struct CommitWait(Ticket);

impl CommitWait {
    /// Err when the batch was not committed (judge anew), or when nobody knows.
    pub async fn wait(self) -> Result<(), WriteError> {
        match tokio::time::timeout(ANSWER_WITHIN, self.0.outcome()).await {
            Ok(Outcome::Committed) => Ok(()),
            Ok(Outcome::Failed(why)) => Err(why),
            Ok(Outcome::Unknown | Outcome::Pending) | Err(_) => Err(WriteError::Unknown),
        }
    }
}

/// Keeps a cluster loaded while it is held: an agent's tunnel, a running stream.
#[derive(Debug)]
pub struct Hold(Arc<Cluster>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::AcqRel);
        self.0.touch();
    }
}

pub struct Cluster {
    this: Weak<Cluster>,
    info: ClusterInfo,
    epoch: AtomicI64,
    data_key: DataKey,
    pub(super) shared: Arc<Shared>,
    companions: Companions,
    sequencer: Mutex<Sequencer>,
    pub(super) state: RwLock<State>,
    reached: tokio::sync::watch::Sender<Revision>,
    /// Milliseconds of boot time.
    pub(super) used: AtomicI64,
    holds: AtomicUsize,
    wake_at: Mutex<Option<i64>>,
    unloaded: CancellationToken,
}

/// What is committed, and who is told of it.
#[derive(Debug)]
pub(super) struct State {
    pub revision: Revision,
    pub memory: Memory,
    pub history: History,
    pub hub: Hub,
    compacted: Compacted,
    /// The revision at each full minute of the last ones: how far back "ten minutes ago" is.
    minutes: VecDeque<(Duration, Revision)>,
    /// The partition of the log that is written to, and the first revision that surely lies in it.
    partition: (i64, Revision),
    /// When something was last published, or thawed.
    pub stirred: Duration,
    /// When each Event was last written (milliseconds), oldest first.
    events: VecDeque<(i64, Key, Revision)>,
    /// Set once the memory is let go of.
    pub stopped: bool,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("id", &self.info.id).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Builds the memory of a cluster that was just taken. Takes a while for a big one.
    pub(super) fn load(loaded: Loaded, shared: Arc<Shared>) -> Result<Arc<Self>, StoreError> {
        let Loaded { info, epoch, revision, compacted, data_key, mut rows } = loaded;
        let unwrapped = shared.keys.unwrap(&info.id, &data_key);
        let raw = unwrapped.map_err(|e| StoreError::Damaged(format!("the data key of cluster {}: {e}", info.id)))?;
        let data_key = DataKey::new(info.id.clone(), raw);
        let (mut memory, mut events) = (Memory::default(), VecDeque::new());
        rows.sort_by_key(|row| row.revision);
        for row in rows {
            if *row.key.resource == *EVENTS {
                events.push_back((row.at, row.key.clone(), row.revision));
            }
            memory.insert(Arc::new(shared.object(&data_key, row.key, row.revision, &row.text)?));
        }
        let state = State {
            revision,
            memory,
            history: History::new(revision, shared.options.history),
            hub: Hub::default(),
            compacted,
            minutes: VecDeque::new(),
            partition: (i64::MIN, revision.next()),
            stirred: clock::boottime(),
            events,
            stopped: false,
        };
        let sequencer = Sequencer::new(revision, shared.options.queue);
        let cluster = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            info,
            epoch: AtomicI64::new(epoch),
            data_key,
            shared,
            companions: Companions::default(),
            sequencer: Mutex::new(sequencer),
            state: RwLock::new(state),
            reached: tokio::sync::watch::Sender::new(revision),
            used: AtomicI64::new(0),
            holds: AtomicUsize::new(0),
            wake_at: Mutex::new(None),
            unloaded: CancellationToken::new(),
        });
        cluster.touch();
        Ok(cluster)
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

    /// How many objects there are, and how many bytes of JSON.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.memory.len(), state.memory.bytes())
    }

    /// How many objects there are of each resource.
    pub fn counts(&self) -> BTreeMap<ResourceName, usize> {
        self.at_hand().memory.counts()
    }

    /// Open watches of clients.
    pub fn watchers(&self) -> usize {
        self.state.read().hub.external()
    }

    /// Waits until `revision` is committed, at most `within`. False when it was not.
    pub async fn reached(&self, revision: Revision, within: Duration) -> bool {
        let mut reached = self.reached.subscribe();
        tokio::time::timeout(within, reached.wait_for(|r| *r >= revision)).await.is_ok_and(|r| r.is_ok())
    }

    /// The committed object: linearizable, therefore only within this replica's lease.
    pub fn get(&self, key: &Key) -> Result<Option<Arc<Object>>, StoreError> {
        let object = self.get_stale(key)?;
        self.fresh()?;
        Ok(object)
    }

    /// What this replica last knew, also past its lease: for `resourceVersion=0`.
    pub fn get_stale(&self, key: &Key) -> Result<Option<Arc<Object>>, StoreError> {
        let state = self.at_hand();
        state.loaded()?;
        Ok(state.memory.get(key).cloned())
    }

    /// All objects that `uid` owns, of whatever resource.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        self.at_hand().memory.owned_by(uid)
    }

    /// The newest state of `key`, in-flight writes included: linearizable, as `get` is, once `commit` was awaited.
    pub fn newest(&self, key: &Key) -> Result<Newest, StoreError> {
        let newest = {
            let sequencer = self.sequencer.lock();
            match sequencer.in_flight(key) {
                Some((object, ticket)) => Newest { object, commit: Some(CommitWait(ticket)) },
                None => Newest { object: self.get_stale(key)?, commit: None },
            }
        };
        self.fresh()?;
        Ok(newest)
    }

    /// A page of a list, linearizable unless it names a revision or asks for a stale one.
    pub fn list(&self, query: &ListQuery) -> Result<Listing, StoreError> {
        let listing = {
            let state = self.at_hand();
            state.loaded()?;
            let undone = match query.at {
                None => BTreeMap::new(),
                Some(at) if at > state.revision => return Err(StoreError::Future { current: state.revision }),
                Some(at) => state
                    .history
                    .undo(&query.resource, at)
                    .ok_or(StoreError::Compacted { oldest: state.history.floor() })?,
            };
            state.memory.list(query, query.at.unwrap_or(state.revision), &undone)
        };
        // Asked after the answer was taken: a lease that ran out meanwhile makes it void.
        if !query.stale {
            self.fresh()?;
        }
        Ok(listing)
    }

    /// Ok while this replica surely owns the cluster.
    pub fn fresh(&self) -> Result<(), StoreError> {
        match self.shared.lease.holds() {
            true => Ok(()),
            false => Err(StoreError::Unavailable(LEASE_OVER.into())),
        }
    }

    /// Applies a write and answers when it is durable. Dropping the future does not take the write back.
    pub async fn commit(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        let judged = self.judge(write);
        self.answer(judged).await
    }

    /// Independent writes, judged in order and carried together; the answers are in the order of the writes.
    pub async fn commit_all(&self, writes: Vec<Write>) -> Vec<Result<Arc<Object>, WriteError>> {
        let judged: Vec<Judged> = writes.into_iter().map(|write| self.judge(write)).collect();
        let mut answers = Vec::with_capacity(judged.len());
        for one in judged {
            answers.push(self.answer(one).await);
        }
        answers
    }

    fn judge(&self, write: Write) -> Judged {
        if self.shared.flusher.is_away() || !self.shared.lease.holds() {
            return Judged::Turned(WriteError::Unavailable(AWAY.into()));
        }
        let judged = self.sequencer.lock().judge(write, |key| self.at_hand().memory.get(key).cloned());
        if let (Judged::Accepted { first: true, .. }, Some(this)) = (&judged, self.this.upgrade()) {
            self.shared.flusher.call(this);
        }
        judged
    }

    async fn answer(&self, mut judged: Judged) -> Result<Arc<Object>, WriteError> {
        let mut anew = 0;
        loop {
            match judged {
                Judged::Accepted { object, ticket, .. } => return CommitWait(ticket).wait().await.map(|()| object),
                Judged::Turned(error) => return Err(error),
                Judged::Refused { error, rests_on: None, .. } => {
                    // Read from memory: as good as any other read, that is, within the lease only.
                    return Err(self.fresh().err().map_or(error, |_| WriteError::Unavailable(LEASE_OVER.into())));
                }
                Judged::Refused { write, error, rests_on: Some(ticket) } => match CommitWait(ticket).wait().await {
                    Ok(()) => return Err(error),
                    Err(WriteError::Unknown) => return Err(WriteError::Unknown),
                    // What it was judged against came to nothing. A write that is judged is a write that may be accepted:
                    // whoever gives up must do so before.
                    Err(_) if anew < JUDGED_ANEW => {
                        anew += 1;
                        judged = self.judge(write);
                    }
                    Err(failed) => return Err(failed),
                },
            }
        }
    }

    /// The changes after `from` (None: from now on) that pass the filter.
    pub fn watch(self: &Arc<Self>, from: Option<Revision>, filter: WatchFilter) -> Result<Watch, StoreError> {
        let mut state = self.state.write();
        state.loaded()?;
        let from = from.unwrap_or(state.revision);
        if from > state.revision {
            return Err(StoreError::Future { current: state.revision });
        }
        let oldest = state.compacted.of(filter.resource.as_deref());
        if from < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let kept = state.history.after(from).map(|kept| kept.filter(|c| filter.passes(c)).cloned().collect());
        // What memory has let go of is read from the log while live changes queue up behind it.
        let replay = kept.is_none().then_some(state.revision);
        let limit = self.shared.options.watch_bytes;
        let feed = Arc::new(Feed::new(filter, limit, kept.unwrap_or_default()));
        state.hub.join(feed.clone());
        drop(state);
        Ok(Watch::new(self.clone(), feed, from, replay))
    }

    /// A request uses the cluster: it stays loaded for a while.
    pub fn touch(&self) {
        self.used.store(clock::millis(clock::boottime()), Ordering::Relaxed);
    }

    /// Keeps the cluster loaded until the hold is dropped.
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::AcqRel);
        Hold(self.clone())
    }

    /// Waits until this replica lets go of the cluster: whoever still needs it asks the store again.
    pub async fn unloaded(&self) {
        self.unloaded.cancelled().await;
    }

    /// When this cluster, once unloaded, has to be loaded again (milliseconds since the epoch): its controllers' next
    /// due time. Written down when it is unloaded.
    pub fn set_wake_at(&self, wake_at: Option<i64>) {
        *self.wake_at.lock() = wake_at;
    }
}

/// What the flusher does.
impl Cluster {
    /// The next batch, as the log takes it.
    pub(super) fn depart(&self) -> Option<(Batch, Flight)> {
        let (batch, expected) = {
            let mut sequencer = self.sequencer.lock();
            (sequencer.take()?, sequencer.committed())
        };
        let epoch = self.epoch.load(Ordering::Acquire);
        let fence = Fence { cluster: self.info.id.clone(), epoch, expected, new: batch.last() };
        let at = self.shared.clock.now();
        let first_here = self.enter_partition(at, expected);
        match batch.changes.iter().map(|change| self.row(change, at, first_here)).collect() {
            Ok(rows) => Some((batch, Flight { fence, rows })),
            Err(error) => {
                self.fail(batch, &WriteError::Unavailable(format!("sealing failed: {error}")));
                None
            }
        }
    }

    /// The first revision in the partition that is written at `at`. After a load nothing is known to lie in it.
    fn enter_partition(&self, at: i64, expected: Revision) -> Revision {
        let partition = at.div_euclid(log::PARTITION_MILLIS);
        let mut state = self.state.write();
        if state.partition.0 != partition {
            state.partition = (partition, expected.next());
        }
        state.partition.1
    }

    fn row(&self, change: &Change, at: i64, first_here: Revision) -> Result<Row, super::SealError> {
        let earlier = change.previous.as_ref().filter(|p| p.revision < first_here);
        Ok(Row {
            kind: change.kind,
            key: change.object.key.clone(),
            revision: change.object.revision,
            at,
            text: self.text(&change.object)?,
            previous: change.previous.as_ref().map(|p| p.revision),
            previous_text: earlier.map(|p| self.text(p)).transpose()?,
        })
    }

    fn text(&self, object: &Object) -> Result<Text, super::SealError> {
        let sealed = self.shared.kinds.sealed(&object.key.resource);
        let bytes = match sealed {
            true => self.data_key.seal(&object.key, object.revision, &object.json)?.into(),
            false => object.json.clone(),
        };
        Ok(Text { sealed, bytes })
    }

    /// The batch is durable: publishes it and answers. True when more is waiting.
    pub(super) fn land(&self, batch: Batch) -> bool {
        let now = clock::boottime();
        let at = self.shared.clock.now();
        let mut sequencer = self.sequencer.lock();
        let more = sequencer.landed(&batch);
        let mut state = self.state.write();
        self.thaw(&mut state);
        let round = match state.stopped {
            false => state.publish(&batch.changes, now, at, &self.shared.options.retention),
            // Nobody sees it here any more, but it is durable and will be acknowledged.
            true => {
                self.shared.note(&self.info.id, batch.last());
                None
            }
        };
        drop(state);
        drop(sequencer);
        self.reached.send_replace(batch.last());
        match round {
            None => batch.close(Outcome::Committed),
            Some(round) => drop(tokio::spawn(async move {
                round.heard().await;
                batch.close(Outcome::Committed);
            })),
        }
        more
    }

    pub(super) fn fail(&self, batch: Batch, why: &WriteError) {
        self.sequencer.lock().failed(Some(batch), why);
    }

    /// What waits fails: Postgres is away.
    pub(super) fn fail_waiting(&self, why: &WriteError) {
        self.sequencer.lock().fail_waiting(why);
    }

    pub(super) fn settling(&self, why: &WriteError) {
        self.sequencer.lock().settling(why);
    }

    pub(super) fn renew_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Ends everything: the memory is freed, even if someone still holds the cluster. `taken` is a batch whose outcome
    /// nobody knows.
    pub(super) fn stop(&self, reason: Ended, taken: Option<Batch>) {
        let mut sequencer = self.sequencer.lock();
        sequencer.stop(taken, &WriteError::Unavailable(MOVED.into()));
        self.state.write().stop(reason);
        self.unloaded.cancel();
    }
}

/// What the replica's housekeeping does.
impl Cluster {
    /// Stops the cluster when nobody has used it for `idle` and nothing is in flight. True when it did.
    pub(super) fn stop_if_idle(&self, idle: Duration) -> bool {
        let unused = clock::millis(clock::boottime()) - self.used.load(Ordering::Relaxed);
        if unused < clock::millis(idle) || self.holds.load(Ordering::Acquire) > 0 {
            return false;
        }
        let mut sequencer = self.sequencer.lock();
        let mut state = self.state.write();
        if !sequencer.is_idle() || sequencer.is_stopped() || state.hub.external() > 0 {
            return false;
        }
        sequencer.stop(None, &WriteError::Unavailable(MOVED.into()));
        state.stop(Ended::Unloaded);
        self.unloaded.cancel();
        true
    }

    pub(super) fn wake_at(&self) -> Option<i64> {
        *self.wake_at.lock()
    }

    /// Lets go of history that is past its time, notes the minute, and freezes what has become quiet.
    pub(super) fn tidy(&self) {
        let now = clock::boottime();
        let mut state = self.state.write();
        state.history.trim(now);
        let keep = self.shared.options.retention;
        state.note_minute(now, &keep);
        if self.is_quiet(&state, now) {
            state.freeze();
        }
    }

    /// Deletes the Events whose hour is over, so that watchers see them go. What could not be deleted is tried again later.
    pub(super) async fn expire_events(&self) {
        loop {
            let due = self.due_events();
            if due.is_empty() {
                return;
            }
            let (places, writes): (Vec<_>, Vec<_>) = due.into_iter().unzip();
            let answers = self.commit_all(writes).await;
            let open = places.into_iter().zip(answers).filter(|(_, answer)| match answer {
                // Written again or deleted since: nothing is left to do.
                Ok(_) | Err(WriteError::Conflict | WriteError::NotFound | WriteError::AlreadyExists) => false,
                Err(_) => true,
            });
            let open: Vec<_> = open.map(|((key, revision), _)| (i64::MIN, key, revision)).collect();
            if !open.is_empty() {
                let mut state = self.state.write();
                open.into_iter().rev().for_each(|event| state.events.push_front(event));
                return;
            }
        }
    }

    /// One batch of Events whose hour is over, with their deletions.
    fn due_events(&self) -> Vec<((Key, Revision), Write)> {
        let before = self.shared.clock.now() - clock::millis(self.shared.options.retention.events);
        let mut state = self.state.write();
        let mut due = Vec::new();
        while due.len() < EXPIRED_AT_ONCE && state.events.front().is_some_and(|(at, ..)| *at <= before) {
            self.thaw(&mut state);
            let Some((_, key, revision)) = state.events.pop_front() else { break };
            // Written again since: its newer entry is further back.
            let object = state.memory.get(&key).filter(|o| o.revision == revision);
            let draft = object.and_then(|object| Draft::again(object));
            due.extend(draft.map(|draft| ((key, revision), Write::Delete { draft, expected: revision })));
        }
        due
    }

    /// An older part of the log, as changes.
    pub(super) async fn replay(&self, replay: log::Replay) -> Result<(Vec<Arc<Change>>, Compacted), StoreError> {
        let log::Replayed { compacted, rows } = self.shared.log.replay(&replay).await?;
        let changes: Result<Vec<_>, StoreError> = rows.into_iter().map(|row| self.change(row)).collect();
        Ok((changes?, compacted))
    }

    fn change(&self, row: Row) -> Result<Arc<Change>, StoreError> {
        let previous = match (row.previous, row.previous_text) {
            (Some(revision), Some(text)) => {
                Some(Arc::new(self.shared.object(&self.data_key, row.key.clone(), revision, &text)?))
            }
            (None, _) => None,
            (Some(_), None) => return Err(StoreError::Compacted { oldest: row.revision }),
        };
        let object = Arc::new(self.shared.object(&self.data_key, row.key, row.revision, &row.text)?);
        Ok(Arc::new(Change { kind: row.kind, object, previous }))
    }
}

impl State {
    fn loaded(&self) -> Result<(), StoreError> {
        match self.stopped {
            false => Ok(()),
            true => Err(StoreError::Unavailable(MOVED.into())),
        }
    }

    fn publish(
        &mut self,
        changes: &[Arc<Change>],
        now: Duration,
        at: i64,
        keep: &super::Retention,
    ) -> Option<Arc<Round>> {
        for change in changes {
            let object = &change.object;
            match change.kind {
                ChangeKind::Deleted => drop(self.memory.remove(&object.key)),
                ChangeKind::Created | ChangeKind::Updated => self.memory.insert(object.clone()),
            }
            if *object.key.resource == *EVENTS && change.kind != ChangeKind::Deleted {
                self.events.push_back((at, object.key.clone(), object.revision));
            }
            self.history.push(change.clone(), now);
            self.revision = object.revision;
        }
        self.stirred = now;
        self.note_minute(now, keep);
        self.hub.publish(changes)
    }

    /// Compacts what is both old enough and far enough back.
    fn note_minute(&mut self, now: Duration, keep: &super::Retention) {
        if self.minutes.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= keep.age / 10) {
            self.minutes.push_back((now, self.revision));
        }
        let mut old = None;
        while self.minutes.front().is_some_and(|(at, _)| now.saturating_sub(*at) > keep.age) {
            old = self.minutes.pop_front();
        }
        if let Some((_, revision)) = old {
            let bound = Revision(revision.0.min(self.revision.0 - keep.revisions));
            self.compacted.changes = self.compacted.changes.max(bound);
            self.compacted.events = self.compacted.events.max(bound);
        }
    }

    /// What the log said is gone.
    pub fn note_compacted(&mut self, compacted: Compacted) {
        self.compacted.changes = self.compacted.changes.max(compacted.changes);
        self.compacted.events = self.compacted.events.max(compacted.events);
    }

    fn stop(&mut self, reason: Ended) {
        self.stopped = true;
        self.hub.end(reason);
        self.memory = Memory::default();
        self.events = VecDeque::new();
        self.history.clear();
    }
}
