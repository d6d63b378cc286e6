//! One node of this process, from its identity to its running parts.

use super::ProcessError;
use super::folder::{RuntimeKind, Settings};
use crate::connection::exchange::Exchange;
use crate::connection::identity::Identity;
use crate::connection::{Connector, Link, client, lines};
use crate::edge;
use crate::network::{PodNetwork, dns, kubernetes, mesh};
use crate::node::{NodeAgent, Parts};
use crate::pods::network::Network;
use crate::runtime::docker::Docker;
use crate::runtime::hollow::{Hollow, HollowNetwork};
use crate::runtime::{Owner, Runtime};
use crate::supervise::supervised;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use longshore_api::network::NETWORK_PATH;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// Where names are asked for that aren't the cluster's.
const HOST_RESOLVERS: &str = "/etc/resolv.conf";

/// Below this machine's part: what carries containers and packets of one node.
pub struct Machinery {
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<dyn Network>,
    /// The real network, where there is one.
    pub pod_network: Option<Arc<PodNetwork>>,
}

impl Machinery {
    /// Of a node that has joined.
    pub fn new(settings: &Settings, identity: &Identity, dir: &Path) -> Result<Self, ProcessError> {
        let (cluster, node) = identity.ids().ok_or_else(|| ProcessError::NoNode(dir.into()))?;
        match settings.runtime {
            RuntimeKind::Docker => {
                let owner = Owner { cluster: cluster.to_string(), node: node.to_string() };
                let network = PodNetwork::open(&cluster, &node, &identity.name(), dir)?;
                Ok(Self {
                    runtime: Arc::new(Docker::new(&settings.docker_host, owner)?),
                    network: network.clone(),
                    pod_network: Some(network),
                })
            }
            RuntimeKind::Hollow => {
                let mut seed = DefaultHasher::new();
                node.as_str().hash(&mut seed);
                Ok(Self {
                    runtime: Arc::new(Hollow::new(seed.finish())),
                    network: Arc::new(HollowNetwork::default()),
                    pod_network: None,
                })
            }
        }
    }
}

/// A node at work, connected or trying to be. Dropping it stops its tasks; containers go on.
pub struct Member {
    pub agent: NodeAgent,
    pub link: Link,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Member {
    /// Starts a node that has joined. `labels` are the command line's; those of the join token come from the identity.
    pub fn start(
        machinery: &Machinery,
        identity: Arc<Identity>,
        token_file: Option<PathBuf>,
        dir: &Path,
        labels: &BTreeMap<String, String>,
    ) -> Result<Self, ProcessError> {
        let joined = identity.membership().ok_or_else(|| ProcessError::NoNode(dir.into()))?;
        let link = Link::default();
        let agent = NodeAgent::start(Parts {
            client: client::client(&link, &joined.cluster),
            node: joined.node,
            name: joined.name,
            link: link.clone(),
            runtime: machinery.runtime.clone(),
            network: machinery.network.clone(),
            data_dir: dir.into(),
            labels: joined.labels.into_iter().chain(labels.clone()).collect(),
        });
        let connector = Arc::new(Connector { identity, token_file });
        let connection = {
            let (link, kubelet, connector) = (link.clone(), agent.kubelet.clone(), connector.clone());
            supervised("the connection", move || link.clone().run(connector.clone(), kubelet.clone()))
        };
        let mut tasks = vec![tokio::spawn(connection)];
        let (known, coming) = (machinery.pod_network.as_ref().map(|n| n.map().clone()), link.clone());
        let follow = supervised("the network map", move || {
            let known = known.clone();
            // A pretended node reads it just the same.
            lines::follow(coming.clone(), NETWORK_PATH, move |lines| known.iter().for_each(|known| known.take(lines)))
        });
        tasks.push(tokio::spawn(follow));
        if let Some(network) = &machinery.pod_network {
            let keeper = network.clone();
            tasks.push(tokio::spawn(supervised("the pods' network", move || keeper.clone().keep())));
            let names = dns::Server::new(network.map().clone(), HOST_RESOLVERS.into());
            let answering = network.clone();
            let names = supervised("the name server", move || names.clone().serve(answering.clone()));
            tasks.push(tokio::spawn(names));
            let exchange = Arc::new(Exchange::new(connector.identity.clone()));
            let (meshed, over) = (network.clone(), link.clone());
            let mesh = supervised("the mesh", move || mesh::keep(meshed.clone(), over.clone(), exchange.clone()));
            tasks.push(tokio::spawn(mesh));
            let (edge_of, over, of) = (network.clone(), link.clone(), joined.cluster.clone());
            let (kept, events) = (dir.join("edge.json"), agent.context.events.clone());
            let edge = supervised("the edge", move || {
                edge::keep(edge_of.clone(), over.clone(), events.clone(), of.clone(), kept.clone())
            });
            tasks.push(tokio::spawn(edge));
            let (network, link) = (network.clone(), link.clone());
            let kubernetes = supervised("the way to the API server for pods", move || {
                let link = link.clone();
                kubernetes::serve(network.clone(), move || raw(link.clone()))
            });
            tasks.push(tokio::spawn(kubernetes));
        }
        Ok(Self { agent, link, _tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect() })
    }
}

/// A pod's connection to its cluster's API server, over the tunnel of this moment.
async fn raw(link: Link) -> io::Result<TokioIo<Upgraded>> {
    let opener = link.opener().ok_or(io::ErrorKind::NotConnected)?;
    kubernetes::raw(&opener).await
}
