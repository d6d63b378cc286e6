//! The cluster's Kubernetes API over the tunnel: a service for [`kube::Client`].
//!
//! Requests have streams of the tunnel to themselves while they last; a stream whose answer was read to its end serves the
//! next one. Watches are asked for as answers that last. While the tunnel is down requests fail at once: nobody who heals pods
//! may hang on a server that is away. When it ends, so do all answers, watches among them.

use super::Link;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use longshore_api::ids::ClusterId;
use longshore_tunnel::lasting::{self, Answer};
use longshore_tunnel::{OpenError, Stream};
use std::task::{Context, Poll};
use std::time::Duration;

/// Streams that wait for another request: some pods start at once, and are soon done with it. Each costs the server 20 kB.
const IDLE: usize = 2;
const IDLE_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the server is not connected")]
    Disconnected,
    #[error("the server is not connected: {0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Http(#[from] legacy::Error),
    #[error("{0}")]
    Lasting(#[from] hyper::Error),
    #[error("{0}")]
    Path(#[from] http::Error),
}

/// HTTP demands a host; the tunnel has one server.
const SERVER: &str = "longshore";

#[derive(Clone)]
struct OverTunnel {
    streams: Client<Connector, Body>,
    link: Link,
    /// `/clusters/ID`
    base: String,
}

/// A client of the API of `cluster`; what it may do is decided by the node that the tunnel belongs to.
pub fn client(link: &Link, cluster: &ClusterId) -> kube::Client {
    let streams = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(IDLE)
        .build(Connector(link.clone()));
    kube::Client::new(OverTunnel { streams, link: link.clone(), base: format!("/clusters/{cluster}") }, "default")
}

impl tower::Service<Request<Body>> for OverTunnel {
    type Response = Response<Answer>;
    type Error = RequestError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let this = self.clone();
        async move {
            let opener = this.link.opener().ok_or(RequestError::Disconnected)?;
            let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
            let path = format!("{}{path}", this.base);
            if lasts(&request) {
                *request.uri_mut() = path.parse::<PathAndQuery>().map_err(http::Error::from)?.into();
                request.headers_mut().insert(HOST, HeaderValue::from_static(SERVER));
                return Ok(lasting::ask(opener.open().await?, request).await?);
            }
            let uri = Uri::builder().scheme("http").authority(SERVER);
            *request.uri_mut() = uri.path_and_query(path).build()?;
            Ok(this.streams.request(request).await?.map(Answer::Framed))
        }
        .boxed()
    }
}

/// Whether it asks for a watch.
fn lasts(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1")))
}

/// Opens streams of the tunnel that stands.
#[derive(Clone)]
struct Connector(Link);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = RequestError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let link = self.0.clone();
        async move {
            let opener = link.opener().ok_or(RequestError::Disconnected)?;
            Ok(TokioIo::new(opener.open().await?))
        }
        .boxed()
    }
}
