//! `pods/proxy` and `services/proxy`: HTTP to a port of a pod, for whoever may.
//!
//! The bytes go through the tunnel of the pod's node, and the agent connects to no address but that of a pod that it runs:
//! what the API's objects say about addresses opens nothing ([`target`]). What passes between client and pod is cleaned
//! both ways ([`headers`]), and a pod sends nobody out of its path ([`location`]).
//!
//! Not as in Kubernetes: links inside HTML are left as they are, and a redirect to elsewhere is refused.

mod headers;
mod location;
mod target;

use super::api::{Api, Context};
use super::request;
use super::streams::copy;
use axum::body::Body;
use http::header::{CONNECTION, HOST, LOCATION, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use longshore_api::Status;
use std::time::Duration;
use target::Target;

/// What a pod may take from the whole request to its answer's head. Bodies and upgraded connections have no end of their own.
const ANSWER: Duration = Duration::from_secs(300);
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

impl Api {
    /// `asked`: `pods` or `services`, the namespace, `[scheme:]name[:port]`, and the whole path below the cluster's base.
    /// `parts` and `body` are the client's request.
    pub async fn proxy(
        &self,
        cx: &Context,
        [resource, namespace, id, path]: [&str; 4],
        mut parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let target = self.proxy_target(cx, resource, namespace, id).await?;
        let whole = parts.uri.path().to_owned();
        let at = request::proxied(path);
        let base = whole.strip_suffix(at).unwrap_or(&whole).to_owned();
        if at.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
            return redirect(&base, parts.uri.query());
        }
        let at = if at.is_empty() { "/" } else { at };
        let upgrading = Upgrading::take(&mut parts);
        let client_host = parts.headers.get(HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let request = to_pod(parts, body, &whole, at, upgrading.as_ref())?;
        let unreachable = |why: &str| Status::unavailable(format!("error trying to reach service: {why}"));
        let stream = target.pod.reach(target.port, target.tls).await.map_err(|status| unreachable(&status.message))?;
        let sending = longshore_tunnel::http::send(stream, request);
        let answer = match tokio::time::timeout(ANSWER, sending).await {
            Ok(Ok(answer)) => answer.map(Body::new),
            Ok(Err(error)) => return Err(unreachable(&error.to_string())),
            Err(_) => return Err(Status::timeout("the pod did not answer in time", 0)),
        };
        to_client(answer, &base, at, &hosts(&target, &client_host), upgrading)
    }
}

/// A client's connection that is to become something else, and what.
struct Upgrading {
    connection: OnUpgrade,
    protocol: HeaderValue,
}

impl Upgrading {
    fn take(parts: &mut Parts) -> Option<Self> {
        let asks = parts.headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
        let asks = asks.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
        if !asks || parts.version >= Version::HTTP_2 {
            return None;
        }
        let protocol = parts.headers.get(UPGRADE)?.clone();
        Some(Self { connection: parts.extensions.remove()?, protocol })
    }

    fn put(protocol: &HeaderValue, headers: &mut http::HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

/// As Kubernetes does for a path without a slash at its end, so that what a page names beside itself is found.
fn redirect(base: &str, query: Option<&str>) -> Result<Response<Body>, Status> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&format!("{base}/{query}")).map_err(|_| Status::no_such_path())?;
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

fn to_pod(
    mut parts: Parts,
    body: Body,
    whole: &str,
    at: &str,
    upgrading: Option<&Upgrading>,
) -> Result<Request<Body>, Status> {
    let impassable = || Status::bad_request("the request cannot be passed to the pod");
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = format!("{at}{query}").parse::<Uri>().map_err(|_| impassable())?;
    headers::to_pod(&mut parts.headers);
    // HTTP/2 has the name elsewhere.
    if let (false, Some(authority)) = (parts.headers.contains_key(HOST), parts.uri.authority()) {
        parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|_| impassable())?);
    }
    parts.headers.insert(FORWARDED_URI, HeaderValue::from_str(whole).map_err(|_| impassable())?);
    if let Some(upgrading) = upgrading {
        Upgrading::put(&upgrading.protocol, &mut parts.headers);
    }
    *request.headers_mut() = parts.headers;
    Ok(request)
}

/// The names under which a pod may speak of itself.
fn hosts(target: &Target, client: &str) -> [String; 3] {
    [client.into(), target.address.clone(), format!("{}:{}", target.address, target.port)]
}

fn to_client(
    mut answer: Response<Body>,
    base: &str,
    at: &str,
    hosts: &[String],
    upgrading: Option<Upgrading>,
) -> Result<Response<Body>, Status> {
    let bad_gateway = |message: &str| Status::failure(502, "BadGateway", message);
    let protocol = answer.headers().get(UPGRADE).cloned();
    *answer.version_mut() = Version::HTTP_11;
    headers::to_client(answer.headers_mut());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let pod = answer.extensions_mut().remove::<OnUpgrade>();
        let (Some(client), Some(pod), Some(protocol)) = (upgrading, pod, protocol) else {
            return Err(bad_gateway("the pod changed the protocol without being asked to"));
        };
        tokio::spawn(copy(client.connection, pod, format!("proxy below {base}")));
        Upgrading::put(&protocol, answer.headers_mut());
        return Ok(answer);
    }
    if let Some(said) = answer.headers_mut().remove(LOCATION) {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let led = said.to_str().ok().and_then(|said| location::rewritten(said, base, at, &hosts));
        let Some(led) = led.and_then(|led| HeaderValue::from_str(&led).ok()) else {
            return Err(bad_gateway("the backend attempted to redirect this request, which is not permitted"));
        };
        answer.headers_mut().insert(LOCATION, led);
    }
    Ok(answer)
}
