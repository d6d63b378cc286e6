//! Admission: what a write must satisfy, or is given, because of other objects in the cluster.

use crate::accounts::Identity;
use crate::resources::Resource;
use crate::store::Cluster;
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
pub fn admit(_admission: &Admission<'_>, _tree: &mut Value) -> Result<(), Status> {
    Ok(())
}
