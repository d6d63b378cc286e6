//! Requests to a node's kubelet API, over a stream of its agent's tunnel.

use super::{Gateway, no_tunnel};
use crate::apiserver::node_proxy::NodeProxy;
use axum::body::Body;
use futures::future::BoxFuture;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use std::collections::BTreeMap;

impl NodeProxy for Gateway {
    /// Each request has a stream of its own, which ends with it: a client that goes away ends the node's work for it.
    /// An upgrade's raw bytes come with the answer, as the tunnel's HTTP client leaves them among its extensions.
    fn request<'a>(
        &'a self,
        cluster: &'a ClusterId,
        node: &'a str,
        mut request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let stream = self.open(cluster, node).await?;
            // HTTP/1.1 demands one; the agent serves one node and looks at no name.
            request.headers_mut().insert(HOST, HeaderValue::from_static("node"));
            let response = longshore_tunnel::http::send(stream, request).await.map_err(|_| no_tunnel(node))?;
            Ok(response.map(Body::new))
        })
    }

    fn contact(&self, cluster: &ClusterId, node: &str) -> Option<Timestamp> {
        self.sessions.contact(cluster, node).map(|contact| contact.last)
    }

    fn contacts(&self, cluster: &ClusterId) -> BTreeMap<String, Timestamp> {
        self.sessions.contacts(cluster).into_iter().map(|(name, contact)| (name, contact.last)).collect()
    }

    fn connected(&self, cluster: &ClusterId) -> usize {
        self.sessions.contacts(cluster).values().filter(|contact| contact.connected).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_without_a_tunnel_is_named() {
        let request = Request::get("/healthz").body(Body::empty()).unwrap();
        let status = Gateway::new().request(&ClusterId::new("c-1"), "worker-1", request).await.unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (503, "error dialing backend: no tunnel to node \"worker-1\"")
        );
    }
}
