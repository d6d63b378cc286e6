//! What a large audience is told, and when.

use super::*;
use std::time::Duration;
use tokio::time::Instant;

const AUDIENCE: usize = 200;

fn filter(field: Option<(&'static str, String)>) -> WatchFilter {
    WatchFilter { resource: Some("configmaps".into()), field, ..WatchFilter::default() }
}

/// How long until everybody was told, and of how many changes at once.
async fn told(watches: &mut [Watch]) -> (Duration, Vec<usize>) {
    let begun = Instant::now();
    let mut counts = Vec::new();
    for watch in watches {
        match watch.next().await {
            WatchItem::Changes(changes) => counts.push(changes.len()),
            other => panic!("{other:?}"),
        }
    }
    (begun.elapsed(), counts)
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_changes_reaches_a_large_audience_in_batches() {
    let cluster = crate::store::testing::cluster().await;
    let mut crowd: Vec<_> = (0..AUDIENCE).map(|_| cluster.watch(None, filter(None)).unwrap()).collect();
    let mut concerned = [cluster.watch(None, filter(Some(("metadata.name", "c".into())))).unwrap()];

    cluster.commit(create("a", "1")).await.unwrap();
    let (waited, counts) = told(&mut crowd).await;
    assert_eq!(counts, [1; AUDIENCE], "a change by itself is told by itself");
    assert!(waited.is_zero(), "{waited:?}");

    // Whoever asks is told; whoever sleeps is woken once for all.
    let mut sleepers = tokio::task::JoinSet::new();
    for mut watch in crowd {
        sleepers.spawn(async move {
            let told = told(std::slice::from_mut(&mut watch)).await;
            (watch, told)
        });
    }
    tokio::task::yield_now().await;
    cluster.commit(create("b", "1")).await.unwrap();
    cluster.commit(create("c", "1")).await.unwrap();
    assert_eq!(told(&mut concerned).await, (Duration::ZERO, vec![1]), "nobody waits for what concerns few");
    let (mut crowd, told_of): (Vec<_>, Vec<_>) = sleepers.join_all().await.into_iter().unzip();
    for (waited, counts) in told_of {
        assert_eq!(counts, [2]);
        assert!(waited > Duration::from_millis(1) && waited < Duration::from_millis(25), "{waited:?}");
    }

    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.commit(create("d", "1")).await.unwrap();
    let (waited, counts) = told(&mut crowd).await;
    assert_eq!((waited, counts), (Duration::ZERO, vec![1; AUDIENCE]), "the pause is over");
}
