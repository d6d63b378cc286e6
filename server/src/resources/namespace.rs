//! Namespace.

use super::age::age;
use super::findings::Findings;
use super::tree::{at, child, child_of, list_at, put, str_at};
use super::*;
use longshore_api::field::Path;
use longshore_api::names;
use serde_json::json;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    type_name: "io.k8s.api.core.v1.Namespace",
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] },
        Subresource::status("", "Namespace"),
    ],
    columns: &[Column::new("Status", "string", "The status of the namespace"), Column::AGE],
    cells: |tree, now| vec![str_at(tree, "/status/phase").into(), age(tree, now)],
    name_rule: names::dns1123_label,
    default,
    prepare_create,
    prepare_update,
    validate,
    validate_status_update,
    fields: |tree| BTreeMap::from([("status.phase", str_at(tree, "/status/phase").to_string())]),
    ..BASE
};

/// The finalizer that namespace deletion takes away once the namespace is empty. It stands in `spec`, not in `metadata`.
pub const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn default(tree: &mut Value) {
    let name = str_at(tree, "/metadata/name").to_string();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = child(tree, "metadata").and_then(|m| child_of(m, "labels")) {
        labels.insert(NAME_LABEL.into(), name.into());
    }
}

fn prepare_create(_: &Request<'_>, tree: &mut Value) {
    default(tree);
    put(tree, "status", json!({"phase": "Active"}));
    let mut finalizers = list_at(tree, "/spec/finalizers").to_vec();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    if let Some(spec) = child(tree, "spec") {
        spec.insert("finalizers".into(), finalizers.into());
    }
}

/// `finalizers` only change through the subresource `finalize`.
fn prepare_update(_: &Request<'_>, tree: &mut Value, old: &Value) {
    put(tree, "status", at(old, "/status").clone());
    if let Some(spec) = child(tree, "spec") {
        match at(old, "/spec/finalizers") {
            Value::Null => spec.remove("finalizers"),
            finalizers => spec.insert("finalizers".into(), finalizers.clone()),
        };
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("spec").child("finalizers");
    for finalizer in list_at(tree, "/spec/finalizers").iter().map(|f| f.as_str().unwrap_or_default()) {
        found.each(&path, finalizer, names::qualified_name(finalizer));
        if !finalizer.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            found.invalid(&path, finalizer, why);
        }
    }
    found.into_errors()
}

fn validate_status_update(tree: &Value, _: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("status").child("Phase");
    let phase = str_at(tree, "/status/phase");
    let (expected, state) = match at(tree, "/metadata/deletionTimestamp").is_null() {
        true => ("Active", "empty"),
        false => ("Terminating", "not empty"),
    };
    if phase != expected {
        found.invalid(&path, phase, format!("may only be '{expected}' if `deletionTimestamp` is {state}"));
    }
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_born_active_with_its_label_and_finalizer() {
        let mut tree = json!({"metadata": {"name": "web"}, "status": {"phase": "Odd"}});
        default(&mut tree);
        prepare_create(&Request { now: jiff::Timestamp::UNIX_EPOCH, user: "", namespace: "" }, &mut tree);
        let expected = json!({"metadata": {"name": "web", "labels": {"kubernetes.io/metadata.name": "web"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        assert_eq!(tree, expected);
        assert!(validate(&tree).is_empty());
    }

    #[test]
    fn its_phase_follows_its_deletion() {
        let errors = validate_status_update(&json!({"metadata": {}, "status": {"phase": "Terminating"}}), &json!({}));
        let why = "may only be 'Active' if `deletionTimestamp` is empty";
        assert_eq!(errors[0].to_string(), format!("status.Phase: Invalid value: \"Terminating\": {why}"));
    }
}
