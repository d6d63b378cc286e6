//! A cluster that is loaded, because a node of it is connected or somebody watches it, and of which nobody asks anything: its
//! objects are frozen until they are needed. Whoever needs them doesn't notice but by a millisecond.

use super::cluster::{Cluster, State};
use super::{Object, clock, frozen};
use parking_lot::RwLockReadGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Without a request or a change for so long, a cluster is quiet.
const QUIET: Duration = Duration::from_secs(30);
/// A bigger one isn't thawed in passing (this much takes some milliseconds) and stays as it is.
const MOST_BYTES: usize = 256 * 1024;

impl Cluster {
    pub(super) fn is_quiet(&self, state: &State, now: Duration) -> bool {
        let unused = clock::millis(now) - self.used.load(Ordering::Relaxed);
        unused >= clock::millis(QUIET) && now.saturating_sub(state.stirred) >= QUIET
    }

    /// What is committed, its objects at hand.
    pub(super) fn at_hand(&self) -> RwLockReadGuard<'_, State> {
        loop {
            let state = self.state.read();
            if !state.memory.is_frozen() {
                return state;
            }
            drop(state);
            self.thaw(&mut self.state.write());
        }
    }

    /// Does nothing where nothing is frozen.
    pub(super) fn thaw(&self, state: &mut State) {
        if !state.memory.is_frozen() {
            return;
        }
        state.stirred = clock::boottime();
        let read = |frozen::Text { key, revision, json }: frozen::Text| {
            let resource = key.resource.clone();
            Ok(Object::read(key, revision, json, |tree| self.shared.kinds.fields(&resource, tree))?)
        };
        state.memory.thaw(read).expect("what was an object is one");
    }
}

impl State {
    /// Packs the objects away, and lets go of the history: the log has it.
    pub(super) fn freeze(&mut self) {
        if self.stopped || self.memory.is_frozen() || self.memory.bytes() > MOST_BYTES {
            return;
        }
        self.memory.freeze();
        self.history.clear();
    }
}
