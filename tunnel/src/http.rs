//! Plain HTTP/1.1 over one stream: a request and its answer, or several in turn.

use crate::Stream;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use std::error::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends `request` over a stream of the tunnel (or what came out of one), which it has to itself, and answers with the
/// response's head; its body streams, and an upgrade can be awaited on it (`hyper::upgrade::on`). Dropping the response ends
/// the stream, and the other end learns of it.
pub async fn send<S, B>(stream: S, request: Request<B>) -> Result<Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// Serves one stream until it ends. The caller gives it a task.
pub async fn serve<S, B>(stream: Stream, service: S) -> Result<(), hyper::Error>
where
    S: HttpService<Incoming, ResBody = B> + Send,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await
}
