//! Which headers pass between a client and a pod.
//!
//! A pod's program isn't ours: it never learns who its client is to us (credentials, cookies), and nothing that it says is
//! taken for ours by a browser, which knows both under one name: no cookies, no rights for other origins, nothing that
//! would be remembered for the whole name, and no script that runs as ours.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Of one connection only (RFC 9110, section 7.6.1), with what older programs send.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What says who the client is, to us. Whole families are in [`is_ours`].
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "cookie2"];
/// What a browser would take for a word of the whole name.
const OF_THE_NAME: [&str; 16] = [
    "accept-ch",
    "alt-svc",
    "clear-site-data",
    "critical-ch",
    "nel",
    "origin-agent-cluster",
    "public-key-pins",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "www-authenticate",
    "set-login",
];

/// Makes a client's headers fit for a pod. An upgrade's own two are put back by whoever upgrades.
pub fn to_pod(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    drop_those(headers, |name| CREDENTIALS.contains(&name) || is_ours(name));
    // A browser's way to send a bearer token with a WebSocket.
    let protocols = HeaderName::from_static("sec-websocket-protocol");
    let asked: Vec<String> = headers
        .get_all(&protocols)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .filter(|protocol| !protocol.starts_with("base64url.bearer.authorization."))
        .collect();
    headers.remove(&protocols);
    if let (false, Ok(line)) = (asked.is_empty(), HeaderValue::from_str(&asked.join(", "))) {
        headers.insert(protocols, line);
    }
}

/// Makes a pod's headers fit for a client.
pub fn to_client(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    drop_those(headers, |name| OF_THE_NAME.contains(&name) || is_ours(name) || name.starts_with("access-control-"));
    // Beside what the pod says itself: a browser heeds both.
    headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Who somebody is or pretends to be, in Kubernetes's words and in ours.
fn is_ours(name: &str) -> bool {
    ["impersonate-", "x-remote-", "x-longshore-"].iter().any(|family| name.starts_with(family))
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    drop_those(headers, |name| HOP_BY_HOP.contains(&name) || named.iter().any(|other| other == name));
}

fn drop_those(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let lines = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_pod_learns_no_credential() {
        let mut headers = map(&[
            ("authorization", "Bearer s3cret"),
            ("cookie", "longshore_session=s3cret"),
            ("x-longshore-csrf", "s3cret"),
            ("impersonate-user", "s3cret"),
            ("x-remote-extra-scopes", "s3cret"),
            ("proxy-authorization", "s3cret"),
            ("connection", "close, X-Hop"),
            ("x-hop", "s3cret"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.s3cret, chat"),
            ("accept", "text/html"),
            ("x-own", "kept"),
        ]);
        to_pod(&mut headers);
        assert_eq!(shown(&headers), ["accept: text/html", "sec-websocket-protocol: chat", "x-own: kept"]);
    }

    #[test]
    fn a_pod_says_nothing_for_the_whole_name() {
        let mut headers = map(&[
            ("set-cookie", "longshore_session=x"),
            ("set-cookie", "other=x"),
            ("clear-site-data", "\"*\""),
            ("access-control-allow-origin", "*"),
            ("www-authenticate", "Basic"),
            ("service-worker-allowed", "/"),
            ("x-longshore-anything", "x"),
            ("transfer-encoding", "chunked"),
            ("content-security-policy", "sandbox allow-scripts allow-same-origin"),
            ("content-type", "text/html"),
        ]);
        to_client(&mut headers);
        assert_eq!(
            shown(&headers),
            [
                "content-security-policy: sandbox",
                "content-security-policy: sandbox allow-scripts allow-same-origin",
                "content-type: text/html",
                "x-content-type-options: nosniff",
            ]
        );
    }
}
