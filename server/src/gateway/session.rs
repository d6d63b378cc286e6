//! One agent's session: from the upgrade to the end of its tunnel.

use super::inside::Inside;
use super::keeper::Keeper;
use super::{Edges, Member, Nodes, Sessions};
use crate::store::Store;
use axum::Router;
use longshore_tunnel::{Config, Incoming, Messages, Side, Tunnel};
use std::sync::Arc;
use std::time::Duration;

/// How often, on average, a credential is looked at again while its tunnel is open: one that was revoked through another replica, or
/// that ran out, ends the session. (An agent renews at a third of its credential's life, and reconnects with the new one.)
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Serves agents that were admitted, whatever carries their tunnels. Cheap to clone.
#[derive(Clone)]
pub struct Agents {
    sessions: Sessions,
    nodes: Arc<dyn Nodes>,
    /// Where this replica has an edge.
    edges: Option<Arc<dyn Edges>>,
    /// The router of `/clusters/…`.
    clusters: Router,
    store: Store,
    keeper: Keeper,
}

impl Agents {
    pub fn new(
        sessions: Sessions,
        nodes: Arc<dyn Nodes>,
        edges: Option<Arc<dyn Edges>>,
        store: Store,
        clusters: Router,
    ) -> Self {
        let keeper = Keeper::new(store.clone(), sessions.clone());
        Self { sessions, nodes, edges, clusters, store, keeper }
    }

    /// Serves the tunnel until it ends, or until the node may not be here any more.
    pub async fn serve(self, member: Member, credential: String, carrier: impl Messages) {
        let Member { cluster, node, name, .. } = &member;
        let (opener, incoming) = Tunnel::start(carrier, Side::Server, Config::default());
        self.sessions.attach(cluster, node, name, opener.clone());
        self.keeper.keep(cluster);
        tracing::info!(%cluster, %node, "node {name} of cluster {cluster} is connected");
        let (nodes, edges) = (self.nodes.clone(), self.edges.clone());
        let inside = Inside::new(&member, nodes, edges, self.store.clone(), self.clusters.clone());
        let why = tokio::select! {
            () = serve(incoming, inside) => opener.ended().await.to_string(),
            () = self.dismissed(&credential) => "its credential is no good any more".to_string(),
        };
        tracing::info!(%cluster, %node, "node {name} of cluster {cluster} is gone: {why}");
    }

    /// Returns once the credential is refused. That accounts can't be asked is no refusal.
    async fn dismissed(&self, credential: &str) {
        loop {
            // Not all at once, where thousands came back together.
            tokio::time::sleep(LOOK_AGAIN.mul_f64(rand::random_range(0.5..1.5))).await;
            if matches!(self.nodes.verify(credential).await, Err(status) if status.code == 401) {
                return;
            }
        }
    }
}

async fn serve(mut incoming: Incoming, inside: Inside) {
    while let Some(stream) = incoming.next().await {
        let inside = inside.clone();
        tokio::spawn(async move { inside.serve(stream).await });
    }
}
