//! The way to a node's own HTTP API (the agent answers as a kubelet does): logs, exec, attach, ports of pods.
//!
//! The API server says which node and which request; how the bytes get there (an agent's tunnel, another replica's
//! tunnel) is the gateway's business. The trait is boxed rather than generic so that `Api` stays one plain type.

use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use std::collections::BTreeMap;

pub trait NodeProxy: Send + Sync + 'static {
    /// Sends `request` (origin-form path, no host needed) to the node's agent and answers with its response head as soon
    /// as it is there; the body streams. For an upgrade the request carries the client's `Connection`, `Upgrade` and
    /// `Sec-WebSocket-*` headers, and a 101 answer has `hyper::upgrade::OnUpgrade` among its extensions: the caller then
    /// copies raw bytes both ways. A node that cannot be reached is 503 with a message that names it.
    fn request<'a>(
        &'a self,
        cluster: &'a ClusterId,
        node: &'a str,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>>;

    /// When something last arrived from a node that has, or had, a tunnel here; none for one that never had.
    fn contact(&self, cluster: &ClusterId, node: &str) -> Option<Timestamp>;

    /// The same for all such nodes of the cluster, by name.
    fn contacts(&self, cluster: &ClusterId) -> BTreeMap<String, Timestamp>;

    /// How many nodes of the cluster have a tunnel here now.
    fn connected(&self, cluster: &ClusterId) -> usize;
}

/// For a server without agents: every node is out of reach.
pub struct NoNodes;

impl NodeProxy for NoNodes {
    fn request<'a>(
        &'a self,
        _cluster: &'a ClusterId,
        node: &'a str,
        _request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        let status = Status::unavailable(format!("node {node:?} is not connected"));
        Box::pin(async move { Err(status) })
    }
    fn contact(&self, _: &ClusterId, _: &str) -> Option<Timestamp> {
        None
    }
    fn contacts(&self, _: &ClusterId) -> BTreeMap<String, Timestamp> {
        BTreeMap::new()
    }
    fn connected(&self, _: &ClusterId) -> usize {
        0
    }
}
