//! Kinds: the ones the page knows by heart, and those a cluster says it has.

use crate::kube::Meta;
use crate::read::{field, shape};
use serde_json::Value;

/// A kind, as discovery describes it: enough to build every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

/// Known by heart, so that a page paints without waiting for discovery, and by their plural alone in addresses.
const KNOWN: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "services", "Service", true),
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "secrets", "Secret", true),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "events", "Event", true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "endpoints", "Endpoints", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", true),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true),
];

impl Kind {
    fn known(&(group, version, plural, kind, namespaced): &(&str, &str, &str, &str, bool)) -> Self {
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"].map(String::from).into();
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            kind: kind.into(),
            namespaced,
            verbs,
        }
    }

    /// All that are known by heart.
    pub fn all_known() -> Vec<Self> {
        KNOWN.iter().map(Self::known).collect()
    }

    /// By what addresses call it: `pods`, `widgets.example.com`.
    pub fn by_slug(slug: &str, discovered: &[Kind]) -> Option<Self> {
        KNOWN
            .iter()
            .find(|k| k.2 == slug)
            .map(Self::known)
            .or_else(|| discovered.iter().find(|k| k.slug() == slug || k.full_name() == slug).cloned())
    }

    /// By what an object says it is.
    pub fn of(api_version: &str, kind: &str, discovered: &[Kind]) -> Option<Self> {
        let known = KNOWN.iter().map(Self::known);
        known.chain(discovered.iter().cloned()).find(|k| k.kind == kind && k.api_version() == api_version)
    }

    /// By its name alone, as references to owners and events' objects have it.
    pub fn named(kind: &str, discovered: &[Kind]) -> Option<Self> {
        let known = KNOWN.iter().map(Self::known);
        known.chain(discovered.iter().cloned()).find(|k| k.kind == kind)
    }

    /// What addresses call it: its plural where that is known by heart, with the group otherwise.
    pub fn slug(&self) -> String {
        let known = KNOWN.iter().any(|k| k.0 == self.group && k.2 == self.plural);
        if known { self.plural.clone() } else { self.full_name() }
    }

    /// `widgets.example.com`; core kinds have no dot.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The path of the list, below the cluster: in one namespace, or (none) everywhere.
    pub fn list_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|ns| self.namespaced && !ns.is_empty()) {
            Some(namespace) => format!("{root}/namespaces/{}/{}", segment(namespace), self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.list_path(Some(namespace)), segment(name))
    }
}

/// A path segment, escaped: names may hold `:` and, hand-typed, anything.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

shape!(Group { metadata: Meta, versions: Vec<Version> });
shape!(Version { version: String, resources: Vec<Resource> });
shape!(Resource { resource: String, response_kind: Option<ResponseKind>, scope: String, verbs: Vec<String> });
shape!(ResponseKind { kind: String });

/// Reads an aggregated discovery document (`APIGroupDiscoveryList`): each group's first version, which is its preferred.
pub fn discovered(body: &str) -> Result<Vec<Kind>, serde_json::Error> {
    let list: Value = serde_json::from_str(body)?;
    let mut kinds = Vec::new();
    for group in field::<Vec<Group>>(&list, "items") {
        let mut seen: Vec<String> = Vec::new();
        for version in group.versions {
            for resource in version.resources {
                let Some(kind) = resource.response_kind else { continue };
                if seen.contains(&resource.resource) {
                    continue;
                }
                seen.push(resource.resource.clone());
                kinds.push(Kind {
                    group: group.metadata.name.clone(),
                    version: version.version.clone(),
                    plural: resource.resource,
                    kind: kind.kind,
                    namespaced: resource.scope == "Namespaced",
                    verbs: resource.verbs,
                });
            }
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        let kind = |slug| Kind::by_slug(slug, &[]).unwrap();
        assert_eq!(kind("pods").list_path(None), "/api/v1/pods");
        assert_eq!(kind("pods").object_path("a", "b"), "/api/v1/namespaces/a/pods/b");
        assert_eq!(kind("deployments").list_path(Some("a")), "/apis/apps/v1/namespaces/a/deployments");
        assert_eq!(kind("nodes").object_path("", "n/1"), "/api/v1/nodes/n%2F1");
    }

    #[test]
    fn discovery_adds_what_is_not_known_by_heart() {
        let body = r#"{"kind":"APIGroupDiscoveryList","items":[
            {"metadata":{"name":"example.com"},"versions":[
                {"version":"v2","resources":[{"resource":"widgets","responseKind":{"group":"example.com","version":"v2","kind":"Widget"},"scope":"Namespaced","verbs":["list"]}]},
                {"version":"v1","resources":[{"resource":"widgets","responseKind":{"kind":"Widget"},"scope":"Namespaced","verbs":["list"]}]}]},
            {"metadata":{"creationTimestamp":null},"versions":[{"version":"v1","resources":[{"resource":"pods","responseKind":{"kind":"Pod"},"scope":"Namespaced","verbs":[]}]}]}]}"#;
        let kinds = discovered(body).unwrap();
        assert_eq!(
            kinds.iter().map(|k| (k.slug(), k.version.as_str())).collect::<Vec<_>>(),
            [("widgets.example.com".into(), "v2"), ("pods".into(), "v1")]
        );
        assert_eq!(Kind::by_slug("widgets.example.com", &kinds).unwrap().kind, "Widget");
        assert_eq!(
            Kind::of("example.com/v2", "Widget", &kinds).unwrap().list_path(Some("x")),
            "/apis/example.com/v2/namespaces/x/widgets"
        );
        assert!(Kind::by_slug("gadgets", &kinds).is_none());
    }
}
