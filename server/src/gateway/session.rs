//! One agent's session: from the upgrade to the end of its tunnel.

use super::inside::Inside;
use super::keeper::Keeper;
use super::socket::Socket;
use super::{Member, Nodes, Sessions};
use axum::Router;
use axum::extract::ws::WebSocket;
use longshore_tunnel::{Config, Incoming, Side, Tunnel};
use std::sync::Arc;
use std::time::Duration;

/// How often, on average, a credential is looked at again while its tunnel is open: one that was revoked through another replica, or
/// that ran out, ends the session. (An agent renews at a third of its credential's life, and reconnects with the new one.)
const LOOK_AGAIN: Duration = Duration::from_secs(300);

pub(super) struct Session {
    pub member: Member,
    pub credential: String,
    pub nodes: Arc<dyn Nodes>,
    /// The router of `/clusters/…`.
    pub clusters: Router,
}

impl Session {
    /// Serves the tunnel until it ends, or until the node may not be here any more.
    pub async fn run(self, socket: WebSocket, sessions: Sessions, keeper: Keeper) {
        let Member { cluster, node, name, .. } = &self.member;
        let (opener, incoming) = Tunnel::start(Socket(socket), Side::Server, Config::default());
        sessions.attach(cluster, node, name, opener.clone());
        keeper.keep(cluster);
        tracing::info!(%cluster, %node, "node {name} of cluster {cluster} is connected");
        let inside = Inside::new(&self.member, self.nodes.clone(), self.clusters.clone());
        let why = tokio::select! {
            () = serve(incoming, inside) => opener.ended().await.to_string(),
            () = self.dismissed() => "its credential is no good any more".to_string(),
        };
        tracing::info!(%cluster, %node, "node {name} of cluster {cluster} is gone: {why}");
    }

    /// Returns once the credential is refused. That accounts can't be asked is no refusal.
    async fn dismissed(&self) {
        loop {
            // Not all at once, where thousands came back together.
            tokio::time::sleep(LOOK_AGAIN.mul_f64(rand::random_range(0.5..1.5))).await;
            if matches!(self.nodes.verify(&self.credential).await, Err(status) if status.code == 401) {
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
