//! What is said to the server outside the tunnel: joining, renewing the credential, leaving, and opening the tunnel.
//!
//! Each goes over a connection of its own and carries, once there is one, the credential and a fresh proof of the key.
//! The proof names a time; a machine whose clock is off learns the server's from the refusal's `Date`.

use super::dial::{DialError, Dialed, Endpoint};
use super::identity::{Identity, IdentityError};
use super::trust::Trust;
use super::websocket::{self, Carrier, Speech};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::join_token::JoinToken;
use longshore_api::node::{
    CREDENTIAL_PATH, JOIN_PATH, Join, Joined, PROOF_HEADER, PROOF_TOLERANCE_SECONDS, RELAY_PATH, Renewed, TUNNEL_PATH,
};
use serde::de::DeserializeOwned;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// What an answer may take once the connection stands.
const ANSWER: Duration = Duration::from_secs(20);
/// Addresses of the server that are asked for ours.
const REFLECTORS: usize = 4;
/// No answer here is longer.
const LONGEST: usize = 1 << 20;
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this node has not joined yet, and there is no join token")]
    NotJoined,
    /// The server answered and said no.
    #[error("the server answered {code}: {message}")]
    Refused { code: u16, message: String, date: Option<Timestamp> },
    #[error("{0}")]
    Broken(String),
}

impl ExchangeError {
    /// Whether the server (or we, the server) is not wanted: nothing that trying again soon would change.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { code, .. } => (400..=499).contains(code) && *code != 429,
            Self::NotJoined => true,
            Self::Dial(error) => error.is_refusal(),
            _ => false,
        }
    }

    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { code: 401, .. })
    }
}

fn broken(error: impl std::fmt::Display) -> ExchangeError {
    ExchangeError::Broken(error.to_string())
}

/// How far the server's clock is ahead of ours, in seconds; zero until it had to be learned.
#[derive(Debug, Default)]
pub struct Clock(AtomicI64);

impl Clock {
    fn now(&self) -> i64 {
        Timestamp::now().as_second() + self.0.load(Ordering::Relaxed)
    }

    /// Takes the server's word; true when that is news.
    fn learn(&self, date: Timestamp) -> bool {
        let off = date.as_second() - self.now();
        // A second or two are the rounding of `Date` and the way here.
        let news = off.abs() > PROOF_TOLERANCE_SECONDS / 4;
        if news {
            let ahead = self.0.fetch_add(off, Ordering::Relaxed) + off;
            tracing::warn!(
                seconds = ahead,
                "this machine's clock is off by {ahead} s; the server's is used for proofs"
            );
        }
        news
    }
}

/// An open WebSocket to the tunnel's end, and the address of this machine that it leaves from.
pub struct Carried {
    pub carrier: Carrier,
    pub local: Option<IpAddr>,
}

/// One node's way to speak to its server outside the tunnel.
pub struct Exchange {
    identity: Arc<Identity>,
    clock: Clock,
}

impl Exchange {
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, clock: Clock::default() }
    }

    /// Joins with `token` under the identity's key and notes what that gave.
    pub async fn join(&self, token: &JoinToken) -> Result<Joined, ExchangeError> {
        let trust = self.identity.trusted().map_or_else(|| Trust::Pin(token.pin.clone()), Trust::Roots);
        let join = Join {
            token: token.to_string(),
            name: self.identity.name(),
            public_key: self.identity.public_key(),
            agent_version: VERSION.into(),
        };
        let body = serde_json::to_vec(&join).map_err(broken)?;
        let joined: Joined = self.request(&trust, Method::POST, JOIN_PATH, HeaderMap::new(), body).await?;
        if joined.cluster != token.cluster {
            return Err(broken("the server answered for another cluster than the token's"));
        }
        // A node that joins again must be the node that it was: its containers and its Node object carry its id.
        if let Some((cluster, node)) = self.identity.ids()
            && (cluster != joined.cluster || node != joined.node)
        {
            let message = "this node's identity was revoked; `longshore-agent leave` forgets it".to_string();
            return Err(ExchangeError::Refused { code: 401, message, date: None });
        }
        self.identity.joined(joined.clone(), Timestamp::now())?;
        Ok(joined)
    }

    /// Gets a fresh credential and notes it.
    pub async fn renew(&self) -> Result<(), ExchangeError> {
        let attempt = |trust: Trust, headers| async move {
            self.request(&trust, Method::POST, CREDENTIAL_PATH, headers, Vec::new()).await
        };
        let renewed: Renewed = self.authorized(CREDENTIAL_PATH, attempt).await?;
        Ok(self.identity.renewed(renewed, Timestamp::now())?)
    }

    /// Gives the identity up: the server revokes it, and the node's name is free again.
    pub async fn resign(&self) -> Result<(), ExchangeError> {
        let attempt = |trust: Trust, headers| async move {
            self.request(&trust, Method::DELETE, CREDENTIAL_PATH, headers, Vec::new()).await
        };
        let _: serde::de::IgnoredAny = self.authorized(CREDENTIAL_PATH, attempt).await?;
        Ok(())
    }

    /// Opens the tunnel's WebSocket.
    pub async fn open(&self) -> Result<Carried, ExchangeError> {
        self.authorized(TUNNEL_PATH, |trust, headers| self.open_with(websocket::TUNNEL, trust, headers)).await
    }

    /// Opens the WebSocket of relayed packets; the tunnel stands by then.
    pub async fn open_relay(&self) -> Result<Carrier, ExchangeError> {
        let open = |trust, headers| self.open_with(websocket::RELAY, trust, headers);
        Ok(self.authorized(RELAY_PATH, open).await?.carrier)
    }

    /// Where the server tells by UDP what address one has: at its own port, if anywhere. Empty while its name has no address.
    pub async fn reflectors(&self) -> Vec<SocketAddr> {
        let Ok(endpoint) = Endpoint::from_environment(&self.identity.server()) else { return Vec::new() };
        let found = tokio::time::timeout(ANSWER, tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)));
        found.await.ok().and_then(Result::ok).map(|found| found.take(REFLECTORS).collect()).unwrap_or_default()
    }

    async fn open_with(&self, speech: Speech, trust: Trust, headers: HeaderMap) -> Result<Carried, ExchangeError> {
        let endpoint = Endpoint::from_environment(&self.identity.server())?;
        let Dialed { stream, local } = endpoint.dial(&trust).await?;
        let authority = endpoint.authority();
        let opening = websocket::open(stream, &authority, speech, headers);
        match tokio::time::timeout(ANSWER, opening).await.map_err(|_| broken("no answer in time"))? {
            Ok(carrier) => Ok(Carried { carrier, local }),
            Err(websocket::OpenError::Answered(response)) => {
                let (parts, body) = response.into_parts();
                Err(refusal(parts.status.as_u16(), &parts.headers, &body.unwrap_or_default()))
            }
            Err(websocket::OpenError::Failed(why)) => Err(broken(why)),
        }
    }

    /// Tries with credential and proof, and once more when the refusal tells that our clock was the matter.
    async fn authorized<T, F>(&self, path: &str, attempt: impl Fn(Trust, HeaderMap) -> F) -> Result<T, ExchangeError>
    where
        F: Future<Output = Result<T, ExchangeError>>,
    {
        let trust = self.identity.trusted().map(Trust::Roots).ok_or(ExchangeError::NotJoined)?;
        let first = attempt(trust.clone(), self.credentials(path)?).await;
        match first {
            Err(ExchangeError::Refused { code: 401, date: Some(date), .. }) if self.clock.learn(date) => {
                attempt(trust, self.credentials(path)?).await
            }
            other => other,
        }
    }

    fn credentials(&self, path: &str) -> Result<HeaderMap, ExchangeError> {
        let credential = self.identity.membership().ok_or(ExchangeError::NotJoined)?.credential;
        let proof = self.identity.prove(path, &credential, self.clock.now());
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {credential}")).map_err(broken)?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(PROOF_HEADER, HeaderValue::from_str(&proof.to_string()).map_err(broken)?);
        Ok(headers)
    }

    /// One request on a connection of its own; a JSON answer.
    async fn request<T: DeserializeOwned>(
        &self,
        trust: &Trust,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<T, ExchangeError> {
        let endpoint = Endpoint::from_environment(&self.identity.server())?;
        let stream = endpoint.dial(trust).await?.stream;
        let answered = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
            let mut request = Request::new(Full::new(Bytes::from(body)));
            *request.method_mut() = method;
            *request.uri_mut() = path.parse().map_err(broken)?;
            *request.headers_mut() = headers;
            let host = HeaderValue::from_str(&endpoint.authority()).map_err(broken)?;
            request.headers_mut().insert(header::HOST, host);
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(broken)?.to_bytes();
            match parts.status.is_success() {
                // No content is as good as an empty answer.
                true if body.is_empty() => serde_json::from_slice(b"null").map_err(broken),
                true => serde_json::from_slice(&body).map_err(broken),
                false => Err(refusal(parts.status.as_u16(), &parts.headers, &body)),
            }
        };
        tokio::time::timeout(ANSWER, answered).await.unwrap_or_else(|_| Err(broken("no answer in time")))
    }
}

fn refusal(code: u16, headers: &HeaderMap, body: &[u8]) -> ExchangeError {
    let message = match serde_json::from_slice::<Status>(body) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
            if text.is_empty() { "no reason given".into() } else { text }
        }
    };
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
    ExchangeError::Refused { code, message, date }
}

/// RFC 9110's preferred form, `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_and_when() {
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        let status = serde_json::to_vec(&Status::unauthorized()).unwrap();
        let ExchangeError::Refused { code, message, date } = refusal(401, &headers, &status) else { panic!() };
        assert_eq!((code, message.as_str(), date), (401, "Unauthorized", Timestamp::from_second(784_111_777).ok()));
        let error = refusal(502, &HeaderMap::new(), b"<html>bad gateway</html>");
        assert_eq!(error.to_string(), "the server answered 502: <html>bad gateway</html>");
        assert!(!error.is_refusal() && refusal(403, &HeaderMap::new(), b"").is_refusal());
    }

    #[test]
    fn a_clock_that_is_off_is_set_once() {
        let clock = Clock::default();
        let server = Timestamp::now() + jiff::SignedDuration::from_hours(5);
        assert!(clock.learn(server));
        assert!(!clock.learn(server), "a refusal for another reason is no reason to try again");
        assert!((clock.now() - server.as_second()).abs() <= 1);
    }
}
