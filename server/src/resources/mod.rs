//! The kinds: each is data and a few pure functions, in a file of its own. The machinery in `apiserver` is written once.

use longshore_api::field;
use longshore_api::meta::GroupResource;
use serde_json::Value;
use std::collections::BTreeMap;

/// Who asks, and when: what defaults and strategies may depend on besides the object.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub now: jiff::Timestamp,
    /// The user's name, as `auth whoami` prints it.
    pub user: &'a str,
    pub namespace: &'a str,
}

/// A kind, whole. Functions take trees in this kind's storage version; unset ones do nothing.
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    /// `deployments`
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// The type in the protobuf and merge tables: `io.k8s.api.apps.v1.Deployment`.
    pub type_name: &'static str,
    /// Columns after Name; Kubernetes's names, types, descriptions and priorities.
    pub columns: &'static [Column],
    /// One cell for each column.
    pub cells: fn(&Value, jiff::Timestamp) -> Vec<Value>,
    /// What is wrong with a name (which rule of `longshore_api::names` holds for this kind).
    pub name_rule: fn(&str) -> Vec<String>,
    /// Kubernetes's defaults, on create, update and read alike; idempotent.
    pub default: fn(&mut Value),
    /// On create, before validation: clears what clients may not set (status), sets generation 1 where the kind has one.
    pub prepare_create: fn(&Request<'_>, &mut Value),
    /// On update of the main resource: keeps what only subresources may change (status), counts generation.
    pub prepare_update: fn(&Request<'_>, &mut Value, old: &Value),
    pub validate: fn(&Value) -> Vec<field::Error>,
    /// After `validate`: what may not change, and transitions.
    pub validate_update: fn(&Value, old: &Value) -> Vec<field::Error>,
    /// Update of `status`: everything but status is kept from `old` by the machinery before this is called.
    pub validate_status_update: fn(&Value, old: &Value) -> Vec<field::Error>,
    /// Warnings for the `Warning` header.
    pub warnings: fn(&Value, old: Option<&Value>) -> Vec<String>,
    /// Values of the fields that can be selected, beside `metadata.name` and `metadata.namespace`. All names must always be there.
    pub fields: fn(&Value) -> BTreeMap<&'static str, String>,
    /// What happens at deletion: a grace period in seconds where the kind has one (pods), decided from object and request.
    pub grace: Option<fn(object: &Value, requested: Option<i64>) -> i64>,
    /// `background` for most; what a delete without `propagationPolicy` does.
    pub default_propagation: &'static str,
    /// How the storage hash name appears in aggregated discovery and whether its data is sealed at rest (Secret).
    pub sealed: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub r#type: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    /// 0 always shown, 1 with `-o wide`.
    pub priority: i32,
}

#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// `status`, `scale`, `log`, …
    pub name: &'static str,
    /// Group, version and kind of what it speaks, as discovery lists it (`autoscaling`, `v1`, `Scale`).
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

impl Resource {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }
    /// The name under which the store keeps it: `deployments.apps`.
    pub fn store_name(&self) -> String {
        self.group_resource().to_string()
    }
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}
