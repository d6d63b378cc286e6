//! How a writer goes on beside a large audience.

use super::*;
use std::time::Duration;
use tokio::time::Instant;

const AUDIENCE: usize = 200;

fn filter(field: Option<(&'static str, String)>) -> WatchFilter {
    WatchFilter { resource: Some("configmaps".into()), field, ..WatchFilter::default() }
}

fn audience(cluster: &Arc<Cluster>, size: usize) -> Vec<Watch> {
    (0..size).map(|_| cluster.watch(None, filter(None)).unwrap()).collect()
}

/// How many changes it is told of at once.
async fn told(watch: &mut Watch) -> usize {
    match watch.next().await {
        WatchItem::Changes(changes) => changes.len(),
        other => panic!("{other:?}"),
    }
}

/// How long a write takes.
async fn taken(cluster: &Cluster, name: &str) -> Duration {
    let begun = Instant::now();
    cluster.commit(create(name, "1")).await.unwrap();
    begun.elapsed()
}

/// 200 watchers, half of whom have heard of `a`, which was answered at once.
async fn half_told() -> (Arc<Cluster>, Vec<Watch>) {
    let cluster = crate::store::testing::cluster().await;
    let mut crowd = audience(&cluster, AUDIENCE);
    assert_eq!(taken(&cluster, "a").await, Duration::ZERO, "there was nothing to hear before it");
    for watch in &mut crowd[..AUDIENCE / 2] {
        assert_eq!(told(watch).await, 1);
    }
    (cluster, crowd)
}

/// How long `b` takes while something happens as soon as it is there.
async fn taken_while(cluster: &Cluster, happens: impl AsyncFnOnce()) -> Duration {
    let next = Revision(cluster.revision().0 + 1);
    let happening = async {
        assert!(cluster.reached(next, Duration::from_secs(1)).await);
        happens().await;
    };
    tokio::join!(taken(cluster, "b"), happening).0
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_answered_when_most_of_a_large_audience_have_heard_of_the_change_before() {
    let (cluster, mut crowd) = half_told().await;
    let waited = taken_while(&cluster, async || {
        for watch in &mut crowd[AUDIENCE / 2..AUDIENCE - AUDIENCE / 8] {
            assert_eq!(told(watch).await, 2, "what has gathered goes out at once");
        }
    });
    assert_eq!(waited.await, Duration::ZERO);

    let (cluster, mut crowd) = half_told().await;
    let waited = taken_while(&cluster, async || {
        for watch in &mut crowd[AUDIENCE / 2..AUDIENCE - AUDIENCE / 8 - 1] {
            assert_eq!(told(watch).await, 2);
        }
    });
    assert!(!waited.await.is_zero(), "one is missing");
}

#[tokio::test(start_paused = true)]
async fn an_audience_that_does_not_listen_holds_a_writer_once_and_not_for_long() {
    let (cluster, mut crowd) = half_told().await;
    let mut concerned = cluster.watch(None, filter(Some(("metadata.name", "b".into())))).unwrap();
    let waited = taken_while(&cluster, async || {
        let begun = Instant::now();
        assert_eq!(told(&mut concerned).await, 1);
        assert_eq!(begun.elapsed(), Duration::ZERO, "who is told doesn't wait for the others");
    });
    let waited = waited.await;
    assert!(waited > Duration::from_millis(1) && waited < Duration::from_millis(25), "{waited:?}");
    assert_eq!(taken(&cluster, "c").await, Duration::ZERO, "all are behind already");
    for (at, watch) in crowd.iter_mut().enumerate() {
        assert_eq!(told(watch).await, if at < AUDIENCE / 2 { 2 } else { 3 });
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_leave_hold_nobody_and_neither_do_few() {
    let (cluster, mut crowd) = half_told().await;
    let waited = taken_while(&cluster, async || drop(crowd.split_off(AUDIENCE / 2)));
    assert_eq!(waited.await, Duration::ZERO);

    let cluster = crate::store::testing::cluster().await;
    let mut few = audience(&cluster, 16);
    for name in ["a", "b"] {
        assert_eq!(taken(&cluster, name).await, Duration::ZERO);
        for watch in &mut few[..8] {
            assert_eq!(told(watch).await, 1);
        }
    }
}
