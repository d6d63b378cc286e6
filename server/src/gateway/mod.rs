//! Agents' tunnels: machines join here, stay connected here, and are reached through here.
//!
//! - [`http`]: joining, renewing, and the WebSocket that becomes a tunnel; [`proof`] judges who opens one.
//! - [`sessions`]: who is connected right now, and when each was last heard of; `session` is one of them, from its upgrade
//!   to its end, and `keeper` keeps the clusters of connected nodes loaded.
//! - [`relay`]: packets between nodes that don't reach each other directly.
//! - [`Departures`]: whose Node object was deleted is cut off.
//! - `inside`: what agents ask of us through their tunnels: their cluster's API as the node they are, `kubernetes`, raw
//!   bytes of a pod's connection to it, and `network`, the map of their cluster's network.
//! - `proxy`: requests to a node's kubelet API (logs, exec), as the API server's [`NodeProxy`]; `dial`: streams from the edge
//!   to pods.
//! - [`download`]: the script to paste, and the agent it fetches.
//!
//! What this room needs of `accounts` is the trait [`Nodes`], and of `edge` [`Edges`], so that it can be tested without a
//! database.
//!
//! [`NodeProxy`]: crate::apiserver::node_proxy::NodeProxy

mod departures;
mod dial;
pub mod download;
pub mod http;
mod inside;
mod keeper;
mod kubernetes;
mod network;
mod proof;
mod proxy;
pub mod relay;
mod session;
pub mod sessions;
#[cfg(test)]
pub mod testing;

use crate::store::Cluster;
use bytes::Bytes;
pub use departures::Departures;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use longshore_api::Status;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::node::{Join, Joined, Renewed};
use longshore_tunnel::{OpenError, Stream};
pub(crate) use network::units;
use relay::Relays;
pub use session::Agents;
pub use sessions::{Changes, Contact, Sessions};
use std::sync::Arc;

/// A node as its credential says, before or after it proved that it holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// The Node object's name.
    pub name: String,
    /// Its Ed25519 public key.
    pub key: [u8; 32],
}

/// Who may be a node: implemented by `accounts`.
pub trait Nodes: Send + Sync + 'static {
    /// Judges the join token, gives the machine an id (or its old one: a machine that joins again with the same key is
    /// the same node) and signs a credential for its key. A name that belongs to another live identity is 409; a
    /// machine whose identity was revoked, and a token that is no good, 401.
    fn join(&self, join: Join) -> BoxFuture<'_, Result<Joined, Status>>;
    /// Judges signature, expiry and revocation of a credential: 401 for any of them.
    fn verify<'a>(&'a self, credential: &'a str) -> BoxFuture<'a, Result<Member, Status>>;
    /// A fresh credential for a node that has just proven itself.
    fn renew<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Renewed, Status>>;
    /// Takes a node's identity away: its credential buys nothing any more, and its name is free.
    fn revoke<'a>(&'a self, cluster: &'a ClusterId, node: &'a NodeId) -> BoxFuture<'a, Result<(), Status>>;
    /// What the cluster's API server presents to its pods: names `kubernetes`, `kubernetes.default`, …, and the address of
    /// Service `kubernetes`; ALPN h2 and http/1.1.
    fn cluster_tls<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Arc<rustls::ServerConfig>, Status>>;
}

/// What nodes that serve Ingresses are told of them: implemented by `edge`.
pub trait Edges: Send + Sync + 'static {
    /// Lines of JSON, each a [`longshore_api::edge::Edge`], for as long as the node is an edge; 403 where it isn't.
    fn follow(&self, cluster: Arc<Cluster>, node: &str) -> Result<BoxStream<'static, Bytes>, Status>;
    /// What an authority is to find at a host.
    fn challenge<'a>(&'a self, host: &'a str, token: &'a str) -> BoxFuture<'a, Option<String>>;
    /// What an authority is to be shown for a host that the cluster orders for, a [`longshore_api::edge::Certificate`]: it has a
    /// key, which is for nodes that are edges alone.
    fn tls_challenge<'a>(&'a self, cluster: Arc<Cluster>, node: &'a str, host: &'a str)
    -> BoxFuture<'a, Option<Bytes>>;
}

/// The way to connected nodes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gateway {
    sessions: Sessions,
    relays: Relays,
}

impl Gateway {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub fn relays(&self) -> &Relays {
        &self.relays
    }

    /// A stream to the agent of the node `name`, on which it answers plain HTTP/1.1 as a kubelet does.
    pub async fn open(&self, cluster: &ClusterId, name: &str) -> Result<Stream, Status> {
        let Some(opener) = self.sessions.opener(cluster, name) else { return Err(no_tunnel(name)) };
        opener.open().await.map_err(|error| match error {
            OpenError::Ended(_) => no_tunnel(name),
            OpenError::Busy => Status::too_many_requests(format!("error dialing backend: node {name:?}: {error}"), 1),
        })
    }
}

/// As the API server says it when a kubelet can't be reached (500 there, a plain error; 503 says better that it may pass).
fn no_tunnel(name: &str) -> Status {
    Status::unavailable(format!("error dialing backend: no tunnel to node {name:?}"))
}
