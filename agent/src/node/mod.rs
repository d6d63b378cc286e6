//! One node: its Node object, its pods, its kubelet API; wired together from what joining and connecting gave.
//!
//! Pure: [`object`] (what to say about the node). With I/O: [`machine`] (what is measured), [`reporter`] (who says it).

pub mod context;
pub mod events;
pub mod machine;
pub mod object;
pub mod reporter;

use crate::connection::Link;
use crate::kubelet::Kubelet;
use crate::pods::manager;
use crate::pods::network::Network;
use crate::pods::references::References;
use crate::runtime::Runtime;
use crate::supervise::supervised;
use context::Context;
use events::Recorder;
use longshore_api::ids::NodeId;
use machine::Measured;
use object::Naming;
use parking_lot::RwLock;
use reporter::Reporter;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// All that a node is made of. The connection gives `link` and `client`, the join gave the ids, `main` picks runtime and
/// network.
pub struct Parts {
    pub node: NodeId,
    /// The Node's name in the cluster.
    pub name: String,
    pub link: Link,
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
    pub context: Arc<Context>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl NodeAgent {
    pub fn start(parts: Parts) -> NodeAgent {
        let Parts { node, name, link, client, runtime, network, data_dir, labels } = parts;
        let context = Arc::new(Context {
            events: Recorder::start(client.clone(), &name),
            references: References::new(client.clone(), &data_dir),
            name: name.clone(),
            client,
            runtime,
            network,
            data_dir,
            // Pods that are adopted at once must know their host; the reporter looks closer.
            machine: RwLock::new(object::machine(&Measured::at_once(link.local_address()))),
            pods: Default::default(),
        });
        let naming = Naming { name, node, labels };
        let pods = {
            let context = context.clone();
            supervised("the pods' manager", move || manager::run(context.clone()))
        };
        let reporter = {
            let context = context.clone();
            supervised("the node's reporter", move || {
                Reporter::new(context.clone(), link.clone(), naming.clone()).run()
            })
        };
        let tasks = [tokio::spawn(pods), tokio::spawn(reporter)].map(AbortOnDropHandle::new);
        NodeAgent { kubelet: Kubelet::new(context.clone()), context, _tasks: tasks }
    }
}
