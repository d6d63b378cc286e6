//! Keeps one writer from outrunning a large audience.
//!
//! Telling hundreds of watchers of one change takes milliseconds, and a writer that is answered at once has its next
//! change in the middle of them: they share the processors, every round is late, and the last watchers the most. So a
//! change that many are told of is answered when a part of them has taken it; the others are told while the next change
//! is on its way to the disk. Writers that come from many sides at once wait at the same time, and what gathers meanwhile
//! for a watcher goes out together.
//!
//! Those who tell keep every processor for milliseconds, too. Where the writer, Postgres or a reader shares them, it would
//! begin only when the last watcher is told; so whoever tells makes way after every few.

use super::watch::Feed;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// From so many on who are woken at once, their writer waits for them.
const LARGE: usize = 32;
/// One in so many must have heard. Measured from 7/8 to 1/16: latency is about the same, and a little more is told with fewer.
const PART: usize = 16;
/// After so many who were told, the thread makes way for whoever waits for its processor. Measured from 4 to 50.
const WAY_EVERY: usize = 8;
/// A writer is never held longer than this by those who listen.
const LATEST: Duration = Duration::from_millis(20);

/// Some watchers who were woken at once.
#[derive(Debug)]
pub(super) struct Round {
    /// How many of the part have not heard yet.
    left: AtomicUsize,
    heard: Notify,
    taken: AtomicUsize,
}

/// One watcher's part in a round: dropped when it has taken what there is, or is gone.
#[derive(Debug)]
pub(super) struct Turn(Arc<Round>);

impl Round {
    /// Wakes them. Some: they are many, and the writer waits until they have [`Round::heard`].
    pub fn begin<'a>(woken: impl ExactSizeIterator<Item = &'a Arc<Feed>>) -> Option<Arc<Self>> {
        let size = woken.len();
        if size < LARGE {
            woken.for_each(|feed| feed.wake());
            return None;
        }
        let left = AtomicUsize::new(size / PART);
        let round = Arc::new(Self { left, heard: Notify::new(), taken: AtomicUsize::default() });
        woken.for_each(|feed| feed.wake_in(Turn(round.clone())));
        Some(round)
    }

    /// Waits until the part has taken what there is, but never long.
    pub async fn heard(&self) {
        // Who doesn't read, or is behind, holds nobody up: that is what the time is for.
        let _ = tokio::time::timeout(LATEST, self.heard.notified()).await;
    }
}

impl Turn {
    /// Ends the turn of a watcher that takes what there is. Not to be called with a lock held: others may run meanwhile.
    pub fn taken(self) {
        let before = self.0.taken.fetch_add(1, Ordering::Relaxed);
        drop(self);
        if before % WAY_EVERY == WAY_EVERY - 1 {
            std::thread::yield_now();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let before = self.0.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if before == Ok(1) {
            self.0.heard.notify_one();
        }
    }
}
