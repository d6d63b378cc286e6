//! WebSockets, whatever version of HTTP either end speaks: real ones, by tungstenite.

use crate::support::*;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::ext::Protocol as Asked;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore_edge::model::Protocol;
use longshore_edge::{Claims, Settings};
use serde_json::json;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response as Agreement};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

/// Says back what it hears, until it hears the end.
async fn repeat<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.unwrap();
        }
    }
}

/// Agrees by an upgrade at `/ws`, and to protocol `chat`.
async fn http1_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(socket) = accept_hdr_async(stream, agree).await {
                    repeat(socket).await;
                }
            });
        }
    });
    address
}

#[expect(clippy::result_large_err, reason = "tungstenite's own")]
fn agree(asked: &Upgrade, mut agreement: Agreement) -> Result<Agreement, ErrorResponse> {
    assert_eq!((asked.method(), asked.headers()["host"].to_str().unwrap()), (&Method::GET, "a.com"));
    assert!(asked.headers().contains_key("x-forwarded-for"));
    if asked.uri() != "/ws?a=b" {
        let mut refused = ErrorResponse::new(Some("not here".into()));
        *refused.status_mut() = StatusCode::FORBIDDEN;
        return Err(refused);
    }
    assert_eq!(asked.headers()["sec-websocket-protocol"], "chat, other");
    agreement.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    Ok(agreement)
}

/// Agrees by an extended `CONNECT`, if it announces that.
async fn http2_endpoint(announces: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                if announces {
                    builder.enable_connect_protocol();
                }
                let service = hyper::service::service_fn(async |mut request: Request<Incoming>| {
                    assert_eq!(request.method(), Method::CONNECT);
                    assert_eq!(request.extensions().get::<Asked>().unwrap().as_str(), "websocket");
                    assert_eq!(request.uri(), "http://a.com/ws?a=b");
                    assert_eq!(request.headers()["sec-websocket-version"], "13");
                    assert!(!request.headers().contains_key("sec-websocket-key"));
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let io = TokioIo::new(upgrade.await.unwrap());
                        repeat(WebSocketStream::from_raw_socket(io, Role::Server, None).await).await;
                    });
                    let answer = Response::builder().header("sec-websocket-protocol", "chat");
                    Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
                });
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A client's connection of HTTP/2.
async fn http2_client(test: &TestEdge) -> http2::SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(test.http).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut connection = Box::pin(connection);
    poll_fn(|cx| {
        assert!(connection.as_mut().poll(cx).is_pending());
        if connection.is_extended_connect_protocol_enabled() {
            return Poll::Ready(());
        }
        // Nobody else wakes it.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    tokio::spawn(connection);
    sender
}

async fn connect(
    client: &mut http2::SendRequest<Empty<Bytes>>,
    protocol: &'static str,
    path: &str,
) -> Response<Incoming> {
    let asked = Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(format!("http://a.com{path}"));
    let asked = asked.header("sec-websocket-version", "13").header("sec-websocket-protocol", "chat, other");
    let asked = asked.extension(Asked::from_static(protocol)).body(Empty::new()).unwrap();
    client.send_request(asked).await.unwrap()
}

type Http2Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn open(client: &mut http2::SendRequest<Empty<Bytes>>) -> Http2Socket {
    let response = connect(client, "websocket", "/ws?a=b").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    WebSocketStream::from_raw_socket(io, Role::Client, None).await
}

/// What is said comes back, large and small, and the end does, too.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    for message in [Message::text("hello"), Message::binary(vec![7; 300_000]), Message::text("")] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_close());
    assert!(socket.next().await.is_none());
}

async fn edge(settings: Settings, endpoint: SocketAddr, protocol: Option<Protocol>) -> TestEdge {
    let test = TestEdge::start(settings).await;
    test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web")], json!({})));
    test.speak(&[endpoint], protocol);
    test
}

#[tokio::test]
async fn a_client_of_http2_talks_with_an_endpoint_of_http1() {
    let test = TestEdge::with(&[http1_endpoint().await], json!({})).await;
    let mut client = http2_client(&test).await;
    let (first, mut second) = (open(&mut client).await, open(&mut client).await);
    second.send(Message::text("both at once")).await.unwrap();
    talk(first).await;
    assert_eq!(second.next().await.unwrap().unwrap(), Message::text("both at once"));
    let refused = connect(&mut client, "websocket", "/elsewhere").await;
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.into_body().collect().await.unwrap().to_bytes(), "not here");
    talk(second).await;
}

#[tokio::test]
async fn a_client_of_http2_talks_with_an_endpoint_of_http2_and_of_http1_too() {
    let test = edge(Settings::default(), http2_endpoint(true).await, Some(Protocol::H2c)).await;
    let mut client = http2_client(&test).await;
    talk(open(&mut client).await).await;

    let mut asked = Request::get("ws://a.com/ws?a=b").header("host", "a.com");
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, other"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        asked = asked.header(name, value);
    }
    let stream = TcpStream::connect(test.http).await.unwrap();
    let (socket, answer) = client_async(asked.body(()).unwrap(), stream).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    talk(socket).await;
}

#[tokio::test]
async fn an_endpoint_of_http2_that_takes_none_is_asked_for_none() {
    let test = edge(Settings::default(), http2_endpoint(false).await, Some(Protocol::H2c)).await;
    let mut client = http2_client(&test).await;
    let refused = connect(&mut client, "websocket", "/ws?a=b").await;
    assert_eq!(refused.status(), 502);
    let why = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(why, "502 Bad Gateway: the endpoint takes no WebSockets over HTTP/2\n");
}

/// Agrees to whatever it is asked, without having understood.
async fn liar() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        stream.write_all(format!("{answer}Sec-WebSocket-Accept: wrong\r\n\r\n").as_bytes()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    address
}

#[tokio::test]
async fn what_is_no_agreement_is_not_told_as_one() {
    for endpoint in [liar().await, echo("one").await] {
        let test = TestEdge::with(&[endpoint], json!({})).await;
        let mut client = http2_client(&test).await;
        assert_eq!(connect(&mut client, "websocket", "/ws?a=b").await.status(), 502);
        assert_eq!(connect(&mut client, "connect-udp", "/ws?a=b").await.status(), 501);
        let plain = Request::connect("a.com:443").version(Version::HTTP_2).body(Empty::new()).unwrap();
        assert_eq!(client.send_request(plain).await.unwrap().status(), 405);
    }
}

#[tokio::test]
async fn it_ends_when_its_endpoint_is_gone_or_nothing_passes_and_holds_its_connection_until_then() {
    let quick = Duration::from_millis(200);
    let settings = Settings { idle: quick, drain: quick, ..Settings::default() };
    let test = edge(settings, http1_endpoint().await, None).await;
    let mut client = http2_client(&test).await;
    let mut socket = open(&mut client).await;
    assert!(tokio::time::timeout(4 * quick, socket.next()).await.is_err(), "the connection isn't idle");
    test.endpoints(&[]);
    let ended = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap();
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");

    let settings = Settings { tunnel_idle: quick, ..Settings::default() };
    let test = edge(settings, http1_endpoint().await, None).await;
    let mut client = http2_client(&test).await;
    let mut socket = open(&mut client).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap();
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
}
