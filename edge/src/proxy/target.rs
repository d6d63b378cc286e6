//! Whom a request is for: its host and path, or why it can't be told for sure. What two readers could read in two ways is
//! refused (RFC 9112 §3.2, RFC 9113 §8.3.1).

use crate::host::Authority;
use crate::path;
use http::header::HOST;
use http::request::Parts;
use http::{Method, StatusCode, Version};
use std::sync::Arc;

#[derive(Debug)]
pub struct Target {
    /// As the client wrote it, which the backend is told.
    pub authority: String,
    pub host: Arc<str>,
    /// Made plain.
    pub path: String,
}

/// A status and a sentence for the client.
pub type Refusal = (StatusCode, &'static str);

pub fn target(parts: &Parts) -> Result<Target, Refusal> {
    let bad = |why| (StatusCode::BAD_REQUEST, why);
    if parts.method == Method::CONNECT {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy"));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let header = hosts.next().map(|v| v.to_str().map_err(|_| bad("the host is no name"))).transpose()?;
    if hosts.next().is_some() {
        return Err(bad("there is more than one host"));
    }
    let of_uri = parts.uri.authority().map(|authority| authority.as_str());
    let http1 = parts.version < Version::HTTP_2;
    if http1 && parts.version == Version::HTTP_11 && header.is_none() {
        return Err(bad("there is no host"));
    }
    if let (Some(header), Some(of_uri)) = (header, of_uri)
        && !header.eq_ignore_ascii_case(of_uri)
    {
        return Err(bad("there are two different hosts"));
    }
    let authority = of_uri.or(header).ok_or(bad("there is no host"))?;
    let parsed = Authority::parse(authority).ok_or(bad("the host is no name"))?;
    let path = path::normalize(parts.uri.path()).ok_or(bad("the path is none"))?;
    Ok(Target { authority: authority.to_string(), host: parsed.host.into(), path: path.into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn judge(request: http::request::Builder) -> Result<(String, String), String> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        target(&parts)
            .map(|t| (t.host.to_string(), t.path))
            .map_err(|(status, why)| format!("{} {why}", status.as_u16()))
    }

    #[test]
    fn a_request_has_one_host() {
        let get = |uri: &str| Request::get(uri);
        let found = Ok(("a.com".to_string(), "/x".to_string()));
        assert_eq!(judge(get("/x").header("host", "A.com:80")), found);
        assert_eq!(judge(get("http://a.com/x").header("host", "a.com")), found);
        assert_eq!(judge(get("https://a.com/x").version(Version::HTTP_2)), found);
        assert_eq!(judge(get("/x").version(Version::HTTP_10).header("host", "a.com")), found);
        for (request, why) in [
            (get("/x"), "400 there is no host"),
            (get("/x").header("host", "a.com").header("host", "b.com"), "400 there is more than one host"),
            (get("http://b.com/x").header("host", "a.com"), "400 there are two different hosts"),
            (
                get("https://b.com/x").version(Version::HTTP_2).header("host", "a.com"),
                "400 there are two different hosts",
            ),
            (get("/x").header("host", "x@a.com"), "400 the host is no name"),
            (get("/../x").header("host", "a.com"), "400 the path is none"),
            (Request::options("*").header("host", "a.com"), "400 the path is none"),
            (Request::connect("a.com:443").header("host", "a.com:443"), "405 this is no forward proxy"),
        ] {
            assert_eq!(judge(request), Err(why.into()));
        }
    }
}
