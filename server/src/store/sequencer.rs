//! The sequencer: judges writes against the newest state, gives them their revisions, and gathers them into batches.
//!
//! Pure: it neither waits nor talks to Postgres; `Cluster` calls it under a lock and the flusher carries its batches.
//!
//! **Invariant**: a revision is never given twice in a sequencer's life. When a batch fails, the next write goes on
//! *after* the revisions that came to nothing: whoever still holds an object from a failed batch can't mistake its
//! revision for that of another state (the fence names the last committed revision, so a jump costs nothing).

use super::error::WriteError;
use super::history::weight;
use super::object::{Change, ChangeKind, Draft, Key, MOST_BYTES, Object, Revision};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

/// A write, judged against the newest state when it is given to `Cluster::commit`.
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
    pub fn key(&self) -> &Key {
        let (Self::Create(draft) | Self::Update { draft, .. } | Self::Delete { draft, .. }) = self;
        &draft.key
    }

    /// What is deleted may be: it has to go somehow.
    fn is_too_large(&self) -> bool {
        let (Self::Create(draft) | Self::Update { draft, .. }) = self else { return false };
        draft.head.len() + draft.tail.len() > MOST_BYTES
    }

    fn into_parts(self) -> (ChangeKind, Draft) {
        match self {
            Self::Create(draft) => (ChangeKind::Created, draft),
            Self::Update { draft, .. } => (ChangeKind::Updated, draft),
            Self::Delete { draft, .. } => (ChangeKind::Deleted, draft),
        }
    }

    /// What speaks against this write where the newest state is `current`.
    fn refusal(&self, current: Option<&Object>) -> Option<WriteError> {
        match (self, current) {
            (Self::Create(_), None) => None,
            (Self::Create(_), Some(_)) => Some(WriteError::AlreadyExists),
            (_, None) => Some(WriteError::NotFound),
            (Self::Update { expected, .. } | Self::Delete { expected, .. }, Some(object)) => {
                (object.revision != *expected).then_some(WriteError::Conflict)
            }
        }
    }
}

/// How many writes, and how many bytes of them, one flush takes from one cluster: what a busy tenant can make others
/// wait for. Past some two hundred rows a bigger batch is no faster.
const BATCH_WRITES: usize = 500;
const BATCH_BYTES: usize = 4 << 20;

/// What may wait for a cluster's flushes: past it writers are told 429.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    pub writes: usize,
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { writes: 10_000, bytes: 64 << 20 }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pending,
    Committed,
    /// Surely not applied; the error says why.
    Failed(WriteError),
    /// The cluster was lost before it could be settled.
    Unknown,
}

/// Many wait for one batch.
#[derive(Clone, Debug)]
pub(super) struct Ticket(watch::Receiver<Outcome>);

impl Ticket {
    pub async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(|outcome| *outcome != Outcome::Pending).await {
            Ok(outcome) => outcome.clone(),
            // The batch was dropped without a word: its sequencer is gone.
            Err(_) => Outcome::Unknown,
        }
    }
}

/// Writes that become durable together.
#[derive(Debug)]
pub(super) struct Batch {
    pub changes: Vec<Arc<Change>>,
    bytes: usize,
    outcome: watch::Sender<Outcome>,
}

impl Batch {
    fn new() -> Self {
        Self { changes: Vec::new(), bytes: 0, outcome: watch::Sender::new(Outcome::Pending) }
    }

    fn has_room(&self) -> bool {
        self.changes.len() < BATCH_WRITES && self.bytes < BATCH_BYTES
    }

    /// The revision the cluster has once this is committed.
    pub fn last(&self) -> Revision {
        self.changes.last().map_or(Revision(0), |c| c.object.revision)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn close(self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }
}

/// What became of a write that was handed in.
#[derive(Debug)]
pub(super) enum Judged {
    /// It has its revision. `first`: nothing was waiting before, so the flusher has to be called.
    Accepted { object: Arc<Object>, ticket: Ticket, first: bool },
    /// It does not fit the newest state; where that is in flight, `rests_on` must be committed before anyone is told.
    Refused { write: Write, error: WriteError, rests_on: Option<Ticket> },
    /// It was not looked at.
    Turned(WriteError),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// A flush's outcome is being settled: nothing later may start.
    Settling,
    /// The memory is let go of; a new load has a new sequencer.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Sequencer {
    phase: Phase,
    limits: QueueLimits,
    committed: Revision,
    assigned: Revision,
    /// The newest state of every key with a write in flight.
    overlay: HashMap<Key, InFlight>,
    waiting: VecDeque<Batch>,
    flying: bool,
    writes: usize,
    bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    revision: Revision,
    object: Option<Arc<Object>>,
    ticket: Ticket,
}

impl Sequencer {
    pub fn new(committed: Revision, limits: QueueLimits) -> Self {
        Self {
            phase: Phase::Running,
            limits,
            committed,
            assigned: committed,
            overlay: HashMap::new(),
            waiting: VecDeque::new(),
            flying: false,
            writes: 0,
            bytes: 0,
        }
    }

    pub fn committed(&self) -> Revision {
        self.committed
    }

    /// Nothing waits and nothing flies.
    pub fn is_idle(&self) -> bool {
        !self.flying && self.waiting.is_empty()
    }

    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// The newest state of `key` where it is in flight, with what it rests on.
    pub fn in_flight(&self, key: &Key) -> Option<(Option<Arc<Object>>, Ticket)> {
        self.overlay.get(key).map(|f| (f.object.clone(), f.ticket.clone()))
    }

    /// `committed` looks a key up in the committed state.
    pub fn judge(&mut self, write: Write, committed: impl FnOnce(&Key) -> Option<Arc<Object>>) -> Judged {
        match self.phase {
            Phase::Running => {}
            Phase::Settling => return Judged::Turned(WriteError::Unavailable(super::AWAY.into())),
            Phase::Stopped => return Judged::Turned(WriteError::Unavailable(super::MOVED.into())),
        }
        let (current, rests_on) = match self.in_flight(write.key()) {
            Some((object, ticket)) => (object, Some(ticket)),
            None => (committed(write.key()), None),
        };
        if let Some(error) = write.refusal(current.as_deref()) {
            return Judged::Refused { write, error, rests_on };
        }
        if write.is_too_large() {
            return Judged::Turned(WriteError::TooLarge);
        }
        if self.writes >= self.limits.writes || self.bytes >= self.limits.bytes {
            return Judged::Turned(WriteError::Busy { retry_after_seconds: 1 });
        }
        self.accept(write, current)
    }

    fn accept(&mut self, write: Write, previous: Option<Arc<Object>>) -> Judged {
        let first = self.is_idle();
        self.assigned = Revision(self.assigned.0 + 1);
        let (kind, draft) = write.into_parts();
        let object = Arc::new(draft.at(self.assigned));
        let change = Arc::new(Change { kind, object: object.clone(), previous });
        if !self.waiting.back().is_some_and(Batch::has_room) {
            self.waiting.push_back(Batch::new());
        }
        let batch = self.waiting.back_mut().expect("pushed above");
        let ticket = Ticket(batch.outcome.subscribe());
        let newest = (kind != ChangeKind::Deleted).then(|| object.clone());
        let in_flight = InFlight { revision: self.assigned, object: newest, ticket: ticket.clone() };
        self.overlay.insert(object.key.clone(), in_flight);
        let bytes = weight(&change);
        batch.bytes += bytes;
        batch.changes.push(change);
        self.writes += 1;
        self.bytes += bytes;
        Judged::Accepted { object, ticket, first }
    }

    /// The next batch to flush; its fence expects `committed()`.
    pub fn take(&mut self) -> Option<Batch> {
        if self.flying || self.phase != Phase::Running {
            return None;
        }
        let batch = self.waiting.pop_front()?;
        self.flying = true;
        Some(batch)
    }

    /// The batch that was taken is durable. True when more is waiting.
    pub fn landed(&mut self, batch: &Batch) -> bool {
        self.committed = batch.last();
        self.flying = false;
        if self.phase == Phase::Stopped {
            // What it had counted was let go of when it stopped.
            return false;
        }
        self.phase = Phase::Running;
        self.writes -= batch.changes.len();
        self.bytes -= batch.bytes;
        for change in &batch.changes {
            if self.overlay.get(&change.object.key).is_some_and(|f| f.revision == change.object.revision) {
                self.overlay.remove(&change.object.key);
            }
        }
        if self.overlay.is_empty() {
            self.overlay.shrink_to(64);
        }
        !self.waiting.is_empty()
    }

    /// The flush's outcome is open: what was gathered on it fails, and nothing is accepted until it is settled.
    pub fn settling(&mut self, why: &WriteError) {
        if self.phase == Phase::Running {
            self.phase = Phase::Settling;
        }
        self.drop_waiting(why);
    }

    /// Nothing can be flushed for now. A batch whose outcome is still open stays as it is: it is not for us to say that it
    /// failed, and nothing may start before it is settled.
    pub fn fail_waiting(&mut self, why: &WriteError) {
        match self.flying {
            true => self.drop_waiting(why),
            false => self.failed(None, why),
        }
    }

    fn drop_waiting(&mut self, why: &WriteError) {
        for batch in self.waiting.drain(..) {
            self.writes -= batch.changes.len();
            self.bytes -= batch.bytes;
            for change in &batch.changes {
                self.overlay.remove(&change.object.key);
            }
            batch.close(Outcome::Failed(why.clone()));
        }
    }

    /// What was taken came to nothing, and with it what was gathered on it.
    pub fn failed(&mut self, taken: Option<Batch>, why: &WriteError) {
        self.flying = false;
        if self.phase == Phase::Settling {
            self.phase = Phase::Running;
        }
        self.overlay.clear();
        (self.writes, self.bytes) = (0, 0);
        for batch in taken.into_iter().chain(self.waiting.drain(..)) {
            batch.close(Outcome::Failed(why.clone()));
        }
    }

    /// Nothing is accepted any more. `taken`: a batch of which nobody can say what became of it.
    pub fn stop(&mut self, taken: Option<Batch>, why: &WriteError) {
        if let Some(batch) = taken {
            batch.close(Outcome::Unknown);
        }
        self.failed(None, why);
        self.phase = Phase::Stopped;
    }
}
