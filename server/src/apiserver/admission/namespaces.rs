//! NamespaceLifecycle: nothing is made in a namespace that isn't there or is going, and some namespaces never go.

use super::{Admission, Operation, newest};
use crate::apiserver::metadata;
use crate::resources::namespace;
use longshore_api::Status;
use serde_json::Value;

/// What every cluster has always had.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub fn admit(admission: &Admission<'_>, tree: &Value) -> Result<(), Status> {
    if admission.resource.plural == "namespaces" && admission.resource.group.is_empty() {
        let name = metadata::text(tree, "name");
        return match admission.operation {
            Operation::Delete if IMMORTAL.contains(&name) => {
                Err(admission.forbidden(name, "this namespace may not be deleted"))
            }
            _ => Ok(()),
        };
    }
    // An update that finds its object found the namespace, too: it can't go while something is in it.
    if !admission.resource.namespaced || admission.operation != Operation::Create {
        return Ok(());
    }
    let name = metadata::text(tree, "namespace");
    let Some(found) = newest(admission.cluster, &namespace::RESOURCE, "", name)? else {
        return Err(Status::not_found(&namespace::RESOURCE.group_resource(), name));
    };
    if found.field("status.phase") != Some("Terminating") {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let cause = format!("namespace {name} is being terminated");
    Err(admission.forbidden(metadata::text(tree, "name"), &why).with_cause(
        "NamespaceTerminating",
        cause,
        "metadata.namespace",
    ))
}
