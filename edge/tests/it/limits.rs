use crate::support::*;
use longshore_edge::{Claims, Settings};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn retry_after(answer: &str) -> Option<u64> {
    answer.lines().find_map(|line| line.strip_prefix("retry-after: ")?.trim().parse().ok())
}

fn a_minute(requests: &str, more: Value) -> Value {
    let mut annotations =
        json!({"longshore.dev/limit-rpm": requests, "nginx.ingress.kubernetes.io/limit-burst-multiplier": "2"});
    annotations.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    annotations
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_again() {
    let test = TestEdge::with(&[echo("one").await], a_minute("1", json!({}))).await;
    for _ in 0..2 {
        assert_eq!(test.get("a.com", "/").await.0, 200);
    }
    let (status, answer) = test.get("a.com", "/other").await;
    assert_eq!(status, 429);
    assert!(answer.ends_with("429 Too Many Requests: there are too many requests of this client\n"), "{answer}");
    assert!((1..=60).contains(&retry_after(&answer).unwrap()), "{answer}");
    assert_eq!(test.metric("longshore_edge_refused_total"), 1.0);
    let (_, grpc) = test.ask("a.com", "/", "Content-Type: application/grpc\r\n").await;
    assert!(grpc.starts_with("HTTP/1.1 200") && grpc.contains("grpc-status: 14\r\n"), "{grpc}");
    // Other routes with the same rate forgive nothing; another rate begins anew.
    let set = |annotations| {
        test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web"), ("b.com", "web")], annotations));
    };
    set(a_minute("1", json!({"longshore.dev/proxy-body-size": "1m"})));
    assert_eq!(test.get("a.com", "/").await.0, 429);
    assert_eq!(test.get("b.com", "/").await.0, 429, "it is the same Ingress");
    set(a_minute("1", json!({"longshore.dev/limit-whitelist": "127.0.0.0/8"})));
    assert_eq!(test.get("a.com", "/").await.0, 200);
    set(a_minute("2", json!({})));
    assert_eq!(test.get("a.com", "/").await.0, 200);
}

#[tokio::test]
async fn a_client_has_no_more_requests_at_once_than_its_ingress_allows() {
    let (slow, entered, gate) = held().await;
    let test = Arc::new(TestEdge::with(&[slow], json!({"nginx.ingress.kubernetes.io/limit-connections": "1"})).await);
    let running = tokio::spawn({
        let test = test.clone();
        async move { test.get("a.com", "/").await.0 }
    });
    let _ = entered.acquire().await.unwrap();
    let (status, answer) = test.get("a.com", "/").await;
    assert_eq!((status, retry_after(&answer)), (429, None));
    gate.add_permits(10);
    assert_eq!(running.await.unwrap(), 200);
    assert_eq!(test.get("a.com", "/").await.0, 200);
}

#[tokio::test]
async fn clients_behind_a_proxy_that_was_named_are_limited_each_for_itself() {
    let settings = Settings { proxies: vec!["127.0.0.1/32".parse().unwrap()], ..Settings::default() };
    let test = TestEdge::start(settings).await;
    let annotations = json!({"longshore.dev/limit-rpm": "1", "longshore.dev/limit-burst-multiplier": "1"});
    test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web")], annotations));
    test.endpoints(&[echo("one").await]);
    let ask = async |client: &str| {
        let mut stream = TcpStream::connect(test.http).await.unwrap();
        let client: std::net::Ipv6Addr = client.parse().unwrap();
        let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24", &client.octets()[..], &[0; 16], &[1, 2, 0, 80]].concat();
        stream.write_all(&header).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_string()
    };
    assert_eq!(ask("2001:db8::1").await, "200");
    assert_eq!(ask("2001:db8::2").await, "429");
    assert_eq!(ask("2001:db8:0:1::1").await, "200");
}
