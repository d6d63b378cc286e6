//! This node's part of the encrypted network between nodes ([`longshore_mesh`]): its device in the cluster's namespace, its
//! sockets on the host, its keys, and its peers as the network map has them.
//!
//! There is a mesh as soon as there is another node to have one with. Key and addresses are told to the others as
//! annotations of the Node, which the node's reporter writes. While the server is away, peers stay as they were last told,
//! for a day.

mod host;
mod keys;
mod peers;
mod relay;

use super::addresses::Slices;
use super::links::{MESH, Netlink};
use super::map::Map;
use super::{Error, Inside, PodNetwork};
use crate::connection::{self, exchange::Exchange};
use futures::StreamExt;
use keys::Keys;
use longshore_api::network::{Link, MESH_ENDPOINTS_ANNOTATION, MESH_KEYS_ANNOTATION};
use longshore_mesh::{Config, Mesh, Relay, Tun};
use nlink::netlink::namespace::NetnsId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

/// For how long peers count after the server last named them.
const TRUST: Duration = Duration::from_secs(24 * 3600);
/// How often it is noted that the server still names them.
const NOTED: Duration = Duration::from_secs(3600);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// Changes of the host's addresses come in groups.
const GATHERED: Duration = Duration::from_millis(200);
/// What the mesh puts around a packet: IPv6, UDP, WireGuard.
const OVERHEAD: u32 = 80;
/// The least that IPv4 needs to be of use.
const LEAST_MTU: u32 = 576;
/// What every link must carry of IPv6; what a path doesn't is cut, or takes the relay.
const LEAST_MTU_V6: u32 = 1280;
/// Messages of the relay that wait for room, each way.
const RELAYED: usize = 64;
/// One seals, one opens.
const THREADS: usize = 2;

/// What a mesh stands on; when it changes, there is another.
#[derive(Clone, PartialEq)]
struct Ground {
    netns: NetnsId,
    slices: Slices,
    mtu: u32,
}

impl Ground {
    fn of(inside: &Inside) -> Self {
        Self { netns: inside.netns.id(), slices: inside.slices, mtu: inside.mtu }
    }
}

/// Threads of the mesh's own: sealing must not hold up probes and pods.
struct Threads(Option<Runtime>);

impl Threads {
    fn new() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("mesh").enable_all().build().map(|runtime| Self(Some(runtime)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Keeps this node in the mesh of its cluster. Never returns.
pub async fn keep(network: Arc<PodNetwork>, link: connection::Link, exchange: Arc<Exchange>) {
    let mut last_said = String::new();
    loop {
        match one(&network, &link, &exchange).await {
            Ok(()) => last_said.clear(),
            Err(error) => {
                let text = error.to_string();
                match text == last_said {
                    false => tracing::error!(error = %text, "pods don't reach other nodes; trying again"),
                    true => tracing::debug!(error = %text, "pods still don't reach other nodes"),
                }
                last_said = text;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// One mesh, until what it stands on changes.
async fn one(network: &Arc<PodNetwork>, link: &connection::Link, exchange: &Arc<Exchange>) -> Result<(), Error> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: std::io::Error| Error::Failed(format!("could not {what}: {e}"))
    };
    let keys = Keys::open(&network.dir.join("mesh.json"), SystemTime::now()).map_err(failed("keep the mesh's key"))?;
    let mut node = Node { network, link, keys, endpoints: Vec::new() };
    node.announce();
    let inside = node.wanted().await;
    let ground = Ground::of(&inside);

    let threads = Threads::new().map_err(failed("start the mesh's threads"))?;
    let Some(runtime) = &threads.0 else { return Ok(()) };
    let tun = Tun::create(inside.netns.as_fd(), MESH).map_err(failed("make a TUN device (is there /dev/net/tun?)"))?;
    let least = if inside.slices.v6.is_some() { LEAST_MTU_V6 } else { LEAST_MTU };
    let mtu = inside.mtu.saturating_sub(OVERHEAD).max(least);
    let set = |e| Error::netlink("set up the mesh's device", e);
    inside.netlink.set_link_mtu(MESH, mtu).await.map_err(set)?;
    inside.netlink.set_link_up(MESH).await.map_err(set)?;
    let (v4, v6) = host::sockets(&network.host, node.keys.port()).map_err(failed("open the mesh's UDP port"))?;
    let port = v4.local_addr().map_err(failed("open the mesh's UDP port"))?.port();
    node.keys.bound(port).map_err(failed("keep the mesh's port"))?;
    let (outgoing, to_server) = mpsc::channel(RELAYED);
    let (from_server, incoming) = mpsc::channel(RELAYED);
    let mut mesh = {
        let _on = runtime.enter();
        let relay = Relay { outgoing, incoming };
        let (key, slices, mtu) = (node.keys.private(), inside.slices.all(), u16::try_from(mtu).unwrap_or(u16::MAX));
        Mesh::start(Config { tun, mtu, v4: Some(v4), v6, key, slices, relay }).map_err(failed("start the mesh"))?
    };
    let line = relay::Line { outgoing: to_server, incoming: from_server };
    let _line = AbortOnDropHandle::new(runtime.spawn(relay::keep(line, link.clone(), exchange.clone())));
    // The pod range's route leads into the device from now on. What is wrong is kept for the node's condition.
    let _ = network.mend(&mut *network.kept.lock().await).await;
    tracing::info!(port, mtu, "pods reach those of other nodes");
    node.serve(&mut mesh, &ground, exchange).await
}

/// Questions for the links of the mesh, which is its keeper's alone.
#[derive(Default)]
pub struct Questions(Mutex<Option<mpsc::Sender<oneshot::Sender<Vec<Link>>>>>);

impl Questions {
    /// None while there is no mesh.
    pub async fn ask(&self) -> Vec<Link> {
        let Some(keeper) = self.0.lock().clone() else { return Vec::new() };
        let (answer, answered) = oneshot::channel();
        match keeper.send(answer).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    fn open(&self) -> mpsc::Receiver<oneshot::Sender<Vec<Link>>> {
        let (asking, asked) = mpsc::channel(1);
        *self.0.lock() = Some(asking);
        asked
    }
}

/// As people know the nodes.
fn links(mesh: &Mesh, map: &Map) -> Vec<Link> {
    let names: HashMap<&str, &str> = map.nodes.values().map(|node| (node.id.as_str(), node.name.as_str())).collect();
    let link = |link: longshore_mesh::Link| Link {
        node: names.get(link.peer.as_str()).copied().unwrap_or_default().into(),
        direct: link.direct.map(|to| to.to_string()),
        round_trip_microseconds: link.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        mtu: link.mtu,
        sent: link.sent,
        received: link.received,
        seconds_since_handshake: link.last_handshake.map(|ago| ago.as_secs()),
    };
    mesh.links().into_iter().map(link).collect()
}

struct Node<'a> {
    network: &'a PodNetwork,
    link: &'a connection::Link,
    keys: Keys,
    /// Where others may find us, as the mesh knows.
    endpoints: Vec<SocketAddr>,
}

impl Node<'_> {
    /// Waits until there are pods to connect, and somebody to connect them with.
    async fn wanted(&self) -> Inside {
        let (mut insides, mut changes) = (self.network.inside.subscribe(), self.network.map.changes());
        loop {
            changes.mark_unchanged();
            let inside = insides.borrow_and_update().clone();
            if let Some(inside) = inside
                && self.network.map.read(|map| peers::any(map, &self.network.node))
            {
                return inside;
            }
            tokio::select! {
                _ = insides.changed() => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// What others are to know.
    fn announce(&self) {
        let listed = |all: Vec<String>| all.join(",");
        let keys = self.keys.public(SystemTime::now()).iter().map(ToString::to_string).collect();
        let direct = self.endpoints.iter().map(ToString::to_string);
        let endpoints = direct.chain([peers::over_relay()]).collect();
        let annotations = BTreeMap::from([
            (MESH_KEYS_ANNOTATION.to_owned(), listed(keys)),
            (MESH_ENDPOINTS_ANNOTATION.to_owned(), listed(endpoints)),
        ]);
        self.network.annotations.send_if_modified(|now| {
            let new = *now != annotations;
            *now = annotations;
            new
        });
    }

    async fn serve(&mut self, mesh: &mut Mesh, ground: &Ground, exchange: &Exchange) -> Result<(), Error> {
        let broken = |e: std::io::Error| Error::Failed(format!("the mesh broke: {e}"));
        let mut insides = self.network.inside.subscribe();
        let mut changes = self.network.map.changes();
        let mut candidates = mesh.local_candidates();
        let mut asked = self.network.links.open();
        let host = Netlink::new_in(&self.network.host).map_err(|e| Error::netlink("reach the kernel", e))?;
        let mut moves = host::watched(&self.network.host)?.into_events().await;
        let mut tunnel = None;
        let mut noted: Option<tokio::time::Instant> = None;
        let mut told = None;
        mesh.set_addresses(host::addresses(&host).await?);
        loop {
            let stays = insides.borrow_and_update().as_ref().is_some_and(|inside| Ground::of(inside) == *ground);
            if !stays {
                return Ok(());
            }
            if self.link.is_up() && noted.is_none_or(|at| at.elapsed() >= NOTED) {
                self.keys.heard(SystemTime::now()).map_err(broken)?;
                noted = Some(tokio::time::Instant::now());
            }
            let until = self.keys.trusted_until();
            changes.mark_unchanged();
            let peers = self.network.map.read(|map| peers::of(map, &self.network.node, until));
            // Most changes of the map are about Services; all paths are looked at when peers are set.
            if told.as_ref() != Some(&peers) {
                mesh.set_peers(peers.clone());
                told = Some(peers);
            }
            self.endpoints = candidates.borrow_and_update().clone();
            self.announce();
            let now = SystemTime::now();
            tokio::select! {
                error = mesh.failed() => return Err(broken(error)),
                _ = insides.changed() => {}
                _ = changes.changed() => {}
                _ = candidates.changed() => {}
                Some(answer) = asked.recv() => {
                    let _ = answer.send(self.network.map.read(|map| links(mesh, map)));
                }
                () = self.link.changed(&mut tunnel) => {
                    if tunnel.is_some() {
                        mesh.set_reflectors(&exchange.reflectors().await);
                    }
                }
                Some(_) = moves.next() => {
                    tokio::time::sleep(GATHERED).await;
                    while futures::FutureExt::now_or_never(moves.next()).flatten().is_some() {}
                    mesh.set_addresses(host::addresses(&host).await?);
                }
                () = tokio::time::sleep(self.keys.due(now).min(NOTED)) => {
                    if let Some(key) = self.keys.rotate(SystemTime::now()).map_err(broken)? {
                        tracing::info!("this node has a new key in the mesh");
                        mesh.rotate(key);
                    }
                }
            }
        }
    }
}
