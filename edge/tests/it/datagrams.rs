use crate::support::*;
use longshore_edge::services::{Behind, Target};
use longshore_edge::socket::Datagrams;
use longshore_edge::{Forward, Settings};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A port of the edge, and the client's socket.
struct Port {
    test: TestEdge,
    forward: Forward,
    address: SocketAddr,
    told: mpsc::UnboundedReceiver<String>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Port {
    async fn open(sources: &[&str], endpoints: &[SocketAddr]) -> Self {
        let test = TestEdge::start(Settings::default()).await;
        let forward = test.edge.forward(&cluster(), sources.iter().map(|range| range.parse().unwrap()).collect());
        let address = nobody_udp().await;
        let socket = Datagrams::bind(address).unwrap();
        let (stop, stopped) = watch::channel(false);
        let serves = forward.clone();
        let (tell, told) = mpsc::unbounded_channel();
        let unsupported = Box::new(move |why| drop(tell.send(why)));
        let serving = tokio::spawn(async move { serves.serve_datagrams(socket, unsupported, stopped).await });
        let port = Self { test, forward, address, told, stop, serving };
        port.endpoints(endpoints);
        port
    }

    fn endpoints(&self, endpoints: &[SocketAddr]) {
        let targets = endpoints.iter().map(|address| Target { address: *address, node: "n1".into() }).collect();
        self.forward.set_endpoints(Behind { targets, ..Behind::default() });
    }

    async fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(self.address).await.unwrap();
        client
    }
}

async fn nobody_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Answers with its name, who asked, and what.
async fn echo_udp(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let answer = [name.as_bytes(), format!(" {} ", from.port()).as_bytes(), &datagram[..length]].concat();
            let _ = socket.send_to(&answer[..answer.len().min(65_507)], from).await;
        }
    });
    address
}

async fn heard(client: &UdpSocket) -> Option<String> {
    let mut datagram = vec![0; 65_535];
    let heard = tokio::time::timeout(Duration::from_secs(20), client.recv(&mut datagram)).await.ok()?;
    Some(String::from_utf8_lossy(&datagram[..heard.ok()?]).into_owned())
}

/// Asks until there is an answer, which must be one to this question: who answered, and to whom.
async fn ask(client: &UdpSocket, question: &str) -> (String, u16) {
    loop {
        client.send(question.as_bytes()).await.unwrap();
        let mut datagram = vec![0; 65_535];
        let heard = tokio::time::timeout(Duration::from_millis(500), client.recv(&mut datagram)).await;
        let Ok(Ok(length)) = heard else { continue };
        let answer = String::from_utf8_lossy(&datagram[..length]);
        let words: Vec<&str> = answer.splitn(3, ' ').collect();
        assert_eq!(words[2], question);
        return (words[0].into(), words[1].parse().unwrap());
    }
}

#[tokio::test]
async fn each_client_is_answered_and_all_share_a_stream() {
    let port = Port::open(&[], &[echo_udp("one").await]).await;
    let mut seen = BTreeSet::new();
    // Kept: a port that is free again may be the next one's.
    let mut clients = Vec::new();
    for number in 0..50 {
        let client = port.client().await;
        let (_, first) = ask(&client, &format!("question {number}")).await;
        assert_eq!(ask(&client, "and again").await.1, first, "it is one flow");
        seen.insert(first);
        clients.push(client);
    }
    assert_eq!(seen.len(), 50, "each is told from the others");
    assert_eq!(port.test.dialer.0.load(Ordering::Relaxed), 1);
    // As long as any can be, and empty.
    let client = port.client().await;
    for question in ["x".repeat(65_000), String::new()] {
        client.send(question.as_bytes()).await.unwrap();
        assert!(heard(&client).await.expect("an answer").ends_with(&question));
    }
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_until_that_is_gone() {
    let endpoints = [echo_udp("one").await, echo_udp("two").await];
    let port = Port::open(&[], &endpoints).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let client = port.client().await;
        let by = ask(&client, "who").await.0;
        clients.push((client, by));
    }
    for (client, by) in &clients {
        assert_eq!(ask(client, "still?").await.0, *by);
    }
    let spread: BTreeSet<&String> = clients.iter().map(|(_, by)| by).collect();
    assert_eq!(spread.len(), 2, "clients are spread");
    port.endpoints(&endpoints[1..]);
    for (client, _) in &clients {
        assert_eq!(ask(client, "and now?").await.0, "two");
    }
}

#[tokio::test]
async fn an_endpoint_that_no_stream_leads_to_is_passed_over() {
    let (old, alive) = (nobody_udp().await, echo_udp("alive").await);
    let mut port = Port::open(&[], &[]).await;
    port.test.dialer.refuse(old);
    port.endpoints(&[old]);
    let client = port.client().await;
    client.send(b"anybody?").await.unwrap();
    assert_eq!(port.told.recv().await.as_deref(), Some("too old"));
    port.endpoints(&[old, alive]);
    assert_eq!(ask(&client, "who").await.0, "alive");
    for _ in 0..10 {
        assert_eq!(ask(&port.client().await, "who").await.0, "alive");
    }
    let failures = port.test.metric("longshore_edge_connect_failures_total");
    assert!(failures <= 4.0, "{failures}");
}

#[tokio::test]
async fn who_may_not_come_is_not_heard() {
    let port = Port::open(&["192.0.2.0/24"], &[echo_udp("one").await]).await;
    port.client().await.send(b"hello?").await.unwrap();
    while port.test.metric("longshore_edge_refused_total") == 0.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(port.test.dialer.0.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_stop_gives_the_port_back() {
    let port = Port::open(&[], &[echo_udp("one").await]).await;
    ask(&port.client().await, "who").await;
    drop(port.stop);
    port.serving.await.unwrap();
    Datagrams::bind(port.address).expect("nobody has it");
}
