//! The core: what every caller, by HTTP or from inside, speaks to.

use super::node_proxy::NodeProxy;
use super::options::{CreateOptions, UpdateOptions};
use super::tokens::TokenIssuer;
use crate::accounts::Identity;
use crate::resources::{Registry, Resource, registry};
use crate::store::{Cluster, Draft, Key, Object, Revision};
use jiff::Timestamp;
use longshore_api::Status;
use longshore_control::Projection;
use serde_json::Value;
use std::sync::Arc;

/// Kubernetes's API over any cluster. Cheap to clone; its fields are its dependencies.
#[derive(Clone)]
pub struct Api {
    pub nodes: Arc<dyn NodeProxy>,
    pub tokens: Arc<dyn TokenIssuer>,
    pub registry: &'static Registry,
}

impl Api {
    pub fn new(nodes: Arc<dyn NodeProxy>, tokens: Arc<dyn TokenIssuer>) -> Self {
        Self { nodes, tokens, registry: registry() }
    }
}

/// One request: on which cluster, by whom, when. Verbs take it first; nothing is known from elsewhere.
#[derive(Clone)]
pub struct Context {
    pub cluster: Arc<Cluster>,
    pub identity: Identity,
    /// The `Audit-Id` header.
    pub request_id: String,
    pub user_agent: String,
    pub field_manager: String,
    pub now: Timestamp,
}

impl Context {
    /// For the server's own components: `deployment-controller`, `default-scheduler`.
    pub fn system(cluster: Arc<Cluster>, component: &str, now: Timestamp) -> Self {
        Self {
            cluster,
            identity: Identity::system(component),
            request_id: String::new(),
            user_agent: component.into(),
            field_manager: component.into(),
            now,
        }
    }
}

/// What a write answers.
#[derive(Clone, Debug)]
pub struct Written {
    pub object: Arc<Object>,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
    /// Whether an update made the object (kinds that may be created by PUT).
    pub created: bool,
}

/// What a deletion answers.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Object>),
    /// The object is marked and stays for its grace period or its finalizers.
    Marked(Arc<Object>),
}

impl Deleted {
    pub fn object(&self) -> &Arc<Object> {
        let (Self::Gone(object) | Self::Marked(object)) = self;
        object
    }
}

/// A random UUID (version 4), from the thread's own generator: a system call for each request adds up.
pub fn random_uuid() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// The kind under which objects of `resource` are stored and judged: itself, unless it is a view of another.
pub fn stored(resource: &'static Resource) -> &'static Resource {
    resource.stored.map_or(resource, |s| s.resource)
}

/// A tree of `resource` as the stored kind has it.
pub fn to_storage(resource: &Resource, tree: Value) -> Value {
    match resource.stored {
        Some(stored) => (stored.to_storage)(tree),
        None => tree,
    }
}

pub fn from_storage(resource: &Resource, tree: Value) -> Value {
    match resource.stored {
        Some(stored) => (stored.from_storage)(tree),
        None => tree,
    }
}

pub fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    Key { resource: resource.store_name().into(), namespace: namespace.into(), name: name.into() }
}

/// `tree` (of a stored kind) on its way into the log.
pub fn draft(resource: &Resource, key: Key, tree: &Value) -> Draft {
    let projection = Projection::of(&key.resource, tree);
    Draft::new(key, tree, (resource.fields)(tree), projection)
}

/// What a dry run answers with: the object as it would be, at the revision it has (none for a new one).
pub fn unstored(resource: &Resource, key: Key, tree: &Value) -> Arc<Object> {
    let revision = revision_of(tree).unwrap_or_default();
    let mut object = draft(resource, key, tree).at(revision);
    if revision == Revision::default() {
        let mut tree = tree.clone();
        super::metadata::of(&mut tree).remove("resourceVersion");
        object.json = tree.to_string().into();
    }
    Arc::new(object)
}

/// The revision that a tree says it was read at.
pub fn revision_of(tree: &Value) -> Option<Revision> {
    super::metadata::text(tree, "resourceVersion").parse().ok().map(Revision)
}

impl From<&UpdateOptions> for CreateOptions {
    fn from(options: &UpdateOptions) -> Self {
        Self { dry_run: options.dry_run, field_manager: options.field_manager.clone() }
    }
}

/// Refuses selectors and the like in one shape.
pub fn bad(message: impl Into<String>) -> Status {
    Status::bad_request(message)
}
