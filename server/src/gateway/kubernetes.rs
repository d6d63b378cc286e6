//! `kubernetes.default.svc`: the API server as pods see it.
//!
//! The agent passes a pod's connection on as raw bytes; TLS ends here, with the certificate of the cluster whose tunnel it
//! is, and the API is served at `/` to whoever the request's own credential says. The node sees neither token nor payload,
//! and its own identity counts for nothing here.

use super::Nodes;
use super::http::refusal;
use crate::apiserver::InCluster;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use longshore_api::node::RAW_KUBERNETES_PROTOCOL;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// A pod that has not finished its handshake or its request's head by then is let go.
const PATIENCE: Duration = Duration::from_secs(15);

/// One cluster's API server for its pods. Cheap to clone.
#[derive(Clone)]
pub(super) struct Kubernetes {
    cluster: ClusterId,
    nodes: Arc<dyn Nodes>,
    api: Router,
}

impl Kubernetes {
    pub fn new(cluster: ClusterId, nodes: Arc<dyn Nodes>, api: Router) -> Self {
        Self { cluster, nodes, api }
    }

    /// Answers the agent's request to carry a pod's bytes, and serves them on a task of its own.
    pub async fn upgrade(self, mut request: hyper::Request<Incoming>) -> Response {
        let asked = request.headers().get(UPGRADE).is_some_and(|p| p == RAW_KUBERNETES_PROTOCOL);
        if !asked {
            return refusal(Status::bad_request(format!("expected an upgrade to {RAW_KUBERNETES_PROTOCOL}")));
        }
        let tls = match self.nodes.cluster_tls(&self.cluster).await {
            Ok(config) => TlsAcceptor::from(config),
            Err(status) => return refusal(status),
        };
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(self.serve(upgraded, tls));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static(RAW_KUBERNETES_PROTOCOL));
        response
    }

    async fn serve(self, upgraded: OnUpgrade, tls: TlsAcceptor) {
        let Ok(raw) = upgraded.await else { return };
        let stream = match timeout(PATIENCE, tls.accept(TokioIo::new(raw))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(cluster = %self.cluster, %error, "a pod's TLS handshake failed"),
            Err(_) => return tracing::debug!(cluster = %self.cluster, "a pod's TLS handshake took too long"),
        };
        let cluster = self.cluster.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (api, cluster) = (self.api.clone(), self.cluster.clone());
            async move {
                let mut request: Request = request.map(Body::new);
                request.extensions_mut().insert(InCluster(cluster));
                Ok::<_, Infallible>(api.oneshot(request).await.unwrap_or_else(|never| match never {}))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 * 1024);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250).max_header_list_size(64 * 1024);
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(%cluster, %error, "a pod's connection ended");
        }
    }
}
