//! Reading and filling trees. What is absent, null or of another type reads as empty: defaults and columns never fail.

use longshore_api::quantity::Quantity;
use serde_json::{Map, Value};

/// `at(pod, "/spec/nodeName")`; null where there is nothing.
pub fn at<'a>(tree: &'a Value, pointer: &str) -> &'a Value {
    tree.pointer(pointer).unwrap_or(&Value::Null)
}

pub fn str_at<'a>(tree: &'a Value, pointer: &str) -> &'a str {
    at(tree, pointer).as_str().unwrap_or_default()
}

pub fn int_at(tree: &Value, pointer: &str) -> i64 {
    at(tree, pointer).as_i64().unwrap_or_default()
}

pub fn bool_at(tree: &Value, pointer: &str) -> bool {
    at(tree, pointer).as_bool().unwrap_or_default()
}

pub fn list_at<'a>(tree: &'a Value, pointer: &str) -> &'a [Value] {
    at(tree, pointer).as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn map_at<'a>(tree: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(tree, pointer).as_object().into_iter().flatten()
}

/// The object at `field`, made where there is none. A field of another type is left alone, and there is no object then.
pub fn child<'a>(tree: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let map = tree.as_object_mut()?;
    child_of(map, field)
}

pub fn child_of<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    let value = map.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The objects of a list, for filling.
pub fn each<'a>(map: &'a mut Map<String, Value>, field: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The object at `field` if there is one.
pub fn there<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(field).and_then(Value::as_object_mut)
}

/// Sets a field that is absent or null (a pointer in Kubernetes's types).
pub fn fill(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.into(), value.into());
    }
}

/// Sets a field that is absent, null, empty or zero (a plain string or number in Kubernetes's types).
pub fn fill_zero(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    let zero = match map.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Number(n)) => n.as_i64() == Some(0),
        Some(_) => false,
    };
    if zero {
        map.insert(field.into(), value.into());
    }
}

/// Puts `value` at `field`, or takes the field away when the value is null.
pub fn put(tree: &mut Value, field: &str, value: Value) {
    if let Some(map) = tree.as_object_mut() {
        match value {
            Value::Null => map.remove(field),
            value => map.insert(field.into(), value),
        };
    }
}

/// Fields whose zero Kubernetes's types don't tell from their absence.
const PLAIN: [&str; 14] = [
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "stdin",
    "stdinOnce",
    "tty",
    "readOnly",
    "initialDelaySeconds",
    "hostPort",
    "paused",
    "minReadySeconds",
    "publishNotReadyAddresses",
    "nodePort",
    "unschedulable",
];
/// Fields that are maps: an empty one is none. Any other empty object says something (`emptyDir: {}`).
const MAPS: [&str; 9] =
    ["labels", "annotations", "nodeSelector", "limits", "requests", "overhead", "matchLabels", "selector", "resources"];
const QUANTITIES: [&str; 7] = ["limits", "requests", "overhead", "capacity", "allocatable", "sizeLimit", "divisor"];

/// Whether two trees say the same, as `apiequality.Semantic.DeepEqual` sees it on Kubernetes's types: an empty list is as
/// good as none, `0.1` CPU is as good as `100m`.
pub fn same(a: &Value, b: &Value) -> bool {
    same_at("", false, a, b)
}

fn same_at(field: &str, quantity: bool, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let quantity = quantity || QUANTITIES.contains(&field);
            x.iter().all(|(k, v)| same_at(k, quantity, v, y.get(k).unwrap_or(&Value::Null)))
                && y.iter().all(|(k, v)| x.contains_key(k) || same_at(k, quantity, &Value::Null, v))
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_at("", quantity, x, y))
        }
        (Value::String(x), Value::String(y)) if x != y && (quantity || QUANTITIES.contains(&field)) => {
            Quantity::parse(x).is_ok_and(|x| Quantity::parse(y).is_ok_and(|y| x.cmp_amount(&y).is_eq()))
        }
        (a, b) => a == b || (empty(field, a) && empty(field, b)),
    }
}

fn empty(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && MAPS.contains(&field),
        Value::Bool(b) => !b && PLAIN.contains(&field),
        Value::Number(n) => n.as_i64() == Some(0) && PLAIN.contains(&field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn same_sees_through_empty_lists_and_other_spellings() {
        assert!(same(&json!({"a": [], "b": null, "hostNetwork": false}), &json!({})));
        assert!(same(&json!({"limits": {"cpu": "0.1"}}), &json!({"limits": {"cpu": "100m"}})));
        assert!(!same(&json!({"image": "0.1"}), &json!({"image": "100m"})));
        assert!(!same(&json!({"emptyDir": {}}), &json!({})));
        assert!(!same(&json!({"automount": false}), &json!({})));
        assert!(!same(&json!({}), &json!({"x": 1})));
    }
}
