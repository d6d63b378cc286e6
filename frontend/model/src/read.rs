//! From trees to small structs, by one small trait.
//!
//! A derived deserializer is compiled anew for every struct, every field type and every source: for the few dozen shapes
//! in [`crate::kube`] that was a quarter of a megabyte of WebAssembly. Here a text is parsed once into a tree, and a field
//! is a look-up. What is missing, null or of another type is the type's default: what the page can't find it shows as
//! unknown, and an object of a newer version must never break a page.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub trait Read: Default {
    fn read(value: &Value) -> Self;
}

impl Read for String {
    fn read(value: &Value) -> Self {
        value.as_str().unwrap_or_default().into()
    }
}

impl Read for i64 {
    fn read(value: &Value) -> Self {
        value.as_i64().unwrap_or_default()
    }
}

impl Read for bool {
    fn read(value: &Value) -> Self {
        value.as_bool().unwrap_or_default()
    }
}

impl Read for Value {
    fn read(value: &Value) -> Self {
        value.clone()
    }
}

impl<T: Read> Read for Option<T> {
    fn read(value: &Value) -> Self {
        (!value.is_null()).then(|| T::read(value))
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value) -> Self {
        value.as_array().map(|items| items.iter().map(T::read).collect()).unwrap_or_default()
    }
}

impl Read for BTreeMap<String, String> {
    fn read(value: &Value) -> Self {
        let entries = value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.clone(), String::read(value))).collect()
    }
}

/// A field by the name it has in Rust.
pub fn field<T: Read>(object: &Value, name: &str) -> T {
    object.as_object().and_then(|fields| find(fields, name)).map_or_else(T::default, T::read)
}

fn find<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(key, _)| same(key, name)).map(|(_, value)| value)
}

/// `pod_ip` is `podIP`, `r#type` is `type`: Kubernetes has no two fields that differ in case alone.
fn same(key: &str, name: &str) -> bool {
    let name = name.strip_prefix("r#").unwrap_or(name);
    key.bytes().map(|b| b.to_ascii_lowercase()).eq(name.bytes().filter(|b| *b != b'_'))
}

/// A struct of such fields.
macro_rules! shape {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),* }
        impl $crate::read::Read for $name {
            fn read(value: &serde_json::Value) -> Self {
                Self { $($field: $crate::read::field(value, stringify!($field))),* }
            }
        }
    };
}
pub(crate) use shape;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_the_same_whatever_their_style() {
        assert!(same("podIP", "pod_ip") && same("clusterIP", "cluster_ip") && same("type", "r#type"));
        assert!(!same("podIPs", "pod_ip") && !same("name", "names"));
    }

    #[test]
    fn what_is_not_as_expected_is_absent() {
        let tree = json!({"a": 1, "list": null, "texts": {"k": "v", "n": 1}, "many": ["x", 2]});
        assert_eq!(field::<String>(&tree, "a"), "");
        assert_eq!(field::<Option<i64>>(&tree, "a"), Some(1));
        assert_eq!(field::<Option<i64>>(&tree, "b"), None);
        assert!(field::<Vec<String>>(&tree, "list").is_empty());
        assert_eq!(field::<Vec<String>>(&tree, "many"), ["x", ""]);
        assert_eq!(field::<BTreeMap<String, String>>(&tree, "texts")["k"], "v");
        assert!(field::<bool>(&json!([]), "a") == false);
    }
}
