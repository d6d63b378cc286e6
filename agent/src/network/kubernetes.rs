//! `kubernetes.default.svc` on this node: pods' connections to it go as raw bytes through the tunnel to the server, which
//! ends the TLS inside; this node sees neither token nor payload.
//!
//! It is answered at the Service's own address inside the cluster's namespace, and at the namespace's end of the cable
//! to the host, where pods in the host's network find it: the Service's address can't be theirs, as every cluster on a
//! host may have the same.

use super::{PodNetwork, namespace};
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use longshore_api::node::{RAW_KUBERNETES_PATH, RAW_KUBERNETES_PROTOCOL};
use longshore_tunnel::Opener;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections at once, well below what a tunnel carries, so that pods can't crowd out the node's own.
const CONNECTIONS: usize = 512;
/// How long a way to the server may take; clients try again by themselves.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Answers the Service's address with what `dial` gives for each connection, as long as the address stays the same and the
/// namespace lives; then again. Never returns.
pub async fn serve<D, F, S>(network: Arc<PodNetwork>, dial: D)
where
    D: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (at, changed) = network.places(|answered| answered.api).await;
        let listen = |address| namespace::listen(&at.netns, address);
        let (service, from_host) = match (listen(at.service), listen(at.from_host)) {
            (Ok(service), Ok(from_host)) => (service, from_host),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(address = %at.service, %error, "the Service kubernetes can't be answered yet");
                tokio::time::sleep(namespace::RETRY).await;
                continue;
            }
        };
        let answer = |client| {
            let dial = dial.clone();
            async move {
                if let Err(error) = pass(client, dial()).await {
                    tracing::debug!(%error, "a pod's connection to the API ended");
                }
            }
        };
        let accept = |listener| namespace::accept(listener, places.clone(), "a connection to the API", answer);
        tokio::select! {
            () = accept(service) => {}
            () = accept(from_host) => {}
            () = changed => {}
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
