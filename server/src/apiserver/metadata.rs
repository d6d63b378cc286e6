//! The rules of `metadata`, the same for every kind (`apimachinery/pkg/api/validation/objectmeta.go` and
//! `apiserver/pkg/registry/rest`): what the server fills in, what a client may not set, what may never change.

use super::apply;
use crate::resources::Resource;
use jiff::Timestamp;
use longshore_api::field::{Error, Path};
use longshore_api::{meta::GroupVersion, names};
use serde_json::{Map, Value, json};

/// All annotations of an object together, keys included.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";
/// What Kubernetes appends to `generateName`: five letters that form no words.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_RANDOM: usize = 5;
/// The longest name that is generated: room for a suffix below the 63 of a label.
const NAME_BASE_LIMIT: usize = 63 - NAME_RANDOM;

/// A time as `metav1.Time` prints it: whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A text of `metadata`; empty where there is none.
pub fn text<'a>(tree: &'a Value, field: &str) -> &'a str {
    tree["metadata"][field].as_str().unwrap_or_default()
}

pub fn number(tree: &Value, field: &str) -> Option<i64> {
    tree["metadata"][field].as_i64()
}

pub fn is_set(tree: &Value, field: &str) -> bool {
    !tree["metadata"][field].is_null()
}

/// The metadata of `tree`, made if it has none. A tree that is no object becomes one: decoding has refused such bodies.
pub fn of(tree: &mut Value) -> &mut Map<String, Value> {
    if !tree.is_object() {
        *tree = json!({});
    }
    let metadata = &mut tree["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("was just made an object")
}

pub fn finalizers(tree: &Value) -> Vec<&str> {
    tree["metadata"]["finalizers"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub fn set_finalizers(tree: &mut Value, finalizers: &[&str]) {
    match finalizers {
        [] => of(tree).remove("finalizers"),
        all => of(tree).insert("finalizers".into(), json!(all)),
    };
}

/// A name made of `base` and chance; `random` gives numbers from which letters are taken.
pub fn generated_name(base: &str, mut random: impl FnMut() -> u32) -> String {
    let mut end = base.len().min(NAME_BASE_LIMIT);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let suffix = (0..NAME_RANDOM).map(|_| NAME_ALPHABET[random() as usize % NAME_ALPHABET.len()] as char);
    base[..end].chars().chain(suffix).collect()
}

/// On create: what only the server sets is set, what it keeps for itself is dropped. The name is the caller's to make.
pub fn fill_create(tree: &mut Value, namespace: &str, uid: String, now: Timestamp) {
    let metadata = of(tree);
    for own in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "generation",
        "resourceVersion",
    ] {
        metadata.remove(own);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), time(now).into());
    match namespace {
        "" => metadata.remove("namespace"),
        namespace => metadata.insert("namespace".into(), namespace.into()),
    };
    tidy(metadata);
}

/// On update: a client may leave out what it cannot change; `generation` is the server's.
pub fn fill_update(tree: &mut Value, old: &Value) {
    let metadata = of(tree);
    metadata.remove("selfLink");
    // Who owns what is the server's to say; a client can only have it forgotten.
    let reset = metadata.remove("managedFields").is_some_and(|managed| apply::is_reset(&managed));
    if let (false, Some(managed)) = (reset, old["metadata"].get("managedFields")) {
        metadata.insert("managedFields".into(), managed.clone());
    }
    for kept in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "name", "namespace"] {
        let absent = matches!(metadata.get(kept), None | Some(Value::Null)) || metadata[kept] == "";
        if let (true, Some(value)) = (absent, old["metadata"].get(kept)) {
            metadata.insert(kept.into(), value.clone());
        }
    }
    for own in ["generation", "resourceVersion"] {
        match old["metadata"].get(own) {
            Some(value) => metadata.insert(own.into(), value.clone()),
            None => metadata.remove(own),
        };
    }
    tidy(metadata);
}

/// Empty maps, lists and nulls are not kept: Kubernetes's encoders leave them out, and an update that only adds an empty
/// one changes nothing.
fn tidy(metadata: &mut Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    });
}

/// What is wrong with the metadata of a new object.
pub fn validate(resource: &Resource, tree: &Value) -> Vec<Error> {
    let root = Path::new("metadata");
    let mut errors = Vec::new();
    let (name, base) = (text(tree, "name"), text(tree, "generateName"));
    if !base.is_empty() {
        let problems = (resource.name_rule)(&without_trailing_dash(base));
        errors.extend(problems.into_iter().map(|why| Error::invalid(&root.child("generateName"), base, why)));
    }
    if name.is_empty() {
        errors.push(Error::required(&root.child("name"), "name or generateName is required"));
    } else {
        let problems = (resource.name_rule)(name);
        errors.extend(problems.into_iter().map(|why| Error::invalid(&root.child("name"), name, why)));
    }
    let namespace = text(tree, "namespace");
    let at = root.child("namespace");
    match (resource.namespaced, namespace) {
        (true, "") => errors.push(Error::required(&at, "")),
        (true, _) => {
            let problems = names::dns1123_label(namespace);
            errors.extend(problems.into_iter().map(|why| Error::invalid(&at, namespace, why)));
        }
        (false, "") => {}
        (false, _) => errors.push(Error::forbidden(&at, "not allowed on this type")),
    }
    validate_maps(&root, tree, &mut errors);
    errors
}

/// What is wrong with the metadata of an update.
pub fn validate_update(tree: &Value, old: &Value) -> Vec<Error> {
    let root = Path::new("metadata");
    let mut errors = Vec::new();
    if is_set(old, "deletionTimestamp") {
        let before = finalizers(old);
        let new: Vec<&str> = finalizers(tree).into_iter().filter(|f| !before.contains(f)).collect();
        if !new.is_empty() {
            let list = new.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
            );
            errors.push(Error::forbidden(&root.child("finalizers"), why));
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (new, was) = (&tree["metadata"][field], &old["metadata"][field]);
        if new != was {
            errors.push(Error::invalid(&root.child(field), new.clone(), "field is immutable"));
        }
    }
    validate_maps(&root, tree, &mut errors);
    errors
}

/// `generateName` ends in a dash more often than not; what follows it makes the name whole.
fn without_trailing_dash(base: &str) -> String {
    match base.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => base.to_string(),
    }
}

fn validate_maps(root: &Path, tree: &Value, errors: &mut Vec<Error>) {
    let metadata = &tree["metadata"];
    let empty = Map::new();
    let at = root.child("labels");
    for (key, value) in metadata["labels"].as_object().unwrap_or(&empty) {
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::qualified_name(key).into_iter().map(|why| Error::invalid(&at, key.as_str(), why)));
        errors.extend(names::label_value(value).into_iter().map(|why| Error::invalid(&at, value, why)));
    }
    let at = root.child("annotations");
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().unwrap_or(&empty) {
        size += key.len() + value.as_str().map_or(0, str::len);
        let problems = names::qualified_name(&key.to_lowercase());
        errors.extend(problems.into_iter().map(|why| Error::invalid(&at, key.as_str(), why)));
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(Error::too_long(&at, ANNOTATIONS_LIMIT));
    }
    validate_owners(&root.child("ownerReferences"), &metadata["ownerReferences"], errors);
    let at = root.child("finalizers");
    let all = finalizers(tree);
    for finalizer in &all {
        errors.extend(names::qualified_name(finalizer).into_iter().map(|why| Error::invalid(&at, *finalizer, why)));
    }
    if all.contains(&ORPHAN) && all.contains(&FOREGROUND) {
        let why = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(Error::invalid(&at, json!(all), why));
    }
    for (i, finalizer) in all.iter().enumerate() {
        if !finalizer.contains('/') && !["kubernetes", ORPHAN, FOREGROUND].contains(finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(&at.index(i), *finalizer, why));
        }
    }
}

fn validate_owners(at: &Path, owners: &Value, errors: &mut Vec<Error>) {
    let mut controller: Option<String> = None;
    for (i, owner) in owners.as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate() {
        let at_owner = at.index(i);
        let field = |name: &str| owner[name].as_str().unwrap_or_default();
        let api_version = field("apiVersion");
        if api_version.is_empty() {
            errors.push(Error::required(&at_owner.child("apiVersion"), "must not be empty"));
        } else if !GroupVersion::parse(api_version).is_ok_and(|gv| !gv.version.is_empty()) {
            let why = "must be <group>/<version> or <version>";
            errors.push(Error::invalid(&at_owner.child("apiVersion"), api_version, why));
        }
        for name in ["kind", "name", "uid"] {
            if field(name).is_empty() {
                errors.push(Error::required(&at_owner.child(name), "must not be empty"));
            }
        }
        if api_version == "v1" && field("kind") == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(&at_owner, owner.clone(), why));
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", field("kind"), field("name"));
            match &controller {
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(Error::invalid(at, owners.clone(), why));
                }
                None => controller = Some(this),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::registry;
    use proptest::prelude::*;

    fn config_map(metadata: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    }

    fn problems(metadata: Value) -> Vec<String> {
        let resource = registry().by_path("", "v1", "configmaps").unwrap();
        validate(resource, &config_map(metadata)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_object_gets_what_only_the_server_gives() {
        let mut tree = config_map(json!({
            "name": "a", "uid": "forged", "deletionTimestamp": "2020-01-01T00:00:00Z", "generation": 7, "labels": {},
            "managedFields": [{"manager": "x"}], "creationTimestamp": null,
        }));
        fill_create(&mut tree, "ns", "u-1".into(), "2024-05-01T10:00:00.9Z".parse().unwrap());
        let expected = json!({
            "name": "a", "namespace": "ns", "uid": "u-1", "creationTimestamp": "2024-05-01T10:00:00Z",
        });
        assert_eq!(tree["metadata"], expected);
    }

    #[test]
    fn an_update_keeps_what_a_client_may_leave_out() {
        let old = config_map(json!({
            "name": "a", "namespace": "n", "uid": "u", "creationTimestamp": "t", "deletionTimestamp": "d",
            "resourceVersion": "3", "generation": 2,
        }));
        let mut new = config_map(json!({"name": "a", "labels": {"x": "y"}, "generation": 9, "resourceVersion": "1"}));
        fill_update(&mut new, &old);
        assert!(validate_update(&new, &old).is_empty());
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(new["metadata"]["labels"], json!({"x": "y"}));
    }

    #[test]
    fn metadata_is_refused_in_kubernetes_words() {
        assert_eq!(
            problems(json!({"namespace": "n"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(problems(json!({"name": "a", "namespace": "n", "generateName": "b-"})).is_empty());
        let wrong = problems(
            json!({"name": "A", "namespace": "n", "labels": {"a": "-"}, "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
        );
        assert!(wrong[0].starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain"));
        assert!(wrong[1].starts_with("metadata.labels: Invalid value: \"-\""));
        assert_eq!(wrong[2], "metadata.ownerReferences[0].uid: Required value: must not be empty");
        let both = problems(json!({"name": "a", "namespace": "n", "finalizers": [ORPHAN, FOREGROUND]}));
        assert!(both[0].contains("cannot be both set"));
    }

    #[test]
    fn identity_never_changes_and_a_dying_object_gains_no_finalizers() {
        let old = config_map(json!({"name": "a", "uid": "1", "deletionTimestamp": "d"}));
        let new = config_map(json!({"name": "a", "uid": "2", "deletionTimestamp": "d", "finalizers": ["x/y"]}));
        let errors: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/y\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }

    proptest! {
        #[test]
        fn generated_names_keep_their_base_and_stay_labels(base in "[a-z][a-z0-9]{0,80}-", seed in any::<u32>()) {
            let mut state = seed;
            let name = generated_name(&base, || { state = state.wrapping_mul(1664525).wrapping_add(1013904223); state >> 8 });
            prop_assert!(name.len() <= 63);
            prop_assert!(name.starts_with(&base[..base.len().min(NAME_BASE_LIMIT)]));
            prop_assert!(names::dns1123_label(&name).is_empty());
        }
    }
}
