//! The kubelet's own HTTP API, as the server sees this node: logs, exec, attach, health, figures.
//!
//! It is served over streams of the tunnel, never on a port: who reaches it has been authorized by the API server.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};

pub type Body = BoxBody<Bytes, std::io::Error>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The service: cheap to clone, one for each node. Serve it with
/// `http1::Builder::serve_connection(io, service_fn(|r| kubelet.handle(r))).with_upgrades()`.
#[derive(Clone)]
pub struct Kubelet {}

impl Kubelet {
    pub async fn handle<B>(&self, request: Request<B>) -> Result<Response<Body>, std::convert::Infallible> {
        let mut response = Response::new(full("404 page not found\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        if request.uri().path() == "/healthz" {
            response = Response::new(full("ok"));
        }
        Ok(response)
    }
}
