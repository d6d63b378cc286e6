//! The kinds: each is data and a few pure functions, in a file of its own. The machinery in `apiserver` is written once.
//!
//! A kind's functions take trees (`serde_json::Value`) in its storage version. Defaults work on the tree itself, so that
//! nothing a client sent is lost on the way; validation reads typed structs of `k8s-openapi`, so that a misspelt field name
//! is a compile error here. To add a kind: a file with a `pub static RESOURCE`, and a line in `REGISTRY`.

mod addresses;
pub mod age;
pub mod config_map;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
mod findings;
pub mod ingress;
pub mod ingress_class;
mod labels;
pub mod lease;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod pod;
pub mod priority_class;
mod registry;
pub mod replica_set;
pub mod secret;
mod selectors;
pub mod service;
pub mod service_account;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tree;
mod workload;

pub use registry::{Registry, registry};

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
    /// On update of `status`, after defaults: what the writer of a status may not drop.
    pub prepare_status: fn(&mut Value, old: &Value),
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
    /// What a delete without `propagationPolicy` does: `Background`, `Foreground` or `Orphan`.
    pub default_propagation: &'static str,
    /// Whether its data is sealed at rest (Secret).
    pub sealed: bool,
    /// Set for a kind that is another view of a stored one (events.k8s.io/v1 of core/v1 events): where its objects lie, and
    /// the way there and back. Every other function of such a kind still speaks of trees in the storage version.
    pub stored: Option<Stored>,
    /// Whether tables of this kind begin with the column Name, which the machinery adds. Events carry theirs last.
    pub name_column: bool,
    /// `conditions` of a table's row: that a pod has come to its end.
    pub row_conditions: fn(&Value) -> Vec<Value>,
    /// How the `scale` subresource reads and writes the kind.
    pub scale: Option<Scale>,
    /// Whether PUT makes what isn't there (`AllowCreateOnUpdate`): leases, endpoints, events.
    pub create_on_update: bool,
    /// Whether PUT without a `resourceVersion` is taken (`AllowUnconditionalUpdate`); most kinds do, leases don't.
    pub unconditional_update: bool,
}

/// A kind kept as another one.
#[derive(Clone, Copy)]
pub struct Stored {
    pub resource: &'static Resource,
    /// From this kind's tree to the stored one's; `apiVersion` included.
    pub to_storage: fn(Value) -> Value,
    pub from_storage: fn(Value) -> Value,
}

/// The accessors behind `scale`.
#[derive(Clone, Copy)]
pub struct Scale {
    /// `spec.replicas`.
    pub desired: fn(&Value) -> i32,
    /// `status.replicas`.
    pub current: fn(&Value) -> i32,
    /// `status.selector`: the label selector as a query string.
    pub selector: fn(&Value) -> String,
    pub set: fn(&mut Value, i32),
}

/// What a kind without anything special is: defaults nothing, refuses nothing, shows its age.
pub const BASE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    subresources: &[],
    type_name: "",
    columns: &[],
    cells: |_, _| Vec::new(),
    name_rule: longshore_api::names::dns1123_subdomain,
    default: |_| {},
    prepare_create: |_, _| {},
    prepare_update: |_, _, _| {},
    prepare_status: |_, _| {},
    validate: |_| Vec::new(),
    validate_update: |_, _| Vec::new(),
    validate_status_update: |_, _| Vec::new(),
    warnings: |_, _| Vec::new(),
    fields: |_| BTreeMap::new(),
    grace: None,
    default_propagation: "Background",
    sealed: false,
    stored: None,
    name_column: true,
    row_conditions: |_| Vec::new(),
    scale: None,
    create_on_update: false,
    unconditional_update: true,
};

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

/// What can be done through a proxy: all methods.
const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

impl Column {
    /// A column that is always shown.
    const fn new(name: &'static str, r#type: &'static str, description: &'static str) -> Self {
        Self { name, r#type, format: "", description, priority: 0 }
    }
    /// A column of `-o wide`.
    const fn wide(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "string", format: "", description, priority: 1 }
    }
    const AGE: Self = Self::new("Age", "string", AGE);
}

/// What the API's own documentation says of `metadata.creationTimestamp`.
const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl Subresource {
    /// `status` of a kind: speaks the kind itself.
    const fn status(group: &'static str, kind: &'static str) -> Self {
        Self { name: "status", group, version: "v1", kind, verbs: &["get", "patch", "update"] }
    }
    const SCALE: Self =
        Self { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: &["get", "patch", "update"] };
}

/// The first generation of what is wanted.
fn set_generation(tree: &mut Value, generation: i64) {
    if let Some(metadata) = tree::child(tree, "metadata") {
        metadata.insert("generation".into(), generation.into());
    }
}

/// Counts a change of what is wanted; everything else leaves the generation as it was.
fn count_generation(tree: &mut Value, old: &Value, unchanged: bool) {
    set_generation(tree, tree::int_at(old, "/metadata/generation") + i64::from(!unchanged));
}

impl Resource {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }
    /// The name under which the store keeps it: `deployments.apps`.
    pub fn store_name(&self) -> String {
        match &self.stored {
            Some(stored) => stored.resource.store_name(),
            None => self.group_resource().to_string(),
        }
    }
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}
