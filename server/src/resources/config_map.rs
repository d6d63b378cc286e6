//! ConfigMap.

use super::age::age;
use super::findings::Findings;
use super::tree::{at, bool_at, map_at, same};
use super::*;
use k8s_openapi::ByteString;
use longshore_api::field::Path;
use longshore_api::names;

/// Keys' values together, as in a Secret.
const MAX_SIZE: usize = 1 << 20;
pub(super) const FROZEN: &str = "field is immutable when `immutable` is set";

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    type_name: "io.k8s.api.core.v1.ConfigMap",
    columns: &[
        Column::new(
            "Data",
            "string",
            "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
        ),
        Column::AGE,
    ],
    cells: |tree, now| {
        let keys = map_at(tree, "/data").count() + map_at(tree, "/binaryData").count();
        vec![keys.into(), age(tree, now)]
    },
    validate,
    validate_update,
    ..BASE
};

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let data = found.part::<BTreeMap<String, String>>(tree, "data").unwrap_or_default();
    let binary = found.part::<BTreeMap<String, ByteString>>(tree, "binaryData").unwrap_or_default();
    for key in data.keys() {
        let path = Path::new("data").key(key);
        found.each(&path, key, names::config_map_key(key));
        if binary.contains_key(key) {
            found.invalid(&path, key.as_str(), "duplicate of key present in binaryData");
        }
    }
    for key in binary.keys() {
        found.each(&Path::new("binaryData").key(key), key, names::config_map_key(key));
    }
    let size = data.values().map(String::len).sum::<usize>() + binary.values().map(|b| b.0.len()).sum::<usize>();
    if size > MAX_SIZE {
        // The data as a whole has no path: Kubernetes shows it like this.
        found.too_long(&Path::new("[]"), MAX_SIZE);
    }
    found.into_errors()
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    frozen(tree, old, &["data", "binaryData"])
}

/// What an object that was made immutable keeps.
pub(super) fn frozen(tree: &Value, old: &Value, fields: &[&str]) -> Vec<field::Error> {
    let mut found = Findings::default();
    if bool_at(old, "/immutable") {
        if !bool_at(tree, "/immutable") {
            found.forbidden(&Path::new("immutable"), FROZEN);
        }
        for field in fields {
            let pointer = format!("/{field}");
            let (new, was) = (at(tree, &pointer), at(old, &pointer));
            let both_empty = map_at(tree, &pointer).next().is_none() && map_at(old, &pointer).next().is_none();
            if !both_empty && !same(new, was) {
                found.forbidden(&Path::new(field), FROZEN);
            }
        }
    }
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(errors: Vec<field::Error>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn judges_keys_and_size() {
        assert_eq!(shown(validate(&json!({"data": {"a.b": "x"}, "binaryData": {"c": "aGk="}}))), [""; 0]);
        let both = validate(&json!({"data": {"a": "x"}, "binaryData": {"a": "aGk="}}));
        assert_eq!(shown(both), ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]);
        let bad = shown(validate(&json!({"data": {"a/b": "x"}})));
        assert!(bad[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must consist of"), "{bad:?}");
        let large = validate(&json!({"data": {"a": "x".repeat(MAX_SIZE + 1)}}));
        assert_eq!(shown(large), ["[]: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn keeps_what_was_made_immutable() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        assert_eq!(shown(validate_update(&old, &old)), [""; 0]);
        let new = json!({"data": {"a": "c"}});
        let why = "Forbidden: field is immutable when `immutable` is set";
        assert_eq!(shown(validate_update(&new, &old)), [format!("immutable: {why}"), format!("data: {why}")]);
    }
}
