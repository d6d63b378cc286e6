//! Clusters that are quiet, and are frozen.

use super::*;
use longshore_api::selector::{FieldSelector, LabelSelector};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn pod(name: &str, node: &str) -> Write {
    let tree = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": "web"},
            "ownerReferences": [{"uid": "uid-owner"}]},
        "spec": {"nodeName": node},
    });
    let fields = PlainKinds.fields("pods", &tree);
    let projection = Projection::of("pods", &tree);
    Write::Create(Draft::new(key("pods", name), &tree, fields, projection))
}

/// All that can be told of the cluster's pods, by their indexes.
fn told(cluster: &Cluster) -> String {
    let list = |labels: &str, fields: &str| {
        let labels = LabelSelector::parse(labels).unwrap();
        let fields = FieldSelector::parse(fields).unwrap();
        let query = ListQuery { resource: "pods".into(), labels, fields, ..ListQuery::default() };
        cluster.list(&query).unwrap()
    };
    let all = [list("", ""), list("app=web", ""), list("", "spec.nodeName=n1")];
    format!("{all:?} {:?} {:?} {:?}", cluster.owned_by("uid-owner").len(), cluster.size(), cluster.counts())
}

fn is_frozen(cluster: &Cluster) -> bool {
    cluster.state.read().memory.is_frozen()
}

#[tokio::test]
async fn a_frozen_cluster_is_the_same_to_everybody() {
    let cluster = testing::cluster().await;
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n1")] {
        cluster.commit(pod(name, node)).await.unwrap();
    }
    let before = told(&cluster);
    let mut watch = cluster.watch(None, WatchFilter::default()).unwrap();
    cluster.state.write().freeze();
    assert!(is_frozen(&cluster));
    assert_eq!((cluster.size().0, cluster.revision()), (3, Revision(3)), "that is known without a look");
    assert!(is_frozen(&cluster));
    assert_eq!(told(&cluster), before);
    assert!(!is_frozen(&cluster));

    cluster.state.write().freeze();
    let object = cluster.newest(&key("pods", "b")).unwrap().object.unwrap();
    cluster.state.write().freeze();
    assert!(matches!(cluster.commit(pod("a", "n3")).await, Err(WriteError::AlreadyExists)));
    cluster.state.write().freeze();
    cluster.commit(delete(&object)).await.unwrap();
    assert_eq!(changes(&mut watch, 1).await[0].object.key, object.key, "a watch goes on");
    assert_eq!(cluster.size().0, 2);
}

#[tokio::test]
async fn what_happened_before_a_freeze_is_read_from_the_log() {
    let cluster = testing::cluster().await;
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        cluster.commit(pod(name, node)).await.unwrap();
    }
    cluster.state.write().freeze();
    let mut watch = cluster.watch(Some(Revision(1)), WatchFilter::default()).unwrap();
    assert_eq!(*changes(&mut watch, 1).await[0].object.key.name, *"b");
    cluster.commit(pod("c", "n1")).await.unwrap();
    assert_eq!(*changes(&mut watch, 1).await[0].object.key.name, *"c");
}

#[tokio::test]
async fn only_what_is_neither_asked_nor_changed_is_frozen() {
    let cluster = testing::cluster().await;
    cluster.commit(pod("a", "n1")).await.unwrap();
    let long_ago = |cluster: &Cluster| {
        cluster.used.store(0, Ordering::Relaxed);
        cluster.state.write().stirred = Duration::ZERO;
    };
    long_ago(&cluster);
    cluster.touch();
    cluster.tidy();
    assert!(!is_frozen(&cluster), "just asked");
    long_ago(&cluster);
    cluster.commit(pod("b", "n1")).await.unwrap();
    cluster.tidy();
    assert!(!is_frozen(&cluster), "just changed");
    long_ago(&cluster);
    cluster.tidy();
    assert!(is_frozen(&cluster));
    told(&cluster);
    cluster.tidy();
    assert!(!is_frozen(&cluster), "just needed");
}
