//! DefaultIngressClass: a new Ingress that names no class gets the one that is everybody's.

use super::Admission;
use crate::apiserver::{errors, metadata};
use crate::resources::ingress_class::{DEFAULT_ANNOTATION, RESOURCE};
use crate::resources::tree::{put, str_at};
use crate::store::ListQuery;
use longshore_api::Status;
use serde_json::Value;

/// How classes were named before there was a field for it.
const OLD_ANNOTATION: &str = "kubernetes.io~1ingress.class";

pub fn admit(admission: &Admission<'_>, ingress: &mut Value) -> Result<(), Status> {
    let named = !str_at(ingress, "/spec/ingressClassName").is_empty();
    let annotated = ingress.pointer(&format!("/metadata/annotations/{OLD_ANNOTATION}")).is_some();
    if named || annotated {
        return Ok(());
    }
    let query = ListQuery { resource: RESOURCE.store_name().into(), ..ListQuery::default() };
    let classes = admission.cluster.list(&query).map_err(errors::store)?.items;
    let classes = classes.iter().map(|class| class.tree());
    let is_default = |class: &Value| class["metadata"]["annotations"][DEFAULT_ANNOTATION] == "true";
    // Of several the newest; of the same age the first by name.
    let age = |class: &Value| metadata::text(class, "creationTimestamp").to_string();
    let default = classes.filter(is_default).rev().max_by_key(age);
    if let (Some(class), Some(spec)) = (default, ingress.get_mut("spec")) {
        put(spec, "ingressClassName", metadata::text(&class, "name").into());
    }
    Ok(())
}
