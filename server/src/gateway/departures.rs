//! Nodes whose object was deleted: their identity ends with it, and so does their session.
//!
//! Which identity stands in the Node's label, which the API server writes itself when the node makes its object. Deleting
//! the object is how an administrator takes a machine out; one that still runs is cut off, and its name is free.

use super::{Nodes, Sessions};
use crate::store::{Change, ChangeKind, Cluster, ClusterHook, StoreError, Watch, WatchFilter, WatchItem};
use futures::future::BoxFuture;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::node::NODE_ID_LABEL;
use std::sync::Arc;
use std::time::Duration;

/// Before accounts that could not be reached are asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// A hook of the store: follows the nodes of each loaded cluster.
pub struct Departures {
    nodes: Arc<dyn Nodes>,
    sessions: Sessions,
}

impl Departures {
    pub fn new(nodes: Arc<dyn Nodes>, sessions: Sessions) -> Self {
        Self { nodes, sessions }
    }
}

impl ClusterHook for Departures {
    fn loaded<'a>(&'a self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let filter = WatchFilter { resource: Some("nodes".into()), internal: true, ..WatchFilter::default() };
            let watch = cluster.watch(None, filter)?;
            tokio::spawn(follow(watch, cluster.id().clone(), self.nodes.clone(), self.sessions.clone()));
            Ok(())
        })
    }

    /// The end of its watch ends a follower.
    fn unloading(&self, _: &ClusterId) {}
}

async fn follow(mut watch: Watch, cluster: ClusterId, nodes: Arc<dyn Nodes>, sessions: Sessions) {
    loop {
        match watch.next().await {
            WatchItem::Changes(changes) => {
                for node in changes.iter().filter_map(|change| departed(change)) {
                    while let Err(status) = nodes.revoke(&cluster, &node).await {
                        tracing::warn!(%cluster, %node, "node {node} was deleted and can't be revoked yet: {status}");
                        tokio::time::sleep(AGAIN).await;
                    }
                    sessions.revoke(&cluster, &node);
                }
            }
            WatchItem::Progress(_) => {}
            WatchItem::Ended(_) => return,
        }
    }
}

fn departed(change: &Change) -> Option<NodeId> {
    let id = (change.kind == ChangeKind::Deleted).then(|| change.object.labels.get(NODE_ID_LABEL))?;
    id.map(NodeId::new)
}
