//! `/v1/…`: sessions, tokens, clusters, join tokens, kubeconfigs. Parses, asks [`Accounts`], answers; errors are `Status` objects.

use super::authenticate::SESSION_COOKIE;
use super::{Accounts, Authenticator, Identity, password};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use longshore_api::Status;
use longshore_api::accounts as shapes;
use longshore_api::ids::ClusterId;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::Arc;

/// Nothing here takes more than a few hundred bytes.
const LARGEST_BODY: usize = 64 * 1024;

type Shared = State<Arc<Accounts>>;

/// Everything below `/v1` but the stream.
pub fn router(accounts: Arc<Accounts>) -> Router {
    Router::new()
        .route("/v1/session", get(session_get).post(session_create).delete(session_delete))
        .route("/v1/tokens", post(token_create))
        .route("/v1/stream/tickets", post(ticket_create))
        .route("/v1/clusters", post(cluster_create))
        .route("/v1/clusters/{cluster}/join-tokens", post(join_token_create))
        .route("/v1/clusters/{cluster}/kubeconfig", get(kubeconfig_get))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(accounts)
}

/// A `Status` as an answer: the one place where the account API's errors become HTTP.
pub struct Failure(pub Status);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, [(CACHE_CONTROL, "no-store")], Json(self.0)).into_response()
    }
}

type Answer = Result<Response, Failure>;

fn answer(code: StatusCode, body: impl serde::Serialize) -> Response {
    (code, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let parsed = Json::<T>::from_request(request, &()).await;
    parsed.map(|Json(value)| value).map_err(|rejection| Failure(Status::bad_request(rejection.body_text())))
}

/// A browser says where a request comes from: a sign-in form on a foreign page gets nothing.
fn same_origin(parts: &Parts) -> Result<(), Failure> {
    let Some(origin) = parts.headers.get(ORIGIN).and_then(|o| o.to_str().ok()) else { return Ok(()) };
    let host = parts.headers.get(HOST).and_then(|h| h.to_str().ok()).or(parts.uri.authority().map(|a| a.as_str()));
    let from = origin.split_once("://").map(|(_, host)| host);
    if from.is_some() && from == host {
        Ok(())
    } else {
        Err(Failure(Status::failure(403, "Forbidden", "cross-origin request")))
    }
}

fn cookie(secret: String, secure: bool) -> Cookie<'static> {
    Cookie::build((SESSION_COOKIE, secret)).path("/").http_only(true).secure(secure).same_site(SameSite::Lax).build()
}

fn is_secure(parts: &Parts) -> bool {
    parts.extensions.get::<crate::process::listener::Peer>().is_none_or(|peer| peer.tls)
}

async fn session_create(State(accounts): Shared, jar: CookieJar, request: Request) -> Answer {
    let (parts, rest) = request.into_parts();
    same_origin(&parts)?;
    let secure = is_secure(&parts);
    let given: shapes::SignIn = body(Request::from_parts(parts, rest)).await?;
    let signed_in = accounts.sign_in(&given.email, &given.password).await?;
    let jar = jar.add(cookie(signed_in.secret, secure));
    Ok((jar, answer(StatusCode::CREATED, signed_in.session)).into_response())
}

async fn session_get(State(accounts): Shared, parts: Parts) -> Answer {
    let caller = accounts.signed_in(&parts, false).await?;
    // The answer carries the CSRF token: only a page of ours may read it.
    same_origin(&parts)?;
    Ok(answer(StatusCode::OK, accounts.describe_session(&caller).await?))
}

async fn session_delete(State(accounts): Shared, jar: CookieJar, parts: Parts) -> Answer {
    let caller = accounts.signed_in(&parts, true).await?;
    if let Some(secret) = &caller.session {
        accounts.sign_out(secret).await?;
    }
    let jar = jar.remove(cookie(String::new(), is_secure(&parts)));
    Ok((jar, StatusCode::NO_CONTENT).into_response())
}

async fn token_create(State(accounts): Shared, request: Request) -> Answer {
    let (parts, rest) = request.into_parts();
    let caller = accounts.signed_in(&parts, true).await?;
    let new: shapes::NewApiToken = body(Request::from_parts(parts, rest)).await?;
    Ok(answer(StatusCode::CREATED, accounts.create_api_token(caller.user(), &new).await?))
}

async fn ticket_create(State(accounts): Shared, parts: Parts) -> Answer {
    let caller = accounts.signed_in(&parts, true).await?;
    Ok(answer(StatusCode::CREATED, accounts.issue_ticket(&caller)?))
}

async fn cluster_create(State(accounts): Shared, request: Request) -> Answer {
    let (parts, rest) = request.into_parts();
    let caller = accounts.signed_in(&parts, true).await?;
    let new: shapes::NewCluster = body(Request::from_parts(parts, rest)).await?;
    Ok(answer(StatusCode::CREATED, accounts.create_cluster(caller.user(), &new).await?))
}

/// Who the caller is in the cluster that the path names; nobody is 401.
async fn member(accounts: &Accounts, cluster: &ClusterId, parts: &Parts) -> Result<Identity, Failure> {
    let identity = accounts.authenticate(cluster, parts).await?;
    match identity.who {
        super::Who::Person { .. } => Ok(identity),
        super::Who::Anonymous => Err(Failure(Status::unauthorized())),
        _ => Err(Failure(super::no_such_cluster(cluster))),
    }
}

async fn join_token_create(State(accounts): Shared, Path(cluster): Path<ClusterId>, request: Request) -> Answer {
    let (parts, rest) = request.into_parts();
    let identity = member(&accounts, &cluster, &parts).await?;
    let new: shapes::NewJoinToken = body(Request::from_parts(parts, rest)).await?;
    Ok(answer(StatusCode::CREATED, accounts.create_join_token(&identity, &cluster, &new).await?))
}

/// A kubeconfig with a token of the caller's own, good for a year.
async fn kubeconfig_get(State(accounts): Shared, Path(cluster): Path<ClusterId>, parts: Parts) -> Answer {
    member(&accounts, &cluster, &parts).await?;
    let caller = accounts.signed_in(&parts, true).await?;
    let new = shapes::NewApiToken { name: format!("kubeconfig {}", password::random_id("k")), days: Some(365) };
    let token = accounts.create_api_token(caller.user(), &new).await?.token;
    let text = accounts.kubeconfig(&cluster, "default", caller.email(), &token, accounts.base_url());
    Ok(([(CONTENT_TYPE, "application/yaml"), (CACHE_CONTROL, "no-store")], text).into_response())
}

impl Accounts {
    /// A kubeconfig, as YAML (which JSON is).
    pub fn kubeconfig(&self, cluster: &ClusterId, name: &str, user: &str, token: &str, base_url: &str) -> String {
        let ca = STANDARD.encode(self.authority().certificate_pem());
        let server = format!("{base_url}/clusters/{cluster}");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        });
        serde_yaml::to_string(&config).unwrap_or_default()
    }
}
