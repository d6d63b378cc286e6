//! A log in memory: pure tests of everything above Postgres run on it. It can be made to fail as Postgres fails.

use super::cluster::ClusterInfo;
use super::error::StoreError;
use super::lease::Renewal;
use super::log::{Compacted, EVENTS, Fence, Flight, FlushError, Founding, Loaded, Log, Replay, Replayed, Row, Settled};
use super::object::{ChangeKind, Key, Revision};
use futures::future::BoxFuture;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct VolatileLog {
    clusters: Mutex<HashMap<ClusterId, Written>>,
    faults: Mutex<VecDeque<Fault>>,
}

/// What happens to the next flush.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests make the log fail"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Postgres can't be reached.
    Away,
    /// The connection breaks before the transaction commits.
    LostBefore,
    /// It breaks after the commit, before the answer.
    LostAfter,
    /// Another replica takes the clusters just before.
    Taken,
}

#[derive(Debug)]
struct Written {
    info: ClusterInfo,
    data_key: Vec<u8>,
    epoch: i64,
    revision: Revision,
    compacted: Compacted,
    objects: BTreeMap<Key, Row>,
    changes: Vec<Row>,
    wake_at: Option<i64>,
}

impl VolatileLog {
    /// The fate of the coming flushes, one each.
    #[cfg(test)]
    pub fn expect(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().extend(faults);
    }

    /// Drops the log up to `revision`, as retention does.
    #[cfg(test)]
    pub fn compact(&self, cluster: &ClusterId, revision: Revision) {
        if let Some(written) = self.clusters.lock().get_mut(cluster) {
            written.compacted = Compacted { changes: revision, events: revision };
            written.changes.retain(|row| row.revision > revision);
        }
    }

    /// Everything the log holds of a cluster, in order.
    #[cfg(test)]
    pub fn rows(&self, cluster: &ClusterId) -> Vec<Row> {
        self.clusters.lock().get(cluster).map(|w| w.changes.clone()).unwrap_or_default()
    }

    fn apply(&self, flights: &[Flight]) -> Vec<bool> {
        let mut clusters = self.clusters.lock();
        let mut land = |flight: &Flight| {
            let Some(written) = clusters.get_mut(&flight.fence.cluster) else { return false };
            let held = written.epoch == flight.fence.epoch && written.revision == flight.fence.expected;
            if held {
                written.revision = flight.fence.new;
                flight.rows.iter().for_each(|row| written.write(row.clone()));
            }
            held
        };
        flights.iter().map(&mut land).collect()
    }
}

impl Written {
    fn write(&mut self, row: Row) {
        match row.kind {
            ChangeKind::Deleted => drop(self.objects.remove(&row.key)),
            _ => drop(self.objects.insert(row.key.clone(), row.clone())),
        }
        self.changes.push(row);
    }

    /// The rows a replay asks for, each with its previous text as far as the log has it.
    fn replay(&self, replay: &Replay) -> Vec<Row> {
        let wanted = self.changes.iter().filter(|row| {
            row.revision > replay.after
                && row.revision <= replay.until
                && replay.resource.as_ref().is_none_or(|r| *r == row.key.resource)
                && replay.namespace.as_ref().is_none_or(|n| *n == row.key.namespace)
        });
        let with_previous = wanted.map(|row| {
            let mut row = row.clone();
            if row.previous_text.is_none() {
                let previous = self.changes.iter().find(|r| Some(r.revision) == row.previous);
                row.previous_text = previous.map(|r| r.text.clone());
            }
            row
        });
        with_previous.take(usize::try_from(replay.limit).unwrap_or(usize::MAX)).collect()
    }
}

impl Log for VolatileLog {
    fn found(&self, founding: Founding) -> BoxFuture<'_, Result<(), StoreError>> {
        let Founding { info, data_key } = founding;
        let id = info.id.clone();
        let written = Written {
            info,
            data_key,
            epoch: 0,
            revision: Revision(0),
            compacted: Compacted::default(),
            objects: BTreeMap::new(),
            changes: Vec::new(),
            wake_at: None,
        };
        self.clusters.lock().insert(id, written);
        Box::pin(async { Ok(()) })
    }

    fn renew(&self) -> BoxFuture<'_, Result<Renewal, String>> {
        // Nobody shares it: the lease is endless and never renewed.
        Box::pin(async { Ok(Renewal::Lost) })
    }

    fn take<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let mut clusters = self.clusters.lock();
            let written = clusters.get_mut(cluster).ok_or(StoreError::NotFound)?;
            written.epoch += 1;
            Ok(Loaded {
                info: written.info.clone(),
                epoch: written.epoch,
                revision: written.revision,
                compacted: written.compacted,
                data_key: written.data_key.clone(),
                rows: written.objects.values().cloned().collect(),
            })
        })
    }

    fn flush<'a>(&'a self, flights: &'a [Flight]) -> BoxFuture<'a, Result<Vec<bool>, FlushError>> {
        Box::pin(async move {
            // A flush takes a moment: others run, as they do while Postgres works.
            tokio::task::yield_now().await;
            let fault = self.faults.lock().pop_front().unwrap_or(Fault::None);
            match fault {
                Fault::None => Ok(self.apply(flights)),
                Fault::Away => Err(FlushError::Away("away".into())),
                Fault::LostBefore => Err(FlushError::Unknown("lost".into())),
                Fault::LostAfter => {
                    self.apply(flights);
                    Err(FlushError::Unknown("lost".into()))
                }
                Fault::Taken => {
                    for flight in flights {
                        if let Some(written) = self.clusters.lock().get_mut(&flight.fence.cluster) {
                            written.epoch += 1;
                        }
                    }
                    Ok(self.apply(flights))
                }
            }
        })
    }

    fn settle<'a>(&'a self, fences: &'a [Fence]) -> BoxFuture<'a, Result<Vec<Settled>, String>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut clusters = self.clusters.lock();
            let mut settle = |fence: &Fence| match clusters.get_mut(&fence.cluster) {
                Some(written) if written.epoch == fence.epoch => {
                    written.epoch += 1;
                    Settled::Ours { epoch: written.epoch, revision: written.revision }
                }
                _ => Settled::Lost,
            };
            Ok(fences.iter().map(&mut settle).collect())
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn replay<'a>(&'a self, replay: &'a Replay) -> BoxFuture<'a, Result<Replayed, StoreError>> {
        Box::pin(async move {
            let clusters = self.clusters.lock();
            let written = clusters.get(&replay.cluster).ok_or(StoreError::NotFound)?;
            Ok(Replayed { compacted: written.compacted, rows: written.replay(replay) })
        })
    }

    fn set_wake_at<'a>(
        &'a self,
        cluster: &'a ClusterId,
        wake_at: Option<i64>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        if let Some(written) = self.clusters.lock().get_mut(cluster) {
            written.wake_at = wake_at;
        }
        Box::pin(async { Ok(()) })
    }

    fn due(&self, now: i64) -> BoxFuture<'_, Result<Vec<ClusterId>, StoreError>> {
        let clusters = self.clusters.lock();
        let due = clusters.iter().filter(|(_, w)| w.wake_at.is_some_and(|at| at <= now)).map(|(id, _)| id.clone());
        let due = due.collect();
        Box::pin(async { Ok(due) })
    }

    fn maintain(&self, now: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        const LIFE: i64 = 75 * 60 * 1000;
        for written in self.clusters.lock().values_mut() {
            let expired = written.changes.iter().filter(|r| *r.key.resource == *EVENTS && r.at < now - LIFE);
            let Some(last) = expired.map(|r| r.revision).max() else { continue };
            written.compacted.events = written.compacted.events.max(last);
            written.changes.retain(|r| *r.key.resource != *EVENTS || r.revision > last);
        }
        Box::pin(async { Ok(()) })
    }

    fn release(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}
