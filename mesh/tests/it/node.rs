//! Nodes of a mesh on hosts of the small internet, and the relay between them.

use ipnet::IpNet;
use longshore_api::ids::NodeId;
use longshore_e2e::internet::{Netns, Site};
use longshore_mesh::{Config, LARGEST_RELAYED, Link, Mesh, PeerInfo, PrivateKey, Relay, Tun};
use longshore_tunnel::relay::Relayed;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

pub const MTU: u16 = 1420;

/// Carries what nodes can't send each other, as the server will; and keeps a copy of what it saw.
#[derive(Default)]
pub struct Hub {
    nodes: Mutex<BTreeMap<NodeId, mpsc::Sender<Relayed>>>,
    pub carried: AtomicU64,
    /// The first of what passed.
    pub seen: Mutex<Vec<u8>>,
}

impl Hub {
    fn join(self: &Arc<Self>, node: &NodeId) -> Relay {
        let (outgoing, mut sent) = mpsc::channel::<Relayed>(256);
        let (deliver, incoming) = mpsc::channel(256);
        self.nodes.lock().unwrap().insert(node.clone(), deliver);
        let (hub, from) = (self.clone(), node.clone());
        tokio::spawn(async move {
            while let Some(Relayed { peer, segment, bytes }) = sent.recv().await {
                hub.carried.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                {
                    let mut seen = hub.seen.lock().unwrap();
                    if seen.len() < 1 << 20 {
                        seen.extend_from_slice(&bytes);
                    }
                }
                if let Some(to) = hub.nodes.lock().unwrap().get(&peer) {
                    let _ = to.try_send(Relayed { peer: from.clone(), segment, bytes });
                }
            }
        });
        Relay { outgoing, incoming }
    }
}

/// One node: its cluster's namespace with the device in it, and its mesh on the host's socket.
pub struct Node {
    pub id: NodeId,
    pub key: PrivateKey,
    pub slices: Vec<IpNet>,
    /// An address of a pod.
    pub pod: Ipv4Addr,
    pub cluster: Netns,
    pub mesh: Mesh,
}

impl Node {
    /// Node `number`, whose slices are 10.1.`number`.0/24 and fd00:`number`::/64.
    pub fn start(number: u8, socket: Option<UdpSocket>, hub: &Arc<Hub>) -> Self {
        let (id, key) = (NodeId::new(format!("n-{number}")), PrivateKey::generate());
        let slices = [format!("10.1.{number}.0/24"), format!("fd00:{number}::/64")];
        let slices: Vec<IpNet> = slices.iter().map(|slice| slice.parse().unwrap()).collect();
        let pod = Ipv4Addr::new(10, 1, number, 2);
        let cluster = Netns::new("cluster");
        cluster.ip(&format!("addr add {pod}/32 dev lo\naddr add fd00:{number}::2/128 dev lo"));
        let mesh = start(&cluster, &id, &key, &slices, pod, socket, hub);
        Self { id, key, slices, pod, cluster, mesh }
    }

    /// The agent was restarted: sessions and paths are forgotten, pods and their connections are not.
    pub fn restart(&mut self, hub: &Arc<Hub>) {
        self.cluster.ip("link del mesh");
        self.mesh = start(&self.cluster, &self.id, &self.key, &self.slices, self.pod, None, hub);
    }

    pub fn at(site: &Site, number: u8, hub: &Arc<Hub>) -> Self {
        let node = Self::start(number, Some(site.host.udp("0.0.0.0:4000")), hub);
        node.mesh.set_addresses(vec![site.address]);
        node
    }

    pub fn info(&self) -> PeerInfo {
        PeerInfo {
            keys: vec![self.key.public()],
            slices: self.slices.clone(),
            candidates: self.mesh.local_candidates().borrow().clone(),
            // Half of them are as agents were before.
            relayed: if self.pod.octets()[2] == 1 { 0 } else { LARGEST_RELAYED },
            expires: SystemTime::now() + Duration::from_secs(600),
        }
    }

    pub fn link(&self, other: &Node) -> Option<Link> {
        self.mesh.links().into_iter().find(|link| link.peer == other.id)
    }

    pub fn direct(&self, other: &Node) -> Option<SocketAddr> {
        self.link(other)?.direct
    }
}

/// Everybody learns of everybody.
pub fn introduce(nodes: &[&Node]) {
    for node in nodes {
        let others = nodes.iter().filter(|other| other.id != node.id);
        node.mesh.set_peers(others.map(|other| (other.id.clone(), other.info())).collect());
    }
}

/// Waits for a condition.
pub async fn until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < at_most, "not within {at_most:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begin.elapsed()
}

fn start(
    cluster: &Netns,
    id: &NodeId,
    key: &PrivateKey,
    slices: &[IpNet],
    pod: Ipv4Addr,
    socket: Option<UdpSocket>,
    hub: &Arc<Hub>,
) -> Mesh {
    let tun = Tun::create(cluster.file().as_fd(), "mesh").unwrap();
    cluster.ip(&format!("link set mesh mtu {MTU} up\nroute add 10.1.0.0/16 dev mesh src {pod}"));
    cluster.ip("route add fd00::/16 dev mesh");
    let (key, slices) = (key.clone(), slices.to_vec());
    Mesh::start(Config { tun, mtu: MTU, v4: socket, v6: None, key, slices, relay: hub.join(id) }).unwrap()
}
