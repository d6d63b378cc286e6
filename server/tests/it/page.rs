//! The page as browsers get it: under its hashed names, compressed, kept for good, and from nowhere else.

use axum::body::Body;
use flate2::read::GzDecoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use longshore_server::page;
use std::io::Read;

async fn get(path: &str, encodings: &str) -> Response<Body> {
    let mut headers = HeaderMap::new();
    if !encodings.is_empty() {
        headers.insert(ACCEPT_ENCODING, encodings.parse().unwrap());
    }
    page::serve(Method::GET, path.parse().unwrap(), headers).await
}

async fn body(response: Response<Body>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().into()
}

fn header(response: &Response<Body>, name: http::HeaderName) -> &str {
    response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// What `index.html` names, in its order.
async fn index() -> (String, Vec<String>) {
    let response = get("/", "").await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "the server was built without its page: run scripts/build-page first"
    );
    let text = String::from_utf8(body(response).await).unwrap();
    let named = text.split('"').filter(|part| part.starts_with("/assets/")).map(String::from).collect();
    (text, named)
}

#[tokio::test]
async fn the_index_names_its_assets_and_preloads_its_webassembly() {
    let (text, named) = index().await;
    let preload = text.lines().find(|line| line.contains("rel=\"preload\"") && line.contains(".wasm")).expect(&text);
    assert!(preload.contains("as=\"fetch\"") && preload.contains("crossorigin"), "{preload}");
    assert!(!text.contains("<script>") && !text.contains('{'), "nothing inline, no place left unfilled: {text}");
    for kind in ["wasm", "js", "css", "woff2", "svg"] {
        let name = named.iter().find(|n| n.ends_with(kind)).unwrap_or_else(|| panic!("no {kind} in {named:?}"));
        let hash = name.rsplit_once('.').and_then(|(stem, _)| stem.rsplit_once('-')).map(|(_, hash)| hash);
        assert!(hash.is_some_and(|h| h.len() == 16 && h.bytes().all(|b| b.is_ascii_hexdigit())), "{name}");
    }
}

#[tokio::test]
async fn assets_are_kept_for_good_and_the_index_is_asked_for() {
    let (_, named) = index().await;
    for path in &named {
        let response = get(path, "").await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(header(&response, CACHE_CONTROL), "public, max-age=31536000, immutable", "{path}");
        assert_eq!(header(&response, VARY), "accept-encoding");
        assert!(!header(&response, CONTENT_TYPE).starts_with("application/octet-stream"), "{path}");
    }
    let index = get("/", "").await;
    assert_eq!(header(&index, CACHE_CONTROL), "no-cache");
    let policy = header(&index, CONTENT_SECURITY_POLICY);
    for part in
        ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval';", "connect-src 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{part} in {policy}");
    }
}

#[tokio::test]
async fn what_a_browser_takes_is_what_it_gets() {
    let (_, named) = index().await;
    let wasm = named.iter().find(|n| n.ends_with(".wasm")).expect("WebAssembly");
    let plain = get(wasm, "").await;
    assert!(plain.headers().get(CONTENT_ENCODING).is_none());
    assert_eq!(header(&plain, CONTENT_TYPE), "application/wasm");
    let plain = body(plain).await;
    assert!(plain.starts_with(b"\0asm"));

    let brotli = get(wasm, "gzip, deflate, br, zstd").await;
    assert_eq!((header(&brotli, CONTENT_ENCODING), header(&brotli, CONTENT_TYPE)), ("br", "application/wasm"));
    let brotli = body(brotli).await;
    assert!(brotli.len() <= 400_000, "the WebAssembly is {} bytes as served", brotli.len());

    for accepted in ["gzip", "br;q=0, gzip;q=0.5"] {
        let gzip = get(wasm, accepted).await;
        assert_eq!(header(&gzip, CONTENT_ENCODING), "gzip", "{accepted}");
        let mut unpacked = Vec::new();
        GzDecoder::new(&body(gzip).await[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain, "the same bytes");
    }
}

#[tokio::test]
async fn pieces_are_named_where_they_are_fetched_from() {
    let (_, named) = index().await;
    let script = |stem: &str| {
        named
            .iter()
            .find(|n| n.starts_with(&format!("/assets/{stem}-")) && n.ends_with(".js"))
            .expect("a script")
            .clone()
    };
    let text = async |path: String| String::from_utf8(body(get(&path, "").await).await).unwrap();
    let (start, loader) = (text(script("start")).await, text(script("pieces")).await);
    assert!(loader.contains(&script("page")), "the loader takes its imports from the page's own glue");
    assert!(text(script("page")).await.contains(&script("pieces")));
    let pieces: Vec<_> = loader.split('"').filter(|part| part.ends_with(".wasm")).collect();
    assert!(pieces.len() > 1, "{loader}");
    for piece in pieces {
        assert!(start.contains(piece), "{piece} is fetched ahead");
        let response = get(piece, "br").await;
        assert_eq!(
            (response.status(), header(&response, CONTENT_TYPE)),
            (StatusCode::OK, "application/wasm"),
            "{piece}"
        );
        assert!(body(response).await.len() < 100_000, "{piece} is no small piece any more");
    }
}

#[tokio::test]
async fn addresses_of_the_page_are_the_page_and_all_else_is_not_there() {
    for path in ["/c/c-1/deployments/default/hello", "/c/c-1?ns=a", "/anything"] {
        let response = get(path, "").await;
        assert_eq!((response.status(), header(&response, CONTENT_TYPE)), (StatusCode::OK, "text/html; charset=utf-8"));
    }
    let (_, named) = index().await;
    let variant = format!("{}.br", named[0]);
    for path in
        ["/assets/page-0000000000000000.wasm", "/assets/", "/assets/../index.html", &variant, "/v1/nothing", "/apis/x"]
    {
        assert_eq!(get(path, "br").await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}
