//! The newest part of a cluster's log in memory: what watches resume from and older list pages are computed with.
//!
//! What it has let go of is still in Postgres (`Log::replay`).

use super::memory::{Place, place};
use super::object::{Change, Object, Revision};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The ring keeps at least the newest ten minutes unless one of these is reached first; beyond them replay reads Postgres.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    pub changes: usize,
    pub bytes: usize,
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { changes: 100_000, bytes: 32 << 20, age: Duration::from_secs(600) }
    }
}

#[derive(Debug)]
pub(super) struct History {
    limits: HistoryLimits,
    /// Every change after this revision is here.
    floor: Revision,
    /// With the time (of the replica's clock) at which each was published.
    changes: VecDeque<(Duration, Arc<Change>)>,
    bytes: usize,
}

impl History {
    pub fn new(floor: Revision, limits: HistoryLimits) -> Self {
        Self { limits, floor, changes: VecDeque::new(), bytes: 0 }
    }

    pub fn floor(&self) -> Revision {
        self.floor
    }

    pub fn push(&mut self, change: Arc<Change>, now: Duration) {
        self.bytes += weight(&change);
        self.changes.push_back((now, change));
        self.trim(now);
    }

    /// Lets go of what is beyond the limits.
    pub fn trim(&mut self, now: Duration) {
        while let Some((at, _)) = self.changes.front() {
            let old = now.saturating_sub(*at) > self.limits.age;
            if !old && self.changes.len() <= self.limits.changes && self.bytes <= self.limits.bytes {
                return;
            }
            if let Some((_, change)) = self.changes.pop_front() {
                self.bytes -= weight(&change);
                self.floor = change.object.revision;
            }
        }
        if self.changes.is_empty() {
            self.changes.shrink_to(64);
        }
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.floor = self.changes.back().map_or(self.floor, |(_, change)| change.object.revision);
        (self.changes, self.bytes) = (VecDeque::new(), 0);
    }

    /// The changes after `revision`, oldest first; None when they reach back further than the ring.
    pub fn after(&self, revision: Revision) -> Option<impl Iterator<Item = &Arc<Change>>> {
        if revision < self.floor {
            return None;
        }
        // Revisions only rise, but not always by one: a batch that failed leaves a gap.
        let skip = self.changes.partition_point(|(_, change)| change.object.revision <= revision);
        Some(self.changes.range(skip..).map(|(_, change)| change))
    }

    /// What each object of `resource` that changed after `revision` was at that revision; None when the ring is too short.
    pub fn undo(&self, resource: &str, revision: Revision) -> Option<BTreeMap<Place, Option<Arc<Object>>>> {
        let mut undone = BTreeMap::new();
        for change in self.after(revision)?.filter(|c| *c.object.key.resource == *resource) {
            undone.entry(place(&change.object.key)).or_insert_with(|| change.previous.clone());
        }
        Some(undone)
    }
}

/// What keeping a change costs, roughly: its bytes, and the structures around them.
pub(super) fn weight(change: &Change) -> usize {
    change.object.json.len() + 512
}
