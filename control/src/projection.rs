//! Compact typed projections: of each kind, what indexes, controllers and the scheduler need, and no more.

use serde_json::Value;
use std::sync::Arc;

/// What the store keeps beside an object's bytes. Kinds without behaviour have none.
#[derive(Clone, Debug, Default)]
pub enum Projection {
    #[default]
    None,
    /// A kind of which controllers need only the metadata.
    Meta(Arc<Meta>),
}

/// `metadata`, as controllers read it.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

impl Projection {
    /// The projection of `object`, a `resource` such as `pods` or `deployments.apps`.
    pub fn of(_resource: &str, _object: &Value) -> Self {
        Self::None
    }
}
