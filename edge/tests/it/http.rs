use crate::support::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore_edge::model::Protocol;
use longshore_edge::{Claims, Settings};
use serde_json::json;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A body whose pieces a test sends one by one.
struct Pieces(mpsc::Receiver<Frame<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

#[tokio::test]
async fn a_proxy_that_was_named_says_who_the_client_is() {
    let settings =
        Settings { proxies: vec!["127.0.0.1/32".parse().unwrap()], connections_per_address: 1, ..Settings::default() };
    let test = TestEdge::start(settings).await;
    let allowed = json!({"nginx.ingress.kubernetes.io/whitelist-source-range": "192.0.2.0/24"});
    test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web")], allowed));
    test.endpoints(&[echo("one").await]);
    let open = async |client: [u8; 4]| {
        let mut stream = TcpStream::connect(test.http).await.unwrap();
        let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &client[..], &[198, 51, 100, 1, 1, 2, 0, 80]].concat();
        stream.write_all(&header).await.unwrap();
        stream
    };
    let ask = async |mut stream: TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    // Each client is counted for itself, not for the proxy.
    let kept = open([192, 0, 2, 1]).await;
    let answer = ask(open([192, 0, 2, 7]).await).await;
    assert_eq!(got(&answer)["headers"]["x-forwarded-for"], "192.0.2.7");
    assert_eq!(&ask(open([203, 0, 113, 1]).await).await[9..12], "403");
    drop(kept);
    assert_eq!(test.raw("GET / HTTP/1.1\r\nHost: a.com\r\n\r\n").await, "", "without a header nobody is served");
    assert_eq!(test.metric("longshore_edge_refused_total"), 1.0);
}

#[tokio::test]
async fn clients_come_by_either_family_and_have_their_own_address() {
    let allowed = json!({"nginx.ingress.kubernetes.io/whitelist-source-range": "127.0.0.0/8"});
    let test = TestEdge::with(&[echo("one").await], allowed).await;
    let listener = longshore_edge::socket::listener("0.0.0.0:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (edge, stopped) = (test.edge.clone(), test.stop.subscribe());
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move { edge.serve_http(listener, stopped).await });
    let ask = async |ip: &str| {
        let mut stream = TcpStream::connect((ip, port)).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        Some(answer)
    };
    let answer = ask("127.0.0.1").await.expect("IPv4 is served");
    assert_eq!(got(&answer)["headers"]["x-forwarded-for"], "127.0.0.1");
    // Not everybody has IPv6.
    if let Some(answer) = ask("::1").await {
        assert_eq!(&answer[9..12], "403");
    }
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_replaced_and_hop_headers_end_here() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    let spoofed = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-User: root\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Hop: 1\r\nConnection: x-hop\r\nProxy-Authorization: x\r\n";
    let got = got(&test.ask("a.com", "/", spoofed).await.1);
    let headers = got["headers"].as_object().unwrap();
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.com"),
        ("host", "a.com"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    for name in ["x-forwarded-user", "forwarded", "x-hop", "proxy-authorization", "connection"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(headers["x-request-id"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_one_for_the_endpoint_or_none() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    let post = |headers: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\n{headers}\r\n\r\n{body}")
    };
    // Framed anew: what a backend would have read as a second request is nothing.
    let both = test
        .raw(&post(
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a.com\r\n\r\n",
        ))
        .await;
    let read = got(&both);
    assert_eq!(read["body"], "abc");
    assert!(read["headers"].as_object().unwrap().get("content-length").is_none_or(|v| v == "3"));
    assert_eq!(both.matches("HTTP/1.1 ").count(), 1);
    for headers in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: +4",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Host: b.com",
        " folded: x",
    ] {
        let answer = test.raw(&post(headers, "abcd")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{headers}: {answer}");
    }
    assert!(test.raw("GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert!(test.raw("CONNECT a.com:443 HTTP/1.1\r\nHost: a.com\r\n\r\n").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn bodies_are_passed_on_piece_by_piece_both_ways() {
    let test = TestEdge::with(&[], json!({})).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    test.endpoints(&[listener.local_addr().unwrap()]);
    let mut client = TcpStream::connect(test.http).await.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await
        .unwrap();
    let (mut endpoint, _) = listener.accept().await.unwrap();
    read_until(&mut endpoint, "one").await;
    // The answer begins while the request hasn't ended.
    endpoint.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
    read_until(&mut client, "first").await;
    client.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut endpoint, "two").await;
    endpoint.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut client, "last").await;
}

async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
    }
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_to_an_endpoint_without_tls() {
    grpc_passes(json!({"longshore.dev/backend-protocol": "GRPC"}), None).await;
}

#[tokio::test]
async fn grpc_passes_where_only_the_service_says_what_it_speaks() {
    grpc_passes(json!({}), Some(Protocol::H2c)).await;
}

async fn grpc_passes(annotations: serde_json::Value, protocol: Option<Protocol>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.uri().authority().unwrap().as_str(), "a.com");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (pieces, body_out) = mpsc::channel(2);
                pieces.try_send(Frame::data(body)).unwrap();
                let trailers = [("grpc-status".try_into().unwrap(), "0".try_into().unwrap())].into_iter().collect();
                pieces.try_send(Frame::trailers(trailers)).unwrap();
                let answer = Response::builder().header("content-type", "application/grpc");
                Ok::<_, std::convert::Infallible>(answer.body(Pieces(body_out)).unwrap())
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let test = TestEdge::with(&[address], annotations).await;
    test.speak(&[address], protocol);
    let stream = TcpStream::connect(test.http).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = |host: &str| {
        let builder = Request::post(format!("http://{host}/pkg.Service/Method"));
        let builder = builder.header("te", "trailers").header("content-type", "application/grpc");
        builder.body(Full::new(Bytes::from_static(b"\0\0\0\0\x02hi"))).unwrap()
    };
    for _ in 0..2 {
        let answer = sender.send_request(request("a.com")).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let collected = answer.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(&collected.to_bytes()[..], b"\0\0\0\0\x02hi");
    }
    // One connection carries both.
    assert_eq!(test.dialer.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    let lost = sender.send_request(request("b.com")).await.unwrap();
    assert_eq!((lost.status().as_u16(), &lost.headers()["grpc-status"]), (200, &"12".parse().unwrap()));
}

#[tokio::test]
async fn a_body_larger_than_allowed_is_refused_announced_or_not() {
    let test = TestEdge::with(&[echo("one").await], json!({"longshore.dev/proxy-body-size": "4"})).await;
    let post = |headers: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\n{headers}\r\n\r\n{body}")
    };
    assert!(test.raw(&post("Content-Length: 5", "12345")).await.starts_with("HTTP/1.1 413"));
    assert!(
        test.raw(&post("Transfer-Encoding: chunked", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
            .await
            .starts_with("HTTP/1.1 413")
    );
    assert!(test.raw(&post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    let many: String = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect();
    assert_eq!(test.ask("a.com", "/", &many).await.0, 431);
    let long = format!("X-Long: {}\r\n", "x".repeat(64 << 10));
    assert_eq!(test.ask("a.com", "/", &long).await.0, 431);
}

#[tokio::test]
async fn an_endpoint_that_is_silent_is_late_and_one_that_breaks_off_is_a_bad_gateway() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let test = TestEdge::with(&[silent.local_addr().unwrap()], json!({"longshore.dev/proxy-read-timeout": "1"})).await;
    assert_eq!(test.get("a.com", "/").await.0, 504);
    let broken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    test.endpoints(&[broken.local_addr().unwrap()]);
    let seen = tokio::spawn(async move {
        let mut requests = 0;
        while let Ok((stream, _)) = broken.accept().await {
            let mut lines = BufReader::new(stream).lines();
            while lines.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
            requests += 1;
            if requests == 1 {
                break;
            }
        }
        requests
    });
    let post = "POST / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    assert!(test.raw(post).await.starts_with("HTTP/1.1 502"));
    assert_eq!(seen.await.unwrap(), 1);
}

#[tokio::test]
async fn a_client_that_doesnt_finish_its_head_is_let_go() {
    let settings = Settings { head: Duration::from_millis(200), ..Settings::default() };
    let test = TestEdge::start(settings).await;
    test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web")], json!({})));
    let mut client = TcpStream::connect(test.http).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}
