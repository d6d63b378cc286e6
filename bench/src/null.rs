//! The null server: answers at once what an API server would, and keeps nothing.
//!
//! Asked by the same generator over the same TLS and HTTP, it shows what the generator itself can reach on this machine: the
//! ceiling under which every figure of a real server lies. It has hyper and rustls as our server has, so it is also what is
//! left of our server when all that it does is taken away.

use crate::Result;
use crate::load::bodies;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How many ConfigMaps its lists have.
const LISTED: usize = 5_000;

#[derive(Default)]
struct Null {
    /// By path: who is told of its creates.
    watchers: Mutex<HashMap<String, Vec<mpsc::UnboundedSender<Bytes>>>>,
    list: Bytes,
}

/// Serves on a free port of loopback, which is printed, until the process is ended.
pub async fn serve() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let items: Vec<String> = (0..LISTED).map(|number| stored(&format!("listed-{number}"))).collect();
    let list = format!(
        r#"{{"kind":"ConfigMapList","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[{}]}}"#,
        items.join(",")
    );
    let null = Arc::new(Null { list: list.into(), ..Null::default() });
    loop {
        let (tcp, _) = listener.accept().await?;
        let (null, acceptor) = (null.clone(), acceptor.clone());
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let null = null.clone();
                async move { Ok::<_, Infallible>(null.answer(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A ConfigMap as an API server answers it.
fn stored(name: &str) -> String {
    let value = "x".repeat(256);
    format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"default","uid":"00000000-0000-4000-8000-000000000000","resourceVersion":"123456","creationTimestamp":"2026-01-01T00:00:00Z"}},"data":{{"k":"{value}"}}}}"#
    )
}

impl Null {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_string();
        if request.method() == Method::GET {
            return match request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                true => self.watch(path),
                false => json(StatusCode::OK, self.list.clone()),
            };
        }
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let name = name(&body);
        if path == "/api/v1/namespaces" {
            return json(StatusCode::CREATED, bodies::namespace(name).into());
        }
        let stored = stored(name);
        let told = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watchers) = told.get(&path) {
            let event = Bytes::from(format!("{{\"type\":\"ADDED\",\"object\":{stored}}}\n"));
            watchers.iter().for_each(|watcher| drop(watcher.unbounded_send(event.clone())));
        }
        json(StatusCode::CREATED, stored.into())
    }

    fn watch(&self, path: String) -> Response<Body> {
        let (sender, events) = mpsc::unbounded();
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default().push(sender);
        // What has gathered goes out as one write, as from our server.
        let frames = events.ready_chunks(64).map(|events| Ok(Frame::data(Bytes::from(events.concat()))));
        let body = StreamBody::new(frames);
        with_type(StatusCode::OK, UnsyncBoxBody::new(body))
    }
}

fn json(code: StatusCode, body: Bytes) -> Response<Body> {
    with_type(code, UnsyncBoxBody::new(Full::new(body)))
}

fn with_type(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The first name in a body.
fn name(body: &[u8]) -> &str {
    let start = memchr::memmem::find(body, br#""name":""#).map_or(0, |at| at + 8);
    let length = memchr::memchr(b'"', &body[start..]).unwrap_or(0);
    std::str::from_utf8(&body[start..start + length]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_name_it_answers() {
        assert_eq!(name(bodies::config_map("some-7").as_bytes()), "some-7");
        assert_eq!(name(b"{}"), "");
    }
}
