//! WebSockets between the versions of HTTP: an upgrade in HTTP/1.1 (RFC 6455), an extended `CONNECT` in HTTP/2 (RFC 8441).
//!
//! Whatever the two ends speak, each has the handshake of its own version. The key is HTTP/1.1's alone: it proves that the
//! other end has understood, which in HTTP/2 its settings do. So it is made here for an endpoint whose client has none, and
//! answered here for a client whose endpoint has none. What is agreed on besides (version, protocols, extensions) passes as
//! it is, and so do the bytes.

use super::headers;
use super::target::Refusal;
use super::upstream::{Http2, drive};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::Protocol;
use rand::Rng;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

const WEBSOCKET: &str = "websocket";
/// RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An endpoint that hasn't announced it by then won't.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(1);
const LOOKED_EVERY: Duration = Duration::from_millis(2);

/// A tunnel that a client asks for, by the handshakes of its two ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// An upgrade on both sides, whatever to, which the endpoint agrees to or doesn't.
    Upgrade(HeaderValue),
    /// From HTTP/2 to HTTP/1.1: what the endpoint must answer to our key.
    ToUpgrade { accept: String },
    /// From HTTP/1.1 to HTTP/2: what the client is answered to its key.
    ToConnect { accept: String },
    /// HTTP/2 on both sides.
    Connect,
}

/// Whether a request is an extended `CONNECT`; it is a `GET` from then on, as its HTTP/1.1's is.
pub fn by_connect(parts: &mut Parts) -> Result<bool, Refusal> {
    let Some(protocol) = parts.extensions.remove::<Protocol>().filter(|_| parts.method == Method::CONNECT) else {
        return Ok(false);
    };
    if !protocol.as_str().eq_ignore_ascii_case(WEBSOCKET) {
        return Err((StatusCode::NOT_IMPLEMENTED, "only WebSockets can be connected to"));
    }
    parts.method = Method::GET;
    Ok(true)
}

impl Tunnel {
    /// None: the request is one like others. `connect`: as [`by_connect`] says; `http2`: the endpoint speaks it.
    pub fn asked(parts: &mut Parts, connect: bool, http2: bool) -> Option<Self> {
        let headers = &mut parts.headers;
        if connect {
            headers.remove(SEC_WEBSOCKET_KEY);
            if http2 {
                return Some(Self::Connect);
            }
            let key = STANDARD.encode(rand::rng().random::<[u8; 16]>());
            let accept = accept(key.as_bytes());
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).ok()?);
            return Some(Self::ToUpgrade { accept });
        }
        let upgrade = headers::upgrade(headers).filter(|_| parts.version == Version::HTTP_11)?;
        if !http2 {
            return Some(Self::Upgrade(upgrade));
        }
        if parts.method != Method::GET || !is_websocket(&upgrade) {
            return None;
        }
        let key = headers.remove(SEC_WEBSOCKET_KEY)?;
        Some(Self::ToConnect { accept: accept(key.as_bytes()) })
    }

    /// What the endpoint is asked to upgrade to, if it is.
    pub fn upgrade(&self) -> Option<HeaderValue> {
        match self {
            Self::Upgrade(protocol) => Some(protocol.clone()),
            Self::ToUpgrade { .. } => Some(HeaderValue::from_static(WEBSOCKET)),
            Self::ToConnect { .. } | Self::Connect => None,
        }
    }

    /// The `:protocol` that the endpoint is asked for, if it is.
    pub fn protocol(&self) -> Option<Protocol> {
        matches!(self, Self::ToConnect { .. } | Self::Connect).then(|| Protocol::from_static(WEBSOCKET))
    }

    /// Whether the endpoint has agreed.
    pub fn agreed<B>(&self, response: &Response<B>) -> bool {
        let (status, headers) = (response.status(), response.headers());
        match self {
            Self::Upgrade(_) => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::ToUpgrade { accept } => {
                let to = headers.get(UPGRADE).is_some_and(is_websocket);
                let answered =
                    headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|said| said.as_bytes() == accept.as_bytes());
                status == StatusCode::SWITCHING_PROTOCOLS && to && answered
            }
            Self::ToConnect { .. } | Self::Connect => status == StatusCode::OK,
        }
    }

    /// Whether a client would take an answer of this status for an agreement.
    pub fn is_agreement(&self, status: StatusCode) -> bool {
        match self {
            Self::Upgrade(_) | Self::ToConnect { .. } => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::ToUpgrade { .. } | Self::Connect => status.is_success(),
        }
    }

    /// Makes of the endpoint's headers those that tell the client that it agreed, and says with which status.
    pub fn answer(&self, headers: &mut HeaderMap) -> StatusCode {
        let said = headers.get(UPGRADE).cloned();
        headers::strip_hop(headers);
        let to = match self {
            Self::Upgrade(_) => said.unwrap_or(HeaderValue::from_static(WEBSOCKET)),
            Self::ToConnect { accept } => {
                if let Ok(accept) = HeaderValue::try_from(accept) {
                    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                }
                HeaderValue::from_static(WEBSOCKET)
            }
            Self::ToUpgrade { .. } | Self::Connect => {
                headers.remove(SEC_WEBSOCKET_ACCEPT);
                return StatusCode::OK;
            }
        };
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, to);
        StatusCode::SWITCHING_PROTOCOLS
    }
}

fn is_websocket(upgrade: &HeaderValue) -> bool {
    upgrade.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}

fn accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat()))
}

/// Drives a new connection from now on, and answers whether its endpoint takes an extended `CONNECT`: it must say so before
/// one may be sent (RFC 8441 §3), which it does with its first bytes. Nobody is woken by these, so it is looked.
pub async fn announced(connection: Http2, patience: Duration) -> bool {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut connection, mut tell) = (pin!(connection), Some(tell));
        let mut look = tokio::time::interval(LOOKED_EVERY);
        let driven = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            while let Some(asking) = tell.take() {
                if connection.is_extended_connect_protocol_enabled() {
                    // Nobody waits any more, if this fails.
                    let _ = asking.send(());
                } else if !asking.is_closed() {
                    tell = Some(asking);
                    if look.poll_tick(cx).is_pending() {
                        break;
                    }
                }
            }
            polled
        });
        drive(driven).await;
    });
    timeout(patience.min(ANNOUNCED_WITHIN), told).await.is_ok_and(|told| told.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn upgrade(to: &str) -> Parts {
        let asked = Request::get("/").header("connection", "Upgrade").header("upgrade", to);
        parts(asked.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
    }

    fn connect(protocol: &'static str) -> Parts {
        let asked = Request::builder().method(Method::CONNECT).uri("https://a.com/x").version(Version::HTTP_2);
        parts(asked.extension(Protocol::from_static(protocol)).header("sec-websocket-version", "13"))
    }

    #[test]
    fn the_key_is_answered_as_the_rfc_has_it() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_connect_is_a_websocket_or_nothing() {
        let mut asked = connect("websocket");
        assert_eq!((by_connect(&mut asked), &asked.method), (Ok(true), &Method::GET));
        assert_eq!(by_connect(&mut connect("connect-udp")).unwrap_err().0, StatusCode::NOT_IMPLEMENTED);
        let mut plain = parts(Request::connect("a.com:443").version(Version::HTTP_2));
        assert_eq!((by_connect(&mut plain), &plain.method), (Ok(false), &Method::CONNECT));
    }

    #[test]
    fn each_end_has_its_own_handshake() {
        let mut http1 = upgrade("websocket");
        assert_eq!(Tunnel::asked(&mut http1, false, false), Some(Tunnel::Upgrade("websocket".parse().unwrap())));
        assert!(http1.headers.contains_key(SEC_WEBSOCKET_KEY), "its own passes");
        let up = Tunnel::asked(&mut http1, false, true).unwrap();
        assert_eq!(up, Tunnel::ToConnect { accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into() });
        assert!(!http1.headers.contains_key(SEC_WEBSOCKET_KEY), "HTTP/2 has none");
        let mut headers = HeaderMap::new();
        assert_eq!(up.answer(&mut headers), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(Tunnel::asked(&mut http1, false, true), None, "without a key there is nothing to answer");
        assert_eq!(Tunnel::asked(&mut upgrade("other"), false, true), None);

        let mut http2 = connect("websocket");
        http2.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("theirs"));
        let down = Tunnel::asked(&mut http2, true, false).unwrap();
        let Tunnel::ToUpgrade { accept: expected } = &down else { panic!("{down:?}") };
        assert_eq!(&accept(http2.headers[SEC_WEBSOCKET_KEY].as_bytes()), expected);
        assert_eq!(Tunnel::asked(&mut http2, true, true), Some(Tunnel::Connect));
        assert!(!http2.headers.contains_key(SEC_WEBSOCKET_KEY));
    }

    #[test]
    fn only_the_answer_to_our_key_is_an_agreement() {
        let down = Tunnel::ToUpgrade { accept: "right".into() };
        let answer = |status: u16, upgrade: &str, accept: &str| {
            let answer = Response::builder().status(status).header("upgrade", upgrade);
            answer.header("sec-websocket-accept", accept).header("sec-websocket-protocol", "chat").body(()).unwrap()
        };
        let right = answer(101, "WebSocket", "right");
        assert!(down.agreed(&right));
        for other in
            [answer(101, "websocket", "wrong"), answer(101, "other", "right"), answer(200, "websocket", "right")]
        {
            assert!(!down.agreed(&other), "{other:?}");
        }
        assert!(down.is_agreement(StatusCode::NO_CONTENT) && !down.is_agreement(StatusCode::NOT_FOUND));
        let mut headers = right.into_parts().0.headers;
        assert_eq!(down.answer(&mut headers), StatusCode::OK);
        assert_eq!(headers.len(), 1, "the protocol alone is passed on: {headers:?}");
    }
}
