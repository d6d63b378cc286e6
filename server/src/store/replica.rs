//! The store of one replica: which clusters are loaded, who is told of it.

use super::cluster::{Cluster, ClusterInfo};
use super::error::StoreError;
use futures::future::BoxFuture;
use longshore_api::ids::{ClusterId, OrganizationId};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What the store must know of kinds, to make objects out of rows. The registry of resources implements it.
pub trait Kinds: Send + Sync + 'static {
    /// The selectable fields of an object (`spec.nodeName` → node).
    fn fields(&self, resource: &str, tree: &Value) -> BTreeMap<&'static str, String>;
    /// Whether objects of this resource are sealed at rest.
    fn sealed(&self, resource: &str) -> bool;
}

/// Told when a cluster comes and goes: the driver of controllers and scheduler.
pub trait ClusterHook: Send + Sync + 'static {
    /// The cluster is loaded; nobody else has it until this returns. An error fails the load.
    fn loaded<'a>(&'a self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), StoreError>>;
    /// The cluster is about to be let go of. Whoever keeps its `Arc` gets `Unavailable` from now on.
    fn unloading(&self, cluster: &ClusterId);
}

/// A cluster to be made.
#[derive(Clone, Debug)]
pub struct NewCluster {
    pub organization: OrganizationId,
    pub name: String,
    pub service_range: String,
    pub pod_range: String,
}

impl NewCluster {
    /// With the ranges that most clusters use.
    pub fn new(organization: OrganizationId, name: &str) -> Self {
        let (service_range, pod_range) = ("10.96.0.0/16".into(), "10.244.0.0/16".into());
        Self { organization, name: name.into(), service_range, pod_range }
    }
}

/// The store of one replica. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    clusters: Mutex<HashMap<ClusterId, Arc<Cluster>>>,
    hooks: Mutex<Vec<Arc<dyn ClusterHook>>>,
}

impl Store {
    /// A store that forgets everything at its end: for pure tests. Needs a tokio runtime.
    pub fn in_memory() -> Self {
        Self(Arc::new(Inner { clusters: Mutex::default(), hooks: Mutex::default() }))
    }

    /// Makes an empty cluster.
    pub async fn create_cluster(&self, new: NewCluster) -> Result<ClusterId, StoreError> {
        let mut id = String::from("c-");
        id.extend((0..10).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[rand::random_range(0..32)])));
        let id = ClusterId::new(id);
        let NewCluster { organization, name, service_range, pod_range } = new;
        let info = ClusterInfo { id: id.clone(), organization, name, service_range, pod_range };
        let cluster = Arc::new(Cluster::new(info));
        let hooks = self.0.hooks.lock().clone();
        for hook in hooks {
            hook.loaded(&cluster).await?;
        }
        self.0.clusters.lock().insert(id.clone(), cluster);
        Ok(id)
    }

    /// The cluster, loaded on first use.
    pub async fn cluster(&self, id: &ClusterId) -> Result<Arc<Cluster>, StoreError> {
        self.0.clusters.lock().get(id).cloned().ok_or(StoreError::NotFound)
    }

    /// Calls `hook` for every cluster that is loaded from now on.
    pub fn on_load(&self, hook: Arc<dyn ClusterHook>) {
        self.0.hooks.lock().push(hook);
    }
}
