//! From a request's head to an [`Identity`].
//!
//! Bearer tokens are people's API tokens or service accounts' JWTs; cookies count only beside the CSRF header. A node's
//! credential opens nothing here: a node speaks through its tunnel, which it opened with a proof that it holds its key. People's credentials are looked up in Postgres and remembered for a moment, so that a client with many
//! requests a second does not ask a thousand times a second; what is remembered ends with signing out on this replica
//! and after [`REMEMBERED`] on the others.

use super::identity::{Authenticator, Identity};
use super::records::{self, CallerRow};
use super::tickets::TicketHolder;
use super::{Accounts, no_such_cluster, password, unavailable};
use crate::store::Key;
use axum_extra::extract::CookieJar;
use http::header::AUTHORIZATION;
use http::request::Parts;
use longshore_api::Status;
use longshore_api::accounts as shapes;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

pub const API_TOKEN_PREFIX: &str = "lsp_";
pub const SESSION_COOKIE: &str = "longshore_session";
pub const CSRF_HEADER: &str = "x-longshore-csrf";

/// How long a looked-up credential is trusted without asking again.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Remembered credentials at once; a few hundred bytes each.
const REMEMBERED_MOST: usize = 20_000;

/// Remembered look-ups of people's credentials, by digest and cluster.
#[derive(Default)]
pub struct Callers(Mutex<HashMap<(Vec<u8>, ClusterId), (Instant, CallerRow)>>);

impl Callers {
    fn get(&self, digest: &[u8], cluster: &ClusterId) -> Option<CallerRow> {
        let known = self.0.lock();
        let (at, row) = known.get(&(digest.to_vec(), cluster.clone()))?;
        (at.elapsed() < REMEMBERED).then(|| row.clone())
    }

    fn put(&self, digest: Vec<u8>, cluster: ClusterId, row: CallerRow) {
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED_MOST {
            known.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
        if known.len() < REMEMBERED_MOST {
            known.insert((digest, cluster), (Instant::now(), row));
        }
    }

    /// Forgets all: someone signed out or lost a right.
    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

/// A credential of a person, as it came.
enum Credential<'a> {
    ApiToken(&'a str),
    Session { secret: &'a str, csrf: Csrf<'a> },
}

enum Csrf<'a> {
    MustBe(&'a str),
    /// A WebSocket's ticket has shown already that the page itself asked.
    Shown,
}

impl Authenticator for Accounts {
    async fn authenticate(&self, cluster: &ClusterId, parts: &Parts) -> Result<Identity, Status> {
        // The gateway knows who is at the other end of a tunnel. Extensions never come from the network.
        if let Some(identity) = parts.extensions.get::<Identity>() {
            return Ok(identity.clone());
        }
        if let Some(header) = parts.headers.get(AUTHORIZATION) {
            let token = header.to_str().ok().and_then(bearer).ok_or_else(Status::unauthorized)?;
            return match token.starts_with(API_TOKEN_PREFIX) {
                true => self.person(cluster, Credential::ApiToken(token)).await,
                false => self.signed_token(cluster, token).await,
            };
        }
        let jar = CookieJar::from_headers(&parts.headers);
        let Some(cookie) = jar.get(SESSION_COOKIE) else { return Ok(Identity::anonymous()) };
        let csrf = parts.headers.get(CSRF_HEADER).and_then(|v| v.to_str().ok()).ok_or_else(missing_csrf)?;
        self.person(cluster, Credential::Session { secret: cookie.value(), csrf: Csrf::MustBe(csrf) }).await
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
}

fn missing_csrf() -> Status {
    Status::failure(403, "Forbidden", format!("a request that rests on a cookie needs the header {CSRF_HEADER}"))
}

impl Accounts {
    async fn person(&self, cluster: &ClusterId, credential: Credential<'_>) -> Result<Identity, Status> {
        let caller = self.caller(cluster, credential).await?;
        // Not a member: the cluster does not exist, as far as this caller may learn.
        let role = caller.role.ok_or_else(|| no_such_cluster(cluster))?;
        Ok(Identity::person(caller.person.user, &caller.person.email, role))
    }

    async fn caller(&self, cluster: &ClusterId, credential: Credential<'_>) -> Result<CallerRow, Status> {
        let digest = match &credential {
            Credential::ApiToken(secret) | Credential::Session { secret, .. } => password::digest(secret),
        };
        let caller = match self.callers.get(&digest, cluster) {
            Some(row) => row,
            None => {
                let row = match &credential {
                    Credential::ApiToken(_) => records::caller_by_api_token(&self.pool, &digest, cluster).await,
                    Credential::Session { .. } => records::caller_by_session(&self.pool, &digest, cluster).await,
                };
                let row = row.map_err(unavailable)?.ok_or_else(Status::unauthorized)?;
                self.callers.put(digest, cluster.clone(), row.clone());
                row
            }
        };
        match credential {
            Credential::Session { csrf: Csrf::MustBe(csrf), .. } if caller.csrf.as_deref() != Some(csrf) => {
                Err(missing_csrf())
            }
            _ => Ok(caller),
        }
    }

    /// A JWT: whose it is shows which of the cluster's keys signed it.
    async fn signed_token(&self, cluster: &ClusterId, token: &str) -> Result<Identity, Status> {
        let keys = match self.cluster_keys(cluster).await {
            Err(status) if status.code == 404 => return Err(Status::unauthorized()),
            other => other?,
        };
        let claims = keys.verify_service_account(token).ok_or_else(Status::unauthorized)?;
        let bound = claims.kubernetes;
        let store = self.store.cluster(cluster).await.map_err(|_| Status::unavailable("the cluster is not loaded"))?;
        // A token dies with its account, its pod or its secret: each must still be the one it was made for.
        let references = [
            Some(("serviceaccounts", &bound.serviceaccount)),
            bound.pod.as_ref().map(|pod| ("pods", pod)),
            bound.secret.as_ref().map(|secret| ("secrets", secret)),
        ];
        for (resource, reference) in references.into_iter().flatten() {
            let key = Key {
                resource: resource.into(),
                namespace: bound.namespace.as_str().into(),
                name: reference.name.as_str().into(),
            };
            let found = store.get(&key).map_err(|error| Status::unavailable(error.to_string()))?;
            if found.is_none_or(|object| *object.uid != *reference.uid) {
                return Err(Status::unauthorized());
            }
        }
        let pod = bound.pod.map(|pod| (pod.name, pod.uid));
        let account = bound.serviceaccount;
        Ok(Identity::service_account(&bound.namespace, &account.name, &account.uid, pod))
    }

    /// Who is signed in: for `/v1`, where no cluster is named. With a cookie the CSRF header is needed when `changes`.
    pub async fn signed_in(&self, parts: &Parts, changes: bool) -> Result<CallerOutside, Status> {
        let nowhere = ClusterId::new("");
        if let Some(token) = parts.headers.get(AUTHORIZATION) {
            let token = token.to_str().ok().and_then(bearer).ok_or_else(Status::unauthorized)?;
            let caller = self.caller(&nowhere, Credential::ApiToken(token)).await?;
            return Ok(CallerOutside { caller, session: None });
        }
        let jar = CookieJar::from_headers(&parts.headers);
        let secret = jar.get(SESSION_COOKIE).map(|c| c.value().to_string()).ok_or_else(Status::unauthorized)?;
        let given = parts.headers.get(CSRF_HEADER).and_then(|v| v.to_str().ok());
        let csrf = match (changes, given) {
            (true, given) => Csrf::MustBe(given.ok_or_else(missing_csrf)?),
            (false, _) => Csrf::Shown,
        };
        let caller = self.caller(&nowhere, Credential::Session { secret: &secret, csrf }).await?;
        Ok(CallerOutside { caller, session: Some(secret) })
    }

    /// The session as the page sees it.
    pub async fn describe_session(&self, caller: &CallerOutside) -> Result<shapes::Session, Status> {
        let row = &caller.caller;
        self.session(row.person.clone(), row.csrf.clone().unwrap_or_default()).await
    }

    /// A one-use ticket for a WebSocket of this session.
    pub fn issue_ticket(&self, caller: &CallerOutside) -> Result<shapes::StreamTicket, Status> {
        let secret = caller.session.as_ref().ok_or_else(|| Status::bad_request("a ticket is for a session"))?;
        let holder = TicketHolder { session: secret.clone() };
        let ticket = self.tickets.issue(holder);
        let ticket = ticket.ok_or_else(|| Status::too_many_requests("too many tickets are open", 1))?;
        Ok(shapes::StreamTicket { ticket })
    }

    /// Takes a ticket; what it opened is then asked about for each cluster it names ([`Accounts::ticket_identity`]).
    pub fn redeem_ticket(&self, ticket: &str) -> Result<TicketHolder, Status> {
        self.tickets.redeem(ticket).ok_or_else(Status::unauthorized)
    }

    /// Who a redeemed ticket's holder is in `cluster`, now: signing out or losing a role takes effect at once.
    pub async fn ticket_identity(&self, cluster: &ClusterId, holder: &TicketHolder) -> Result<Identity, Status> {
        self.person(cluster, Credential::Session { secret: &holder.session, csrf: Csrf::Shown }).await
    }
}

/// Somebody who is signed in, before any cluster is named.
pub struct CallerOutside {
    pub(super) caller: CallerRow,
    /// The cookie's secret; none with an API token.
    pub(super) session: Option<String>,
}

impl CallerOutside {
    pub fn user(&self) -> &longshore_api::ids::UserId {
        &self.caller.person.user
    }
    pub fn email(&self) -> &str {
        &self.caller.person.email
    }
}

impl crate::apiserver::TokenIssuer for Accounts {
    fn issue<'a>(
        &'a self,
        cluster: &'a ClusterId,
        spec: crate::apiserver::TokenSpec,
    ) -> futures::future::BoxFuture<'a, Result<crate::apiserver::IssuedToken, Status>> {
        Box::pin(async move { self.cluster_keys(cluster).await?.issue_service_account(spec) })
    }

    fn publication<'a>(
        &'a self,
        cluster: &'a ClusterId,
    ) -> futures::future::BoxFuture<'a, Result<crate::apiserver::Publication, Status>> {
        Box::pin(async move {
            let keys = self.cluster_keys(cluster).await?;
            Ok(crate::apiserver::Publication { configuration: keys.openid_configuration(), keys: keys.jwks() })
        })
    }
}

impl crate::cluster::RootCa for Accounts {
    fn root_ca<'a>(&'a self, cluster: &'a ClusterId) -> futures::future::BoxFuture<'a, Result<String, Status>> {
        Box::pin(async move { Ok(self.cluster_keys(cluster).await?.authority().certificate_pem().to_string()) })
    }
}
