use crate::support::*;
use longshore_edge::services::{Behind, Target};
use longshore_edge::{Claims, Settings};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Agrees to the first upgrade and sends back what comes.
async fn switching() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await.to_ascii_lowercase();
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: x\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\nhello").await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    address
}

#[tokio::test]
async fn a_websocket_passes_both_ways_and_ends_with_its_client() {
    let test = TestEdge::with(&[switching().await], json!({})).await;
    let mut client = websocket(&test).await;
    client.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut back).await.unwrap(), 0);
}

#[tokio::test]
async fn a_websocket_ends_when_its_endpoint_is_gone_and_not_before() {
    let drain = Duration::from_millis(100);
    let test = TestEdge::start(Settings { drain, ..Settings::default() }).await;
    test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web")], json!({})));
    let address = switching().await;
    test.endpoints(&[address]);
    let mut client = websocket(&test).await;
    let mut seen = [0; 4];
    // Not ready: no new requests, and what stands goes on.
    let standing = [Target { address, node: "n1".into() }].into();
    test.edge.set_endpoints(&cluster(), &backend("web"), Behind { standing, ..Behind::default() });
    assert_eq!(test.get("a.com", "/").await.0, 503);
    assert!(tokio::time::timeout(4 * drain, client.read(&mut seen)).await.is_err());
    // Gone, and back at once.
    test.endpoints(&[]);
    test.endpoints(&[address]);
    assert!(tokio::time::timeout(4 * drain, client.read(&mut seen)).await.is_err());
    client.write_all(b"ping").await.unwrap();
    client.read_exact(&mut seen).await.unwrap();
    test.endpoints(&[]);
    let ended = tokio::time::timeout(Duration::from_secs(5), client.read(&mut seen)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

/// A client's, after the endpoint's first word.
async fn websocket(test: &TestEdge) -> TcpStream {
    let mut client = TcpStream::connect(test.http).await.unwrap();
    client.write_all(b"GET /ws HTTP/1.1\r\nHost: a.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
    }
    let head = String::from_utf8_lossy(&seen).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    assert!(head.contains("sec-websocket-accept: y"), "{head}");
    client
}

#[tokio::test]
async fn an_upgrade_to_http2_is_not_passed_on() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    let headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\n{headers}\r\n");
    let got = got(&test.raw(&request).await);
    let headers = got["headers"].as_object().unwrap();
    for name in ["upgrade", "http2-settings", "connection"] {
        assert!(!headers.contains_key(name), "{name}");
    }
}
