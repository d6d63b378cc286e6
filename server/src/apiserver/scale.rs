//! The `scale` subresource: `autoscaling/v1` Scale made from an object, and written back into it.

use super::{decode::Target, metadata};
use crate::resources::{Resource, Scale};
use longshore_api::Status;
use longshore_api::field::{self, Path};
use serde_json::{Value, json};

fn accessors(resource: &Resource) -> Result<Scale, Status> {
    resource.scale.ok_or_else(Status::no_such_path)
}

/// The Scale of an object.
pub fn read(resource: &Resource, object: &Value) -> Result<Value, Status> {
    let scale = accessors(resource)?;
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let desired = (scale.desired)(object);
    let mut spec = json!({});
    if desired != 0 {
        spec["replicas"] = desired.into();
    }
    let mut status = json!({"replicas": (scale.current)(object)});
    let selector = (scale.selector)(object);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}))
}

/// `object` with the replicas that `body`, a Scale, asks for.
pub fn written(resource: &Resource, object: &Value, body: &Value) -> Result<Value, Status> {
    let scale = accessors(resource)?;
    let wanted = body["spec"]["replicas"].as_i64().unwrap_or(0);
    let replicas = match i32::try_from(wanted) {
        Ok(replicas) if replicas >= 0 => replicas,
        _ => {
            let at = Path::new("spec").child("replicas");
            let problem = field::Error::invalid(&at, wanted, "must be greater than or equal to 0");
            let target = Target::SCALE;
            return Err(Status::invalid(target.group, target.kind, metadata::text(object, "name"), &[problem]));
        }
    };
    let mut new = object.clone();
    (scale.set)(&mut new, replicas);
    Ok(new)
}
