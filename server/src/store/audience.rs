//! Keeps a large audience from being told of each change by itself.
//!
//! Telling hundreds of watchers of one change takes milliseconds, in which the next changes come; and what has gathered
//! for a watcher goes out at once, for little more than one change costs. So a large audience is told in rounds: a change
//! by itself at once; what comes within a pause after it in the next one, so that writers get their share of the
//! processors. The pause is what telling everybody costs: shorter, and each change costs a round; longer, and it is late.

use super::watch::Feed;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// From so many on who are woken at once, they make rounds.
const LARGE: usize = 32;
/// What one of them adds to the pause. Telling one costs a processor 25 µs here, and about as much where it is read: on two
/// processors a pause is somewhat longer than its round, or else each change makes a round of its own after all.
const SHARE: Duration = Duration::from_micros(40);
/// A whole pause lasts a tick of the clock at least, and never longer than this, however many there are.
const TICK: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_millis(20);

/// The watchers of one cluster who may be many for one change.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// A round was begun, and its pause isn't over.
    pausing: bool,
    /// Who has had something new since.
    waiting: Vec<Arc<Feed>>,
}

impl Audience {
    /// These have something new. Some: a round was begun; when its pause is over, at that time, the next one is due
    /// ([`Audience::next_round`]).
    pub fn tell<'a>(&mut self, woken: impl ExactSizeIterator<Item = &'a Arc<Feed>>, now: Instant) -> Option<Instant> {
        if self.pausing {
            self.waiting.extend(woken.cloned());
            return None;
        }
        let size = woken.len();
        woken.for_each(|feed| feed.wake());
        self.pausing = size >= LARGE;
        let pause = SHARE * u32::try_from(size).unwrap_or(u32::MAX);
        self.pausing.then(|| now + pause.clamp(TICK, LATEST))
    }

    /// Begins the round that is due; as [`Audience::tell`] it says when the next one is, and none where few had waited.
    pub fn next_round(&mut self, now: Instant) -> Option<Instant> {
        self.pausing = false;
        let waiting = std::mem::take(&mut self.waiting);
        self.tell(waiting.iter(), now)
    }
}
