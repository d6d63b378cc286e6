//! The flusher: one task a replica that carries the batches of many clusters to the log, one transaction at a time.
//!
//! While a transaction runs the next batches gather: no timers, low latency when quiet, big batches under load. What it
//! does with each end of a transaction is the store's promise: an acknowledged write is durable, a refused one is not.

use super::cluster::Cluster;
use super::error::WriteError;
use super::log::{Fence, Flight, FlushError, Settled};
use super::replica::Shared;
use super::sequencer::Batch;
use super::{AWAY, Ended, MOVED};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What one transaction carries at most, over all clusters: some 30 ms of Postgres's time.
const FLUSH_WRITES: usize = 2000;
const FLUSH_BYTES: usize = 16 << 20;

/// Between attempts to reach Postgres again.
const PATIENCE: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];

/// The clusters that have something to flush, each once, in the order in which they asked.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    callers: Mutex<VecDeque<Arc<Cluster>>>,
    wake: Notify,
    away: AtomicBool,
    busy: AtomicBool,
}

impl FlushQueue {
    /// A cluster's sequencer calls once when it goes from idle to waiting; the flusher goes on by itself from there.
    pub fn call(&self, cluster: Arc<Cluster>) {
        self.callers.lock().push_back(cluster);
        self.wake.notify_one();
    }

    /// Postgres could not be reached when it was last tried.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Nothing is waiting and nothing flies.
    pub fn is_idle(&self) -> bool {
        let callers = self.callers.lock();
        callers.is_empty() && !self.busy.load(Ordering::Acquire)
    }

    fn next(&self) -> Option<Arc<Cluster>> {
        let mut callers = self.callers.lock();
        let next = callers.pop_front()?;
        // Under the same lock as `is_idle`: a cluster is never between queue and flight unseen.
        self.busy.store(true, Ordering::Release);
        Some(next)
    }
}

/// A batch on its way, with the cluster it belongs to. The flight it became stands beside it, at the same index.
struct Aboard {
    cluster: Arc<Cluster>,
    batch: Batch,
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let (aboard, flights) = gather(&shared).await;
        fly(&shared, aboard, flights).await;
    }
}

/// Waits for callers and takes one batch of each, as much as one transaction may carry.
async fn gather(shared: &Shared) -> (Vec<Aboard>, Vec<Flight>) {
    let queue = &shared.flusher;
    let (mut aboard, mut flights) = (Vec::new(), Vec::new());
    let (mut writes, mut bytes) = (0, 0);
    loop {
        while writes < FLUSH_WRITES && bytes < FLUSH_BYTES {
            let Some(cluster) = queue.next() else { break };
            let Some((batch, flight)) = cluster.depart() else { continue };
            writes += batch.changes.len();
            bytes += batch.bytes();
            flights.push(flight);
            aboard.push(Aboard { cluster, batch });
        }
        if !aboard.is_empty() {
            return (aboard, flights);
        }
        queue.busy.store(false, Ordering::Release);
        queue.wake.notified().await;
    }
}

async fn fly(shared: &Shared, aboard: Vec<Aboard>, flights: Vec<Flight>) {
    match shared.log.flush(&flights).await {
        Ok(held) => arrive(shared, aboard, &held),
        // One cluster's poison must not fail the others: each alone. Which of a cluster's own writes it was is not looked for.
        Err(FlushError::Rejected(_)) if aboard.len() > 1 => {
            for (one, flight) in aboard.into_iter().zip(flights) {
                Box::pin(fly(shared, vec![one], vec![flight])).await;
            }
        }
        Err(FlushError::Rejected(why)) => {
            tracing::error!(%why, "Postgres refused a batch of writes: {why}");
            refuse(aboard, &WriteError::Unavailable("the write was refused by the database".into()));
        }
        Err(FlushError::Full(why)) => {
            tracing::error!(%why, "Postgres has no room left: {why}");
            refuse(aboard, &WriteError::Full);
        }
        Err(FlushError::Away(why)) => {
            tracing::warn!(%why, "Postgres is away: {why}");
            refuse(aboard, &away());
            wait_for_return(shared).await;
        }
        Err(FlushError::Unknown(why)) => {
            tracing::warn!(%why, "a transaction's outcome is not known, settling it: {why}");
            settle(shared, aboard, &flights).await;
        }
    }
}

fn arrive(shared: &Shared, aboard: Vec<Aboard>, held: &[bool]) {
    for (Aboard { cluster, batch }, held) in aboard.into_iter().zip(held) {
        match held {
            true => {
                if cluster.land(batch) {
                    shared.flusher.call(cluster);
                }
            }
            false => lose(shared, &cluster, batch, Known::NotApplied),
        }
    }
}

/// What is known of the batch of a cluster that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    NotApplied,
    Nothing,
}

/// Another replica owns the cluster now (or this one has loaded it anew): its memory is worth nothing.
fn lose(shared: &Shared, cluster: &Arc<Cluster>, batch: Batch, known: Known) {
    tracing::warn!(cluster = %cluster.id(), "cluster {} was taken by someone else", cluster.id());
    match known {
        Known::NotApplied => {
            cluster.fail(batch, &WriteError::Unavailable(MOVED.into()));
            shared.let_go(cluster, Ended::Moved, None);
        }
        Known::Nothing => shared.let_go(cluster, Ended::Moved, Some(batch)),
    }
}

fn refuse(aboard: Vec<Aboard>, why: &WriteError) {
    for Aboard { cluster, batch } in aboard {
        cluster.fail(batch, why);
    }
}

fn away() -> WriteError {
    WriteError::Unavailable(AWAY.into())
}

/// Nobody is made to wait for a Postgres that isn't there: everything that waits fails, new writes are turned away, until
/// it answers again.
async fn wait_for_return(shared: &Shared) {
    shared.flusher.away.store(true, Ordering::Relaxed);
    let mut attempt = 0;
    loop {
        fail_callers(shared);
        if shared.log.ping().await.is_ok() {
            break;
        }
        tokio::time::sleep(PATIENCE[attempt.min(PATIENCE.len() - 1)]).await;
        attempt += 1;
    }
    shared.flusher.away.store(false, Ordering::Relaxed);
    tracing::info!("Postgres is back");
}

fn fail_callers(shared: &Shared) {
    let callers = std::mem::take(&mut *shared.flusher.callers.lock());
    callers.iter().for_each(|cluster| cluster.fail_waiting(&away()));
}

/// Finds out on a fresh connection what became of a transaction, before anything later starts.
async fn settle(shared: &Shared, aboard: Vec<Aboard>, flights: &[Flight]) {
    aboard.iter().for_each(|a| a.cluster.settling(&away()));
    let fences: Vec<Fence> = flights.iter().map(|f| f.fence.clone()).collect();
    let mut attempt = 0;
    let settled = loop {
        match shared.log.settle(&fences).await {
            Ok(settled) => break settled,
            Err(why) => {
                shared.flusher.away.store(true, Ordering::Relaxed);
                fail_callers(shared);
                tracing::debug!(%why, "not settled yet: {why}");
                tokio::time::sleep(PATIENCE[attempt.min(PATIENCE.len() - 1)]).await;
                attempt += 1;
            }
        }
    };
    shared.flusher.away.store(false, Ordering::Relaxed);
    tracing::info!(attempts = attempt + 1, "the transaction's outcome is settled");
    for ((Aboard { cluster, batch }, fence), settled) in aboard.into_iter().zip(&fences).zip(settled) {
        match settled {
            Settled::Ours { epoch, revision } if revision == fence.new => {
                cluster.renew_epoch(epoch);
                if cluster.land(batch) {
                    shared.flusher.call(cluster);
                }
            }
            Settled::Ours { epoch, revision } if revision == fence.expected => {
                cluster.renew_epoch(epoch);
                cluster.fail(batch, &away());
            }
            Settled::Ours { .. } | Settled::Lost => lose(shared, &cluster, batch, Known::Nothing),
        }
    }
}
