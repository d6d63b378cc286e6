//! What agents ask of us through their tunnels: plain HTTP/1.1, one request a stream, with no credential. Whose tunnel it
//! is says who asks.

use super::http::refusal;
use super::kubernetes::Kubernetes;
use super::{Edges, Member, Nodes, network};
use crate::accounts::Identity;
use crate::store::Store;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use longshore_api::Status;
use longshore_api::edge::{CHALLENGE_PATH, EDGE_PATH, TLS_CHALLENGE_PATH};
use longshore_api::ids::ClusterId;
use longshore_api::network::NETWORK_PATH;
use longshore_api::node::RAW_KUBERNETES_PATH;
use longshore_tunnel::Stream;
use longshore_tunnel::lasting::Offer;
use std::convert::Infallible;
use std::sync::Arc;
use tower::ServiceExt;

/// One node's view of us. Cheap to clone.
#[derive(Clone)]
pub(super) struct Inside {
    cluster: ClusterId,
    /// The Node object's name.
    node: Arc<str>,
    identity: Identity,
    edges: Option<Arc<dyn Edges>>,
    store: Store,
    api: Router,
    kubernetes: Kubernetes,
}

impl Inside {
    pub fn new(
        member: &Member,
        nodes: Arc<dyn Nodes>,
        edges: Option<Arc<dyn Edges>>,
        store: Store,
        api: Router,
    ) -> Self {
        Self {
            cluster: member.cluster.clone(),
            node: member.name.as_str().into(),
            edges,
            identity: Identity::node(member.node.clone(), &member.name),
            kubernetes: Kubernetes::new(member.cluster.clone(), nodes, api.clone()),
            store,
            api,
        }
    }

    /// Serves one stream until it ends.
    pub async fn serve(self, stream: Stream) {
        let service = service_fn(move |request| {
            let inside = self.clone();
            async move { Ok::<_, Infallible>(inside.answer(request).await) }
        });
        if let Err(error) = longshore_tunnel::http::serve(stream, service).await {
            tracing::debug!(%error, "a stream of an agent ended");
        }
    }

    async fn answer(self, mut request: hyper::Request<Incoming>) -> Response {
        let offer = Offer::take(&mut request);
        let response = self.route(request).await;
        match offer {
            Some(offer) => offer.answer(response),
            None => response,
        }
    }

    async fn route(self, request: hyper::Request<Incoming>) -> Response {
        let path = request.uri().path();
        if path == RAW_KUBERNETES_PATH {
            return self.kubernetes.upgrade(request).await;
        }
        if path == NETWORK_PATH {
            return network::serve(&self.store, &self.cluster).await;
        }
        if path == EDGE_PATH {
            return self.edge().await.unwrap_or_else(refusal);
        }
        if let Some((host, token)) = path.strip_prefix(CHALLENGE_PATH).and_then(|rest| rest.split_once('/')) {
            return self.challenge(host, token).await.unwrap_or_else(|| refusal(Status::no_such_path()));
        }
        if let Some(host) = path.strip_prefix(TLS_CHALLENGE_PATH) {
            return self.tls_challenge(host).await.unwrap_or_else(|| refusal(Status::no_such_path()));
        }
        let cluster = path.strip_prefix("/clusters/").and_then(|rest| rest.split('/').next());
        if cluster != Some(self.cluster.as_str()) {
            return refusal(Status::no_such_path());
        }
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(self.identity);
        self.api.oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    /// What a node that is an edge serves.
    async fn edge(&self) -> Result<Response, Status> {
        let edges = self.edges.as_ref().ok_or_else(Status::no_such_path)?;
        let cluster = self.store.cluster(&self.cluster).await;
        let cluster = cluster.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(network::lines_of(edges.follow(cluster, &self.node)?.map(Ok::<_, Infallible>)))
    }

    async fn challenge(&self, host: &str, token: &str) -> Option<Response> {
        let text = self.edges.as_ref()?.challenge(host, token).await?;
        Some(Response::new(Body::from(text)))
    }

    async fn tls_challenge(&self, host: &str) -> Option<Response> {
        let edges = self.edges.as_ref()?;
        let cluster = self.store.cluster(&self.cluster).await.ok()?;
        let shown = edges.tls_challenge(cluster, &self.node, host).await?;
        Some(Response::new(Body::from(shown)))
    }
}
