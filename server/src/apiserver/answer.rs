//! Answers as HTTP: headers, encodings, `Status` for every error, lists that stream.

use super::negotiate::Encoding;
use super::render::View;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use longshore_api::Status;
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A list's pieces are sent in chunks of about this size: few system calls, and little memory for a slow reader.
const CHUNK: usize = 64 * 1024;
/// Smaller answers are not worth compressing; Kubernetes's own threshold.
pub const GZIP_FROM: usize = 128 * 1024;
/// A `Warning` header holds only so much text.
const WARNING_LIMIT: usize = 256;
/// And a response only so many of them (Kubernetes bounds their total instead).
const WARNINGS_LIMIT: usize = 32;

/// What an answer may be encoded with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    pub encoding: Encoding,
    pub gzip: bool,
}

/// An error. Always JSON, unless the client asked for YAML.
pub fn error(status: &Status, encoding: Encoding) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, status, encoding);
    if let Some(details) = status.details.as_ref().filter(|d| d.retry_after_seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, details.retry_after_seconds.into());
    }
    response
}

/// Anything that serializes.
pub fn value(code: StatusCode, body: &impl Serialize, encoding: Encoding) -> Response<Body> {
    let json = serde_json::to_vec(body).expect("a tree serializes into memory");
    bytes(code, json.into(), encoding)
}

/// Ready JSON, encoded as the client wants it.
pub fn bytes(code: StatusCode, json: Bytes, encoding: Encoding) -> Response<Body> {
    let body = match encoding {
        Encoding::Json => json,
        Encoding::PrettyJson | Encoding::Yaml => match serde_json::from_slice::<Value>(&json) {
            Ok(tree) if encoding == Encoding::Yaml => serde_yaml::to_string(&tree).unwrap_or_default().into(),
            Ok(tree) => serde_json::to_vec_pretty(&tree).unwrap_or_default().into(),
            Err(_) => json,
        },
    };
    with_type(code, encoding.content_type(), Body::from(body))
}

pub fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = with_type(code, "text/plain; charset=utf-8", Body::from(text.into()));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

pub fn with_type(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A list whose bytes are the concatenation of `pieces`. Called off the reactor where it has to encode them.
pub fn pieces(pieces: Vec<Bytes>, form: Form) -> Response<Body> {
    let size: usize = pieces.iter().map(Bytes::len).sum();
    if form.encoding != Encoding::Json {
        return bytes(StatusCode::OK, pieces.concat().into(), form.encoding);
    }
    if form.gzip && size >= GZIP_FROM {
        let mut encoder = GzEncoder::new(Vec::with_capacity(size / 8), Compression::fast());
        let written = pieces.iter().try_for_each(|piece| encoder.write_all(piece));
        if let Ok(packed) = written.and_then(|()| encoder.finish()) {
            let mut response = with_type(StatusCode::OK, form.encoding.content_type(), Body::from(packed));
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            return response;
        }
    }
    let body = Pieces { left: pieces.into(), size: size as u64 };
    with_type(StatusCode::OK, form.encoding.content_type(), Body::new(body))
}

/// Adds `Warning` headers as Kubernetes writes them: `299 - "text"`.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(WARNINGS_LIMIT) {
        let mut end = warning.len().min(WARNING_LIMIT);
        while !warning.is_char_boundary(end) {
            end -= 1;
        }
        let quoted = warning[..end].replace('\\', "\\\\").replace('"', "\\\"");
        let clean: String = quoted.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Ok(header) = HeaderValue::from_bytes(format!("299 - \"{clean}\"").as_bytes()) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

/// Whether rendering `count` objects by `view` is work that should leave the reactor.
pub fn is_heavy(view: &View, count: usize, form: Form) -> bool {
    let light = if view.is_costly() || form.encoding != Encoding::Json { 32 } else { 512 };
    count > light
}

/// A body of shared pieces, joined only as far as the connection takes them.
struct Pieces {
    left: VecDeque<Bytes>,
    size: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.left.pop_front() else { return Poll::Ready(None) };
        if first.len() >= CHUNK || self.left.is_empty() {
            self.size -= first.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let mut chunk = BytesMut::with_capacity(CHUNK + 4096);
        chunk.extend_from_slice(&first);
        while chunk.len() < CHUNK {
            match self.left.pop_front() {
                Some(piece) => chunk.extend_from_slice(&piece),
                None => break,
            }
        }
        self.size -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn pieces_are_joined_and_counted() {
        let many: Vec<Bytes> = (0..50_000).map(|i| Bytes::from(format!("{i},"))).collect();
        let whole = many.concat();
        let response = pieces(many.clone(), Form::default());
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(whole.len() as u64));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), whole);
        let packed = pieces(many, Form { gzip: true, ..Default::default() });
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        let packed = packed.into_body().collect().await.unwrap().to_bytes();
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, whole);
    }

    #[test]
    fn warnings_are_quoted_and_bounded() {
        let mut response = Response::new(Body::empty());
        warn(&mut response, &["unknown field \"spec.x\"\n".into(), "é".repeat(400)]);
        let all: Vec<_> = response.headers().get_all(WARNING).iter().collect();
        assert_eq!(all[0].as_bytes(), b"299 - \"unknown field \\\"spec.x\\\" \"");
        assert!(all[1].len() < 300);
    }

    #[test]
    fn errors_say_when_to_come_back() {
        let response = error(&Status::too_many_requests("slow down", 7), Encoding::Json);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
    }
}
