//! Admission: what a write must satisfy, or is given, because of other objects in the cluster.
//!
//! The steps are Kubernetes's built-in plugins, in their order: NamespaceLifecycle, ServiceAccount, TaintNodesByCondition,
//! Priority, DefaultTolerationSeconds, DefaultIngressClass; after them a Service is given its addresses, which Kubernetes does in its storage.
//! What a node may write is judged by `node_restriction`.

mod addresses;
mod bootstrap;
mod families;
mod ingress_classes;
mod namespaces;
mod pods;
mod priorities;
mod service_accounts;
#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, bootstrap};

use super::api;
use super::errors;
use crate::accounts::Identity;
use crate::resources::Resource;
use crate::store::{Cluster, Object};
use longshore_api::Status;
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// A write on its way, with all that it may be judged by.
pub struct Admission<'a> {
    pub cluster: &'a Arc<Cluster>,
    /// The stored kind.
    pub resource: &'static Resource,
    pub identity: &'a Identity,
    pub operation: Operation,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub old: Option<&'a Value>,
}

/// Called for creates after `prepare_create`, for updates after `prepare_update`, and before validation; for deletes with
/// the object as it is.
pub fn admit(admission: &Admission<'_>, tree: &mut Value) -> Result<(), Status> {
    namespaces::admit(admission, tree)?;
    let classes = ("scheduling.k8s.io", "priorityclasses");
    if (admission.resource.group, admission.resource.plural) == classes {
        return priorities::class(admission, tree);
    }
    if admission.operation == Operation::Delete || !admission.subresource.is_empty() {
        return Ok(());
    }
    let create = admission.operation == Operation::Create;
    match (admission.resource.group, admission.resource.plural) {
        ("", "pods") => {
            if create {
                service_accounts::admit(admission, tree)?;
                priorities::pod(admission, tree)?;
            }
            pods::tolerations(tree);
        }
        ("", "nodes") if create => pods::not_ready(tree),
        ("", "services") => addresses::admit(admission, tree)?,
        ("networking.k8s.io", "ingresses") if create => ingress_classes::admit(admission, tree)?,
        _ => {}
    }
    Ok(())
}

impl Admission<'_> {
    /// Refuses the write, as Kubernetes's admission does.
    fn forbidden(&self, name: &str, why: &str) -> Status {
        Status::forbidden(&self.resource.group_resource(), name, why)
    }
}

/// Before the first try of a create: waits, briefly, for what is about to be there. A namespace's `default` service account
/// comes a moment after its namespace, and a script that makes both a namespace and a pod must not fail for it.
pub async fn await_dependencies(cluster: &Arc<Cluster>, resource: &Resource, namespace: &str, tree: &Value) {
    if resource.plural == "pods" && resource.group.is_empty() {
        service_accounts::await_default(cluster, namespace, tree).await;
    }
}

/// The newest state of an object, writes in flight included. A deletion in flight may still come to nothing: until it is
/// committed the object counts as there.
fn newest(cluster: &Cluster, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
    let key = api::key(resource, namespace, name);
    match cluster.newest(&key).map_err(errors::store)?.object {
        Some(object) => Ok(Some(object)),
        None => cluster.get(&key).map_err(errors::store),
    }
}
