//! `pods/log`, `pods/exec`, `pods/attach`: passed to the agent of the pod's node, which answers as a kubelet does.
//!
//! An upgraded connection is copied raw in both directions; the channel protocol in it is between the client and the agent.
//! Only WebSockets are passed on: kubectl speaks SPDY only after a WebSocket failed, and gets told what would work.

use super::api::{Api, Context};
use super::node_proxy::NodeProxy;
use super::options::GetOptions;
use super::request::Query;
use crate::resources::registry;
use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use longshore_api::Status;
use longshore_api::field::{Error, Path};
use longshore_api::ids::ClusterId;
use longshore_api::node::RAW_PORT_PROTOCOL;
use serde_json::Value;

/// What a kubelet says when it refuses fits well in this.
const REFUSAL_LIMIT: usize = 64 * 1024;
/// The headers of a WebSocket's handshake; no others pass, least of all credentials.
const HANDSHAKE: [&str; 4] =
    ["sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions"];
const HANDSHAKE_ANSWER: [&str; 3] = ["sec-websocket-accept", "sec-websocket-protocol", "sec-websocket-extensions"];

impl Api {
    pub async fn logs(
        &self,
        cx: &Context,
        namespace: &str,
        name: &str,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        check_log_options(name, query)?;
        let pod = self.pod(cx, namespace, name).await?;
        let container = container(&pod, query.text("container"), name)?;
        let Some(node) = node(&pod) else {
            // Not on a node yet: nothing has been said.
            return Ok(super::answer::text(StatusCode::OK, ""));
        };
        let options =
            ["follow", "previous", "timestamps", "tailLines", "sinceSeconds", "sinceTime", "limitBytes", "stream"];
        let kept = options.iter().filter(|o| query.has(o)).map(|o| (*o, query.text(o)));
        let path = format!("/containerLogs/{namespace}/{name}/{container}");
        let request = node_request(&path, kept)?;
        let response = self.nodes.request(cx.cluster.id(), &node, request).await?;
        let response = accepted(response, StatusCode::OK).await?;
        Ok(super::answer::with_type(StatusCode::OK, "text/plain", response.into_body()))
    }

    /// `verb` is `exec` or `attach`.
    pub async fn stream(
        &self,
        cx: &Context,
        verb: &str,
        namespace: &str,
        name: &str,
        query: &Query,
        client: Upgrading,
    ) -> Result<Response<Body>, Status> {
        let pod = self.pod(cx, namespace, name).await?;
        let container = container(&pod, query.text("container"), name)?;
        let node = host(&pod, name)?;
        if ["stdin", "stdout", "stderr"].iter().all(|stream| !query.flag(stream)) {
            return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        let named = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
        let streams = named.iter().filter(|(ours, _)| query.flag(ours)).map(|(_, kubelets)| (*kubelets, "1"));
        let commands = query.all("command").map(|command| ("command", command));
        if verb == "exec" && query.all("command").next().is_none() {
            return Err(Status::bad_request("you must specify at least one command for the container"));
        }
        let mut request = node_request(&format!("/{verb}/{namespace}/{name}/{container}"), commands.chain(streams))?;
        *request.headers_mut() = client.handshake;
        let (upgraded, response) = upgrade(&*self.nodes, cx.cluster.id(), &node, request).await?;
        tokio::spawn(copy(client.connection, upgraded, format!("{verb} {namespace}/{name}")));
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        copy_headers(response.headers(), answer.headers_mut(), &HANDSHAKE_ANSWER);
        Ok(answer)
    }

    pub(super) async fn pod(&self, cx: &Context, namespace: &str, name: &str) -> Result<Value, Status> {
        let pods = registry().by_name("pods").ok_or_else(Status::no_such_path)?;
        Ok(self.get(cx, pods, namespace, name, &GetOptions::default()).await?.tree())
    }
}

/// A client's connection that is about to become a WebSocket.
pub struct Upgrading {
    connection: OnUpgrade,
    handshake: HeaderMap,
}

impl Upgrading {
    /// Err says why the request is no WebSocket that can be passed on.
    pub fn take(parts: &mut http::request::Parts) -> Result<Self, Status> {
        let upgrade = parts.headers.get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        if parts.version >= Version::HTTP_2 {
            return Err(Status::bad_request("streams need a WebSocket over HTTP/1.1; this connection speaks HTTP/2"));
        }
        if upgrade.starts_with("spdy") {
            return Err(Status::bad_request(
                "unable to upgrade: SPDY/3.1 is not supported, stream over a WebSocket (kubectl 1.31 or newer does)",
            ));
        }
        if upgrade != "websocket" || !parts.headers.contains_key("sec-websocket-key") {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let connection =
            parts.extensions.remove::<OnUpgrade>().ok_or_else(|| Status::bad_request("Upgrade request required"))?;
        let mut handshake = HeaderMap::new();
        handshake.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        handshake.insert(UPGRADE, HeaderValue::from_static("websocket"));
        copy_headers(&parts.headers, &mut handshake, &HANDSHAKE);
        Ok(Self { connection, handshake })
    }
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, names: &[&'static str]) {
    for name in names {
        for value in from.get_all(*name) {
            to.append(HeaderName::from_static(name), value.clone());
        }
    }
}

/// Asks a node for an upgrade: the connection that comes of it, and the answer's head.
async fn upgrade(
    nodes: &dyn NodeProxy,
    cluster: &ClusterId,
    node: &str,
    request: Request<Body>,
) -> Result<(OnUpgrade, Response<Body>), Status> {
    let mut response = nodes.request(cluster, node, request).await?;
    let upgraded = response.extensions_mut().remove::<OnUpgrade>();
    let response = accepted(response, StatusCode::SWITCHING_PROTOCOLS).await?;
    let upgraded = upgraded.ok_or_else(|| Status::internal("the node's connection was not upgraded"))?;
    Ok((upgraded, response))
}

/// The raw bytes of a connection that a node makes for us.
pub(crate) async fn raw<'a>(
    nodes: &dyn NodeProxy,
    cluster: &ClusterId,
    node: &str,
    path: &str,
    query: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<TokioIo<Upgraded>, Status> {
    let mut request = node_request(path, query)?;
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static(RAW_PORT_PROTOCOL));
    let (upgraded, _) = upgrade(nodes, cluster, node, request).await?;
    upgraded.await.map(TokioIo::new).map_err(|error| Status::internal(error.to_string()))
}

/// Copies bytes both ways until both have ended, or the connection breaks.
pub(super) async fn copy(client: OnUpgrade, node: OnUpgrade, what: String) {
    let (client, node) = match tokio::try_join!(client, node) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(what, %error, "{what}: the connection was not upgraded");
            return;
        }
    };
    let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
        tracing::debug!(what, %error, "{what}: the stream broke");
    }
}

pub(super) fn node_request<'a>(
    path: &str,
    query: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Request<Body>, Status> {
    let query: Vec<String> = query.map(|(key, value)| format!("{key}={}", escape(value))).collect();
    let uri = if query.is_empty() { path.to_string() } else { format!("{path}?{}", query.join("&")) };
    Request::builder()
        .method(Method::GET)
        .uri(uri)
        .body(Body::empty())
        .map_err(|_| Status::bad_request("the request cannot be passed to the node"))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// The response, if it is what was hoped for; else what the node said, as a `Status`.
async fn accepted(response: Response<Body>, wanted: StatusCode) -> Result<Response<Body>, Status> {
    let code = response.status();
    if code == wanted {
        return Ok(response);
    }
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    let said = match Limited::new(response.into_body(), REFUSAL_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Default::default(),
    };
    if let Some(status) = is_json.then(|| serde_json::from_slice::<Status>(&said).ok()).flatten() {
        return Err(status);
    }
    let said = String::from_utf8_lossy(&said).trim().to_string();
    Err(match code {
        StatusCode::BAD_REQUEST => Status::bad_request(said),
        StatusCode::NOT_FOUND => Status::failure(404, "NotFound", said),
        StatusCode::FORBIDDEN => Status::failure(403, "Forbidden", said),
        StatusCode::SERVICE_UNAVAILABLE => Status::unavailable(said),
        _ => Status::internal(format!("the node answered {}: {said}", code.as_u16())),
    })
}

fn node(pod: &Value) -> Option<String> {
    pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()).map(String::from)
}

/// The node of a pod that must have one.
pub(super) fn host(pod: &Value, name: &str) -> Result<String, Status> {
    node(pod).ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))
}

/// Which container is meant: the named one if the pod has it, the only one if none is named.
fn container(pod: &Value, wanted: &str, name: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if !wanted.is_empty() {
        return match main.iter().chain(&init).chain(&ephemeral).any(|c| *c == wanted) {
            true => Ok(wanted.into()),
            false => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        };
    }
    match main[..] {
        [only] if init.is_empty() && ephemeral.is_empty() => Ok(only.into()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

fn check_log_options(name: &str, query: &Query) -> Result<(), Status> {
    let mut problems = Vec::new();
    for (option, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let text = query.text(option);
        if text.is_empty() {
            continue;
        }
        match text.parse::<i64>() {
            Ok(number) if number >= least => {}
            Ok(number) => {
                let why = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
                problems.push(Error::invalid(&Path::new(option), number, why));
            }
            Err(_) => return Err(Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }
    if !query.text("sinceSeconds").is_empty() && !query.text("sinceTime").is_empty() {
        problems
            .push(Error::forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    match problems[..] {
        [] => Ok(()),
        _ => Err(Status::invalid("", "PodLogOptions", name, &problems)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let pod = |containers: &[&str], init: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
            json!({"spec": {"containers": list(containers), "initContainers": list(init)}})
        };
        assert_eq!(container(&pod(&["a"], &[]), "", "p").unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"], &["i"]), "i", "p").unwrap(), "i");
        let message = |pod: Value, wanted: &str| container(&pod, wanted, "p").unwrap_err().message;
        assert_eq!(
            message(pod(&["a", "b"], &["i"]), ""),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(message(pod(&["a"], &[]), "x"), "container x is not valid for pod p");
    }

    #[test]
    fn log_options_are_checked() {
        assert!(check_log_options("p", &Query::parse("tailLines=0&follow=true")).is_ok());
        assert_eq!(check_log_options("p", &Query::parse("tailLines=-1")).unwrap_err().code, 422);
        assert_eq!(check_log_options("p", &Query::parse("tailLines=x")).unwrap_err().code, 400);
        assert_eq!(check_log_options("p", &Query::parse("sinceSeconds=1&sinceTime=x")).unwrap_err().code, 422);
    }

    #[test]
    fn what_goes_to_the_node_is_escaped() {
        let request = node_request("/exec/n/p/c", [("command", "echo a&b=c d")].into_iter()).unwrap();
        assert_eq!(request.uri().to_string(), "/exec/n/p/c?command=echo%20a%26b%3Dc%20d");
    }
}
