//! Keeps the clusters of connected nodes loaded: their controllers work for as long as a node is there to be told.

use super::Sessions;
use crate::store::Store;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Before a cluster that was let go of, or could not be loaded, is loaded again.
const AGAIN: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Keeper(Arc<Inner>);

struct Inner {
    store: Store,
    sessions: Sessions,
    /// Clusters that have a task.
    kept: Mutex<HashSet<ClusterId>>,
}

impl Keeper {
    pub fn new(store: Store, sessions: Sessions) -> Self {
        Self(Arc::new(Inner { store, sessions, kept: Mutex::default() }))
    }

    /// Keeps `cluster` loaded until its last node is gone. Called after each attach.
    pub fn keep(&self, cluster: &ClusterId) {
        if self.0.kept.lock().insert(cluster.clone()) {
            tokio::spawn(self.0.clone().hold(cluster.clone()));
        }
    }
}

impl Inner {
    async fn hold(self: Arc<Self>, cluster: ClusterId) {
        let mut changes = self.sessions.changes(&cluster);
        while !self.is_over(&cluster) {
            match self.store.cluster(&cluster).await {
                Ok(loaded) => {
                    let _hold = loaded.hold();
                    let alone = async {
                        while self.sessions.is_connected(&cluster) {
                            changes.changed().await;
                        }
                    };
                    tokio::select! {
                        () = loaded.unloaded() => {}
                        () = alone => continue,
                    }
                }
                Err(error) => {
                    tracing::debug!(%cluster, %error, "cluster {cluster} has nodes and can't be loaded: {error}");
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Decided under the lock that `keep` takes: who attaches later starts a new task.
    fn is_over(&self, cluster: &ClusterId) -> bool {
        let mut kept = self.kept.lock();
        let over = !self.sessions.is_connected(cluster);
        if over {
            kept.remove(cluster);
        }
        over
    }
}
