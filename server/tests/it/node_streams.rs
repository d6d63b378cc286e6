//! Logs and exec from a client to a node and back: over the port, through the tunnel, as raw bytes.

use crate::installation::{Connected, Installation};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::convert::Infallible;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, handshake};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A kubelet that echoes what is typed into `exec`, says a line of the log for each that is asked of it, and tells who went away.
#[derive(Clone)]
struct Kubelet {
    gone: mpsc::Sender<&'static str>,
}

struct Told(mpsc::Sender<&'static str>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.try_send(self.1);
    }
}

impl Kubelet {
    fn serve(mut tunnel: Connected) -> mpsc::Receiver<&'static str> {
        let (gone, told) = mpsc::channel(8);
        let kubelet = Self { gone };
        tokio::spawn(async move {
            while let Some(stream) = tunnel.incoming.next().await {
                let kubelet = kubelet.clone();
                let service = service_fn(move |request| {
                    let kubelet = kubelet.clone();
                    async move { Ok::<_, Infallible>(kubelet.answer(request)) }
                });
                tokio::spawn(longshore_tunnel::http::serve(stream, service));
            }
            drop(tunnel.opener);
        });
        told
    }

    fn answer(self, mut request: Request<hyper::body::Incoming>) -> Answer {
        let path = request.uri().path_and_query().unwrap().to_string();
        if path.starts_with("/containerLogs/") {
            let told = Told(self.gone, "log");
            let lines = futures::stream::unfold((0u32, told), |(i, told)| async move {
                // Follows for ever; whoever reads slowly holds it back.
                tokio::task::yield_now().await;
                Some((Ok(Frame::data(Bytes::from(format!("line {i}\n")))), (i + 1, told)))
            });
            return Response::new(BodyExt::boxed(StreamBody::new(lines)));
        }
        let key = request.headers().get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
        let Some(key) = key else {
            let mut refused = Response::new(Full::new(Bytes::from(path)).boxed());
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            return refused;
        };
        let credential = request.headers().contains_key("authorization") || request.headers().contains_key("cookie");
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let _told = Told(self.gone, "exec");
            let io = TokioIo::new(upgraded.await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
            socket.send(Message::text(format!("{path} {credential}"))).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_binary() && socket.send(message).await.is_err() {
                    return;
                }
            }
        });
        let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let answer = answer.header("connection", "Upgrade").header("upgrade", "websocket");
        let answer = answer.header("sec-websocket-accept", key).header("sec-websocket-protocol", protocol);
        answer.body(Full::new(Bytes::new()).boxed()).unwrap()
    }
}

async fn with_pod(here: &Installation) -> mpsc::Receiver<&'static str> {
    let machine = here.join("n1").await;
    let told = Kubelet::serve(machine.tunnel().await);
    here.default_account().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let made = here.api("POST", "/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(made.status, 201, "{}", made.text);
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_is_passed_through_as_it_is() {
    let here = Installation::start().await;
    let mut told = with_pod(&here).await;
    let path = format!("/clusters/{}/api/v1/namespaces/default/pods/p/exec", here.cluster());
    let request = Request::get(format!("wss://{}{path}?command=echo&command=a%20b&stdin=1&stdout=true", here.address))
        .header("host", here.address.to_string())
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", handshake::client::generate_key())
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .header("authorization", format!("Bearer {}", here.secrets.api_token));
    let opened = tokio_tungstenite::client_async(request.body(()).unwrap(), here.connect().await).await;
    let (mut socket, response) = opened.expect("the stream opens");
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    let first = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(
        first, "/exec/default/p/c?command=echo&command=a%20b&input=1&output=1 false",
        "no credential gets there"
    );
    let bulk: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
    socket.send(Message::binary(bulk.clone())).await.unwrap();
    let back = socket.next().await.unwrap().unwrap().into_data();
    assert!(back == bulk);
    drop(socket);
    assert_eq!(told.recv().await, Some("exec"), "the node learns that its client went away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_until_nobody_listens() {
    let here = Installation::start().await;
    let mut told = with_pod(&here).await;
    let path = format!("/clusters/{}/api/v1/namespaces/default/pods/p/log?follow=true", here.cluster());
    let request = Request::get(path).header("authorization", format!("Bearer {}", here.secrets.api_token));
    let mut body = here.answer(request.body(String::new()).unwrap()).await.into_body();
    let mut text = String::new();
    while !text.contains("line 3\n") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    assert!(text.starts_with("line 0\nline 1\n"), "{text}");
    drop(body);
    assert_eq!(told.recv().await, Some("log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_named() {
    let here = Installation::start().await;
    let told = with_pod(&here).await;
    let node = here.app.gateway.sessions().opener(here.cluster(), "n1").unwrap();
    node.close();
    node.ended().await;
    drop(told);
    let log = here.api("GET", "/api/v1/namespaces/default/pods/p/log", json!(null)).await;
    let expected = "error dialing backend: no tunnel to node \"n1\"";
    assert_eq!(log.refusal(), (503, expected.to_string()));
}
