//! What a node has to say, and when.

use crate::api::Api;
use longshore_agent::node::events::Recorder;
use std::time::Duration;
use tokio::time::Instant;

async fn said(api: &Api) -> Duration {
    let begun = Instant::now();
    while api.events("node").is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn events_let_pass_what_is_urgent() {
    let api = Api::new();
    let recorder = Recorder::start(api.client(), "node");
    let (first, second) = (recorder.precede(), recorder.precede());
    recorder.node("node", false, "Starting", "Starting kubelet.");
    drop(first);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(api.events("node"), []);
    drop(second);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(api.events("node"), [], "more that is urgent may come at once");
    drop(recorder.precede());
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(api.events("node"), []);
    assert!(said(&api).await < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_nobody_for_long() {
    let api = Api::new();
    let recorder = Recorder::start(api.client(), "node");
    let _urgent = recorder.precede();
    recorder.node("node", false, "Starting", "Starting kubelet.");
    recorder.node("node", false, "NodeReady", "is ready");
    let waited = said(&api).await;
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_millis(1100), "{waited:?}");
    let begun = Instant::now();
    while api.events("node").len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(100), "what waited behind it has waited as long");
}
