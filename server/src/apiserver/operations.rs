//! `/openapi/v3`: which operations each kind has and which parameters they take.
//!
//! kubectl decides by these documents whether it may leave field validation and dry runs to the server. They hold no
//! schemas: those are made from the table of types, and come with it.

use super::discovery::group_versions;
use crate::resources::{Registry, Resource};
use serde_json::{Map, Value, json};

/// The document at `path` below `/openapi/v3` (empty for the index); None for a group version that isn't there.
pub fn document(registry: &Registry, path: &str) -> Option<Value> {
    let base = |group: &str, version: &str| match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    };
    let all = group_versions(registry);
    if path.is_empty() {
        let paths: Map<String, Value> = all
            .into_iter()
            .map(|(group, version)| base(group, version))
            .map(|at| (at.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{at}")})))
            .collect();
        return Some(json!({"paths": paths}));
    }
    let (group, version) = all.into_iter().find(|(group, version)| base(group, version) == path)?;
    let mut paths = Map::new();
    for r in registry.all().filter(|r| r.group == group && r.version == version) {
        let place = if r.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{path}{place}/{}", r.plural);
        paths.insert(format!("{collection}/{{name}}"), operations(r, &["get", "update", "patch", "delete"]));
        paths.insert(collection, operations(r, &["list", "create", "deletecollection"]));
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.37.0"},
        "paths": paths,
        "components": {"schemas": {}},
    }))
}

fn operations(resource: &Resource, verbs: &[&str]) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut item = Map::new();
    for verb in verbs.iter().filter(|verb| resource.verbs.contains(verb)) {
        // The method, the name of the action in Kubernetes's extension, and the parameters.
        let (method, action, parameters): (_, _, &[&str]) = match *verb {
            "get" => ("get", "get", &[]),
            "list" => ("get", "list", &["labelSelector", "fieldSelector", "limit", "continue"]),
            "create" => ("post", "post", &["dryRun", "fieldManager", "fieldValidation"]),
            "update" => ("put", "put", &["dryRun", "fieldManager", "fieldValidation"]),
            "patch" => ("patch", "patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
            "delete" => ("delete", "delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
            _ => ("delete", "deletecollection", &["dryRun", "labelSelector", "fieldSelector"]),
        };
        let parameter =
            |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        let operation = json!({
            "parameters": parameters.iter().map(parameter).collect::<Vec<_>>(),
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        });
        item.insert(method.into(), operation);
    }
    Value::Object(item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::registry;

    #[test]
    fn every_kind_that_is_patched_takes_field_validation() {
        let index = document(registry(), "").unwrap();
        for r in registry().all() {
            let at = if r.group.is_empty() {
                format!("api/{}", r.version)
            } else {
                format!("apis/{}/{}", r.group, r.version)
            };
            assert!(index["paths"][&at].is_object(), "{at}");
            let found = document(registry(), &at).unwrap();
            let paths = found["paths"].as_object().unwrap();
            let patch =
                paths.values().map(|p| &p["patch"]).find(|p| p["x-kubernetes-group-version-kind"]["kind"] == r.kind);
            let parameters = patch.unwrap()["parameters"].as_array().unwrap();
            assert!(parameters.iter().any(|p| p["name"] == "fieldValidation"), "{}", r.kind);
        }
        assert!(document(registry(), "apis/nothing/v1").is_none());
    }
}
