//! On a real Postgres.

use super::*;
use crate::store::testing::{Database, database};
use longshore_api::ids::ClusterId;

async fn open(database: &Database, options: StoreOptions, key: [u8; 32]) -> Store {
    Store::open(database.pool.clone(), Arc::new(MasterKey::new(key)), options).await.expect("the store opens")
}

async fn founded(database: &Database, store: &Store) -> ClusterId {
    let new = NewCluster::new(database.organization().await, "test");
    store.create_cluster(new).await.expect("a cluster is made")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_restart() {
    let database = database().await;
    let store = open(&database, options(), [7; 32]).await;
    let id = founded(&database, &store).await;
    let cluster = store.cluster(&id).await.unwrap();
    let a = cluster.commit(create("a", "1")).await.unwrap();
    let b = cluster.commit(create("b", "1")).await.unwrap();
    let a = cluster.commit(update(&a, "2")).await.unwrap();
    cluster.commit(delete(&b)).await.unwrap();
    assert_eq!(cluster.commit(create("a", "3")).await.unwrap_err(), WriteError::AlreadyExists);
    assert_eq!(cluster.revision(), Revision(4));
    store.close().await;
    assert!(cluster.get(&a.key).is_err(), "a closed store serves nothing");

    let store = open(&database, options(), [7; 32]).await;
    let cluster = store.cluster(&id).await.unwrap();
    assert_eq!(cluster.revision(), Revision(4));
    assert_eq!(text(&cluster.get(&a.key).unwrap().unwrap()), "2");
    assert!(cluster.get(&b.key).unwrap().is_none());
    let mut watch = cluster.watch(Some(Revision(1)), WatchFilter::default()).unwrap();
    let seen = changes(&mut watch, 3).await;
    assert_eq!(seen.iter().map(|c| c.kind).collect::<Vec<_>>(), {
        use ChangeKind::*;
        [Created, Updated, Deleted]
    });
    assert_eq!(text(seen[1].previous.as_ref().unwrap()), "1");
    cluster.commit(update(&a, "5")).await.unwrap();
    assert_eq!(text(&changes(&mut watch, 1).await[0].object), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_rows_hold_no_plaintext() {
    let database = database().await;
    let store = open(&database, options(), [7; 32]).await;
    let id = founded(&database, &store).await;
    let cluster = store.cluster(&id).await.unwrap();
    let secret = cluster.commit(Write::Create(draft("secrets", "s", "hunter2"))).await.unwrap();
    cluster.commit(update(&secret, "hunter3")).await.unwrap();
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT json FROM objects UNION ALL SELECT json FROM changes
         UNION ALL SELECT previous FROM changes WHERE previous IS NOT NULL",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| !row.windows(6).any(|w| w == b"hunter")));
    store.close().await;

    let again = open(&database, options(), [7; 32]).await;
    let cluster = again.cluster(&id).await.unwrap();
    assert_eq!(text(&cluster.get(&secret.key).unwrap().unwrap()), "hunter3");
    again.close().await;

    let stranger = open(&database, options(), [8; 32]).await;
    assert!(matches!(stranger.cluster(&id).await, Err(StoreError::Damaged(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_replica_is_waited_for_and_a_living_one_keeps_its_clusters() {
    let database = database().await;
    let first = open(&database, options(), [7; 32]).await;
    let id = founded(&database, &first).await;
    let cluster = first.cluster(&id).await.unwrap();
    cluster.commit(create("a", "1")).await.unwrap();
    let second = open(&database, options(), [7; 32]).await;
    assert!(matches!(second.cluster(&id).await, Err(StoreError::NotOwner { .. })));
    // Killed: nothing is given back.
    drop(first);
    let taken = second.cluster(&id).await.unwrap();
    assert_eq!(taken.revision(), Revision(1));
    assert!(cluster.get(&key("configmaps", "a")).is_err(), "its lease had run out before it was taken");
    taken.commit(create("b", "1")).await.unwrap();
}
