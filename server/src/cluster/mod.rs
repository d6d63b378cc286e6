//! Driving a cluster: controllers and scheduler over its log, for as long as this replica has it loaded.
//!
//! The brain (`longshore-control`) decides, this room carries out: it keeps the [`View`] in step with the log, asks
//! controllers about the keys that changes concern, and writes what they want through the same [`Api`], admission and
//! preconditions as everyone. It holds nothing that can't be made anew from the log, so a driver can be stopped at any
//! moment, and must be when the cluster is unloaded or owned by another replica: the store says so by its hook and by
//! ending the driver's watch, and whatever a stopped driver still has in flight fails at the store's fence.
//!
//! - [`driver`]: one task per cluster: changes in, actions out.
//! - [`queue`]: which key is looked at when (pure).
//! - [`scheduling`]: when the scheduler looks, and what it is told.
//! - [`execute`]: actions through the API, creations by slow start.
//! - [`events`]: the recorder that folds repeated events and bounds their rate.
//!
//! [`View`]: longshore_control::View

mod driver;
mod events;
mod execute;
mod queue;
mod scheduling;
#[cfg(test)]
mod tests;

pub(crate) use events::{Recorder, recorder};

use crate::apiserver::Api;
use crate::gateway::Sessions;
use crate::store::{Cluster, ClusterHook, StoreError};
use futures::future::BoxFuture;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where the CA that vouches for a cluster's API server comes from.
pub trait RootCa: Send + Sync + 'static {
    fn root_ca<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<String, Status>>;
}

/// The drivers of all loaded clusters: a hook of the store.
pub struct Drivers {
    api: Api,
    sessions: Sessions,
    authority: Arc<dyn RootCa>,
    running: Mutex<HashMap<ClusterId, DropGuard>>,
}

impl Drivers {
    pub fn new(api: Api, sessions: Sessions, authority: Arc<dyn RootCa>) -> Self {
        Self { api, sessions, authority, running: Mutex::default() }
    }
}

impl ClusterHook for Drivers {
    fn loaded<'a>(&'a self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let stop = CancellationToken::new();
            let (api, sessions, authority) = (self.api.clone(), self.sessions.clone(), self.authority.clone());
            let driver =
                driver::Driver { api, sessions, authority, cluster: Arc::downgrade(cluster), id: cluster.id().clone() };
            tokio::spawn(driver.run(stop.clone()));
            self.running.lock().insert(cluster.id().clone(), stop.drop_guard());
            Ok(())
        })
    }

    fn unloading(&self, cluster: &ClusterId) {
        self.running.lock().remove(cluster);
    }
}
