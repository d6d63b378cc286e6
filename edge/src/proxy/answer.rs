//! The edge's own answers: a status and a sentence, in gRPC's words for who speaks it.

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::limits::Over;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

/// Whether a request is gRPC, whose clients read a status from headers of a 200.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

pub fn refusal(
    mut exchange: Box<Exchange>,
    grpc: bool,
    status: StatusCode,
    why: &'static str,
) -> Response<ResponseBody> {
    exchange.status = status.as_u16();
    exchange.whole = true;
    if grpc {
        return grpc_refusal(exchange, status, why);
    }
    let text = format!("{} {}: {why}\n", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let mut answer = Response::new(ResponseBody::ours(text, exchange));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A client has asked for more than it may (RFC 6585 §4); when it may again is told in whole seconds, rather later than sooner.
pub fn too_many(exchange: Box<Exchange>, grpc: bool, over: Over) -> Response<ResponseBody> {
    let mut answer =
        refusal(exchange, grpc, StatusCode::TOO_MANY_REQUESTS, "there are too many requests of this client");
    if let Over::Rate(wait) = over {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
    }
    answer
}

/// By the table that gRPC's own documents have for statuses of HTTP.
fn grpc_refusal(exchange: Box<Exchange>, status: StatusCode, why: &'static str) -> Response<ResponseBody> {
    let code = match status.as_u16() {
        400 => "13",
        403 => "7",
        404 | 405 => "12",
        413 => "8",
        429 | 502..=504 => "14",
        _ => "2",
    };
    let mut answer = Response::new(ResponseBody::ours("", exchange));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static(why));
    answer
}

pub fn redirect(mut exchange: Box<Exchange>, status: StatusCode, location: HeaderValue) -> Response<ResponseBody> {
    exchange.status = status.as_u16();
    exchange.whole = true;
    let mut answer = Response::new(ResponseBody::ours("", exchange));
    *answer.status_mut() = status;
    answer.headers_mut().insert(LOCATION, location);
    answer
}

pub fn text(mut exchange: Box<Exchange>, body: String) -> Response<ResponseBody> {
    exchange.status = 200;
    exchange.whole = true;
    let mut answer = Response::new(ResponseBody::ours(body, exchange));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer
}
