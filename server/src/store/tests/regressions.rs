//! What the proofs found, each as a story of its own (docs/testing-store.md has the list).

use super::*;
use crate::store::volatile::{Fault, Script, VolatileLog};
use longshore_api::ids::{ClusterId, OrganizationId};
use std::time::Duration;

async fn store(options: StoreOptions) -> (Arc<VolatileLog>, Store, ClusterId) {
    let log = Arc::new(VolatileLog::default());
    let store = Store::on(log.clone(), options);
    let id = store.create_cluster(NewCluster::new(OrganizationId::new("o-1"), "test")).await.unwrap();
    (log, store, id)
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_lands_after_its_cluster_was_let_go_of_harms_nobody() {
    let (log, store, id) = store(options()).await;
    let cluster = store.cluster(&id).await.unwrap();
    log.expect(Script { delays: [20].into(), ..Script::default() });
    let flying = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.commit(create("a", "1")).await }
    });
    while cluster.newest(&key("configmaps", "a")).unwrap().commit.is_none() {
        tokio::task::yield_now().await;
    }
    // On its way, and nobody else takes the cluster: the log will have it.
    store.hand_over();
    flying.await.unwrap().expect("it was committed");
    let again = store.cluster(&id).await.unwrap();
    assert_eq!(text(&again.get(&key("configmaps", "a")).unwrap().unwrap()), "1");
    again.commit(create("b", "1")).await.expect("the flusher goes on");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_let_go_of_says_so_and_not_that_nothing_is_there() {
    let (_, store, id) = store(options()).await;
    let cluster = store.cluster(&id).await.unwrap();
    let object = cluster.commit(create("a", "1")).await.unwrap();
    assert_eq!(cluster.newest(&object.key).unwrap().object.unwrap().revision, object.revision);
    store.hand_over();
    assert!(matches!(cluster.newest(&object.key), Err(StoreError::Unavailable(_))));
}

/// Found by the properties: the last time a write was judged anew it was accepted, and its writer told that it was not.
#[tokio::test(start_paused = true)]
async fn a_write_that_is_judged_anew_is_answered_as_it_was_judged() {
    let (log, store, id) = store(options()).await;
    let cluster = store.cluster(&id).await.unwrap();
    log.expect(Script { flushes: [Fault::Rejected; 4].into(), delays: [3; 8].into(), ..Script::default() });
    // Of all those who create the same thing one is in flight and the others wait for it; it fails, the next one flies, and
    // so on, until some have been judged as often as they may be.
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let cluster = cluster.clone();
            tokio::spawn(async move { (n, cluster.commit(create("a", &n.to_string())).await) })
        })
        .collect();
    let mut created = Vec::new();
    for writer in writers {
        let (n, answer) = writer.await.unwrap();
        created.extend(answer.is_ok().then(|| n.to_string()));
    }
    let stored = cluster.get(&key("configmaps", "a")).unwrap();
    assert_eq!(created, stored.iter().map(|object| text(object)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_and_passes() {
    let (log, store, id) = store(options()).await;
    let cluster = store.cluster(&id).await.unwrap();
    log.expect(Script { flushes: [Fault::Full].into(), ..Script::default() });
    assert_eq!(cluster.commit(create("a", "1")).await.unwrap_err(), WriteError::Full);
    cluster.commit(create("a", "1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn revisions_never_go_back_when_the_log_does() {
    let (log, store, id) = store(options()).await;
    let cluster = store.cluster(&id).await.unwrap();
    for n in 0..10 {
        cluster.commit(create(&format!("k{n}"), "1")).await.unwrap();
    }
    log.roll_back(&id, Revision(7));
    // What is written now finds out: refused, and surely not applied.
    assert!(cluster.commit(create("after", "1")).await.is_err());
    let again = store.cluster(&id).await.unwrap();
    let object = again.commit(create("after", "2")).await.unwrap();
    assert!(object.revision > Revision(1_000_000), "{:?}", object.revision);
    assert_eq!(again.list(&ListQuery { resource: "configmaps".into(), ..Default::default() }).unwrap().items.len(), 8);
    // Whoever saw what is lost lists again.
    for seen in [5, 7, 10] {
        let refused = again.watch(Some(Revision(seen)), WatchFilter::default()).unwrap_err();
        assert!(matches!(refused, StoreError::Compacted { .. }), "{refused}");
    }
    store.hand_over();
    let later = store.cluster(&id).await.unwrap();
    assert_eq!(later.revision(), object.revision, "once is enough");
    assert!(later.watch(Some(Revision(10)), WatchFilter::default()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_went_back_is_found_without_a_write() {
    let (log, store, id) = store(options()).await;
    let cluster = store.cluster(&id).await.unwrap();
    for n in 0..3 {
        cluster.commit(create(&format!("k{n}"), "1")).await.unwrap();
    }
    log.roll_back(&id, Revision(1));
    tokio::time::timeout(Duration::from_secs(60), cluster.unloaded()).await.expect("the house notices");
    let again = store.cluster(&id).await.unwrap();
    assert!(again.revision() > Revision(1_000_000));
    assert!(again.get(&key("configmaps", "k2")).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_takes_its_queue_in_parts() {
    let (_, store, id) = store(options()).await;
    let cluster = store.cluster(&id).await.unwrap();
    let mut watch = cluster.watch(None, WatchFilter::default()).unwrap();
    let long = "x".repeat(50_000);
    for n in 0..40 {
        cluster.commit(create(&format!("k{n:02}"), &long)).await.unwrap();
    }
    let (mut seen, mut largest) = (Vec::new(), 0);
    while seen.len() < 40 {
        let WatchItem::Changes(changes) = watch.next().await else { continue };
        largest = largest.max(changes.iter().map(|c| c.object.json.len()).sum::<usize>());
        assert!(watch.progress() <= cluster.revision());
        seen.extend(changes.iter().map(|c| c.object.key.name.to_string()));
    }
    assert_eq!(seen, (0..40).map(|n| format!("k{n:02}")).collect::<Vec<_>>());
    assert!(largest < 200_000, "{largest} bytes at once");
}

/// Found by the simulator: a cluster that had asked for the flusher twice was let off its open batch.
#[test]
fn what_waits_fails_without_the_batch_whose_outcome_is_open() {
    use crate::store::sequencer::{Judged, Sequencer};
    let mut sequencer = Sequencer::new(Revision(7), Default::default());
    let why = WriteError::Unavailable("away".into());
    assert!(matches!(sequencer.judge(create("a", "1"), |_| None), Judged::Accepted { .. }));
    let batch = sequencer.take().unwrap();
    sequencer.settling(&why);
    sequencer.fail_waiting(&why);
    assert!(
        matches!(sequencer.judge(create("a", "2"), |_| None), Judged::Turned(_)),
        "nothing starts before it is settled"
    );
    assert!(!sequencer.landed(&batch));
    assert!(matches!(sequencer.judge(create("b", "1"), |_| None), Judged::Accepted { .. }));
}
