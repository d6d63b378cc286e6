//! Keeps a large audience from being told of each change by itself.
//!
//! Telling hundreds of watchers of one change takes milliseconds, in which the next changes come; and what has gathered
//! for a watcher goes out at once, for little more than one change costs. So a large audience is told in rounds: a change
//! by itself at once; what comes while a round lasts, and for a short rest after it, in the next one. Writers get their
//! share of the processors, and no watcher is told late by more than a round.

use super::watch::Feed;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// From so many on who are woken at once, they make rounds.
const LARGE: usize = 32;
/// What a round rests for each watcher: somewhat less than what telling one of them costs.
const REST: Duration = Duration::from_micros(15);
/// A timer's tick: no rest is shorter.
const SHORTEST: Duration = Duration::from_millis(1);
/// Who reads slowly holds up a round for this long at most, and no rest is longer.
const LONGEST: Duration = Duration::from_millis(20);

/// Those who were woken together and have not looked yet.
#[derive(Debug, Default)]
struct Round {
    left: AtomicUsize,
    over: Notify,
}

/// A watcher's part in a round: dropped when it looks, or isn't there any more.
#[derive(Debug)]
pub(super) struct Turn(Arc<Round>);

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.over.notify_one();
        }
    }
}

/// A round that was begun. Whoever gets it waits for [`Begun::rested`] and then says [`Audience::next_round`].
#[derive(Debug)]
#[must_use]
pub(super) struct Begun {
    round: Arc<Round>,
    size: usize,
    at: Instant,
}

impl Begun {
    /// Returns when everybody has looked (or took too long to), and a rest after that.
    pub async fn rested(self) {
        let _ = tokio::time::timeout_at(self.at + LONGEST, self.round.over.notified()).await;
        let rest = REST * u32::try_from(self.size).unwrap_or(u32::MAX);
        tokio::time::sleep(rest.clamp(SHORTEST, LONGEST)).await;
    }
}

/// The watchers of one cluster who may be many for one change.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// A round is under way.
    busy: bool,
    /// Who has something new and waits for the next one.
    waiting: Vec<Arc<Feed>>,
}

impl Audience {
    /// These have something new. Some: that began a round.
    pub fn tell<'a>(&mut self, woken: impl ExactSizeIterator<Item = &'a Arc<Feed>>) -> Option<Begun> {
        if self.busy {
            self.waiting.extend(woken.cloned());
            return None;
        }
        if woken.len() < LARGE {
            woken.for_each(|feed| feed.wake(None));
            return None;
        }
        self.busy = true;
        Some(begin(woken))
    }

    /// The last round is over. Some: there is another one.
    pub fn next_round(&mut self) -> Option<Begun> {
        let waiting = std::mem::take(&mut self.waiting);
        self.busy = !waiting.is_empty();
        self.busy.then(|| begin(waiting.iter()))
    }
}

fn begin<'a>(woken: impl ExactSizeIterator<Item = &'a Arc<Feed>>) -> Begun {
    let size = woken.len();
    let round = Arc::new(Round { left: AtomicUsize::new(size), over: Notify::new() });
    let begun = Begun { round: round.clone(), size, at: Instant::now() };
    woken.for_each(|feed| feed.wake(Some(Turn(round.clone()))));
    begun
}
