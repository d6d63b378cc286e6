//! Nothing that a client sends makes a kind's functions fail, and defaults applied twice change nothing.

use super::samples;
use crate::resources::{Request, Resource, registry};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Anything that JSON can say, with words among the strings that the rules know.
pub fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5i64..70_000).prop_map(Value::from),
        Just(json!(i64::MAX)),
        Just(json!(0.5)),
        "[a-zA-Z0-9:/%.@=-]{0,9}".prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "Always",
            "None",
            "25%",
            "1Gi",
            "100m",
            "In",
            "ClientIP",
            "2026-01-01T00:00:00Z",
            "..",
            "é"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map("(name|image|a|type|/x)", inner, 0..3).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

/// All places in a tree.
fn places(tree: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_string());
    match tree {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            places(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| places(value, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

pub fn spoilt(mut tree: Value, changes: &[(prop::sample::Index, Value)]) -> Value {
    for (place, value) in changes {
        let mut all = Vec::new();
        places(&tree, "", &mut all);
        if let Some(target) = tree.pointer_mut(&all[place.index(all.len())]) {
            *target = value.clone();
        }
    }
    tree
}

/// Calls every function of a kind.
fn exercise(kind: &Resource, tree: &Value, old: &Value) {
    let now = Timestamp::UNIX_EPOCH;
    let request = Request { now, user: "eve", namespace: "shop" };
    let mut new = tree.clone();
    (kind.default)(&mut new);
    let once = new.clone();
    (kind.default)(&mut new);
    assert_eq!(new, once, "defaults of {} are idempotent", kind.kind);
    (kind.validate)(&new);
    (kind.validate_update)(&new, old);
    (kind.validate_status_update)(&new, old);
    (kind.warnings)(&new, None);
    (kind.warnings)(&new, Some(old));
    let cells = (kind.cells)(&new, now);
    assert_eq!(cells.len(), kind.columns.len(), "{}", kind.kind);
    (kind.row_conditions)(&new);
    let fields = (kind.fields)(&new);
    assert_eq!(fields.keys().collect::<Vec<_>>(), (kind.fields)(&json!({})).keys().collect::<Vec<_>>());
    if let Some(grace) = kind.grace {
        assert!(grace(&new, None) >= 0 && grace(&new, Some(-1)) >= 0);
    }
    if let Some(scale) = kind.scale {
        (scale.desired)(&new);
        (scale.current)(&new);
        (scale.selector)(&new);
        (scale.set)(&mut new, 3);
    }
    if let Some(stored) = kind.stored {
        (stored.to_storage)((stored.from_storage)(new.clone()));
    }
    (kind.prepare_update)(&request, &mut new, old);
    (kind.prepare_create)(&request, &mut new);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_tree_makes_a_kind_fail(
        changes in prop::collection::vec((any::<prop::sample::Index>(), anything()), 0..4),
        before in prop::collection::vec((any::<prop::sample::Index>(), anything()), 0..2),
    ) {
        for (name, sample) in samples() {
            let (tree, old) = (spoilt(sample.clone(), &changes), spoilt(sample, &before));
            for kind in registry().all().filter(|r| r.store_name() == name) {
                exercise(kind, &tree, &old);
            }
        }
    }
}

#[test]
fn every_sample_is_valid() {
    for (name, mut sample) in samples() {
        let kind = registry().by_name(name).unwrap();
        (kind.default)(&mut sample);
        let errors = (kind.validate)(&sample);
        assert!(errors.is_empty(), "{name}: {errors:?}");
        assert_eq!((kind.validate_update)(&sample, &sample), [], "{name}");
        assert_eq!((kind.validate_status_update)(&sample, &sample), [], "{name}");
    }
}

#[test]
fn every_kind_has_a_sample() {
    let sampled: Vec<_> = samples().into_iter().map(|(name, _)| name.to_string()).collect();
    for kind in registry().all() {
        assert!(sampled.contains(&kind.store_name()), "{}", kind.kind);
    }
}

#[test]
fn generation_counts_what_is_wanted_only() {
    let request = Request { now: Timestamp::UNIX_EPOCH, user: "", namespace: "" };
    for (name, mut sample) in samples() {
        let kind = registry().by_name(name).unwrap();
        if !["deployments.apps", "replicasets.apps", "pods"].contains(&name) {
            continue;
        }
        (kind.default)(&mut sample);
        (kind.prepare_create)(&request, &mut sample);
        assert_eq!(sample["metadata"]["generation"], 1, "{name}");
        let mut same = sample.clone();
        same["status"] = json!({"replicas": 9});
        same["metadata"]["labels"]["x"] = json!("y");
        (kind.prepare_update)(&request, &mut same, &sample);
        assert_eq!(same["metadata"]["generation"], 1, "{name}");
        assert_eq!(same["status"], sample["status"], "{name}");
        let mut other = sample.clone();
        let pointer =
            if name == "pods" { "/spec/containers/0/image" } else { "/spec/template/spec/containers/0/image" };
        *other.pointer_mut(pointer).unwrap() = json!("other:2");
        (kind.prepare_update)(&request, &mut other, &sample);
        assert_eq!(other["metadata"]["generation"], 2, "{name}");
    }
}
