//! What holds for all patches: a difference that is applied gives what it was made from; work and outcome are bounded.

use super::*;
use crate::apiserver::FieldValidation::Ignore;
use proptest::prelude::*;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const POD: Target<'static> = Target { group: "", version: "v1", kind: "Pod", type_name: "io.k8s.api.core.v1.Pod" };

type Env = Vec<(String, String)>;

/// A container: its name, image, arguments and environment.
#[derive(Clone, Debug, PartialEq)]
struct Container(String, String, Vec<String>, Env);

fn containers() -> impl Strategy<Value = Vec<Container>> {
    let env = prop::collection::btree_map("[A-D]", "[0-9]", 0..4);
    let body = (
        "[x-z]",
        prop::collection::vec("[a-c]", 0..3),
        env.prop_map(|e| e.into_iter().collect::<Env>()).prop_shuffle(),
    );
    prop::collection::btree_map("[a-e]", body, 0..5)
        .prop_map(|all| all.into_iter().map(|(name, (i, a, e))| Container(name, i, a, e)).collect::<Vec<_>>())
        .prop_shuffle()
}

fn tree(containers: &[Container]) -> Value {
    let containers: Vec<Value> = containers
        .iter()
        .map(|Container(name, image, args, env)| {
            let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            json!({"name": name, "image": image, "args": args, "env": env})
        })
        .collect();
    let tree = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    decode::tree(&tree, &POD, Ignore).expect("it is valid").tree
}

/// A patch of a list as kubectl makes it: what is new or changed, what goes, and the order of all.
fn difference<T>(
    from: &[T],
    to: &[T],
    list: &str,
    name: impl Fn(&T) -> &str,
    change: impl Fn(Option<&T>, &T) -> Map<String, Value>,
) -> Map<String, Value> {
    let old: BTreeMap<&str, &T> = from.iter().map(|item| (name(item), item)).collect();
    let mut items: Vec<Value> = to
        .iter()
        .map(|item| {
            let mut change = change(old.get(name(item)).copied(), item);
            change.insert("name".into(), name(item).into());
            change.into()
        })
        .collect();
    let kept: Vec<&str> = to.iter().map(&name).collect();
    let gone = from.iter().map(&name).filter(|name| !kept.contains(name));
    items.extend(gone.map(|name| json!({"name": name, "$patch": "delete"})));
    let order: Vec<Value> = kept.iter().map(|name| json!({"name": name})).collect();
    let mut patch = Map::new();
    patch.insert(format!("$setElementOrder/{list}"), order.into());
    patch.insert(list.into(), items.into());
    patch
}

fn pod_difference(from: &[Container], to: &[Container]) -> Value {
    let spec = difference(
        from,
        to,
        "containers",
        |c| &c.0,
        |old, new| {
            let empty = Env::new();
            let env = difference(
                old.map_or(&empty, |c| &c.3),
                &new.3,
                "env",
                |e| &e.0,
                |_, (_, value)| json!({"value": value}).as_object().cloned().unwrap_or_default(),
            );
            let mut change = env;
            change.insert("image".into(), new.1.as_str().into());
            change.insert("args".into(), new.2.clone().into());
            change
        },
    );
    json!({"spec": spec})
}

/// Any JSON of some size, with the directives among its keys.
fn anything() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[a-z/~]{0,4}".prop_map(Value::from)];
    let key =
        "(\\$patch|\\$retainKeys|\\$setElementOrder/containers|spec|containers|env|name|metadata|labels|[a-z]{1,3})";
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn operation() -> impl Strategy<Value = Value> {
    let path = "(/(metadata|labels|a|b|0|1|-|-1|~1|~0)){0,5}";
    let op = "(add|remove|replace|move|copy|test)";
    (op, path, path, anything())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_strategic_difference_leads_where_it_was_made_for(from in containers(), to in containers()) {
        let patch = pod_difference(&from, &to).to_string();
        let patched = apply(PatchKind::Strategic, tree(&from), patch.as_bytes(), &POD, Ignore);
        let patched = patched.map_err(|status| TestCaseError::fail(status.message))?;
        prop_assert_eq!(patched.tree, tree(&to), "{}", patch);
    }

    /// RFC 7386's own sense: whatever is patched, what the patch says stands there afterwards, and nothing else changed.
    #[test]
    fn a_merge_patch_is_in_what_it_makes(target in anything(), patch in anything()) {
        let merged = merge::apply(target.clone(), patch.clone());
        fn holds(merged: &Value, patch: &Value) -> bool {
            match (merged, patch) {
                (Value::Object(merged), Value::Object(patch)) => patch.iter().all(|(key, value)| match value {
                    Value::Null => !merged.contains_key(key),
                    value => merged.get(key).is_some_and(|merged| holds(merged, value)),
                }),
                (merged, patch) => merged == patch,
            }
        }
        prop_assert!(holds(&merged, &patch), "{merged}");
        if let (Value::Object(target), Value::Object(patch), Value::Object(merged)) = (&target, &patch, &merged) {
            for (key, value) in target.iter().filter(|(key, _)| !patch.contains_key(*key)) {
                prop_assert_eq!(merged.get(key), Some(value));
            }
        }
        prop_assert_eq!(merge::apply(merged.clone(), patch), merged);
    }

    #[test]
    fn json_patches_end_within_bounds(
        tree in anything(),
        operations in prop::collection::vec(operation(), 0..40),
        rounds in 1usize..30,
    ) {
        let operations: Vec<Value> = operations.iter().cycle().take(operations.len() * rounds).cloned().collect();
        let begun = Instant::now();
        let tree = json!({"metadata": {"labels": tree.clone()}, "a": [tree], "b": {}});
        if let Ok(patched) = json::apply(tree, operations) {
            prop_assert!(depth(&patched) <= decode::bounds::MAX_DEPTH + 8);
            prop_assert!(patched.to_string().len() < 16 << 20);
        }
        prop_assert!(begun.elapsed() < Duration::from_secs(10));
    }

    /// `add` and then `remove` at the same place is nothing; a `test` of what was added passes.
    #[test]
    fn adding_and_removing_is_nothing(tree in anything(), key in "[a-z~/]{1,5}", value in anything()) {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        let before = json!({"a": {"there": tree}});
        let path = format!("/a/new-{escaped}");
        let operations = vec![
            json!({"op": "add", "path": path, "value": value}),
            json!({"op": "test", "path": path, "value": value}),
            json!({"op": "remove", "path": path}),
        ];
        prop_assert_eq!(json::apply(before.clone(), operations).map_err(|s| TestCaseError::fail(s.message))?, before);
    }
}
