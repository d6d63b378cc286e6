//! Which key is looked at when: one look at a time per key, no key twice in the queue, back-off for what fails, and no
//! second look before the view holds what the first one wrote.
//!
//! Pure: time and revisions are arguments.

use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// The first wait after a failure; doubled with each further one.
const FIRST_WAIT: SignedDuration = SignedDuration::from_millis(5);
/// The longest wait. Kubernetes waits up to 16 minutes; a minute costs nothing and heals sooner.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// With more keys than this, idle ones are looked for.
const SWEEP: usize = 1024;

#[derive(Debug)]
pub(super) struct Queue<K> {
    ready: VecDeque<K>,
    states: HashMap<K, State>,
    /// Looks that wait for a revision.
    behind: BTreeMap<i64, Vec<K>>,
    timers: BTreeSet<(Timestamp, K)>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Stands in `ready` or `behind`.
    queued: bool,
    running: bool,
    /// Wanted again while it runs.
    again: bool,
    failures: u32,
    /// Not before the view has this.
    needs: i64,
    timer: Option<Timestamp>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            states: HashMap::new(),
            behind: BTreeMap::new(),
            timers: BTreeSet::new(),
            sweep_at: SWEEP,
        }
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// A look is wanted as soon as may be.
    pub fn add(&mut self, key: K, revision: i64) {
        let state = self.states.entry(key.clone()).or_default();
        if state.running {
            state.again = true;
        } else if !state.queued {
            state.queued = true;
            if state.needs > revision {
                self.behind.entry(state.needs).or_default().push(key);
            } else {
                self.ready.push_back(key);
            }
        }
    }

    /// A look is wanted at `at`; an earlier one that is planned stays.
    pub fn add_at(&mut self, key: K, at: Timestamp) {
        let state = self.states.entry(key.clone()).or_default();
        if state.timer.is_some_and(|planned| planned <= at) {
            return;
        }
        if let Some(planned) = state.timer.replace(at) {
            self.timers.remove(&(planned, key.clone()));
        }
        self.timers.insert((at, key));
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Moves what is due by time or by revision into the queue.
    pub fn advance(&mut self, revision: i64, now: Timestamp) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, key)) = self.timers.pop_first()
        {
            if let Some(state) = self.states.get_mut(&key) {
                state.timer = None;
            }
            self.add(key, revision);
        }
        while let Some(entry) = self.behind.first_entry()
            && *entry.key() <= revision
        {
            self.ready.extend(entry.remove());
        }
        if self.states.len() > self.sweep_at {
            // Idle keys that only remember a revision which the view has by now.
            self.states
                .retain(|_, s| s.running || s.queued || s.timer.is_some() || s.failures > 0 || s.needs > revision);
            self.sweep_at = SWEEP.max(2 * self.states.len());
        }
    }

    /// The next key to look at; it runs until `done`.
    pub fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        let state = self.states.entry(key.clone()).or_default();
        (state.queued, state.running) = (false, true);
        Some(key)
    }

    /// Whether nothing is wanted, now or later, beside what runs. (Who failed has a timer.)
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.behind.is_empty() && self.timers.is_empty()
    }

    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A look ended well, having written up to revision `wrote`.
    pub fn done(&mut self, key: &K, wrote: i64, revision: i64) {
        let Some(state) = self.states.get_mut(key) else { return };
        state.running = false;
        state.failures = 0;
        state.needs = wrote;
        if std::mem::take(&mut state.again) {
            self.add(key.clone(), revision);
        } else if state.timer.is_none() && wrote <= revision {
            self.states.remove(key);
        }
    }

    /// A look failed: again after a wait that grows.
    pub fn failed(&mut self, key: &K, wrote: i64, now: Timestamp) {
        let Some(state) = self.states.get_mut(key) else { return };
        (state.running, state.again, state.needs) = (false, false, wrote);
        let wait = FIRST_WAIT * 2i32.pow(state.failures.min(20));
        state.failures += 1;
        self.add_at(key.clone(), now + wait.min(LONGEST_WAIT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000 + millis).unwrap()
    }

    #[test]
    fn a_key_is_looked_at_once_at_a_time_and_again_if_wanted_meanwhile() {
        let mut queue = Queue::default();
        queue.add("a", 0);
        queue.add("a", 0);
        assert_eq!((queue.take(), queue.take()), (Some("a"), None));
        queue.add("a", 0);
        assert_eq!(queue.take(), None);
        queue.done(&"a", 0, 0);
        assert_eq!((queue.take(), queue.take()), (Some("a"), None));
    }

    #[test]
    fn no_look_before_its_own_writes_are_seen() {
        let mut queue = Queue::default();
        queue.add("a", 4);
        queue.take();
        queue.done(&"a", 7, 5);
        queue.add("a", 6);
        queue.advance(6, at(0));
        assert_eq!(queue.take(), None);
        queue.advance(7, at(0));
        assert_eq!(queue.take(), Some("a"));
    }

    #[test]
    fn failures_wait_longer_each_time_and_success_forgets_them() {
        let mut queue = Queue::default();
        queue.add("a", 0);
        let mut waits = Vec::new();
        let mut now = at(0);
        for _ in 0..5 {
            assert_eq!(queue.take(), Some("a"));
            queue.failed(&"a", 0, now);
            let due = queue.next_timer().unwrap();
            waits.push(due.duration_since(now).as_millis());
            now = due;
            queue.advance(0, now);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80]);
        queue.take();
        queue.done(&"a", 0, 0);
        assert!(queue.states.is_empty());
    }

    #[test]
    fn the_earlier_of_two_timers_counts() {
        let mut queue = Queue::default();
        queue.add_at("a", at(50));
        queue.add_at("a", at(10));
        queue.add_at("a", at(30));
        queue.advance(0, at(10));
        assert_eq!((queue.take(), queue.next_timer()), (Some("a"), None));
    }

    proptest! {
        /// Whatever happens in whatever order, a key that was asked for is looked at in the end, never twice at once.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec((0..4u8, 0..3u8), 1..80)) {
            let mut queue = Queue::default();
            let (mut running, mut wanted) = (BTreeSet::new(), BTreeSet::new());
            let mut revision = 0;
            for (step, key) in steps {
                match step {
                    0 => { queue.add(key, revision); wanted.insert(key); }
                    1 => if let Some(taken) = queue.take() {
                        prop_assert!(running.insert(taken), "{taken} runs twice");
                        wanted.remove(&taken);
                    },
                    2 => if running.remove(&key) { queue.done(&key, revision + 1, revision); },
                    _ => if running.remove(&key) { wanted.insert(key); queue.failed(&key, revision, at(0)); },
                }
            }
            for key in std::mem::take(&mut running) {
                queue.done(&key, revision, revision);
            }
            revision += 2;
            queue.advance(revision, at(1_000_000));
            while let Some(key) = queue.take() {
                wanted.remove(&key);
                queue.done(&key, revision, revision);
            }
            prop_assert!(wanted.is_empty(), "never looked at: {wanted:?}");
        }
    }
}
