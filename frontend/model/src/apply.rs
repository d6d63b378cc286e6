//! Applying documents: which request brings a cluster to what a document says.
//!
//! It is the way of `kubectl apply`: what was applied last is kept in the same annotation, so that page and kubectl can
//! take turns; fields that were applied before and are gone now are removed; everything else that the cluster holds
//! stays. The patch is a JSON merge patch, in which a list is replaced as a whole: the server fills in its defaults again.

use crate::read::field;
use serde_json::{Map, Value, json};

/// kubectl's own, so that its `apply` goes on from ours.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a document says it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub generate_name: String,
}

impl Subject {
    /// `None` for each of the fields that is missing tells which.
    pub fn of(document: &Value) -> Result<Self, &'static str> {
        let text = |field: &'static str| document.get(field).and_then(Value::as_str).filter(|t| !t.is_empty());
        let api_version = text("apiVersion").ok_or("apiVersion")?;
        let kind = text("kind").ok_or("kind")?;
        let metadata = document.get("metadata").ok_or("metadata")?;
        let [name, namespace, generate_name] =
            ["name", "namespace", "generate_name"].map(|name| field::<String>(metadata, name));
        if name.is_empty() && generate_name.is_empty() {
            return Err("metadata.name");
        }
        Ok(Self { api_version: api_version.into(), kind: kind.into(), name, namespace, generate_name })
    }
}

/// The document as it is created: with the note of what was applied.
pub fn to_create(document: &Value) -> Value {
    let mut body = document.clone();
    annotate(&mut body, &note(document));
    body
}

/// The merge patch from `live` to `document`; `None` where there is nothing to do.
pub fn to_patch(document: &Value, live: &Value) -> Option<Value> {
    let mut wanted = document.clone();
    if let Some(object) = wanted.as_object_mut() {
        object.remove("status");
    }
    let last = live
        .pointer(&format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1")))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut patch = difference(&wanted, live, last.as_ref().unwrap_or(&Value::Null));
    if patch.as_object().is_some_and(Map::is_empty) {
        return None;
    }
    annotate(&mut patch, &note(document));
    // Against a change in between: the patch was made from this revision.
    if let Some(version) = live.pointer("/metadata/resourceVersion") {
        patch["metadata"]["resourceVersion"] = version.clone();
    }
    Some(patch)
}

fn note(document: &Value) -> String {
    let mut plain = document.clone();
    if let Some(annotations) = plain.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    // kubectl ends it with a line feed.
    format!("{plain}\n")
}

fn annotate(body: &mut Value, note: &str) {
    let Some(object) = body.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        return;
    }
    let annotations = &mut metadata["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[LAST_APPLIED] = note.into();
}

fn difference(wanted: &Value, live: &Value, last: &Value) -> Value {
    let mut patch = Map::new();
    let empty = Map::new();
    let wanted = wanted.as_object().unwrap_or(&empty);
    for (field, value) in wanted {
        match (value, live.get(field)) {
            (Value::Object(_), Some(there @ Value::Object(_))) => {
                let inner = difference(value, there, last.get(field).unwrap_or(&Value::Null));
                if inner.as_object().is_some_and(|o| !o.is_empty()) {
                    patch.insert(field.clone(), inner);
                }
            }
            (value, Some(there)) if covers(value, there) => {}
            (Value::Null, None) => {}
            (value, _) => {
                patch.insert(field.clone(), value.clone());
            }
        }
    }
    for field in last.as_object().unwrap_or(&empty).keys() {
        if !wanted.contains_key(field) && live.get(field).is_some() {
            patch.insert(field.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

/// Whether what is there is what is wanted, but for fields that defaults have filled in.
fn covers(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            wanted.iter().all(|(field, value)| there.get(field).is_some_and(|t| covers(value, t)))
        }
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(w, t)| covers(w, t))
        }
        (wanted, there) => wanted == there,
    }
}

/// An object as it is edited: without what the server keeps for itself.
pub fn editable(object: &Value) -> Value {
    let mut copy = object.clone();
    if let Some(metadata) = copy.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Value {
        let applied = json!({"metadata": {"name": "a", "labels": {"x": "1", "gone": "1"}}, "spec": {"replicas": 2}});
        json!({"apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "7", "uid": "u", "labels": {"x": "1", "gone": "1", "other": "1"},
            "annotations": {LAST_APPLIED: applied.to_string()}},
            "spec": {"replicas": 2, "strategy": {"type": "R"}, "containers": [{"name": "c", "image": "i:1", "pull": "Always"}]}, "status": {"a": 1}})
    }

    #[test]
    fn removes_what_was_applied_and_keeps_what_others_set() {
        let patch =
            to_patch(&json!({"metadata": {"name": "a", "labels": {"x": "2"}}, "spec": {"replicas": 2}}), &live())
                .unwrap();
        assert_eq!(patch["metadata"]["labels"], json!({"x": "2", "gone": null}));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert!(patch.get("spec").is_none());
        let note: Value =
            serde_json::from_str(patch["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap()).unwrap();
        assert_eq!(note["metadata"]["labels"], json!({"x": "2"}));
    }

    #[test]
    fn the_same_again_is_nothing_to_do() {
        let same = json!({"apiVersion": "v1", "metadata": {"name": "a", "labels": {"x": "1", "gone": "1"}},
            "spec": {"replicas": 2, "containers": [{"name": "c", "image": "i:1"}]}});
        assert_eq!(to_patch(&same, &live()), None, "defaults inside of lists are no difference");
    }

    #[test]
    fn a_changed_list_is_replaced_as_a_whole() {
        let patch = to_patch(&json!({"spec": {"containers": [{"name": "c", "image": "i:2"}]}}), &live()).unwrap();
        assert_eq!(patch["spec"], json!({"containers": [{"name": "c", "image": "i:2"}], "replicas": null}));
    }

    #[test]
    fn creating_notes_what_was_applied() {
        let body = to_create(&json!({"kind": "A", "metadata": {"name": "a", "annotations": {"k": "v"}}}));
        assert_eq!(body["metadata"]["annotations"]["k"], "v");
        assert!(body["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap().ends_with("}\n"));
    }

    #[test]
    fn subjects_say_what_is_missing() {
        assert_eq!(Subject::of(&json!({"kind": "A"})), Err("apiVersion"));
        assert_eq!(Subject::of(&json!({"apiVersion": "v1", "kind": "A", "metadata": {}})), Err("metadata.name"));
        assert_eq!(
            Subject::of(&json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "x"}})).unwrap().name,
            "x"
        );
    }

    #[test]
    fn what_is_edited_has_no_notes_of_machines() {
        assert!(editable(&live())["metadata"].get("annotations").is_none());
    }
}
