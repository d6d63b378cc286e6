//! `kubernetes.default.svc` on this node: pods' connections to it go as raw bytes through the tunnel to the server, which
//! ends the TLS inside; this node sees neither token nor payload.
//!
//! It is answered at the Service's own address inside the cluster's namespace, and at the namespace's end of the cable
//! to the host, where pods in the host's network find it: the Service's address can't be theirs, as every cluster on a
//! host may have the same.

use super::{PodNetwork, namespace};
use crate::connection::backoff::Backoff;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONNECTION, UPGRADE};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use longshore_api::node::{RAW_KUBERNETES_PATH, RAW_KUBERNETES_PROTOCOL};
use longshore_tunnel::Opener;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once, well below what a tunnel carries, so that pods can't crowd out the node's own.
const CONNECTIONS: usize = 512;
/// After a failure to listen that no change will announce the end of.
const RETRY: Duration = Duration::from_secs(2);
/// How long a way to the server may take; clients try again by themselves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Learns the Service's address and answers it with what `dial` gives for each connection. Never returns.
pub async fn run<D, F, S>(network: Arc<PodNetwork>, client: kube::Client, dial: D)
where
    D: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::join!(follow(&network, client), serve(&network, dial));
}

/// A connection to the cluster's API server as pods see it, over the tunnel.
pub async fn raw(opener: &Opener) -> io::Result<TokioIo<Upgraded>> {
    let stream = opener.open().await.map_err(io::Error::other)?;
    let request = http::Request::get(RAW_KUBERNETES_PATH)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, RAW_KUBERNETES_PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = longshore_tunnel::http::send(stream, request).await.map_err(io::Error::other)?;
    match response.status() {
        http::StatusCode::SWITCHING_PROTOCOLS => {
            hyper::upgrade::on(response).await.map(TokioIo::new).map_err(io::Error::other)
        }
        other => Err(io::Error::other(format!("the server answers {other}"))),
    }
}

async fn follow(network: &PodNetwork, client: kube::Client) {
    let api: Api<Service> = Api::namespaced(client, "default");
    let mut services = std::pin::pin!(watcher::watch_object(api, "kubernetes").backoff(Backoff::watching()));
    while let Some(next) = services.next().await {
        match next {
            Ok(service) => match service.as_ref().and_then(address) {
                Some(address) => network.set_kubernetes(address),
                None => tracing::warn!("the cluster has no Service kubernetes; pods can't reach its API"),
            },
            Err(error) => tracing::debug!(%error, "the watch of the Service kubernetes was interrupted"),
        }
    }
}

fn address(service: &Service) -> Option<SocketAddrV4> {
    let spec = service.spec.as_ref()?;
    let port = spec.ports.iter().flatten().next().and_then(|p| u16::try_from(p.port).ok())?;
    Some(SocketAddrV4::new(spec.cluster_ip.as_deref()?.parse().ok()?, port))
}

/// Answers the Service's address as long as it stays the same and the namespace lives; then again.
pub async fn serve<D, F, S>(network: &PodNetwork, dial: D)
where
    D: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (at, changed) = network.kubernetes_places().await;
        let listen = |address| namespace::listen(&at.netns, address);
        let (service, from_host) = match (listen(at.service), listen(at.from_host)) {
            (Ok(service), Ok(from_host)) => (service, from_host),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(address = %at.service, %error, "the Service kubernetes can't be answered yet");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        tokio::select! {
            () = accept(&service, &places, &dial) => {}
            () = accept(&from_host, &places, &dial) => {}
            () = changed => {}
        }
    }
}

async fn accept<D, F, S>(listener: &TcpListener, places: &Arc<Semaphore>, dial: &D)
where
    D: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let dial = dial.clone();
                tokio::spawn(async move {
                    if let Err(error) = pass(client, dial()).await {
                        tracing::debug!(%error, "a pod's connection to the API ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the API was not accepted");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn pass<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: TcpStream,
    server: impl Future<Output = io::Result<S>>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = tokio::time::timeout(PATIENCE, server).await;
    match server.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(mut server) => tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop),
        Err(error) => {
            // A reset, not an end: the client must not take it for an answer.
            client.set_zero_linger()?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_services_own() {
        let service = |spec| -> Service { serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap() };
        let good = service(serde_json::json!({"clusterIP": "10.96.0.1", "ports": [{"port": 443, "targetPort": 6443}]}));
        assert_eq!(address(&good), Some("10.96.0.1:443".parse().unwrap()));
        assert_eq!(address(&service(serde_json::json!({"clusterIP": "None", "ports": [{"port": 443}]}))), None);
        assert_eq!(address(&service(serde_json::json!({"clusterIP": "10.96.0.1"}))), None);
    }
}
