//! A running watch, as its reader holds it: first what memory has let go of, page by page from the log; then the queue.

use super::cluster::Cluster;
use super::error::StoreError;
use super::log::Replay;
use super::object::Revision;
use super::watch::{Ended, Feed, WatchItem};
use crate::alarm::Alarm;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a watch is silent before it reports progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Rows of the log that are read at once: some megabytes at most.
const PAGE: i64 = 500;

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    cluster: Arc<Cluster>,
    feed: Arc<Feed>,
    /// Everything up to here that passes the filter has been yielded.
    told: Revision,
    /// Up to where the log is still to be read.
    replay: Option<Revision>,
    silence: Alarm,
}

impl Watch {
    pub(super) fn new(cluster: Arc<Cluster>, feed: Arc<Feed>, from: Revision, replay: Option<Revision>) -> Self {
        Self { cluster, feed, told: from, replay, silence: Alarm::new(Instant::now() + PROGRESS_EVERY) }
    }

    /// The next item. Dropping the future loses nothing.
    pub async fn next(&mut self) -> WatchItem {
        while let Some(until) = self.replay {
            if let Some(item) = self.read_log(until).await {
                return item;
            }
        }
        if let Some(item) = self.ready() {
            return item;
        }
        self.silence.set(Instant::now() + PROGRESS_EVERY);
        loop {
            let changed = tokio::select! {
                biased;
                () = self.feed.ready() => true,
                () = self.silence.rings() => false,
            };
            if changed {
                if let Some(item) = self.ready() {
                    return item;
                }
                continue;
            }
            self.silence.set(Instant::now() + PROGRESS_EVERY);
            let progress = self.progress();
            if progress > self.told {
                self.told = progress;
                return WatchItem::Progress(progress);
            }
        }
    }

    /// What is there already, without waiting. None also while older changes are still to be read from the log.
    pub fn ready(&mut self) -> Option<WatchItem> {
        if self.replay.is_some() {
            return None;
        }
        let item = self.feed.take()?;
        if let WatchItem::Changes(changes) = &item {
            self.told = changes.last().map_or(self.told, |c| c.object.revision);
        }
        Some(item)
    }

    /// Everything up to this revision that passes the filter has been yielded.
    pub fn progress(&self) -> Revision {
        // Publishing holds this lock from the first queue to the last: an empty queue is an up-to-date one.
        let state = self.cluster.state.read();
        match self.replay.is_none() && self.feed.is_empty() {
            true => state.revision.max(self.told),
            false => self.told,
        }
    }

    async fn read_log(&mut self, until: Revision) -> Option<WatchItem> {
        let filter = &self.feed.filter;
        let replay = Replay {
            cluster: self.cluster.id().clone(),
            resource: filter.resource.clone(),
            namespace: filter.namespace.clone(),
            after: self.told,
            until,
            limit: PAGE,
        };
        let (changes, compacted) = match self.cluster.replay(replay).await {
            Ok(page) => page,
            Err(StoreError::Compacted { .. }) => return Some(self.end(Ended::Compacted)),
            Err(error) => {
                tracing::warn!(cluster = %self.cluster.id(), %error, "a watch of {} can't read the log", self.cluster.id());
                return Some(self.end(Ended::Unavailable));
            }
        };
        if self.told < compacted.of(filter.resource.as_deref()) {
            self.cluster.state.write().note_compacted(compacted);
            return Some(self.end(Ended::Compacted));
        }
        let full = i64::try_from(changes.len()).is_ok_and(|n| n >= PAGE);
        self.told = if full { changes.last().map_or(until, |c| c.object.revision) } else { until };
        if !full {
            self.replay = None;
        }
        let passing: Vec<_> = changes.into_iter().filter(|c| self.feed.filter.passes(c)).collect();
        (!passing.is_empty()).then_some(WatchItem::Changes(passing))
    }

    fn end(&mut self, reason: Ended) -> WatchItem {
        self.replay = None;
        self.feed.cut(reason);
        WatchItem::Ended(reason)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cluster.state.write().hub.leave(&self.feed);
    }
}
