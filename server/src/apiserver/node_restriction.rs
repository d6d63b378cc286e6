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
use longshore_api::edge::EDGE_LABEL;
use longshore_api::node::NODE_ID_LABEL;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Labels that administrators use to keep workloads apart; a node may not touch them, nor the one by which it would be given
/// its cluster's certificates.
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
        ("nodes", Operation::Create) => match names(&reserved_labels(tree)) {
            labels if labels.is_empty() => Ok(()),
            labels => refuse(format!("node {node:?} is not allowed to set the following labels: {labels}")),
        },
        ("nodes", Operation::Update) => {
            let old = old.unwrap_or(&Value::Null);
            if subresource.is_empty() && old["spec"]["taints"] != tree["spec"]["taints"] {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
            if old["metadata"]["ownerReferences"] != tree["metadata"]["ownerReferences"] {
                return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let (old, new) = (reserved_labels(old), reserved_labels(tree));
            let changed =
                old.iter().filter(|label| !new.contains(label)).chain(new.iter().filter(|label| !old.contains(label)));
            match names(&changed.copied().collect::<BTreeMap<_, _>>().into_iter().collect::<Vec<_>>()) {
                labels if labels.is_empty() => Ok(()),
                labels => refuse(format!("node {node:?} is not allowed to modify labels: {labels}")),
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

fn names(labels: &[(&String, &Value)]) -> String {
    labels.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn reserved_labels(tree: &Value) -> Vec<(&String, &Value)> {
    let labels = tree["metadata"]["labels"].as_object();
    let reserved = |key: &str| key.starts_with(RESERVED_LABELS) || key == EDGE_LABEL;
    labels.into_iter().flatten().filter(|(key, _)| reserved(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::registry;
    use longshore_api::ids::NodeId;

    #[test]
    fn a_node_does_not_choose_what_it_is_trusted_with() {
        let identity = Identity::node(NodeId::new("n-1"), "ship");
        let nodes = registry().by_name("nodes").unwrap();
        let node = |labels: Value| json!({"metadata": {"name": "ship", "labels": labels}});
        let said = |operation, old: Option<Value>, new: Value| {
            let judged = check(&identity, nodes, operation, "", old.as_ref(), &node(new));
            judged.err().map(|status| status.message).unwrap_or_default()
        };
        let refused = "nodes \"ship\" is forbidden: node \"ship\" is not allowed to";
        let (edge, kept) = (json!({"longshore.dev/edge": "true"}), json!({"node-restriction.kubernetes.io/a": "b"}));
        assert_eq!(said(Operation::Create, None, json!({"zone": "a"})), "");
        let set = said(Operation::Create, None, edge.clone());
        assert_eq!(set, format!("{refused} set the following labels: longshore.dev/edge"));
        let old = Some(node(edge.clone()));
        assert_eq!(said(Operation::Update, old.clone(), edge), "");
        let both = "longshore.dev/edge, node-restriction.kubernetes.io/a";
        assert_eq!(said(Operation::Update, old, kept), format!("{refused} modify labels: {both}"));
    }
}
