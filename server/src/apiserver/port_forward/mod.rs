//! `pods/portforward`: connections to ports of a pod, several over one connection of a client.
//!
//! Clients multiplex in two ways: SPDY/3.1 ([`spdy`]; kubectl carries it inside a WebSocket, older ones upgrade to it), and
//! channels of a WebSocket ([`channels`]; kube-rs and the Python client). Both end here, and each forwarded connection gets a
//! stream of its own to the pod's node ([`PodPlace`]): one that fails, or that nobody reads, costs the others nothing but the
//! place that their client's one connection has.
//!
//! Nothing ends an idle connection; a beat from here keeps what stands in between from doing so.

mod channels;
mod copy;
mod spdy;
#[cfg(test)]
mod tests;

use super::api::{Api, Context};
use super::pod_place::PodPlace;
use super::request::Query;
use crate::socket::Socket;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use bytes::BytesMut;
use futures::TryStreamExt;
use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use longshore_api::Status;
use std::time::Duration;
use tokio_util::codec::{BytesCodec, Decoder};

/// What streams are about, in Kubernetes's words.
const PROTOCOL: &str = "portforward.k8s.io";
const SPDY: &str = "SPDY/3.1";
/// Subprotocols of a WebSocket.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// A channel's number is a byte, and each port has two.
const MOST_PORTS: usize = 128;
/// The longest message of a client: its libraries read a megabyte at a time.
const LONGEST_MESSAGE: usize = 4 << 20;
/// What may wait on its way to the pod, for each forwarded connection. A client whose pod doesn't read is held back from
/// there on.
const WAITING: usize = 64 << 10;
/// Pieces in which a pod's bytes go to the client.
const PIECE: usize = 32 << 10;
/// Pieces on their way to the client, of all its forwarded connections.
const QUEUE: usize = 8;
/// How often a quiet client hears from us.
const BEAT: Duration = Duration::from_secs(20);
/// What may still be said after the end, and for how long a client may take to take it.
const FAREWELL: Duration = Duration::from_secs(5);

impl Api {
    /// Answers the upgrade; what follows is served by a task of its own.
    pub async fn port_forward(
        &self,
        cx: &Context,
        namespace: &str,
        name: &str,
        query: &Query,
        parts: &mut Parts,
    ) -> Result<Response<Body>, Status> {
        let pod = self.pod(cx, namespace, name).await?;
        let place = PodPlace::of(self, cx, &pod)?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if phase != "Running" {
            let message = format!("unable to forward port because pod is not running. Current status={phase}");
            return Err(Status::bad_request(message));
        }
        Ok(match Client::of(parts).await? {
            Client::Spdy(connection) => {
                tokio::spawn(async move {
                    match connection.await {
                        Ok(upgraded) => {
                            let framed = BytesCodec::new().framed(TokioIo::new(upgraded));
                            spdy::serve(framed.map_ok(BytesMut::freeze), place).await;
                        }
                        Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
                    }
                });
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = [(CONNECTION, "Upgrade"), (UPGRADE, SPDY), (STREAM_PROTOCOL, PROTOCOL)];
                answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
                answer
            }
            Client::Tunnelled(upgrade) => upgrade.on_upgrade(move |socket| spdy::serve(Socket(socket), place)),
            Client::Channels(upgrade) => {
                let ports = ports(query)?;
                upgrade.on_upgrade(move |socket| channels::serve(socket, place, ports))
            }
        })
    }
}

/// Connects to a port on the pod's own localhost. Err is the sentence for the client.
async fn connect(pod: &PodPlace, port: u16) -> Result<TokioIo<Upgraded>, String> {
    let connected = pod.inside(port).await;
    connected.map_err(|status| {
        format!("error forwarding port {port} to pod {}, uid {}: {}", pod.name, pod.uid, status.message)
    })
}

/// How a client multiplexes.
enum Client {
    Spdy(OnUpgrade),
    Tunnelled(WebSocketUpgrade),
    Channels(WebSocketUpgrade),
}

impl Client {
    /// Err says why the request is no upgrade that can be served.
    async fn of(parts: &mut Parts) -> Result<Self, Status> {
        if parts.version >= Version::HTTP_2 {
            return Err(Status::bad_request("streams need an upgrade over HTTP/1.1; this connection speaks HTTP/2"));
        }
        let upgrade = parts.headers.get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if upgrade.eq_ignore_ascii_case(SPDY) {
            return Self::spdy(parts);
        }
        let no_upgrade = || Status::bad_request("Upgrade request required");
        if !upgrade.eq_ignore_ascii_case("websocket") {
            return Err(no_upgrade());
        }
        let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await.map_err(|_| no_upgrade())?;
        let upgrade = upgrade.max_message_size(LONGEST_MESSAGE).max_frame_size(LONGEST_MESSAGE);
        let upgrade = upgrade.read_buffer_size(16 << 10).write_buffer_size(0).protocols([TUNNELLED, CHANNELS]);
        match upgrade.selected_protocol().map(HeaderValue::as_bytes) {
            Some(name) if name == TUNNELLED.as_bytes() => Ok(Self::Tunnelled(upgrade)),
            Some(_) => Ok(Self::Channels(upgrade)),
            None if upgrade.requested_protocols().next().is_none() => Ok(Self::Channels(upgrade)),
            None => {
                let asked: Vec<&str> = upgrade.requested_protocols().filter_map(|p| p.to_str().ok()).collect();
                Err(Status::bad_request(format!(
                    "requested protocol(s) are not supported: [{}]; supports [{TUNNELLED} {CHANNELS}]",
                    asked.join(" ")
                )))
            }
        }
    }

    fn spdy(parts: &mut Parts) -> Result<Self, Status> {
        let lines = parts.headers.get_all(STREAM_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
        let asked: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        if asked.is_empty() {
            return Err(Status::bad_request("unable to upgrade: X-Stream-Protocol-Version header is required"));
        }
        if !asked.contains(&PROTOCOL) {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{PROTOCOL}]",
                asked.join(" ")
            );
            return Err(Status::failure(403, "Forbidden", message));
        }
        let connection = parts.extensions.remove::<OnUpgrade>();
        connection.map(Self::Spdy).ok_or_else(|| Status::bad_request("Upgrade request required"))
    }
}

/// The ports of a client that names them at once (`ports=80&ports=443,8080`).
fn ports(query: &Query) -> Result<Vec<u16>, Status> {
    let mut ports = Vec::new();
    for text in query.all("ports").flat_map(|list| list.split(',')) {
        match text.parse::<u16>() {
            Ok(0) => return Err(Status::bad_request(format!("port {text:?} must be > 0"))),
            Ok(port) => ports.push(port),
            Err(_) => return Err(Status::bad_request(format!("unable to parse {text:?} as a port"))),
        }
    }
    match ports.len() {
        0 => Err(Status::bad_request("query parameter \"ports\" is required")),
        1..=MOST_PORTS => Ok(ports),
        _ => Err(Status::bad_request(format!("no more than {MOST_PORTS} ports can be forwarded over one connection"))),
    }
}
