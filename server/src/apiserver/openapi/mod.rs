//! OpenAPI v3: an index, and one document for each group version.
//!
//! kubectl rests on it: `explain` prints the descriptions, `apply` and `create` refuse to work where the documents can't
//! be had, and decide by the parameters of `patch` whether the server validates fields. Descriptions come from
//! Kubernetes's own schemas (`schemas.json.gz`, written by `tools/schemas`), merge rules from the table of types, paths
//! from the registry, so that a new kind is in all of it at once. `/openapi/v2` is not served: clients of this age ask
//! for it only when v3 is missing.

mod document;
mod operations;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::LazyLock;

/// A document, ready to send.
struct Ready {
    json: Bytes,
    gzip: Bytes,
    /// Upper-case hex, as Kubernetes's hashes are.
    hash: String,
}

/// By path below `/openapi/v3/`; the index under the empty one. Made on first use and never again: kinds are data of
/// the program.
static DOCUMENTS: LazyLock<BTreeMap<String, Ready>> = LazyLock::new(|| {
    let mut documents: BTreeMap<String, Ready> =
        document::all().into_iter().map(|(path, document)| (path, Ready::of(document.to_string()))).collect();
    let index = document::index(documents.iter().map(|(path, ready)| (path.as_str(), ready.hash.as_str())));
    documents.insert(String::new(), Ready::of(index.to_string()));
    documents
});

impl Ready {
    fn of(json: String) -> Self {
        let mut packer = GzEncoder::new(Vec::with_capacity(json.len() / 8), Compression::best());
        let packed = packer.write_all(json.as_bytes()).and_then(|()| packer.finish());
        let hash = hex::encode_upper(Sha256::digest(json.as_bytes()));
        Self { gzip: packed.expect("packing into memory").into(), json: json.into(), hash }
    }
}

/// Answers `/openapi/v3` and what lies below; `None` where there is no such document.
pub fn serve(path: &str, parts: &Parts) -> Option<Response<Body>> {
    let below = path.strip_prefix("/openapi/v3")?;
    let name = if below.is_empty() { "" } else { below.strip_prefix('/')? };
    let ready = DOCUMENTS.get(name)?;
    let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let etag = format!("\"{}\"", ready.hash);
    let mut response = if header(IF_NONE_MATCH).split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if super::negotiate::takes_gzip(header(ACCEPT_ENCODING)) {
        let mut response = Response::new(Body::from(ready.gzip.clone()));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        Response::new(Body::from(ready.json.clone()))
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    // The index names documents with their hashes: such an address never changes what it means.
    let pinned = parts.uri.query().is_some_and(|q| q.split('&').any(|p| p == format!("hash={}", ready.hash)));
    let cache = if pinned { "public, max-age=31536000, immutable" } else { "no-cache, private" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    Some(response)
}
