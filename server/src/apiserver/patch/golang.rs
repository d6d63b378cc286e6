//! A tree as Go's `%+v` prints it, which some of Kubernetes's messages show.

use serde_json::Value;

/// `map[spec:map[replicas:x] tags:[a b]]`
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(entries) => {
            let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}:{}", shown(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}
