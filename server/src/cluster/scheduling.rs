//! When the scheduler looks, and what becomes of its decisions.
//!
//! One batch is under way at a time, and the next one waits until the view holds what it wrote: so the scheduler never has
//! to assume anything. What it decided is kept for people to read (`apiserver::decisions`).

use super::execute::Ending;
use crate::apiserver::decisions::Decisions;
use crate::store::Cluster;
use jiff::{SignedDuration, Timestamp};
use longshore_control::scheduler::{self, Batch, Need, Scheduler};
use longshore_control::view::Applied;
use longshore_control::{Action, View};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Pods of which anything is written in one batch.
const PODS_IN_A_BATCH: usize = 1000;
/// After a change that may make room for waiting pods: several such changes are one look.
const ROOM_DELAY: SignedDuration = SignedDuration::from_millis(50);
/// How often pods that wait are looked at and told again, whatever happens.
const REMIND: SignedDuration = SignedDuration::from_secs(300);
/// After a panic.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);

pub(super) struct Scheduling {
    scheduler: Scheduler,
    /// Something went wrong within: it is made anew before it is asked again.
    broken: bool,
    decisions: Arc<Decisions>,
    running: bool,
    due: Option<Timestamp>,
    /// Not before the view has this.
    needs: i64,
    remind_at: Option<Timestamp>,
    failures: u32,
}

impl Scheduling {
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            scheduler: Scheduler::default(),
            broken: false,
            decisions: cluster.companion(),
            running: false,
            due: None,
            needs: 0,
            remind_at: None,
            failures: 0,
        }
    }

    /// The view holds everything that was listed.
    pub fn begin(&mut self, view: &View, now: Timestamp) {
        self.scheduler = Scheduler::of(view);
        self.wake(now);
    }

    /// Takes a change in that the view has.
    pub fn apply(&mut self, view: &View, applied: &Applied, now: Timestamp) {
        let applying = AssertUnwindSafe(|| self.scheduler.apply(view, applied));
        match std::panic::catch_unwind(applying) {
            Ok(Need::Nothing) => {}
            Ok(Need::Soon) => self.wake(now + ROOM_DELAY),
            Ok(Need::Now) => self.wake(now),
            Err(_) => self.panicked(now),
        }
    }

    fn panicked(&mut self, now: Timestamp) {
        tracing::error!("the scheduler panicked; it starts anew");
        self.broken = true;
        self.wake(now + PAUSE);
    }

    fn wake(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When there is something to do, as far as it is known; `seen` is what the view holds.
    pub fn next(&self, seen: i64) -> Option<Timestamp> {
        let ready = !self.running && seen >= self.needs;
        [self.due, self.remind_at].into_iter().flatten().min().filter(|_| ready)
    }

    /// Whether there is nothing to do, now or later, until something changes.
    pub fn is_idle(&self) -> bool {
        !self.running && self.due.is_none() && self.remind_at.is_none()
    }

    /// What is to be done now. If that is anything, a batch is under way until [`Scheduling::finish`].
    pub fn decide(&mut self, view: &View, seen: i64, now: Timestamp) -> Vec<Action> {
        if self.next(seen).is_none_or(|at| at > now) {
            return Vec::new();
        }
        let remind = self.remind_at.is_some_and(|at| at <= now);
        (self.due, self.remind_at) = (None, None);
        let deciding = AssertUnwindSafe(|| {
            if std::mem::take(&mut self.broken) {
                self.scheduler = Scheduler::of(view);
            }
            self.scheduler.schedule(view, PODS_IN_A_BATCH, seen.unsigned_abs())
        });
        let Ok(Batch { decisions, more }) = std::panic::catch_unwind(deciding) else {
            self.panicked(now);
            return Vec::new();
        };
        if self.scheduler.waiting() > 0 {
            self.remind_at = Some(now + REMIND);
        }
        if more {
            self.wake(now);
        }
        self.decisions.note(&decisions, now);
        let mut actions: Vec<Action> = decisions.iter().flat_map(|d| scheduler::actions(d, now, remind)).collect();
        scheduler::in_order(&mut actions);
        self.running = !actions.is_empty();
        actions
    }

    pub fn finish(&mut self, ending: &Ending, wrote: i64, now: Timestamp) {
        self.running = false;
        self.needs = wrote;
        match ending {
            Ending::Done => self.failures = 0,
            Ending::Stale => self.wake(now + ROOM_DELAY),
            Ending::Failed(_) => {
                let wait = SignedDuration::from_millis(100) * 2i32.pow(self.failures.min(9));
                self.failures += 1;
                self.wake(now + wait);
            }
        }
    }
}
