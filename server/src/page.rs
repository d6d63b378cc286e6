//! The dashboard's files, embedded in the server: `frontend/dist` as `scripts/build-page` made it.
//!
//! Assets carry a hash in their names and never change, so browsers keep them for good; `index.html` is asked for each
//! time. Brotli and gzip were made when the page was built: nothing is compressed while serving. A path that is no file is
//! the page itself, which reads its own addresses; paths of the API never get here.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, StatusCode, Uri};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../frontend/dist"]
// A checkout compiles before its page is built; it then says so where the page would be.
#[allow_missing = true]
struct Files;

/// Only our own files and our own socket; WebAssembly may be compiled, nothing else is evaluated, no inline script runs.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const FOREVER: &str = "public, max-age=31536000, immutable";

/// What the router falls back to.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if path.starts_with("assets/") {
        // Variants are reached by Accept-Encoding only.
        let plain = !path.ends_with(".br") && !path.ends_with(".gz");
        let found = plain.then(|| file(path, &headers, FOREVER)).flatten();
        return found.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response());
    }
    let foreign = ["api", "apis", "clusters", "v1", "node", "download", "openapi", "metrics"];
    if foreign.contains(&path.split('/').next().unwrap_or_default()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    file("index.html", &headers, "no-cache").unwrap_or_else(|| {
        let text = "This server was built without its page: run scripts/build-page and build it again.\n";
        (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
    })
}

fn file(path: &str, headers: &HeaderMap, caching: &'static str) -> Option<Response> {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let variants = [("br", ".br"), ("gzip", ".gz")].into_iter().filter(|(encoding, _)| accepts(accepted, encoding));
    let ready =
        variants.into_iter().find_map(|(encoding, ending)| Some((Files::get(&format!("{path}{ending}"))?, encoding)));
    let (content, encoding) = match ready {
        Some((content, encoding)) => (content, Some(encoding)),
        None => (Files::get(path)?, None),
    };
    let mut response = Response::builder()
        .header(CONTENT_TYPE, media_type(path))
        .header(CACHE_CONTROL, caching)
        .header(VARY, "accept-encoding")
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(REFERRER_POLICY, "no-referrer")
        .header(CONTENT_SECURITY_POLICY, POLICY);
    if let Some(encoding) = encoding {
        response = response.header(CONTENT_ENCODING, encoding);
    }
    response.body(Body::from(content.data.into_owned())).ok()
}

/// Whether an encoding is named without `q=0`.
fn accepts(header: &str, encoding: &str) -> bool {
    header.split(',').any(|part| {
        let mut fields = part.split(';').map(str::trim);
        let named = fields.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let refused = fields.any(|f| f.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0));
        named && !refused
    })
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_taken_as_asked() {
        assert!(accepts("gzip, deflate, br;q=1.0", "br"));
        assert!(!accepts("gzip, br;q=0", "br"));
        assert!(!accepts("", "gzip"));
    }

    #[tokio::test]
    async fn only_pages_fall_back_to_the_page() {
        let status = async |path: &str| serve(Method::GET, path.parse().unwrap(), HeaderMap::new()).await.status();
        assert_eq!(status("/assets/nothing-1234.js").await, StatusCode::NOT_FOUND);
        assert_eq!(status("/clusters/x/api/v1/nothing").await, StatusCode::NOT_FOUND);
        assert_eq!(
            serve(Method::POST, "/c/x".parse().unwrap(), HeaderMap::new()).await.status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
}
