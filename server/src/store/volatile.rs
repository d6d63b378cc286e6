//! A log in memory: pure tests of everything above Postgres run on it. It can be made to fail as Postgres fails.

use super::error::StoreError;
use super::lease::Renewal;
#[cfg(test)]
use super::log::Compacted;
use super::log::{EVENTS, Fence, Flight, FlushError, Founding, Loaded, Log, Replay, Replayed, Row, Settled};
use super::object::{ChangeKind, Key, Revision};
use super::written::Written;
use futures::future::BoxFuture;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct VolatileLog {
    clusters: Mutex<HashMap<ClusterId, Written>>,
    script: Mutex<Script>,
    /// Statements that were given up and are still on their way.
    straying: Mutex<Vec<Vec<Flight>>>,
}

/// What is to go wrong, in the order in which it is come by; nothing once it is used up.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub flushes: VecDeque<Fault>,
    /// For how many turns of the scheduler each flush is on its way.
    pub delays: VecDeque<u8>,
    /// How many attempts at settling fail, for each outcome that has to be settled.
    pub settlements: VecDeque<u8>,
    /// How often Postgres does not answer before it is back, for each time that it is away.
    pub absences: VecDeque<u8>,
    /// Whether each page of a replay can be read.
    pub replays: VecDeque<bool>,
}

/// What happens to the next flush.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests make the log fail"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Postgres can't be reached.
    Away,
    /// Postgres's disk is full.
    Full,
    /// Postgres refuses what is in it.
    Rejected,
    /// The connection breaks before the transaction commits.
    LostBefore,
    /// It breaks after the commit, before the answer.
    LostAfter,
    /// It breaks, and the statement is run only after its outcome was settled.
    Straying,
    /// Another replica takes the clusters just before.
    Taken,
    /// Another replica takes the clusters just before, and writes to them.
    Overtaken,
}

impl VolatileLog {
    /// What will go wrong from now on.
    #[cfg(test)]
    pub fn expect(&self, script: Script) {
        *self.script.lock() = script;
    }

    /// Drops the log up to `revision`, as retention does.
    #[cfg(test)]
    pub fn compact(&self, cluster: &ClusterId, revision: Revision) {
        if let Some(written) = self.clusters.lock().get_mut(cluster) {
            let changes = written.compacted.changes.max(revision.min(written.revision));
            written.compacted = Compacted { changes, events: changes };
        }
    }

    /// Everything that was ever committed to a cluster, in order, also what a watch no longer finds.
    #[cfg(test)]
    pub fn rows(&self, cluster: &ClusterId) -> Vec<Row> {
        self.clusters.lock().get(cluster).map(|w| w.changes.clone()).unwrap_or_default()
    }

    /// Up to where a cluster is committed.
    #[cfg(test)]
    pub fn revision(&self, cluster: &ClusterId) -> Revision {
        self.clusters.lock().get(cluster).map_or(Revision(0), |w| w.revision)
    }

    #[cfg(test)]
    pub fn compacted(&self, cluster: &ClusterId) -> Revision {
        self.clusters.lock().get(cluster).map_or(Revision(0), |w| w.compacted.changes)
    }

    /// Forgets what came after `revision`, epochs included: a standby that lagged was promoted, or a backup restored.
    #[cfg(test)]
    pub fn roll_back(&self, cluster: &ClusterId, revision: Revision) {
        if let Some(written) = self.clusters.lock().get_mut(cluster) {
            let kept: Vec<Row> = written.changes.drain(..).filter(|row| row.revision <= revision).collect();
            written.objects.clear();
            kept.into_iter().for_each(|row| written.write(row));
            written.revision = revision;
        }
    }

    fn apply(&self, flights: &[Flight]) -> Vec<bool> {
        let mut clusters = self.clusters.lock();
        let mut land = |flight: &Flight| {
            let Some(written) = clusters.get_mut(&flight.fence.cluster) else { return false };
            written.land(flight)
        };
        flights.iter().map(&mut land).collect()
    }
}

impl Written {
    /// What another replica writes: an object of its own, under the very revision that the fenced flight was about to
    /// use.
    fn write_foreign(&mut self, like: &Row) {
        let name = format!("foreign-{}", self.revision.next().0);
        let json = format!(
            r#"{{"kind":"Thing","apiVersion":"v1","metadata":{{"name":"{name}","resourceVersion":"{}","namespace":"{}","uid":"uid-{name}"}},"data":{{"text":"{name}"}}}}"#,
            self.revision.next().0,
            like.key.namespace,
        );
        let key = Key { resource: "configmaps".into(), namespace: like.key.namespace.clone(), name: name.into() };
        self.revision = self.revision.next();
        let text = super::log::Text { sealed: false, bytes: json.into() };
        let (kind, revision) = (ChangeKind::Created, self.revision);
        self.write(Row { kind, key, revision, at: like.at, text, previous: None, previous_text: None });
    }
}

impl Log for VolatileLog {
    fn found(&self, founding: Founding) -> BoxFuture<'_, Result<(), StoreError>> {
        let id = founding.info.id.clone();
        self.clusters.lock().insert(id, Written::new(founding));
        Box::pin(async { Ok(()) })
    }

    fn renew(&self) -> BoxFuture<'_, Result<Renewal, String>> {
        // Nobody shares it: the lease is endless and never renewed.
        Box::pin(async { Ok(Renewal::Lost) })
    }

    fn take<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let mut clusters = self.clusters.lock();
            Ok(clusters.get_mut(cluster).ok_or(StoreError::NotFound)?.take())
        })
    }

    fn flush<'a>(&'a self, flights: &'a [Flight]) -> BoxFuture<'a, Result<Vec<bool>, FlushError>> {
        Box::pin(async move {
            let (fault, delay) = {
                let mut script = self.script.lock();
                (script.flushes.pop_front().unwrap_or(Fault::None), script.delays.pop_front().unwrap_or(0))
            };
            // A flush takes a moment: others run, as they do while Postgres works.
            for _ in 0..=delay {
                tokio::task::yield_now().await;
            }
            for straying in std::mem::take(&mut *self.straying.lock()) {
                self.apply(&straying);
            }
            match fault {
                Fault::None => Ok(self.apply(flights)),
                Fault::Away => Err(FlushError::Away("away".into())),
                Fault::Full => Err(FlushError::Full("the disk is full".into())),
                Fault::Rejected => Err(FlushError::Rejected("refused".into())),
                Fault::LostBefore => Err(FlushError::Unknown("lost".into())),
                Fault::LostAfter => {
                    self.apply(flights);
                    Err(FlushError::Unknown("lost".into()))
                }
                Fault::Straying => {
                    self.straying.lock().push(flights.to_vec());
                    Err(FlushError::Unknown("lost".into()))
                }
                Fault::Taken | Fault::Overtaken => {
                    for flight in flights {
                        if let Some(written) = self.clusters.lock().get_mut(&flight.fence.cluster) {
                            written.epoch += 1;
                            if fault == Fault::Overtaken {
                                written.write_foreign(&flight.rows[0]);
                            }
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
            if let Some(left) = self.script.lock().settlements.front_mut()
                && *left > 0
            {
                *left -= 1;
                return Err("still away".into());
            }
            self.script.lock().settlements.pop_front();
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
        Box::pin(async {
            tokio::task::yield_now().await;
            let mut script = self.script.lock();
            match script.absences.front_mut() {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    Err("still away".into())
                }
                _ => {
                    script.absences.pop_front();
                    Ok(())
                }
            }
        })
    }

    fn replay<'a>(&'a self, replay: &'a Replay) -> BoxFuture<'a, Result<Replayed, StoreError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if !self.script.lock().replays.pop_front().unwrap_or(true) {
                return Err(StoreError::Unavailable(super::AWAY.into()));
            }
            let clusters = self.clusters.lock();
            Ok(clusters.get(&replay.cluster).ok_or(StoreError::NotFound)?.replay(replay))
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
        }
        Box::pin(async { Ok(()) })
    }

    fn revisions<'a>(
        &'a self,
        clusters: &'a [ClusterId],
    ) -> BoxFuture<'a, Result<Vec<(ClusterId, Revision)>, StoreError>> {
        Box::pin(async move {
            let all = self.clusters.lock();
            Ok(clusters.iter().filter_map(|id| Some((id.clone(), all.get(id)?.revision))).collect())
        })
    }

    fn leap<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut clusters = self.clusters.lock();
            Ok(clusters.get_mut(&fence.cluster).is_some_and(|written| written.leap(fence)))
        })
    }

    fn release(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}
