//! One request: whose it is, which rule it meets, what the rule's filters make of it, and who answers.

use super::body::{RequestBody, ResponseBody};
use super::exchange::Exchange;
use super::forward::{self, Failure, Outgoing};
use super::headers::{Forwarded, Values};
use super::metrics::count;
use super::serve::{Client, Running};
use super::target::{Target, target};
use super::upstream::Sender;
use super::websocket::{self, Tunnel};
use super::{Shared, answer, headers, tunnel};
use crate::model::{Filter, Protocol, Rule, Weighted};
use crate::path::PathMatch;
use crate::table::Table;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use rand::Rng;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

pub async fn handle(
    shared: Arc<Shared>,
    client: Arc<Client>,
    running: Running,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let grpc = answer::is_grpc(request.headers());
    let mut exchange = Box::new(Exchange {
        shared: shared.clone(),
        begun: Instant::now(),
        client: client.address.ip(),
        scheme: if client.tls { "https" } else { "http" },
        version: request.version(),
        method: request.method().clone(),
        host: Arc::default(),
        uri: request.uri().clone(),
        request: request_id(request.headers()),
        cluster: None,
        source: None,
        status: 0,
        sent: 0,
        whole: false,
        broken: None,
        busy: None,
        place: None,
        share: None,
        _running: running,
    });
    let (mut parts, body) = request.into_parts();
    let asked = websocket::by_connect(&mut parts).and_then(|connect| Ok((connect, target(&parts)?)));
    let (connect, target) = match asked {
        Ok(asked) => asked,
        Err((status, why)) => return answer::refusal(exchange, grpc, status, why),
    };
    exchange.host.clone_from(&target.host);
    if let Some(token) = target.path.strip_prefix(CHALLENGE_PATH)
        && !(client.tls || connect)
        && let Some(shown) = shared.challenges.http(&target.host, token).await
    {
        return answer::text(exchange, shown);
    }
    let table = shared.table();
    let Some(met) = table.find(&target.host, &target.path, &parts.headers) else {
        return answer::refusal(exchange, grpc, StatusCode::NOT_FOUND, "nothing is served here");
    };
    exchange.cluster = Some(met.cluster.clone());
    exchange.source = Some(met.rule.source.clone());
    if misdirected(&table, &client, &target) {
        let why = "this connection is for another host";
        return answer::refusal(exchange, grpc, StatusCode::MISDIRECTED_REQUEST, why);
    }
    let request = Arrived { parts, body, target, grpc, connect };
    follow(exchange, &client, met.rule, request).await
}

struct Arrived {
    parts: http::request::Parts,
    body: Incoming,
    target: Target,
    grpc: bool,
    /// It asks for a WebSocket in HTTP/2's way.
    connect: bool,
}

/// A client may use one connection for several hosts whose certificate it accepted; never for those of different clusters.
fn misdirected(table: &Table, client: &Client, target: &Target) -> bool {
    let named = client.name.as_deref().filter(|name| *name != &*target.host);
    named.is_some_and(|name| table.cluster(name) != table.cluster(&target.host))
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&headers::X_REQUEST_ID);
    let fit = |id: &&HeaderValue| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let made = || Values::new(32).value(format_args!("{:032x}", rand::rng().random::<u128>()));
    given.filter(fit).cloned().or_else(made).unwrap_or(HeaderValue::from_static("-"))
}

async fn follow(mut exchange: Box<Exchange>, client: &Client, rule: &Rule, request: Arrived) -> Response<ResponseBody> {
    let shared = exchange.shared.clone();
    let refuse = |exchange, status, why| answer::refusal(exchange, request.grpc, status, why);
    let trusted = shared.trusts(exchange.client);
    let policy = &rule.policy;
    let within = |ranges: &[ipnet::IpNet]| ranges.iter().any(|range| range.contains(&exchange.client));
    if within(&policy.deny) || !(policy.allow.is_empty() || within(&policy.allow)) {
        return refuse(exchange, StatusCode::FORBIDDEN, "this address may not come here");
    }
    if let Some((status, location)) = redirect(rule, client, trusted, &shared, &request) {
        return answer::redirect(exchange, status, location);
    }
    if let Some(cluster) = &exchange.cluster {
        match shared.limits.take(cluster, &rule.source, &policy.limits, exchange.client) {
            Ok(share) => exchange.share = share,
            Err(over) => {
                count(&shared.metrics.refused);
                return answer::too_many(exchange, request.grpc, over);
            }
        }
    }
    let limit = policy.body_limit.unwrap_or(u64::MAX).min(shared.settings.body_limit);
    if request.body.size_hint().lower() > limit {
        return refuse(exchange, StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than allowed");
    }
    exchange.place = shared.hosts.take(request.target.host.clone(), shared.settings.requests_per_host);
    if exchange.place.is_none() {
        count(&shared.metrics.refused);
        return refuse(exchange, StatusCode::SERVICE_UNAVAILABLE, "there are too many requests for this host");
    }
    let cluster = exchange.cluster.clone();
    let chosen = choose(&rule.backends).zip(cluster);
    let found = chosen.and_then(|(to, cluster)| Some((shared.pool(&cluster, &to.backend)?, &to.backend)));
    let Some((pool, backend)) = found.filter(|(pool, _)| !pool.upstreams().is_empty()) else {
        return refuse(exchange, StatusCode::SERVICE_UNAVAILABLE, "no endpoint is ready");
    };
    let grpc = request.grpc;
    let protocol = pool.protocol(policy);
    let Arrived { mut parts, body, target, connect, .. } = request;
    let on_client = parts.extensions.remove::<OnUpgrade>().filter(|_| body.is_end_stream());
    let wanted = on_client.and_then(|client| Some((Tunnel::asked(&mut parts, connect, protocol.http2())?, client)));
    let asked = wanted.as_ref().map(|(tunnel, _)| tunnel);
    let Some(head) = outgoing(parts, &target, rule, protocol, &exchange, client, trusted, asked) else {
        return answer::refusal(exchange, grpc, StatusCode::BAD_REQUEST, "the path is none");
    };
    let body = RequestBody::new(body, limit, policy.send);
    match forward::send(&shared, &pool, head, body, policy, exchange.client).await {
        Ok(answered) => {
            let forward::Answered { response, busy, connection } = answered;
            let upstream = busy.0.clone();
            exchange.busy = Some(busy);
            exchange.status = response.status().as_u16();
            let unasked = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            match wanted {
                Some((tunnel, client)) if tunnel.agreed(&response) => {
                    let (client, endpoint) = ((&tunnel, client), (upstream, connection));
                    return tunnel::switch(exchange, response, client, endpoint, backend.clone());
                }
                Some((tunnel, _)) if unasked || tunnel.is_agreement(response.status()) => {
                    let why = "the endpoint agreed to something else";
                    return answer::refusal(exchange, grpc, StatusCode::BAD_GATEWAY, why);
                }
                None if unasked => {
                    let why = "the endpoint switched unasked";
                    return answer::refusal(exchange, grpc, StatusCode::BAD_GATEWAY, why);
                }
                _ => {}
            }
            if let Sender::Http1(sender) = connection {
                upstream.keep(sender, protocol, shared.settings.upstream_kept);
            }
            pass_back(exchange, response, policy.read)
        }
        Err(failure) => {
            exchange.broken = Some(failure.cause());
            let (status, why) = failure.answer();
            answer::refusal(exchange, grpc, status, why)
        }
    }
}

fn choose(backends: &[Weighted]) -> Option<&Weighted> {
    let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    if backends.len() < 2 {
        return backends.first();
    }
    let mut point = rand::rng().random_range(0..total.max(1));
    backends.iter().find(|b| {
        let weight = u64::from(b.weight);
        let here = point < weight;
        point = point.saturating_sub(weight);
        here
    })
}

fn redirect(
    rule: &Rule,
    client: &Client,
    trusted: bool,
    shared: &Shared,
    request: &Arrived,
) -> Option<(StatusCode, HeaderValue)> {
    let by_proxy = trusted && request.parts.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let target = &request.target;
    rule.filters.iter().find_map(|filter| match filter {
        Filter::RedirectToHttps { always } => {
            let plain = !client.tls && !by_proxy;
            if !plain || !(*always || shared.certificate(&target.host).is_some()) {
                return None;
            }
            let port = shared.settings.https_port;
            let port = if port == 443 { String::new() } else { format!(":{port}") };
            let query = request.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            let location = format!("https://{}{port}{}{query}", target.host, target.path);
            Some((StatusCode::PERMANENT_REDIRECT, HeaderValue::try_from(location).ok()?))
        }
        Filter::Redirect { location, status } => {
            Some((StatusCode::from_u16(*status).ok()?, HeaderValue::try_from(location).ok()?))
        }
        _ => None,
    })
}

/// The request's head as the endpoint gets it; None where a rewritten path is none.
fn outgoing(
    mut parts: http::request::Parts,
    target: &Target,
    rule: &Rule,
    protocol: Protocol,
    exchange: &Exchange,
    client: &Client,
    trusted: bool,
    tunnel: Option<&Tunnel>,
) -> Option<Outgoing> {
    let connect = tunnel.and_then(Tunnel::protocol);
    let trailers = headers::accepts_trailers(&parts.headers);
    headers::strip_hop(&mut parts.headers);
    parts.headers.remove(EXPECT);
    let mut values = Values::new(256);
    let path = rewritten(rule, &target.path);
    let path = match (parts.uri.path_and_query(), parts.uri.query()) {
        (Some(as_it_came), _) if as_it_came.path() == path => as_it_came.clone(),
        (_, Some(query)) => values.path(format_args!("{path}?{query}"))?,
        (_, None) => values.path(path)?,
    };
    let told = rule.filters.iter().find_map(|filter| match filter {
        Filter::SetHost(host) => Some(host.as_str()),
        _ => None,
    });
    let authority = told.unwrap_or(&target.authority);
    let told_host = values.value(&target.authority)?;
    let from = Forwarded { client: exchange.client, scheme: exchange.scheme, host: &told_host, port: client.port };
    from.tell(&mut parts.headers, trusted, &mut values);
    parts.headers.insert(headers::X_REQUEST_ID, exchange.request.clone());
    if protocol.http2() {
        parts.headers.remove(HOST);
        let scheme = if protocol.tls() { "https" } else { "http" };
        parts.uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()?;
        parts.version = Version::HTTP_2;
        if connect.is_some() {
            parts.method = Method::CONNECT;
        } else if trailers {
            parts.headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
    } else {
        parts.headers.insert(HOST, if told.is_some() { values.value(authority)? } else { told_host });
        parts.uri = Uri::from(path);
        parts.version = Version::HTTP_11;
        if let Some(protocol) = tunnel.and_then(Tunnel::upgrade) {
            parts.headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(http::header::UPGRADE, protocol);
        } else if trailers {
            parts.headers.insert(http::header::CONNECTION, HeaderValue::from_static("te"));
            parts.headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
    }
    Some(Outgoing { method: parts.method, uri: parts.uri, version: parts.version, headers: parts.headers, connect })
}

fn rewritten<'a>(rule: &Rule, path: &'a str) -> Cow<'a, str> {
    for filter in &rule.filters {
        match (filter, &rule.path) {
            (Filter::RewritePath(to), PathMatch::Regex(regex)) => return expand(to, regex, path).into(),
            (Filter::RewritePath(to), _) => return to.clone().into(),
            (Filter::RewritePrefix(to), PathMatch::Prefix(prefix)) => {
                let rest = path.strip_prefix(prefix.as_str()).unwrap_or(path);
                let joined = format!("{}{rest}", to.trim_end_matches('/'));
                return if joined.starts_with('/') { joined } else { format!("/{joined}") }.into();
            }
            _ => {}
        }
    }
    path.into()
}

/// `$1` to `$9` become what the expression captured, as nginx does it.
fn expand(to: &str, regex: &regex::Regex, path: &str) -> String {
    let Some(captures) = regex.captures(path) else { return to.to_string() };
    let mut out = String::new();
    let mut rest = to;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        match after.chars().next().and_then(|c| c.to_digit(10)) {
            Some(number) => {
                out.push_str(captures.get(number as usize).map_or("", |m| m.as_str()));
                rest = &after[1..];
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn pass_back(
    exchange: Box<Exchange>,
    response: Response<Incoming>,
    patience: std::time::Duration,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    headers::strip_hop(&mut parts.headers);
    if exchange.version == Version::HTTP_10 && body.size_hint().exact().is_none() {
        parts.headers.remove(CONTENT_LENGTH);
    }
    parts.version = Version::default();
    parts.extensions.clear();
    Response::from_parts(parts, ResponseBody::theirs(body, patience, exchange))
}

impl Failure {
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Connect(_) => (StatusCode::BAD_GATEWAY, "no endpoint can be reached"),
            Self::Broken(_) => (StatusCode::BAD_GATEWAY, "the endpoint broke off"),
            Self::NoTunnels => (StatusCode::BAD_GATEWAY, "the endpoint takes no WebSockets over HTTP/2"),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "the endpoint didn't answer in time"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than allowed"),
            Self::ClientSilent => (StatusCode::REQUEST_TIMEOUT, "the body didn't come in time"),
        }
    }

    fn cause(&self) -> String {
        match self {
            Self::Connect(error) => error.to_string(),
            Self::Broken(error) => error.to_string(),
            other => format!("{other:?}"),
        }
    }
}
