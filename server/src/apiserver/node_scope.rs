//! What the pods of a node name, looked up in the cluster for the authorizer.
//!
//! A node has tens of pods and asks for what they name a few times each: walking them is quick (the store has an index
//! by node), and an index of references would have to be kept for every write.

use super::authorize::NodeScope;
use crate::store::{Cluster, Key, ListQuery, Object};
use longshore_api::selector::{FieldRequirement, FieldSelector};
use serde_json::Value;
use std::sync::Arc;

impl NodeScope for Arc<Cluster> {
    fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        let key = Key { resource: "pods".into(), namespace: namespace.into(), name: name.into() };
        // Not found counts as the node's: its answer is 404, and after a deletion the node has to learn of it.
        self.get_stale(&key)
            .is_ok_and(|pod| pod.is_none_or(|pod| pod.fields.get("spec.nodeName").is_some_and(|n| n == node)))
    }

    fn has_pods_in(&self, node: &str, namespace: &str) -> bool {
        !pods(self, node, namespace).is_empty()
    }

    fn names(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        pods(self, node, namespace).iter().any(|pod| references(&pod.tree()["spec"], resource, name))
    }
}

fn pods(cluster: &Cluster, node: &str, namespace: &str) -> Vec<Arc<Object>> {
    let on_node = FieldRequirement { field: "spec.nodeName".into(), value: node.into(), equal: true };
    let query = ListQuery {
        resource: "pods".into(),
        namespace: Some(namespace.into()),
        fields: FieldSelector(vec![on_node]),
        stale: true,
        ..Default::default()
    };
    cluster.list(&query).map(|listing| listing.items).unwrap_or_default()
}

/// Whether a pod's `spec` names the object.
fn references(spec: &Value, resource: &str, name: &str) -> bool {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let containers = || ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|c| list(&spec[*c]));
    let environment = |from: &str, key: &str| {
        containers().any(|c| {
            list(&c["envFrom"]).iter().any(|e| e[from]["name"] == name)
                || list(&c["env"]).iter().any(|e| e["valueFrom"][key]["name"] == name)
        })
    };
    let projected = |source: &str| {
        list(&spec["volumes"])
            .iter()
            .any(|v| list(&v["projected"]["sources"]).iter().any(|s| s[source]["name"] == name))
    };
    match resource {
        "serviceaccounts" => spec["serviceAccountName"] == name,
        "secrets" => {
            environment("secretRef", "secretKeyRef")
                || projected("secret")
                || list(&spec["volumes"]).iter().any(|v| v["secret"]["secretName"] == name)
                || list(&spec["imagePullSecrets"]).iter().any(|s| s["name"] == name)
        }
        "configmaps" => {
            environment("configMapRef", "configMapKeyRef")
                || projected("configMap")
                || list(&spec["volumes"]).iter().any(|v| v["configMap"]["name"] == name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_every_way_a_pod_names_things() {
        let spec = json!({
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "envFrom": [{"configMapRef": {"name": "c1"}}, {"secretRef": {"name": "s1"}}],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                ],
            }],
            "initContainers": [{"env": [{"name": "C", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}}]}],
            "volumes": [
                {"secret": {"secretName": "s4"}}, {"configMap": {"name": "c3"}},
                {"projected": {"sources": [{"secret": {"name": "s5"}}, {"configMap": {"name": "c4"}}]}},
            ],
        });
        for (resource, names) in [
            ("secrets", &["pull", "s1", "s2", "s3", "s4", "s5"][..]),
            ("configmaps", &["c1", "c2", "c3", "c4"]),
            ("serviceaccounts", &["sa"]),
        ] {
            for name in names {
                assert!(references(&spec, resource, name), "{resource} {name}");
            }
            assert!(!references(&spec, resource, "other"));
        }
        assert!(!references(&spec, "secrets", "c1"));
    }
}
