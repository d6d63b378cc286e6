//! Leases of nodes that are connected: made when they are read, from the tunnel's last sign of life.
//!
//! A node's heartbeat is its tunnel and is never written. Who reads `kube-node-lease` (kubectl's `describe node`, monitors)
//! sees what a kubelet would have written there, as true as it is now. A watch sees the state at its beginning only: what
//! isn't written makes no change. A node that speaks through the API alone keeps its own stored lease.

use super::api::{self, Api, Context};
use super::authorize::NODE_LEASES;
use super::errors;
use crate::resources::{Resource, registry};
use crate::store::{Key, Object};
use jiff::Timestamp;
use longshore_api::Status;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// As a kubelet's.
const SECONDS: i64 = 40;

impl Api {
    /// The lease of the node `name`, when this is about one and the node has a tunnel here.
    pub(super) fn node_lease(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        if !concerns(resource, Some(namespace)) {
            return Ok(None);
        }
        match self.nodes.contact(cx.cluster.id(), name) {
            Some(contact) => lease(cx, resource, name, contact),
            None => Ok(None),
        }
    }

    /// The leases of all nodes that have a tunnel here, where a list would show them.
    pub(super) fn node_leases(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: Option<&str>,
    ) -> Result<Vec<Arc<Object>>, Status> {
        if !concerns(resource, namespace) {
            return Ok(Vec::new());
        }
        let contacts = self.nodes.contacts(cx.cluster.id());
        let leases = contacts.iter().map(|(name, contact)| lease(cx, resource, name, *contact));
        leases.filter_map(Result::transpose).collect()
    }
}

fn concerns(resource: &Resource, namespace: Option<&str>) -> bool {
    resource.plural == "leases"
        && resource.group == "coordination.k8s.io"
        && namespace.is_none_or(|namespace| namespace == NODE_LEASES)
}

fn lease(
    cx: &Context,
    resource: &'static Resource,
    name: &str,
    contact: Timestamp,
) -> Result<Option<Arc<Object>>, Status> {
    let Some(nodes) = registry().by_name("nodes") else { return Ok(None) };
    let Some(node) = cx.cluster.get_stale(&api::key(nodes, "", name)).map_err(errors::store)? else {
        return Ok(None);
    };
    let tree = json!({
        "kind": resource.kind,
        "apiVersion": resource.api_version(),
        "metadata": {
            "name": name,
            "namespace": NODE_LEASES,
            "uid": uid(&node.uid),
            "creationTimestamp": node.tree()["metadata"]["creationTimestamp"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": &*node.uid}],
        },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": SECONDS,
            "renewTime": contact.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        },
    });
    let key: Key = api::key(resource, NODE_LEASES, name);
    Ok(Some(Arc::new(api::draft(resource, key, &tree).at(node.revision))))
}

/// Always the same for the same node.
fn uid(node: &str) -> String {
    let digest = Sha256::digest(format!("lease of node {node}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
