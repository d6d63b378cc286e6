//! Tests of the store as a whole: pure ones on a log in memory that can be made to fail, and the same promises on a real
//! Postgres that is stopped, killed and locked.

mod audience;
mod faults;
// The checker lies with the whole-system tests, which may not name this crate.
#[path = "../../../../e2e/src/linearizable.rs"]
#[allow(dead_code, reason = "what requests over HTTP are is not asked here")]
mod linearizable;
mod postgres;
mod quiet;
mod regressions;
mod world;

use super::testing::PlainKinds;
use super::*;
use longshore_control::Projection;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn options() -> StoreOptions {
    StoreOptions::new(Arc::new(PlainKinds))
}

fn key(resource: &str, name: &str) -> Key {
    Key { resource: resource.into(), namespace: "default".into(), name: name.into() }
}

/// A small object that says `text`, labelled with it.
fn draft(resource: &str, name: &str, text: &str) -> Draft {
    let tree = json!({
        "kind": "Thing", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"says": text}},
        "data": {"text": text},
    });
    Draft::new(key(resource, name), &tree, BTreeMap::new(), Projection::None)
}

fn create(name: &str, text: &str) -> Write {
    Write::Create(draft("configmaps", name, text))
}

fn update(object: &Object, text: &str) -> Write {
    let key = &object.key;
    Write::Update { draft: draft(&key.resource, &key.name, text), expected: object.revision }
}

fn delete(object: &Object) -> Write {
    Write::Delete { draft: Draft::again(object).expect("a draft wrote it"), expected: object.revision }
}

fn text(object: &Object) -> String {
    let tree: Value = object.tree();
    assert_eq!(tree["metadata"]["resourceVersion"], object.revision.0.to_string());
    tree["data"]["text"].as_str().unwrap_or_default().to_string()
}

/// The next `count` changes, whatever batches they come in.
async fn changes(watch: &mut Watch, count: usize) -> Vec<Arc<Change>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match watch.next().await {
            WatchItem::Changes(changes) => seen.extend(changes),
            WatchItem::Progress(_) => {}
            WatchItem::Ended(reason) => panic!("the watch ended ({reason:?}) after {} changes", seen.len()),
        }
    }
    seen
}
