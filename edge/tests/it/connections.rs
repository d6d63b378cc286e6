use crate::support::*;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use longshore_edge::{Claims, Settings};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn connections_to_endpoints_are_kept_and_those_of_removed_ones_are_ended() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    for _ in 0..20 {
        assert_eq!(test.get("a.com", "/").await.0, 200);
    }
    let dialed = test.dialer.0.load(Ordering::Relaxed);
    assert!(dialed <= 3, "{dialed}");
    // Another endpoint instead: nothing goes to the old one any more, and its kept connection ends.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    test.endpoints(&[listener.local_addr().unwrap()]);
    let accepted = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew").await.unwrap();
        (stream, listener)
    });
    assert!(test.get("a.com", "/").await.1.ends_with("new"));
    let (mut stream, _listener) = accepted.await.unwrap();
    test.endpoints(&[]);
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    assert_eq!(test.get("a.com", "/").await.0, 503);
}

#[tokio::test]
async fn an_endpoint_that_cant_be_reached_is_passed_over() {
    let (dead, alive) = (nobody().await, echo("alive").await);
    let test = TestEdge::with(&[dead, alive], json!({})).await;
    for _ in 0..20 {
        let body = "POST / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(got(&test.raw(body).await)["body"], "body");
    }
    let failures = test.metric("longshore_edge_connect_failures_total");
    assert!(failures <= 2.0, "{failures}");
    test.endpoints(&[dead]);
    assert_eq!(test.get("a.com", "/").await.0, 502);
}

#[tokio::test]
async fn a_kept_connection_that_ended_costs_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let test = TestEdge::with(&[listener.local_addr().unwrap()], json!({})).await;
    tokio::spawn(async move {
        // Answers once, as if to be kept, and ends.
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    });
    for _ in 0..50 {
        assert_eq!(test.get("a.com", "/").await.0, 200);
    }
}

#[tokio::test]
async fn requests_are_spread() {
    let test = TestEdge::with(&[echo("one").await, echo("two").await, echo("three").await], json!({})).await;
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        seen.insert(got(&test.get("a.com", "/").await.1)["by"].to_string());
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_host_has_no_more_requests_at_once_than_allowed() {
    let (slow, entered, gate) = held().await;
    let test = Arc::new(TestEdge::start(Settings { requests_per_host: 2, ..Settings::default() }).await);
    test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web")], json!({})));
    test.endpoints(&[slow]);
    let running: Vec<_> = (0..2)
        .map(|_| {
            let test = test.clone();
            tokio::spawn(async move { test.get("a.com", "/").await.0 })
        })
        .collect();
    let _ = entered.acquire_many(2).await.unwrap();
    assert_eq!(test.get("a.com", "/").await.0, 503);
    gate.add_permits(10);
    for request in running {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(test.get("a.com", "/").await.0, 200);
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_allowed() {
    let test = TestEdge::start(Settings { connections_per_address: 1, ..Settings::default() }).await;
    let mut first = TcpStream::connect(test.http).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n").await.unwrap();
    assert_ne!(first.read(&mut [0; 512]).await.unwrap(), 0);
    let mut second = TcpStream::connect(test.http).await.unwrap();
    assert!(matches!(second.read(&mut [0; 16]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_stop_lets_what_runs_end_and_closes_what_waits() {
    let (slow, entered, gate) = held().await;
    let test = TestEdge::with(&[slow], json!({})).await;
    let stream = TcpStream::connect(test.http).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("/").header("host", "a.com").body(Empty::<Bytes>::new()).unwrap();
    let running =
        tokio::spawn(async move { sender.send_request(request).await.unwrap().collect().await.unwrap().to_bytes() });
    let _ = entered.acquire().await.unwrap();
    test.stop.send(true).unwrap();
    gate.add_permits(1);
    assert_eq!(&running.await.unwrap()[..], b"done");
    connection.await.unwrap().unwrap();
    for serving in test.serving {
        tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    }
    assert!(TcpStream::connect(test.http).await.is_err());
}

#[tokio::test]
async fn a_connection_with_nothing_to_do_is_ended() {
    let test = TestEdge::start(Settings { idle: Duration::from_millis(100), ..Settings::default() }).await;
    let stream = TcpStream::connect(test.http).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let ended = tokio::spawn(connection);
    let request = Request::get("http://a.com/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 404);
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap().unwrap();
}
