//! Many watchers of one namespace: how long until each of them has each change.

use super::{Timed, bodies};
use crate::Result;
use crate::client::{Ask, Target};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use memchr::memmem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What a watcher may wait for its last change before it counts the rest as missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the last watch's answer and the first create: every side's watches are then surely registered.
const SETTLE: Duration = Duration::from_secs(1);

/// When each create was sent, in nanoseconds since the beginning; 0 before it was.
struct Sent {
    begun: Instant,
    at: Vec<AtomicU64>,
}

impl Sent {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }
}

/// One client creates `creates` ConfigMaps, one after the other, in a fresh namespace that `watchers` watch. The latencies
/// are those of the deliveries, each from before its create was sent to when its line was read; `errors` counts the
/// deliveries that did not come.
pub async fn deliveries(target: &Target, namespace: &str, watchers: usize, creates: usize) -> Result<Timed> {
    let mut creator = target.connect().await?;
    creator.ask(Ask::post("/api/v1/namespaces", bodies::namespace(namespace))).await?;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let sent = Arc::new(Sent { begun: Instant::now(), at: (0..creates).map(|_| AtomicU64::new(0)).collect() });
    let mut running = JoinSet::new();
    for mut connection in super::pool::connect(&vec![target.clone(); watchers]).await? {
        let answer = connection.send(Ask::get(format!("{path}?watch=true&timeoutSeconds=300"))).await?;
        if !answer.status().is_success() {
            return Err(format!("watching {path}: {}", answer.status()).into());
        }
        let sent = sent.clone();
        running.spawn(async move {
            let seen = tokio::time::timeout(PATIENCE, see(answer.into_body(), &sent)).await;
            // The connection lives as long as its body is read.
            drop(connection);
            seen.unwrap_or_default()
        });
    }
    tokio::time::sleep(SETTLE).await;
    let begun = Instant::now();
    for number in 0..creates {
        let body = bodies::config_map(&format!("seen-{number}"));
        sent.at[number].store(sent.now(), Ordering::Release);
        creator.ask(Ask::post(path.clone(), body)).await?;
    }
    let latencies = running.join_all().await.concat();
    let elapsed = begun.elapsed();
    let missing = (watchers * creates).saturating_sub(latencies.len());
    Ok(Timed::new(latencies, elapsed, missing))
}

/// Reads a watch until every create was seen. What could be parsed of a broken stream is what counts.
async fn see(mut body: Incoming, sent: &Sent) -> Vec<Duration> {
    let finder = memmem::Finder::new(br#""name":"seen-"#);
    let (mut seen, mut rest) = (Vec::with_capacity(sent.at.len()), Vec::new());
    while seen.len() < sent.at.len() {
        let Some(Ok(frame)) = body.frame().await else { break };
        let Some(data) = frame.data_ref() else { continue };
        let now = sent.now();
        rest.extend_from_slice(data);
        let mut done = 0;
        while let Some(end) = memchr::memchr(b'\n', &rest[done..]) {
            let line = &rest[done..done + end];
            done += end + 1;
            let Some(at) = finder.find(line) else { continue };
            let digits = line[at + 13..].iter().take_while(|b| b.is_ascii_digit());
            let number = digits.fold(0usize, |n, digit| n * 10 + usize::from(digit - b'0'));
            let sent = sent.at.get(number).map_or(0, |sent| sent.load(Ordering::Acquire));
            seen.push(Duration::from_nanos(now.saturating_sub(sent)));
        }
        rest.drain(..done);
    }
    seen
}
