//! Keeps the clusters of connected nodes loaded: their controllers work for as long as a node is there to be told.
//!
//! A cluster that another replica owns is nothing to be kept here: its owner judges nodes by their tunnels, and the ones that
//! end here would count as silent for as long as they stay up. So they are closed, and the agents find the owner. (While
//! Postgres is away nobody knows better than before, and tunnels stay.)

use super::Sessions;
use crate::store::{Store, StoreError};
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
                Err(StoreError::NotOwner { advertise }) => {
                    tracing::info!(%cluster, "cluster {cluster} is served at {advertise:?}: its nodes are sent away");
                    self.sessions.close(&cluster);
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

#[cfg(test)]
mod tests {
    use super::super::testing::Agent;
    use super::*;
    use crate::store::simulated::{Committed, Fate, Fortune, Observer, Outcome, SimulatedDatabase, Statement};
    use crate::store::testing::PlainKinds;
    use crate::store::{Cluster, MasterKey, NewCluster, StoreOptions};
    use longshore_api::ids::OrganizationId;

    /// The cluster, once it is loaded and is not `before`.
    async fn loaded(store: &Store, before: Option<&Arc<Cluster>>) -> Arc<Cluster> {
        loop {
            let found = store.loaded().into_iter().next();
            match found.filter(|now| before.is_none_or(|before| !Arc::ptr_eq(now, before))) {
                Some(cluster) => return cluster,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    #[tokio::test]
    async fn a_cluster_with_a_node_is_loaded_again_and_let_go_with_its_last_node() {
        let (store, sessions) = (Store::in_memory(), Sessions::default());
        let id = store.create_cluster(NewCluster::new(OrganizationId::new("o-1"), "test")).await.unwrap();
        let keeper = Keeper::new(store.clone(), sessions.clone());
        let agent = Agent::connect(&sessions, &id, "n1");
        keeper.keep(&id);
        keeper.keep(&id);
        let first = loaded(&store, None).await;
        store.close().await;
        first.unloaded().await;
        let second = loaded(&store, Some(&first)).await;
        let mut changes = sessions.changes(&id);
        drop(agent);
        while sessions.is_connected(&id) {
            changes.changed().await;
        }
        while !keeper.0.kept.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            store.loaded().iter().any(|cluster| Arc::ptr_eq(cluster, &second)),
            "an idle cluster goes in its own time"
        );
    }

    /// A database where all goes well.
    struct Well;

    impl Fate for Well {
        fn befall(&self, _: Statement) -> Fortune {
            Fortune { there: Duration::ZERO, outcome: Outcome::Done, back: Duration::ZERO }
        }
    }

    impl Observer for Well {
        fn committed(&self, _: &ClusterId, _: &[Committed]) {}
    }

    async fn replica(database: &SimulatedDatabase) -> Store {
        let lease = Duration::from_millis(300);
        let options = StoreOptions { lease, ..StoreOptions::new(Arc::new(PlainKinds)) };
        database.open(Arc::new(Well), Arc::new(MasterKey::new([7; 32])), options).await.unwrap()
    }

    /// Found by the simulator: the cluster's owner called a node silent for as long as it stayed with a replica that had lost
    /// the cluster.
    #[tokio::test]
    async fn nodes_of_a_cluster_that_another_replica_owns_are_sent_away() {
        let database = SimulatedDatabase::new(Arc::new(Well));
        let (store, other, sessions) = (replica(&database).await, replica(&database).await, Sessions::default());
        let id = store.create_cluster(NewCluster::new(OrganizationId::new("o-1"), "test")).await.unwrap();
        let _owned = other.cluster(&id).await.unwrap();
        let agent = Agent::connect(&sessions, &id, "n1");
        Keeper::new(store.clone(), sessions.clone()).keep(&id);
        agent.opener.ended().await;
    }
}
