//! What a pod wants from the network: an address in its own namespace. Made by [`crate::network`]; a fake in tests.

use futures::FutureExt;
use futures::future::BoxFuture;
use longshore_api::network::Link;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tokio::net::TcpStream;
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not yet: this node has no slice of the pod range so far. The pod waits as `ContainerCreating`.
    #[error("network is not ready: {0}")]
    NotReady(String),
    #[error("{0}")]
    Failed(String),
}

/// A port of the host that leads to a pod (`hostPort`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// The only address of the host that it is for; `None`: all of them.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub pod_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What a pod is known by to those who allow or forbid it connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}

/// Why a connection could not be made, as Kubernetes's programs word it.
pub fn refusal(address: SocketAddr, error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: connect: {text}")
}

pub trait Network: Send + Sync + 'static {
    /// Who the pod is, before it is attached, and again when its labels change. What isn't described is nobody.
    fn describe<'a>(&'a self, _pod_uid: &'a str, _identity: Identity) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
    /// Gives the namespace at `netns` (a path below /proc) its address, routes and interface `eth0`. Idempotent: asked
    /// again for the same pod it answers the same address as long as the agent's data lives, and mends what is missing;
    /// a new namespace of the same pod (its sandbox was made anew) replaces the old one. `ports` lead to it from then on.
    fn attach<'a>(
        &'a self,
        pod_uid: &'a str,
        netns: PathBuf,
        ports: Vec<HostPort>,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>>;
    /// Gives the address and the host's ports back. Fine when it is gone already.
    fn detach<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), NetworkError>>;
    /// Called once at start with the pods whose sandboxes still run: everything else may be given back.
    fn retain<'a>(&'a self, pod_uids: Vec<String>) -> BoxFuture<'a, Result<(), NetworkError>>;
    /// `spec.podCIDRs` of this node's Node object, as soon as they are seen (and again after each change).
    fn set_ranges(&self, pod_cidrs: &[String]);
    /// Why pods can't have addresses now, for the node's Ready condition; `None` while they can.
    fn not_ready(&self) -> watch::Receiver<Option<String>>;
    /// What other nodes are to know of this one, as annotations of its Node object. Changes seldom.
    fn annotations(&self) -> watch::Receiver<BTreeMap<String, String>> {
        watch::Sender::default().subscribe()
    }
    /// How other nodes are reached, those with whom there is traffic.
    fn links(&self) -> BoxFuture<'_, Vec<Link>> {
        std::future::ready(Vec::new()).boxed()
    }
    /// The cluster's name servers, as pods reach them (those in the host's network elsewhere); empty until there are any.
    fn dns_servers(&self, host_network: bool) -> Vec<IpAddr>;
    /// Where pods in the host's network reach the cluster's API (the port is its Service's): on the host, the Service's own
    /// address may be another cluster's.
    fn api_from_host(&self) -> Option<IpAddr>;
    /// Connects as this node does to its cluster's pods and services: from inside the cluster's network, as the host may
    /// have no route into it.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}
