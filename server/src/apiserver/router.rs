//! The shell: from an HTTP request to a verb and back.
//!
//! In this order, for every request alike: bounds, whose cluster, who asks, what is asked, may they, does it exist, is the
//! verb known; only then is a body read. Whatever goes wrong on the way, a panic included, is answered as a `Status`.

use super::answer::{self, Form};
use super::api::{self, Api, Context};
use super::authorize::{self, Attributes, Decision, NoScope};
use super::body::Budget;
use super::decisions;
use super::discovery;
use super::frames::Frames;
use super::heavy::Heavy;
use super::metrics::{self, Endpoint, Requests};
use super::negotiate::{self, Encoding};
use super::openapi;
use super::request::{self, Query};
use super::serve;
use crate::accounts::{Authenticator, Identity, Who};
use crate::apiserver::errors;
use crate::store::Store;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use futures::FutureExt;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, ETAG, IF_NONE_MATCH, USER_AGENT, VARY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use longshore_api::meta::GroupResource;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Longer ones a client may send are replaced by our own.
const AUDIT_ID_LIMIT: usize = 64;
/// Path and query together. Kubernetes's own clients stay far below it.
const URI_LIMIT: usize = 32 * 1024;
/// What `/version` says: the Kubernetes whose API this is.
const MINOR: &str = "37";

/// All that a request needs, shared.
pub struct Shell<A> {
    pub(super) api: Api,
    authenticator: Arc<A>,
    store: Store,
    pub(super) budget: Budget,
    pub(super) heavy: Heavy,
    pub(super) frames: Arc<Frames>,
}

impl<A> Clone for Shell<A> {
    fn clone(&self) -> Self {
        Self {
            api: self.api.clone(),
            authenticator: self.authenticator.clone(),
            store: self.store.clone(),
            budget: self.budget.clone(),
            heavy: self.heavy.clone(),
            frames: self.frames.clone(),
        }
    }
}

/// Marks a request that came through a cluster's own address (`kubernetes.default.svc`): its paths have no prefix.
#[derive(Clone, Debug)]
pub struct InCluster(pub ClusterId);

/// Everything below `/clusters/{cluster}`; and the same without a prefix for requests that carry [`InCluster`] among their
/// extensions.
pub fn router<A: Authenticator>(api: Api, authenticator: Arc<A>, store: Store) -> Router {
    let shell =
        Shell { api, authenticator, store, budget: Budget::default(), heavy: Heavy::default(), frames: Arc::default() };
    Router::new().fallback(handle::<A>).with_state(shell)
}

/// A request whose asker is known and allowed.
pub(super) struct Call {
    pub cx: Context,
    pub asked: Attributes,
    pub query: Query,
    pub parts: Parts,
    pub form: Form,
}

async fn handle<A: Authenticator>(State(shell): State<Shell<A>>, request: Request) -> Response<Body> {
    let audit_id = audit_id(&request);
    let encoding = error_encoding(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let answered = AssertUnwindSafe(shell.run(request, &audit_id)).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => answer::error(&status, encoding),
        Err(_) => {
            tracing::error!(%method, path, audit_id, "a request panicked: {method} {path} ({audit_id})");
            answer::error(&Status::internal("the request could not be served"), encoding)
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&audit_id) {
        headers.insert(AUDIT_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

fn header<'a>(parts: &'a Parts, name: &HeaderName) -> &'a str {
    parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

fn audit_id(request: &Request) -> String {
    let given = request.headers().get(AUDIT_ID).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match given.len() {
        1..=AUDIT_ID_LIMIT if given.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => given.into(),
        _ => api::random_uuid(),
    }
}

fn error_encoding(request: &Request) -> Encoding {
    let accept = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    negotiate::plain(accept).unwrap_or_default()
}

/// All `Accept` headers as one.
fn accept(parts: &Parts) -> String {
    let all: Vec<&str> = parts.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    all.join(",")
}

/// Which cluster, and the path below its base.
fn place(parts: &Parts) -> Result<(ClusterId, String), Status> {
    let path = parts.uri.path();
    if let Some(InCluster(cluster)) = parts.extensions.get::<InCluster>() {
        return Ok((cluster.clone(), path.into()));
    }
    let rest = path.strip_prefix("/clusters/").ok_or_else(Status::no_such_path)?;
    let (cluster, below) = rest.split_once('/').unwrap_or((rest, ""));
    match cluster {
        "" => Err(Status::no_such_path()),
        cluster => Ok((ClusterId::new(cluster), format!("/{below}"))),
    }
}

impl<A: Authenticator> Shell<A> {
    async fn run(&self, request: Request, audit_id: &str) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        if parts.uri.path_and_query().is_some_and(|p| p.as_str().len() > URI_LIMIT) {
            return Err(Status::failure(414, "RequestURITooLong", "the request's URI is too long"));
        }
        let (cluster, path) = place(&parts)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let identity = self.authenticator.authenticate(&cluster, &parts).await?;
        let asked = request::attributes(&parts.method, &path, &query)?;
        if !asked.is_resource {
            allow(&identity, &asked, &NoScope)?;
            return self.document(&parts, &query, &cluster, &asked, &identity).await;
        }
        // Nobody without a name makes a cluster load, or learns what it has.
        if identity.who == Who::Anonymous {
            return Err(forbidden(&identity, &asked, ""));
        }
        let target = serve::target(&self.api, &asked)?;
        let cluster = self.store.cluster(&cluster).await.map_err(errors::store)?;
        cluster.touch();
        allow(&identity, decisions::as_pod(&asked).as_ref().unwrap_or(&asked), &cluster)?;
        let mut encoding = Encoding::Json;
        if query.has("pretty") && query.flag("pretty") {
            encoding = Encoding::PrettyJson;
        }
        let form = Form { encoding, gzip: negotiate::takes_gzip(header(&parts, &ACCEPT_ENCODING)) };
        let cx = Context {
            cluster,
            identity,
            request_id: audit_id.into(),
            user_agent: header(&parts, &USER_AGENT).into(),
            field_manager: field_manager(&query, &parts),
            now: Timestamp::now(),
        };
        let (requests, endpoint) = (cx.cluster.companion::<Requests>(), Endpoint::of(&asked));
        let begun = Instant::now();
        let answered = self.serve(Call { cx, asked, query, parts, form }, target, body).await;
        let code = match &answered {
            Ok(response) => response.status(),
            Err(status) => StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        requests.note(endpoint, code, begun.elapsed());
        answered
    }

    /// Paths that name no resource: discovery, health, version, OpenAPI.
    async fn document(
        &self,
        parts: &Parts,
        query: &Query,
        cluster: &ClusterId,
        asked: &Attributes,
        identity: &Identity,
    ) -> Result<Response<Body>, Status> {
        let accept = accept(parts);
        let path = asked.path.trim_end_matches('/');
        if !matches!(asked.verb.as_str(), "get" | "head") {
            return Err(Status::method_not_allowed());
        }
        match path {
            "/healthz" | "/livez" | "/readyz" => {
                let store = match identity.who {
                    Who::Anonymous => None,
                    _ => Some(self.store.cluster(cluster).await.is_ok()),
                };
                return Ok(health(&path[1..], query.has("verbose"), store));
            }
            "/version" => return Ok(answer::value(StatusCode::OK, &version(), negotiate::plain(&accept)?)),
            "" => {
                let paths: Vec<String> = root_paths(&self.api);
                return Ok(answer::value(StatusCode::OK, &json!({"paths": paths}), negotiate::plain(&accept)?));
            }
            "/metrics" => {
                let loaded = self.store.cluster(cluster).await.map_err(errors::store)?;
                return Ok(metrics::page(&loaded, self.api.nodes.connected(cluster)).answer());
            }
            "/.well-known/openid-configuration" => {
                let published = self.api.tokens.publication(cluster).await?;
                return Ok(published_for_an_hour("application/json", &published.configuration));
            }
            "/openid/v1/jwks" => {
                let published = self.api.tokens.publication(cluster).await?;
                return Ok(published_for_an_hour("application/jwk-set+json", &published.keys));
            }
            _ => {}
        }
        if path.starts_with("/openapi/") {
            return openapi::serve(path, parts).ok_or_else(Status::no_such_path);
        }
        if path == "/api" || path == "/apis" || path.starts_with("/api/") || path.starts_with("/apis/") {
            let (encoding, form) = negotiate::discovery(&accept)?;
            let document = discovery::document(self.api.registry, path, form).ok_or_else(Status::no_such_path)?;
            let mut response = tagged(parts, answer::value(StatusCode::OK, &document, encoding), &document.to_string());
            if form == negotiate::DiscoveryForm::Aggregated {
                let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
                response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
            return Ok(response);
        }
        Err(Status::no_such_path())
    }
}

/// Who wrote a field, where nobody says: the program's name, as Kubernetes takes it from the user agent.
fn field_manager(query: &Query, parts: &Parts) -> String {
    match query.text("fieldManager") {
        "" => header(parts, &USER_AGENT).split('/').next().unwrap_or_default().into(),
        name => name.into(),
    }
}

pub(super) fn allow(identity: &Identity, asked: &Attributes, scope: &dyn authorize::NodeScope) -> Result<(), Status> {
    match authorize::authorize(identity, asked, scope) {
        Decision::Allow => Ok(()),
        Decision::Deny(why) => Err(forbidden(identity, asked, &why)),
    }
}

fn forbidden(identity: &Identity, asked: &Attributes, why: &str) -> Status {
    let message = authorize::refusal(identity, asked, why);
    match asked.is_resource {
        true => Status::forbidden(&GroupResource::new(&asked.group, &asked.resource), &asked.name, &message),
        false => Status::failure(403, "Forbidden", format!("forbidden: {message}")),
    }
}

/// The answer, or 304 where the client has it already.
fn tagged(parts: &Parts, mut response: Response<Body>, content: &str) -> Response<Body> {
    let tag = format!("\"{}\"", hex::encode_upper(&Sha256::digest(content)[..16]));
    let known = header(parts, &IF_NONE_MATCH).split(',').any(|t| t.trim() == tag);
    if known {
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

/// As Kubernetes's service account issuer answers.
fn published_for_an_hour(content_type: &'static str, document: &serde_json::Value) -> Response<Body> {
    let mut response = answer::with_type(StatusCode::OK, content_type, Body::from(document.to_string()));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

fn health(name: &str, verbose: bool, store: Option<bool>) -> Response<Body> {
    let mut checks = vec![("ping", true)];
    checks.extend(store.map(|ok| ("store", ok)));
    let ok = checks.iter().all(|(_, ok)| *ok);
    if ok && !verbose {
        return answer::text(StatusCode::OK, "ok");
    }
    let mut text: String = checks
        .iter()
        .map(|(check, ok)| match ok {
            true => format!("[+]{check} ok\n"),
            false => format!("[-]{check} failed: reason withheld\n"),
        })
        .collect();
    text.push_str(&format!("{name} check {}\n", if ok { "passed" } else { "failed" }));
    answer::text(if ok { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, text)
}

fn version() -> serde_json::Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+longshore-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other }),
    })
}

fn root_paths(api: &Api) -> Vec<String> {
    let mut paths = vec!["/api".to_string(), "/api/v1".into(), "/apis".into()];
    for (group, version) in discovery::group_versions(api.registry).into_iter().filter(|(g, _)| !g.is_empty()) {
        paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
    }
    let others = ["/healthz", "/livez", "/metrics", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"];
    paths.push("/.well-known/openid-configuration".into());
    paths.extend(others.map(String::from));
    paths.dedup();
    paths
}

/// All `Accept` headers, for those who answer objects.
pub(super) fn accept_of(parts: &Parts) -> String {
    accept(parts)
}
