//! JSON merge patch (RFC 7386): objects merge, null deletes, everything else replaces.

use serde_json::{Map, Value};

pub fn apply(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    // What is no object becomes one, so that nulls of the patch vanish at every depth.
    let mut entries = if let Value::Object(entries) = target { entries } else { Map::new() };
    for (key, value) in patch {
        if value.is_null() {
            entries.remove(&key);
            continue;
        }
        let merged = apply(entries.remove(&key).unwrap_or_default(), value);
        entries.insert(key, merged);
    }
    Value::Object(entries)
}
