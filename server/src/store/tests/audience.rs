//! How a writer goes on beside a large audience.

use super::*;
use std::time::Duration;
use tokio::task::JoinSet;
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

#[tokio::test(start_paused = true)]
async fn a_writer_is_answered_when_a_part_of_a_large_audience_has_heard() {
    let cluster = crate::store::testing::cluster().await;
    let mut crowd = audience(&cluster, AUDIENCE);
    let mut rest = crowd.split_off(AUDIENCE / 4);
    let mut heard = JoinSet::new();
    for mut watch in crowd {
        heard.spawn(async move {
            for _ in 0..3 {
                assert_eq!(told(&mut watch).await, 1, "each change is told by itself to those who listen");
            }
        });
    }
    for name in ["a", "b", "c"] {
        assert_eq!(taken(&cluster, name).await, Duration::ZERO);
    }
    heard.join_all().await;
    for watch in &mut rest {
        assert_eq!(told(watch).await, 3, "and together to those for whom nobody waits");
    }
}

#[tokio::test(start_paused = true)]
async fn an_audience_that_does_not_listen_holds_a_writer_once_and_not_for_long() {
    let cluster = crate::store::testing::cluster().await;
    let mut crowd = audience(&cluster, AUDIENCE);
    let mut concerned = cluster.watch(None, filter(Some(("metadata.name", "a".into())))).unwrap();

    let (first, ()) = tokio::join!(taken(&cluster, "a"), async {
        let begun = Instant::now();
        assert_eq!(told(&mut concerned).await, 1);
        assert_eq!(begun.elapsed(), Duration::ZERO, "who is told doesn't wait for the others");
    });
    assert!(first > Duration::from_millis(1) && first < Duration::from_millis(25), "{first:?}");
    assert_eq!(taken(&cluster, "b").await, Duration::ZERO, "they are behind already");
    for watch in &mut crowd {
        assert_eq!(told(watch).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_leave_hold_nobody_and_neither_do_few() {
    let cluster = crate::store::testing::cluster().await;
    let crowd = audience(&cluster, AUDIENCE);
    let next = Revision(cluster.revision().0 + 1);
    let leaves = async {
        assert!(cluster.reached(next, Duration::from_secs(1)).await);
        drop(crowd);
    };
    let (first, ()) = tokio::join!(taken(&cluster, "a"), leaves);
    assert_eq!(first, Duration::ZERO);

    let _few = audience(&cluster, 8);
    assert_eq!(taken(&cluster, "b").await, Duration::ZERO);
}
