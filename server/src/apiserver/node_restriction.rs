//! What the authorizer could not see of a node's request because it stands in the body.
//!
//! Kubernetes's NodeRestriction: a node makes only its own Node and lease, and cannot give itself taints or labels by
//! which others decide what runs on it.

use super::admission::Operation;
use super::authorize::NODE_LEASES;
use super::metadata;
use crate::accounts::{Identity, Who};
use crate::resources::Resource;
use longshore_api::Status;
use longshore_api::node::NODE_ID_LABEL;
use serde_json::{Value, json};

/// Labels that administrators use to keep workloads apart; a node may not touch them.
const RESERVED_LABELS: &str = "node-restriction.kubernetes.io/";

pub fn check(
    identity: &Identity,
    resource: &Resource,
    operation: Operation,
    subresource: &str,
    old: Option<&Value>,
    tree: &Value,
) -> Result<(), Status> {
    let Who::Node { name: node, .. } = &identity.who else { return Ok(()) };
    let name = metadata::text(tree, "name");
    let refuse = |why: String| Err(Status::forbidden(&resource.group_resource(), name, &why));
    match (resource.plural, operation) {
        ("nodes", _) if name != node => refuse(format!("node {node:?} is not allowed to modify node {name:?}")),
        ("nodes", Operation::Create) => match reserved_labels(tree).is_empty() {
            true => Ok(()),
            false => refuse(format!("node {node:?} is not allowed to set labels with prefix {RESERVED_LABELS}")),
        },
        ("nodes", Operation::Update) => {
            let old = old.unwrap_or(&Value::Null);
            if subresource.is_empty() && old["spec"]["taints"] != tree["spec"]["taints"] {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
            if old["metadata"]["ownerReferences"] != tree["metadata"]["ownerReferences"] {
                return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            match reserved_labels(old) == reserved_labels(tree) {
                true => Ok(()),
                false => refuse(format!("node {node:?} is not allowed to modify labels with prefix {RESERVED_LABELS}")),
            }
        }
        ("leases", _) if metadata::text(tree, "namespace") == NODE_LEASES && name != node => {
            refuse(format!("node {node:?} can only access node lease with the same name"))
        }
        _ => Ok(()),
    }
}

/// Writes into a node's own object which identity made it. It stands there whatever the node says: by it the identity ends
/// when the object is deleted.
pub fn identify(identity: &Identity, resource: &Resource, operation: Operation, subresource: &str, tree: &mut Value) {
    let Who::Node { node, .. } = &identity.who else { return };
    if resource.plural == "nodes" && subresource.is_empty() && operation != Operation::Delete {
        let labels = metadata::of(tree).entry("labels").or_insert_with(|| json!({}));
        if !labels.is_object() {
            *labels = json!({});
        }
        labels[NODE_ID_LABEL] = node.as_str().into();
    }
}

fn reserved_labels(tree: &Value) -> Vec<(&String, &Value)> {
    let labels = tree["metadata"]["labels"].as_object();
    labels.into_iter().flatten().filter(|(key, _)| key.starts_with(RESERVED_LABELS)).collect()
}
