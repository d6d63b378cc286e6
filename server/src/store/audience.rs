//! Keeps one writer from outrunning a large audience.
//!
//! Telling hundreds of watchers of one change takes milliseconds, and a writer that is answered at once has its next
//! changes in the middle of them: they share the processors, and the last watchers hear late of everything. So a change
//! that many are told of is answered when most of them have taken the one before: one is told while the next is on its
//! way to the disk. Whoever isn't reached by then gets both at once. An audience that doesn't listen holds nobody up:
//! only who has taken all there was counts as one.

use super::watch::Feed;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// From so many on who are woken at once, writers wait for them.
const LARGE: usize = 32;
/// One in so many need not have heard.
const LAST: usize = 8;
/// A writer is never held longer than this by those who listen.
const LATEST: Duration = Duration::from_millis(20);

/// The watchers of one cluster who may be many for one change.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// Of those who were many.
    last: Option<Arc<Round>>,
}

/// Some watchers who were woken at once.
#[derive(Debug)]
pub(super) struct Round {
    /// How many have not heard yet, the last ones not counted.
    left: AtomicUsize,
    heard: Notify,
}

/// One watcher's part in a round: dropped when it has taken what there is, or is gone.
#[derive(Debug)]
pub(super) struct Turn(Arc<Round>);

impl Audience {
    /// Wakes them. Some: they are many, and the writer waits until those before them have [`Round::heard`].
    pub fn tell<'a>(&mut self, woken: impl ExactSizeIterator<Item = &'a Arc<Feed>>) -> Option<Arc<Round>> {
        let size = woken.len();
        if size < LARGE {
            woken.for_each(|feed| feed.wake());
            return None;
        }
        let round = Arc::new(Round { left: AtomicUsize::new(size - size / LAST), heard: Notify::new() });
        woken.for_each(|feed| feed.wake_in(Turn(round.clone())));
        self.last.replace(round)
    }
}

impl Round {
    /// Waits until most have taken what there is, but never long.
    pub async fn heard(&self) {
        let _ = tokio::time::timeout(LATEST, self.heard.notified()).await;
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
