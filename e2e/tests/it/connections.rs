//! Ten thousand connections at once: each is served, what they cost is bounded, and nobody else notices.

use longshore_e2e::Installation;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 10_000;
const THREADS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);
const PATH: &str = "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dnews";
/// What one may cost: its buffers, its request's task, its watch.
const KILOBYTES_EACH: u64 = 48;

/// Opens a watch on a connection of its own.
fn watch(address: &str, path: &str, token: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("the port accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    // Small: this process has ten thousand of them, too.
    let mut reader = BufReader::with_capacity(512, stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("a head");
    }
    reader
}

#[test]
fn ten_thousand_watches_on_ten_thousand_connections() {
    let raised = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), &format!("--nofile={}", CONNECTIONS + 500)])
        .status()
        .expect("prlimit runs");
    assert!(raised.success(), "a test may open files as a server may");
    let installation = Installation::start();
    let kubectl = installation.kubectl();
    let admin = installation.admin();
    let (address, prefix) = admin.cluster_url.trim_start_matches("https://").split_once('/').expect("a path");
    let path = format!("/{prefix}{PATH}");
    let before = installation.server_memory();
    let open = || -> Vec<_> { (0..CONNECTIONS / THREADS).map(|_| watch(address, &path, &admin.token)).collect() };
    let mut watches: Vec<_> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
        openers.into_iter().flat_map(|opener| opener.join().expect("all are served")).collect()
    });
    assert_eq!(watches.len(), CONNECTIONS);
    let each = installation.server_memory().saturating_sub(before) / CONNECTIONS as u64;
    eprintln!("{each} kB a connection and watch");
    assert!(each < KILOBYTES_EACH, "{each} kB a connection and watch");

    // Others are served beside them, and each of them is told.
    let begun = Instant::now();
    kubectl.run(&["create", "configmap", "news", "--from-literal=a=b"]);
    for watch in &mut watches {
        let mut line = String::new();
        while !line.contains("\"news\"") {
            line.clear();
            assert!(watch.read_line(&mut line).expect("the news in time") > 0, "ended before it was told");
        }
        assert!(begun.elapsed() < PATIENCE, "all are told in time");
    }
    drop(watches);
    kubectl.run(&["delete", "configmap", "news"]);
    assert!(!installation.log_of("server.log").contains("panicked"));
}
