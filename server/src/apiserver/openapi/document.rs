//! One group version's document, assembled from the registry, the schemas and the table of types.

use super::operations;
use crate::apiserver::discovery::{VIRTUAL, group_versions};
use crate::apiserver::schema::{Field, Kind, Label, Merge, Shape, schema};
use crate::resources::{Resource, registry};
use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

pub const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

type Schemas = Map<String, Value>;

/// `/openapi/v3`: where each document is, with its hash.
pub fn index<'a>(documents: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let url = |path: &str, hash: &str| json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
    let paths: Map<String, Value> = documents.map(|(path, hash)| (path.to_string(), url(path, hash))).collect();
    json!({ "paths": paths })
}

/// Every group version's document by its path (`api/v1`, `apis/apps/v1`).
pub fn all() -> BTreeMap<String, Value> {
    let schemas = schemas();
    let versions = group_versions(registry());
    versions.into_iter().map(|(group, version)| (base(group, version), document(group, version, &schemas))).collect()
}

pub fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The embedded schemas: part of the program, so that they can't be read is a bug that the first test meets.
fn schemas() -> Schemas {
    let mut text = String::new();
    let packed: &[u8] = include_bytes!("schemas.json.gz");
    GzDecoder::new(packed).read_to_string(&mut text).expect("the embedded schemas unpack");
    serde_json::from_str(&text).expect("the embedded schemas are JSON")
}

fn document(group: &str, version: &str, schemas: &Schemas) -> Value {
    let (mut paths, mut lists) = (Map::new(), Map::new());
    let mut wanted = vec![format!("{META}.Status"), format!("{META}.DeleteOptions")];
    for resource in registry().all().filter(|r| r.group == group && r.version == version) {
        let list = list_name(resource);
        lists.insert(list.clone(), list_schema(resource));
        wanted.extend([resource.type_name.to_string(), format!("{META}.Patch"), list]);
        wanted.extend(resource.subresources.iter().filter_map(|s| type_of(s.group, s.version, s.kind)));
        operations::add(&mut paths, resource);
    }
    for resource in VIRTUAL.iter().filter(|v| v.group == group && v.version == version) {
        wanted.push(resource.type_name.to_string());
        operations::add_virtual(&mut paths, resource);
    }
    let token = json!({"type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication"});
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.37.0"},
        "paths": paths,
        "components": {"schemas": closure(wanted, schemas, &lists), "securitySchemes": {"BearerToken": token}},
    })
}

pub fn type_of(group: &str, version: &str, kind: &str) -> Option<String> {
    schema().find_kind(group, version, kind).map(|m| m.full_name())
}

pub fn list_name(resource: &Resource) -> String {
    let package = resource.type_name.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", resource.list_kind)
}

fn list_schema(resource: &Resource) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "description": format!("{} is a list of {} objects.", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation of an object."),
            "kind": text("Kind is a string value representing the REST resource this object represents."),
            "items": {"type": "array", "description": "items is the list of objects.",
                "items": {"default": {}, "allOf": [reference(resource.type_name)]}},
            "metadata": {"default": {}, "allOf": [reference(&format!("{META}.ListMeta"))],
                "description": "Standard list metadata."},
        },
        "x-kubernetes-group-version-kind": [gvk(resource.group, resource.version, resource.list_kind)],
    })
}

pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// The wanted schemas and all that they reference, with what merging needs to know.
fn closure(wanted: Vec<String>, schemas: &Schemas, lists: &Schemas) -> Schemas {
    let (mut out, mut open, mut seen) = (Map::new(), wanted, BTreeSet::new());
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(found) = lists.get(&name).or_else(|| schemas.get(&name)) else { continue };
        let mut found = found.clone();
        extend(&name, &mut found);
        references(&found, &mut open);
        out.insert(name, found);
    }
    out
}

fn references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            let name = entries.get("$ref").and_then(Value::as_str);
            into.extend(name.and_then(|r| r.strip_prefix("#/components/schemas/")).map(str::to_string));
            entries.values().for_each(|v| references(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, into)),
        _ => {}
    }
}

/// Adds Kubernetes's extensions to a schema.
fn extend(name: &str, found: &mut Value) {
    let (Some(message), Some(entries)) = (schema().find(name), found.as_object_mut()) else { return };
    match message.shape {
        Shape::Quantity => {
            entries.remove("x-kubernetes-int-or-string");
            entries.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
        }
        Shape::IntOrString => {
            entries.remove("x-kubernetes-int-or-string");
            entries.insert("format".into(), "int-or-string".into());
            entries.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        }
        _ => {}
    }
    if message.atomic {
        entries.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if let Some((group, version, kind)) = message.group_version_kind().filter(|_| message.root) {
        // What every group has is named as the core has it.
        let group = if group == "meta.k8s.io" { "" } else { group };
        entries.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([gvk(group, version, kind)]));
    }
    let Some(properties) = entries.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (json, property) in properties {
        if let (Some(field), Some(property)) = (message.member(json), property.as_object_mut()) {
            extend_property(field, property);
        }
    }
}

fn extend_property(field: &Field, property: &mut Map<String, Value>) {
    let rule = field.patch;
    let strategies = [(rule.merge, "merge"), (rule.replace, "replace"), (rule.retain_keys, "retainKeys")];
    let strategies: Vec<&str> = strategies.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    if !strategies.is_empty() {
        property.insert("x-kubernetes-patch-strategy".into(), strategies.join(",").into());
    }
    if !rule.key.is_empty() {
        property.insert("x-kubernetes-patch-merge-key".into(), rule.key.into());
    }
    let list_type = match (&field.merge, field.label) {
        (Merge::Undeclared, _) => None,
        (Merge::Atomic, Label::List) => Some("atomic"),
        (Merge::Atomic, _) => {
            property.insert("x-kubernetes-map-type".into(), "atomic".into());
            None
        }
        (Merge::Set, _) => Some("set"),
        (Merge::Keys(keys), _) => {
            property.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            Some("map")
        }
    };
    if let Some(list_type) = list_type {
        property.insert("x-kubernetes-list-type".into(), list_type.into());
    }
    // What Go keeps by value is never absent.
    if let (Kind::Message(id), Label::One, true) = (field.kind, field.label, field.omit_zero)
        && schema().message(id).shape == Shape::Struct
    {
        property.insert("default".into(), json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_schemas_and_paths() {
        let documents = all();
        for r in registry().all() {
            let document = &documents[&base(r.group, r.version)];
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let found = &schemas[r.type_name];
            assert!(found["description"].is_string(), "{}", r.type_name);
            assert_eq!(found["x-kubernetes-group-version-kind"][0]["kind"], r.kind);
            let mut open = Vec::new();
            references(document, &mut open);
            for name in open {
                assert!(schemas.contains_key(&name), "{name} is referenced and not there");
            }
        }
    }

    #[test]
    fn kubectl_finds_what_it_decides_by() {
        let documents = all();
        let apps = &documents["apis/apps/v1"];
        let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let names = patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["dryRun", "fieldManager", "fieldValidation", "force"]);
        let spec = &apps["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
        assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["containers"]["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(spec["containers"]["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    }
}
