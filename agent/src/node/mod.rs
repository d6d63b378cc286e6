//! One node: its Node object, its pods, its kubelet API; wired together from what joining and connecting gave.

pub mod context;
pub mod events;

use crate::kubelet::Kubelet;
use crate::pods::network::Network;
use crate::pods::references::References;
use crate::runtime::Runtime;
use longshore_api::ids::{ClusterId, NodeId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use context::Context;
use events::Recorder;

/// All that a node is made of. The connection gives `client`, the join gave the ids, `main` picks runtime and network.
pub struct Parts {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// The Node's name in the cluster.
    pub name: String,
    /// Reaches the cluster's Kubernetes API as `system:node:<name>`; requests fail (not hang) while the tunnel is down.
    pub client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<dyn Network>,
    /// This node's own folder; pods' volumes lie below it.
    pub data_dir: PathBuf,
    pub labels: BTreeMap<String, String>,
}

/// A node at work. Dropping it stops its tasks and leaves its containers running.
pub struct NodeAgent {
    pub kubelet: Kubelet,
}

impl NodeAgent {
    pub fn start(parts: Parts) -> NodeAgent {
        let context = Context {
            events: Recorder::start(parts.client.clone(), &parts.name),
            references: References::new(parts.client.clone(), &parts.data_dir),
            name: parts.name,
            client: parts.client,
            runtime: parts.runtime,
            network: parts.network,
            data_dir: parts.data_dir,
            machine: Default::default(),
            pods: Default::default(),
        };
        NodeAgent { kubelet: Kubelet::new(Arc::new(context)) }
    }
}
