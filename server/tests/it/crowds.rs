//! Crowds of bad clients: what they cost is bounded, they are told, and everybody else is served.

use crate::installation::Installation;
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// Resident memory of this process (the server and its clients in one), in MiB.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1024
}

/// A request's head, as its owner sends it over plain HTTP.
fn head(here: &Installation, method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} /clusters/{}{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        here.cluster(),
        here.address,
        here.secrets.api_token
    )
}

/// What a client's kernel takes for it.
const LITTLE: u32 = 96 * 1024;

/// A connection whose client has that much room for what it doesn't read.
async fn connect(here: &Installation, buffer: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(buffer).expect("a small buffer");
    socket.connect(here.address).await.expect("the port accepts")
}

/// Sends a request without a body; the status, and the connection behind the answer's head.
async fn ask(here: &Installation, path: &str, buffer: u32) -> (u16, BufReader<TcpStream>) {
    let mut stream = connect(here, buffer).await;
    stream.write_all(head(here, "GET", path, 0).as_bytes()).await.expect("sent");
    let mut reader = BufReader::with_capacity(1024, stream);
    (status(&mut reader).await, reader)
}

async fn status(reader: &mut BufReader<TcpStream>) -> u16 {
    let mut first = String::new();
    reader.read_line(&mut first).await.expect("an answer");
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await.expect("a head") == 0 || line == "\r\n" {
            return first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        }
    }
}

async fn post(here: &Installation, body: &Value) -> u16 {
    let (mut stream, body) = (TcpStream::connect(here.address).await.expect("the port accepts"), body.to_string());
    stream.write_all((head(here, "POST", MAPS, body.len()) + &body).as_bytes()).await.expect("sent");
    status(&mut BufReader::new(stream)).await
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, size: usize) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "x".repeat(size)}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watchers_that_do_not_read_cost_little() {
    const WATCHERS: usize = 1000;
    let here = Installation::start().await;
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true");
    let opened = futures::stream::iter(0..WATCHERS).map(|_| ask(&here, &path, LITTLE)).buffer_unordered(16);
    let slow: Vec<_> = opened.collect().await;
    assert!(slow.iter().all(|(status, _)| *status == 200));
    // One who reads is beside them.
    let mut good = TcpStream::connect(here.address).await.expect("the port accepts");
    good.write_all(head(&here, "GET", &path, 0).as_bytes()).await.expect("sent");
    let mut good = BufReader::new(good);
    assert_eq!(status(&mut good).await, 200);
    let good = tokio::spawn(async move {
        let mut seen = 0;
        let mut line = Vec::new();
        while seen < 60 {
            line.clear();
            assert!(good.read_until(b'\n', &mut line).await.expect("it is served") > 0, "ended after {seen}");
            let text = String::from_utf8_lossy(&line);
            assert!(!text.starts_with("{\"type\":\"ERROR\""), "{text}");
            seen += usize::from(text.contains("\"name\":\"big-"));
        }
    });
    let before = memory();
    for n in 0..60 {
        let begun = Instant::now();
        assert_eq!(post(&here, &config_map(&format!("big-{n}"), 500_000)).await, 201);
        assert!(begun.elapsed() < Duration::from_secs(10), "a write waits for watchers");
    }
    tokio::time::timeout(Duration::from_secs(60), good).await.expect("in time").expect("the good one sees all");
    let after = memory();
    // 30 MB of objects, which history and memory share, and something for each connection.
    assert!(after < before + 250, "memory grew from {before} to {after} MiB");
    // Those who ask for the list and never take it hold no copy of it.
    let before = memory();
    let opened = futures::stream::iter(0..200).map(|_| ask(&here, MAPS, LITTLE)).buffer_unordered(16);
    let unread: Vec<_> = opened.collect().await;
    assert!(unread.iter().all(|(status, _)| *status == 200));
    let after = memory();
    assert!(after < before + 150, "memory grew from {before} to {after} MiB");
    assert_eq!(post(&here, &config_map("after", 10)).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_are_bounded_together() {
    const SIZE: usize = 3_000_000;
    let here = Installation::start().await;
    let before = memory();
    let body = " ".repeat(SIZE - 1);
    let mut hanging = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(here.address).await.expect("the port accepts");
        stream.write_all(head(&here, "POST", MAPS, SIZE).as_bytes()).await.expect("sent");
        hanging.push(stream);
    }
    // All but the last byte; 450 MB in all.
    let sent =
        futures::stream::iter(&mut hanging).map(|stream| stream.write_all(body.as_bytes())).buffer_unordered(150);
    let _: Vec<_> = sent.collect().await;
    let after = memory();
    assert!(after < before + 450, "memory grew from {before} to {after} MiB");
    // Those who are refused are told so when the server has waited for the rest of what they send; the others may go on.
    let told = hanging.into_iter().map(async |stream| {
        let mut reader = BufReader::new(stream);
        tokio::time::timeout(Duration::from_secs(20), status(&mut reader)).await.unwrap_or(0)
    });
    let told = futures::future::join_all(told).await;
    assert!(told.iter().all(|status| matches!(status, 0 | 429)), "{told:?}");
    let refused = told.iter().filter(|status| **status == 429).count();
    assert!(refused >= 40, "only {refused} were told to come back");
    // What they took is free again as soon as they are gone.
    let begun = Instant::now();
    while post(&here, &config_map(&format!("after-{}", begun.elapsed().as_micros()), 10)).await != 201 {
        assert!(begun.elapsed() < Duration::from_secs(30), "the budget does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
