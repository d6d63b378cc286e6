//! Work that takes milliseconds (big lists, tables, gzip, big bodies) leaves the reactor, a few pieces at a time for each
//! cluster: one tenant's lists never fill the threads that all share.

use longshore_api::Status;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::sync::Semaphore;

/// Pieces of work of one cluster at once.
const AT_ONCE: usize = 2;
/// The map of clusters is swept when it has grown by this many.
const SWEEP_EVERY: usize = 256;

#[derive(Clone, Default)]
pub struct Heavy(Arc<Mutex<HashMap<ClusterId, Weak<Semaphore>>>>);

impl Heavy {
    pub async fn run<T: Send + 'static>(
        &self,
        cluster: &ClusterId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turns = self.turns(cluster);
        let turn = turns.acquire_owned().await.map_err(Status::internal)?;
        let done = crate::offload::run(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| {
            tracing::error!(%error, %cluster, "work for cluster {cluster} failed: {error}");
            Status::internal("the request could not be served")
        })
    }

    fn turns(&self, cluster: &ClusterId) -> Arc<Semaphore> {
        let mut all = self.0.lock();
        if let Some(turns) = all.get(cluster).and_then(Weak::upgrade) {
            return turns;
        }
        if all.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            all.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        all.insert(cluster.clone(), Arc::downgrade(&turns));
        turns
    }
}
