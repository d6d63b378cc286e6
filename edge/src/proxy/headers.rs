//! Headers between two connections: those of one hop end here, and what tells of the client is ours to say.

use bytes::{Bytes, BytesMut};
use http::header::*;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::{self, Write};
use std::net::IpAddr;

/// Of one hop (RFC 9110 §7.6.1), and what only makes sense between us and a neighbour.
const HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

const FORWARDED_PREFIX: &str = "x-forwarded-";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Takes out what belongs to one hop, the headers that `Connection` names included.
pub fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // What frames a message or says whom it is for isn't the sender's to take out.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// What a client asks to upgrade to: the value of `Upgrade`, where `Connection` names it. HTTP/2 isn't passed on by an upgrade,
/// for nobody would judge what follows.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut named = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let asked = named.any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
    let mut values = headers.get_all(UPGRADE).iter();
    let value = values.next().filter(|_| asked && values.next().is_none())?;
    let text = value.to_str().ok()?;
    let fit = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    (fit && !text.to_ascii_lowercase().starts_with("h2c")).then(|| value.clone())
}

pub fn accepts_trailers(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    values.any(|value| value.trim().eq_ignore_ascii_case("trailers"))
}

/// Makes values out of one piece of memory: a copy of one costs none.
pub struct Values(BytesMut);

impl Values {
    /// `expected` bytes in all.
    pub fn new(expected: usize) -> Self {
        Self(BytesMut::with_capacity(expected))
    }

    fn bytes(&mut self, text: impl fmt::Display) -> Option<Bytes> {
        write!(self.0, "{text}").ok()?;
        Some(self.0.split().freeze())
    }

    pub fn value(&mut self, text: impl fmt::Display) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(self.bytes(text)?).ok()
    }

    pub fn path(&mut self, text: impl fmt::Display) -> Option<PathAndQuery> {
        PathAndQuery::from_maybe_shared(self.bytes(text)?).ok()
    }
}

/// Where a request comes from.
pub struct Forwarded<'a> {
    pub client: IpAddr,
    pub scheme: &'static str,
    pub host: &'a HeaderValue,
    pub port: u16,
}

impl Forwarded<'_> {
    /// Says who the client is. What came under these names is dropped, unless a proxy that is trusted said it.
    pub fn tell(&self, headers: &mut HeaderMap, trusted: bool, values: &mut Values) {
        let before = trusted.then(|| joined(headers, &X_FORWARDED_FOR)).flatten();
        let proto = trusted.then(|| headers.get(X_FORWARDED_PROTO).cloned()).flatten();
        let theirs: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with(FORWARDED_PREFIX)).cloned().collect();
        for name in theirs.iter().chain(&[FORWARDED, X_REAL_IP]) {
            headers.remove(name);
        }
        let client = values.value(self.client);
        let (chain, first) = match before {
            Some(before) => {
                let first = before.split(',').next().unwrap_or_default().trim();
                (values.value(format_args!("{before}, {}", self.client)), values.value(first))
            }
            None => (client.clone(), client),
        };
        for (name, value) in [
            (X_FORWARDED_FOR, chain),
            (X_FORWARDED_HOST, Some(self.host.clone())),
            (X_FORWARDED_PORT, values.value(self.port)),
            (X_FORWARDED_PROTO, proto.or(Some(HeaderValue::from_static(self.scheme)))),
            (X_REAL_IP, first),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(k, v): &(&'static str, &'static str)| (HeaderName::from_static(k), HeaderValue::from_static(v));
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_belongs_to_one_hop_ends_and_host_and_length_cant_be_taken_out() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, host"),
            ("connection", "content-length"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-authorization", "x"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("transfer-encoding", "chunked"),
            ("host", "a.com"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        strip_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(|k| k.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn upgrades_are_passed_on_but_for_http2() {
        let asked =
            |pairs: &[(&'static str, &'static str)]| upgrade(&map(pairs)).map(|v| v.to_str().unwrap().to_string());
        assert_eq!(asked(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]), Some("websocket".into()));
        assert_eq!(asked(&[("upgrade", "websocket")]), None);
        assert_eq!(asked(&[("connection", "upgrade"), ("upgrade", "h2c")]), None);
        assert_eq!(asked(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]), None);
        assert_eq!(asked(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")]), None);
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_about_the_client() {
        let spoofed = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-user", "root"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
        ];
        let client: IpAddr = [192, 0, 2, 1].into();
        let mut headers = map(&spoofed);
        let host = HeaderValue::from_static("a.com");
        let forwarded = Forwarded { client, scheme: "http", host: &host, port: 80 };
        forwarded.tell(&mut headers, false, &mut Values::new(0));
        let get = |headers: &HeaderMap, name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_string());
        for (name, expected) in [
            ("x-forwarded-for", Some("192.0.2.1")),
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-host", Some("a.com")),
            ("x-forwarded-port", Some("80")),
            ("x-real-ip", Some("192.0.2.1")),
            ("x-forwarded-user", None),
            ("forwarded", None),
        ] {
            assert_eq!(get(&headers, name).as_deref(), expected, "{name}");
        }
        let mut headers = map(&spoofed);
        forwarded.tell(&mut headers, true, &mut Values::new(0));
        assert_eq!(get(&headers, "x-forwarded-for").as_deref(), Some("1.2.3.4, 192.0.2.1"));
        assert_eq!(get(&headers, "x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(get(&headers, "x-forwarded-user"), None);
    }
}
