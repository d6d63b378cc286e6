//! Port-forwarding from a client to a node and back: over the port, in each way that clients speak it.

use crate::app::TestApp;
use crate::installation::Installation;
use crate::pods;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt, TryStreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper_util::rt::TokioIo;
use longshore_tunnel::spdy::{Decoder, Encoder, Frame, Headers, Reset};
use serde_json::json;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, handshake};
use tokio_util::codec::{BytesCodec, Decoder as _};

/// Ports of the pretended pod.
const ECHO: u16 = 7;
const GREETING: u16 = 13;
const CUT: u16 = 66;
const NOBODY: u16 = 81;

/// Answers as an agent does, and tells each connection that is over.
fn pretend(mut request: Request<hyper::body::Incoming>, over: mpsc::Sender<u16>) -> Response<Full<Bytes>> {
    let answer = |code: u16| Response::builder().status(code);
    let uri = request.uri().to_string();
    let port: u16 = uri.split(['=', '&']).nth(1).unwrap().parse().unwrap();
    let told = request.headers().keys().any(|name| name == "authorization" || name == "cookie");
    if port == NOBODY || told || !uri.starts_with("/portForward/default/p?port=") {
        return answer(503).body(Full::from(format!("{uri} {told}: connection refused"))).unwrap();
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        match port {
            CUT => {
                let _ = io.read_u8().await;
            }
            GREETING => {
                let _ = io.write_all(b"hello").await;
                let _ = io.shutdown().await;
                // Half-closed: what the client still says is read.
                let _ = io.read_to_end(&mut Vec::new()).await;
            }
            _ => {
                let (mut read, mut write) = tokio::io::split(io);
                if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                    let _ = write.shutdown().await;
                }
            }
        }
        let _ = over.send(port).await;
    });
    let answer = answer(101).header("connection", "upgrade");
    answer.header("upgrade", "port-raw.longshore.v1").body(Full::default()).unwrap()
}

/// An installation with a pod that runs on a pretended node; its uid, and what is over.
async fn with_pod(here: &Installation) -> (String, mpsc::Receiver<u16>) {
    let (over, told) = mpsc::channel(64);
    let pod = pods::running(here, move |request| pretend(request, over.clone())).await;
    (pod["metadata"]["uid"].as_str().unwrap().to_owned(), told)
}

fn asking(here: &Installation, method: &str, query: &str, headers: &[(&str, &str)]) -> Request<()> {
    let path = format!("/clusters/{}/api/v1/namespaces/default/pods/p/portforward{query}", here.cluster());
    let mut request = Request::builder().method(method).uri(format!("wss://{}{path}", here.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("host", here.address.to_string()).header("connection", "Upgrade");
    request.header("authorization", format!("Bearer {}", here.secrets.api_token)).body(()).unwrap()
}

async fn websocket(here: &Installation, query: &str, protocol: &str) -> WebSocketStream<impl Io + use<>> {
    let key = handshake::client::generate_key();
    let headers = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", key.as_str()),
        ("sec-websocket-protocol", protocol),
    ];
    let request = asking(here, "GET", query, &headers);
    let (socket, answer) = tokio_tungstenite::client_async(request, here.connect().await).await.expect("it opens");
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    socket
}

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Io for T {}

/// A client that speaks SPDY over whatever carries it.
struct Spdy<S> {
    carrier: S,
    encoder: Encoder,
    decoder: Decoder,
    next: u32,
}

/// The streams of one forwarded connection.
#[derive(Clone, Copy)]
struct Pair {
    error: u32,
    data: u32,
}

impl<S> Spdy<S>
where
    S: Stream<Item = io::Result<Bytes>> + futures::Sink<Bytes, Error = io::Error> + Unpin,
{
    fn new(carrier: S) -> Self {
        Self { carrier, encoder: Encoder::default(), decoder: Decoder::default(), next: 1 }
    }

    async fn send(&mut self, frame: Frame) {
        self.carrier.send(self.encoder.encode(&frame)).await.unwrap();
    }

    async fn say(&mut self, stream: u32, bytes: impl Into<Bytes>, fin: bool) {
        self.send(Frame::Data { stream, fin, bytes: bytes.into() }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.frame().unwrap() {
                return Some(frame);
            }
            self.decoder.push(&self.carrier.next().await?.ok()?);
        }
    }

    /// As client-go opens one.
    async fn open(&mut self, port: u16) -> Pair {
        let (id, pair) = (self.next, Pair { error: self.next, data: self.next + 2 });
        self.next += 4;
        for (stream, kind) in [(pair.error, "error"), (pair.data, "data")] {
            let headers = [("streamtype", kind), ("port", &port.to_string()), ("requestid", &id.to_string())];
            let headers = Headers(headers.map(|(name, value)| (name.to_string(), value.to_string())).to_vec());
            self.send(Frame::SynStream { stream, fin: false, headers }).await;
            let reply = self.next().await;
            assert_eq!(reply, Some(Frame::SynReply { stream, fin: false, headers: Headers::default() }));
        }
        self.say(pair.error, "", true).await;
        pair
    }

    /// All that is said on the streams until each of them has ended.
    async fn ends<const N: usize>(&mut self, streams: [u32; N]) -> [String; N] {
        let (mut heard, mut open) = ([const { String::new() }; N], N);
        while open > 0 {
            let frame = self.next().await.expect("the client is served");
            let Frame::Data { stream, fin, bytes } = frame else { panic!("{frame:?}") };
            let place = streams.iter().position(|s| *s == stream).unwrap_or_else(|| panic!("stream {stream}"));
            heard[place].push_str(std::str::from_utf8(&bytes).unwrap());
            open -= usize::from(fin);
        }
        heard
    }
}

async fn tunnelled(
    here: &Installation,
) -> Spdy<impl Stream<Item = io::Result<Bytes>> + futures::Sink<Bytes, Error = io::Error> + Unpin + use<>> {
    let socket = websocket(here, "", "SPDY/3.1+portforward.k8s.io").await;
    let binary = |message: Message| futures::future::ready(message.is_binary().then(|| Ok(message.into_data())));
    let carrier = socket.map_err(io::Error::other).try_filter_map(move |m| {
        let found = binary(m);
        async { found.await.transpose() }
    });
    let carrier = carrier
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| futures::future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    Spdy::new(Box::pin(carrier))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_of_kubectl_carries_many_and_a_failed_one_ends_no_other() {
    let here = Installation::start().await;
    let (uid, mut over) = with_pod(&here).await;
    let mut client = tunnelled(&here).await;
    let (first, second) = (client.open(ECHO).await, client.open(ECHO).await);
    let failed = client.open(NOBODY).await;
    let [why, nothing] = client.ends([failed.error, failed.data]).await;
    assert_eq!(nothing, "");
    let asked = format!("/portForward/default/p?port=81&uid={uid}");
    assert_eq!(why, format!("error forwarding port 81 to pod p, uid {uid}: {asked} false: connection refused"));

    let bulk: String = (0..300_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    client.say(first.data, bulk.clone(), false).await;
    client.say(first.data, "the end", true).await;
    client.say(second.data, "second", true).await;
    let [a, b, c, d] = client.ends([first.data, first.error, second.data, second.error]).await;
    assert!(a == bulk + "the end", "{} bytes came back", a.len());
    assert_eq!((b.as_str(), c.as_str(), d.as_str()), ("", "second", ""));
    assert_eq!((over.recv().await, over.recv().await), (Some(ECHO), Some(ECHO)));

    // A pod that has said all is still spoken to; one that was cut is no reason for the client to end everything.
    let greeting = client.open(GREETING).await;
    assert_eq!(client.ends([greeting.data]).await, ["hello"]);
    client.say(greeting.data, "bye", true).await;
    assert_eq!(client.ends([greeting.error]).await, [""]);
    assert_eq!(over.recv().await, Some(GREETING));
    let cut = client.open(CUT).await;
    client.say(cut.data, "x", false).await;
    assert_eq!(client.next().await, Some(Frame::Reset { stream: cut.data, status: Reset::CANCEL }));
    assert_eq!(client.ends([cut.error]).await, [""]);
    assert_eq!(over.recv().await, Some(CUT));

    let left = client.open(ECHO).await;
    client.say(left.data, "x", false).await;
    assert!(matches!(client.next().await, Some(Frame::Data { .. })));
    drop(client);
    assert_eq!(over.recv().await, Some(ECHO), "the node learns that its client went away");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_clients_upgrade_to_spdy() {
    let here = Installation::start().await;
    let (_, mut over) = with_pod(&here).await;
    let headers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")];
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(here.connect().await)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = asking(&here, "POST", "", &headers).map(|()| Empty::<Bytes>::new());
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["upgrade"], "SPDY/3.1");
    assert_eq!(answer.headers()["x-stream-protocol-version"], "portforward.k8s.io");
    let io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let mut client = Spdy::new(BytesCodec::new().framed(io).map_ok(BytesMut::freeze));

    client.send(Frame::Ping { id: 1 }).await;
    assert_eq!(client.next().await, Some(Frame::Ping { id: 1 }));
    let echo = client.open(ECHO).await;
    client.say(echo.data, "once", false).await;
    assert_eq!(client.next().await, Some(Frame::Data { stream: echo.data, fin: false, bytes: "once".into() }));
    client.send(Frame::Reset { stream: echo.data, status: Reset::CANCEL }).await;
    assert_eq!(client.ends([echo.error]).await, [""], "client-go waits for it");
    assert_eq!(over.recv().await, Some(ECHO));

    // Who can't be understood any more is told so.
    client.carrier.send(Bytes::from_static(b"\x80\x02\0\x01\0\0\0\0")).await.unwrap();
    assert!(matches!(client.next().await, Some(Frame::GoAway { status: 1, .. })));
    assert_eq!(client.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_carry_one_connection_for_each_port() {
    let here = Installation::start().await;
    let (uid, mut over) = with_pod(&here).await;
    let mut socket = websocket(&here, "?ports=7&ports=81,13", "v4.channel.k8s.io").await;
    let mut heard = vec![Vec::new(); 6];
    while heard[4].len() < 7 || heard[3].len() < 3 || heard.iter().any(|channel| channel.len() < 2) {
        let message = socket.next().await.unwrap().unwrap().into_data();
        heard[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    for (channel, port) in [7, 7, 81, 81, 13, 13].into_iter().enumerate() {
        assert_eq!(heard[channel][..2], [port, 0], "each begins with its port");
    }
    assert_eq!(&heard[4][2..], b"hello");
    let why = String::from_utf8_lossy(&heard[3][2..]);
    assert!(why.starts_with(&format!("error forwarding port 81 to pod p, uid {uid}: ")), "{why}");
    assert_eq!(over.recv().await, Some(GREETING), "when the pod has said all, its connection is over");

    let said = Message::Binary(Bytes::from_static(b"\0still here"));
    socket.send(said.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), said);
    socket.close(None).await.unwrap();
    assert_eq!(over.recv().await, Some(ECHO));

    // The last one's end is the client's.
    let mut socket = websocket(&here, "?ports=13", "v4.channel.k8s.io").await;
    let mut text = Vec::new();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) if bytes[0] == 0 => text.extend_from_slice(&bytes[1..]),
            Message::Close(frame) => break assert_eq!(u16::from(frame.unwrap().code), 1000),
            _ => {}
        }
    }
    assert_eq!(text, b"\x0d\0hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_upgrade_is_refused_in_kubernetess_words() {
    let here = Installation::start().await;
    let (_, _over) = with_pod(&here).await;
    let refused = async |query: &str, headers: &[(&str, &str)]| {
        let request = asking(&here, "GET", query, headers).map(|()| String::new());
        here.send(request).await.refusal()
    };
    let socket =
        [("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let with = |protocol| [&socket[..], &[("sec-websocket-protocol", protocol)]].concat();
    for (query, headers, code, message) in [
        ("", vec![], 400, "Upgrade request required"),
        ("", vec![("upgrade", "SPDY/3.1")], 400, "unable to upgrade: X-Stream-Protocol-Version header is required"),
        (
            "",
            vec![("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")],
            403,
            "unable to upgrade: unable to negotiate protocol: client supports [v4.channel.k8s.io], server accepts [portforward.k8s.io]",
        ),
        (
            "",
            with("soap"),
            400,
            "requested protocol(s) are not supported: [soap]; supports [SPDY/3.1+portforward.k8s.io v4.channel.k8s.io]",
        ),
        ("", with("v4.channel.k8s.io"), 400, "query parameter \"ports\" is required"),
    ] {
        assert_eq!(refused(query, &headers).await, (code, message.to_string()), "{headers:?}");
    }
}

#[tokio::test]
async fn ports_are_forwarded_for_developers_and_of_running_pods() {
    let app = TestApp::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    app.owner().post("/api/v1/namespaces/default/serviceaccounts", account).await;
    for (name, node) in [("p", ""), ("q", "n1")] {
        let made = app.owner().post("/api/v1/namespaces/default/pods", pods::pod(name, node)).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let ask = async |who: &str, method: &str, pod: &str| {
        let path = format!("/api/v1/namespaces/default/pods/{pod}/portforward");
        let answer = app.as_(who).send(method, &path, &[], axum::body::Body::empty()).await;
        (answer.status.as_u16(), answer.body["message"].as_str().unwrap_or_default().to_owned())
    };
    let unbound = (400, "pod p does not have a host assigned".to_owned());
    let waiting = (400, "unable to forward port because pod is not running. Current status=Pending".to_owned());
    assert_eq!(ask("developer", "GET", "p").await, unbound);
    assert_eq!(ask("developer", "POST", "q").await, waiting);
    assert_eq!(ask("developer", "POST", "none").await.0, 404);
    assert_eq!(ask("developer", "DELETE", "q").await.0, 405);
    for who in ["viewer", "nobody", "node:n1", "serviceaccount:default"] {
        assert_eq!(ask(who, "GET", "q").await.0, 403, "{who}");
    }
}
