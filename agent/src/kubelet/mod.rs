//! The kubelet's own HTTP API, as the server sees this node: logs, exec, attach, ports of pods, health, figures,
//! and how it reaches other nodes.
//!
//! It is served over streams of the tunnel, never on a port: who reaches it has been authorized by the API server.
//! Paths, queries and refusals are the kubelet's own, since the server passes what is said here on to the client.

mod channels;
mod figures;
mod links;
mod logs;
mod ports;
mod sessions;

use crate::node::context::Context;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;
use std::sync::Arc;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The service: cheap to clone, one for each node. Serve it with
/// `longshore_tunnel::http::serve(stream, service_fn(|r| kubelet.handle(r)))`.
#[derive(Clone)]
pub struct Kubelet {
    context: Arc<Context>,
}

impl Kubelet {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Bodies of requests are not read: everything is in path and query.
    pub async fn handle<B>(&self, mut request: Request<B>) -> Result<Response<Body>, Infallible> {
        let uri = request.uri().clone();
        let query = Query::parse(uri.query().unwrap_or_default());
        let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
        Ok(match path[..] {
            ["healthz"] => text(StatusCode::OK, "ok"),
            ["pods"] => json(&self.pods()),
            ["stats", "summary"] => json(&figures::summary(&self.context).await),
            ["metrics", "resource"] => figures::metrics(&self.context).await,
            ["links"] => links::serve(&self.context, &query).await,
            ["containerLogs", namespace, pod, container] => {
                logs::serve(&self.context, namespace, pod, container, &query).await
            }
            [verb @ ("exec" | "attach"), namespace, pod, container] => {
                let verb = if verb == "exec" { sessions::Verb::Exec } else { sessions::Verb::Attach };
                sessions::serve(&self.context, verb, [namespace, pod, container], &query, &mut request)
            }
            [way @ ("portForward" | "proxy"), namespace, pod] => {
                let way = if way == "proxy" { ports::Way::Address } else { ports::Way::Localhost };
                ports::serve(&self.context, way, namespace, pod, &query, &mut request).await
            }
            [way @ ("endpoint" | "datagrams"), endpoint] => {
                ports::endpoint(&self.context, way == "datagrams", endpoint, &mut request).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        })
    }

    fn pods(&self) -> serde_json::Value {
        let pods = self.context.pods.all().into_iter().map(|known| {
            let mut pod = (*known.pod).clone();
            pod.status = Some((*known.status).clone());
            pod
        });
        let items: Vec<_> = pods.collect();
        serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
    }
}

fn text(code: StatusCode, message: impl Into<String>) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", message.into())
}

fn json(value: &serde_json::Value) -> Response<Body> {
    typed(StatusCode::OK, "application/json", value.to_string())
}

fn typed(code: StatusCode, of: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(of));
    response
}

/// A request's query: pairs in their order, as a key may come several times.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value; an empty one counts as none.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// There and neither `false` nor `0`, as Kubernetes reads a flag.
    fn flag(&self, key: &str) -> bool {
        self.0.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| v != "0" && !v.eq_ignore_ascii_case("false"))
    }
}
