//! The cluster's Kubernetes API over the tunnel: a service for [`kube::Client`].
//!
//! Each request is a stream of its own. While the tunnel is down requests fail at once: nobody who heals pods may hang on
//! a server that is away. When it ends, so do all answers, watches among them.

use super::Link;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use kube::client::Body;
use longshore_api::ids::ClusterId;
use longshore_tunnel::OpenError;
use std::task::{Context, Poll};

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the server is not connected")]
    Disconnected,
    #[error("the server is not connected: {0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Path(#[from] http::Error),
}

#[derive(Clone)]
struct OverTunnel {
    link: Link,
    /// `/clusters/ID`
    base: String,
}

/// A client of the API of `cluster`; what it may do is decided by the node that the tunnel belongs to.
pub fn client(link: &Link, cluster: &ClusterId) -> kube::Client {
    kube::Client::new(OverTunnel { link: link.clone(), base: format!("/clusters/{cluster}") }, "default")
}

impl tower::Service<Request<Body>> for OverTunnel {
    type Response = Response<Incoming>;
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
            *request.uri_mut() = Uri::builder().path_and_query(format!("{}{path}", this.base)).build()?;
            // HTTP/1.1 demands one; the tunnel has one server.
            request.headers_mut().insert(HOST, HeaderValue::from_static("longshore"));
            let stream = opener.open().await?;
            Ok(longshore_tunnel::http::send(stream, request).await?)
        }
        .boxed()
    }
}
