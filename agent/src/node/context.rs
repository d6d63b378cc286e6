//! What everything on one node shares.

use super::events::Recorder;
use crate::pods::network::Network;
use crate::pods::references::References;
use crate::pods::view::Pods;
use crate::runtime::Runtime;
use parking_lot::RwLock;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub struct Context {
    /// The Node's name.
    pub name: String,
    pub client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<dyn Network>,
    pub data_dir: PathBuf,
    pub events: Recorder,
    pub references: References,
    pub machine: RwLock<Machine>,
    pub pods: Pods,
}

/// What was measured of the machine; pods read it for downward references and their host address.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub addresses: Vec<IpAddr>,
    pub cpu_milli: i64,
    pub memory: i64,
}

impl Context {
    /// The folder of one pod: volumes, hosts file, termination messages.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }
}
