//! After an upgrade: bytes both ways, until one end is done, nothing passed for too long, or the endpoint is gone.

use super::Shared;
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::upstream::{Sender, Upstream};
use super::websocket::Tunnel;
use crate::model::Backend;
use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

/// The endpoint agreed: tells the client so and passes on what follows.
pub fn switch(
    mut exchange: Box<Exchange>,
    mut response: Response<Incoming>,
    (tunnel, client): (&Tunnel, OnUpgrade),
    (upstream, connection): (Arc<Upstream>, Sender),
    backend: Backend,
) -> Response<ResponseBody> {
    let endpoint = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    let status = tunnel.answer(&mut parts.headers);
    exchange.status = status.as_u16();
    let shared = exchange.shared.clone();
    tokio::spawn(async move {
        match tokio::try_join!(client, endpoint) {
            Ok((client, endpoint)) => {
                let idle = shared.settings.tunnel_idle;
                let passed = tokio::select! {
                    passed = pass(TokioIo::new(client), TokioIo::new(endpoint), idle) => passed,
                    () = gone(&shared, &upstream, &backend) => Err(io::Error::other("the endpoint is gone")),
                };
                match passed {
                    Ok(sent) => (exchange.sent, exchange.whole) = (sent, true),
                    Err(error) => exchange.broken = Some(error.to_string()),
                }
            }
            Err(error) => exchange.broken = Some(error.to_string()),
        }
        drop((exchange, connection));
    });
    let mut answer = Response::new(ResponseBody::Empty);
    *answer.status_mut() = status;
    *answer.headers_mut() = parts.headers;
    answer
}

/// Ends when the endpoint has been gone for as long as what runs may take to end. One that only gets no new requests, because it
/// isn't ready or has been told to end, isn't gone; and one that is back by then never was.
async fn gone(shared: &Shared, upstream: &Upstream, backend: &Backend) {
    upstream.removal().await;
    let endpoint = &upstream.endpoint;
    let stands = || shared.pool(&endpoint.cluster, backend).is_some_and(|pool| pool.stands(endpoint));
    let mut stood = true;
    loop {
        let stands = stands();
        if !stood && !stands {
            return;
        }
        stood = stands;
        tokio::time::sleep(shared.settings.drain).await;
    }
}

/// Bytes that the client got.
pub(super) async fn pass<A, B>(client: A, endpoint: B, idle: Duration) -> io::Result<u64>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let read = Arc::new(AtomicU64::new(0));
    let (mut client, mut endpoint) = (Counting(client, read.clone()), Counting(endpoint, read.clone()));
    let silence = async {
        loop {
            let before = read.load(Ordering::Relaxed);
            tokio::time::sleep(idle).await;
            if read.load(Ordering::Relaxed) == before {
                return;
            }
        }
    };
    tokio::select! {
        passed = copy_bidirectional(&mut client, &mut endpoint) => passed.map(|(_, sent)| sent),
        () = silence => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing passed for too long")),
    }
}

/// Counts what is read.
struct Counting<S>(S, Arc<AtomicU64>);

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buffer);
        self.1.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
