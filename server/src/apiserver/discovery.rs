//! What the API has: `/api`, `/apis`, groups, versions; plain (one document for each group version) and aggregated (one
//! for all, which is what kubectl asks for). Made from the registry, never written down twice.

use super::negotiate::DiscoveryForm;
use crate::resources::{Registry, Resource, Subresource};
use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A resource that can only be created and is never stored: questions to the authorizer, bindings.
pub struct Virtual {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    pub type_name: &'static str,
}

/// In the order in which discovery lists them, each at the head of its group version.
pub const VIRTUAL: &[Virtual] = &[
    Virtual {
        group: "",
        version: "v1",
        plural: "bindings",
        singular: "binding",
        kind: "Binding",
        namespaced: true,
        type_name: "io.k8s.api.core.v1.Binding",
    },
    Virtual {
        group: "authentication.k8s.io",
        version: "v1",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
        namespaced: false,
        type_name: "io.k8s.api.authentication.v1.SelfSubjectReview",
    },
    Virtual {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        kind: "SelfSubjectAccessReview",
        namespaced: false,
        type_name: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    },
    Virtual {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        kind: "SelfSubjectRulesReview",
        namespaced: false,
        type_name: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    },
];

pub fn virtual_resource(group: &str, version: &str, plural: &str) -> Option<&'static Virtual> {
    VIRTUAL.iter().find(|v| v.group == group && v.version == version && v.plural == plural)
}

/// Groups in Kubernetes's order of priority; one that isn't named here follows by name.
const ORDER: [&str; 8] = [
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];

/// All group versions, ordered. No group has two versions yet; `groups` below relies on it only for the preferred one.
pub fn group_versions(registry: &Registry) -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> =
        registry.all().map(|r| (r.group, r.version)).chain(VIRTUAL.iter().map(|v| (v.group, v.version))).collect();
    all.sort_by_key(|(group, version)| {
        (ORDER.iter().position(|g| g == group).unwrap_or(ORDER.len()), *group, *version)
    });
    all.dedup();
    all
}

/// The answer to a discovery path; None where the path is none or names what isn't there.
pub fn document(registry: &Registry, path: &str, form: DiscoveryForm) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match (&parts[..], form) {
        (["api"], DiscoveryForm::Aggregated) => Some(aggregated(registry, |group| group.is_empty())),
        (["apis"], DiscoveryForm::Aggregated) => Some(aggregated(registry, |group| !group.is_empty())),
        (["api"], DiscoveryForm::Plain) => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        })),
        (["apis"], DiscoveryForm::Plain) => {
            let groups: Vec<Value> =
                names(registry).filter(|g| !g.is_empty()).map(|g| api_group(registry, g)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        (["apis", group], _) => {
            let known = !group.is_empty() && names(registry).any(|g| g == *group);
            known.then(|| {
                let mut document = api_group(registry, group);
                document["kind"] = "APIGroup".into();
                document["apiVersion"] = "v1".into();
                document
            })
        }
        (["api", version], _) => resource_list(registry, "", version),
        (["apis", group, version], _) if !group.is_empty() => resource_list(registry, group, version),
        _ => None,
    }
}

fn names(registry: &Registry) -> impl Iterator<Item = &'static str> {
    let mut groups: Vec<&str> = group_versions(registry).into_iter().map(|(group, _)| group).collect();
    groups.dedup();
    groups.into_iter()
}

fn api_group(registry: &Registry, group: &str) -> Value {
    let versions: Vec<Value> = group_versions(registry)
        .into_iter()
        .filter(|(g, _)| *g == group)
        .map(|(g, v)| json!({"groupVersion": format!("{g}/{v}"), "version": v}))
        .collect();
    json!({"name": group, "preferredVersion": versions[0], "versions": versions})
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    if !group_versions(registry).contains(&(group, version)) {
        return None;
    }
    let mut resources = Vec::new();
    for v in VIRTUAL.iter().filter(|v| v.group == group && v.version == version) {
        resources.push(json!({
            "name": v.plural, "singularName": v.singular, "namespaced": v.namespaced, "kind": v.kind, "verbs": ["create"],
        }));
    }
    for r in registry.all().filter(|r| r.group == group && r.version == version) {
        let mut entry = json!({
            "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": r.verbs,
            "storageVersionHash": storage_hash(r),
        });
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        resources.push(entry);
        resources.extend(r.subresources.iter().map(|s| {
            let mut entry = json!({
                "name": format!("{}/{}", r.plural, s.name), "singularName": "", "namespaced": r.namespaced,
                "kind": s.kind, "verbs": s.verbs,
            });
            if (s.group, s.version) != (group, version) {
                entry["group"] = s.group.into();
                entry["version"] = s.version.into();
            }
            entry
        }));
    }
    let group_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    // The core group's document has no apiVersion of its own, since Kubernetes 1.0.
    Some(match group {
        "" => json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}),
        _ => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
        }),
    })
}

/// Lets clients see that the stored version of a resource changed.
fn storage_hash(resource: &Resource) -> String {
    let stored = resource.stored.map_or(resource, |s| s.resource);
    let name = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(name)[..8])
}

fn aggregated(registry: &Registry, wanted: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> = names(registry)
        .filter(|group| wanted(group))
        .map(|group| {
            let versions: Vec<Value> = group_versions(registry)
                .into_iter()
                .filter(|(g, _)| *g == group)
                .map(|(_, version)| {
                    json!({"version": version, "resources": aggregated_resources(registry, group, version), "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = group.into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resources(registry: &Registry, group: &str, version: &str) -> Vec<Value> {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let mut all: Vec<Value> = VIRTUAL
        .iter()
        .filter(|v| v.group == group && v.version == version)
        .map(|v| {
            json!({
                "resource": v.plural, "responseKind": kind(group, version, v.kind), "scope": scope(v.namespaced),
                "singularResource": v.singular, "verbs": ["create"],
            })
        })
        .collect();
    for r in registry.all().filter(|r| r.group == group && r.version == version) {
        let mut entry = json!({
            "resource": r.plural, "responseKind": kind(group, version, r.kind), "scope": scope(r.namespaced),
            "singularResource": r.singular, "verbs": r.verbs,
        });
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        if !r.subresources.is_empty() {
            let one = |s: &Subresource| json!({"subresource": s.name, "responseKind": kind(s.group, s.version, s.kind), "verbs": s.verbs});
            entry["subresources"] = r.subresources.iter().map(one).collect();
        }
        all.push(entry);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::registry;

    #[test]
    fn every_kind_is_found_in_both_forms() {
        let aggregated = [
            document(registry(), "/api", DiscoveryForm::Aggregated).unwrap(),
            document(registry(), "/apis", DiscoveryForm::Aggregated).unwrap(),
        ];
        for r in registry().all() {
            let base =
                if r.group.is_empty() { "/api/v1".to_string() } else { format!("/apis/{}/{}", r.group, r.version) };
            let list = document(registry(), &base, DiscoveryForm::Plain).unwrap();
            assert!(list["resources"].as_array().unwrap().iter().any(|e| e["name"] == r.plural), "{}", r.kind);
            let listed = aggregated.iter().flat_map(|d| d["items"].as_array().unwrap()).any(|group| {
                group["metadata"]["name"].as_str().unwrap_or_default() == r.group
                    && group["versions"][0]["resources"].as_array().unwrap().iter().any(|e| e["resource"] == r.plural)
            });
            assert!(listed, "{}", r.kind);
        }
    }

    #[test]
    fn what_is_not_there_has_no_document() {
        for path in
            ["/apis/rbac.authorization.k8s.io/v1", "/apis/rbac.authorization.k8s.io", "/api/v2", "/apis/apps/v2", "/x"]
        {
            assert!(document(registry(), path, DiscoveryForm::Plain).is_none(), "{path}");
        }
    }
}
