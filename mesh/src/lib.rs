//! The encrypted network between nodes: a TUN device on one side, UDP or a relay on the other.
//!
//! Packets for a peer's slice are sealed with WireGuard's protocol and go over the relay from the first one on, directly as
//! soon as both ends have proven a path ([`path`]). This room knows peers, keys, packets and paths. Who is a peer, what it may
//! send and until when is said by the caller ([`Mesh::set_peers`]); how the relay's bytes travel is the caller's as well.
//!
//! Nothing here waits for anything but sockets: a full queue drops, as routers do, and TCP slows down.

mod engine;
pub mod keys;
mod map;
mod packet;
mod path;
mod peer;
mod tun;
mod tunnel;
mod udp;

pub use keys::{PrivateKey, PublicKey};
pub use map::PeerInfo;
pub use peer::Link;
pub use tun::Tun;

use engine::Core;
use ipnet::IpNet;
use longshore_api::ids::NodeId;
use longshore_tunnel::relay::Relayed;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The mesh's end of the relay: what finds no room in either queue is dropped. `incoming`: `peer` is who sent it, as the
/// relay vouches.
pub struct Relay {
    pub outgoing: mpsc::Sender<Relayed>,
    pub incoming: mpsc::Receiver<Relayed>,
}

/// The largest packet that [`Mesh`] takes over the relay: sealed, its length still fits the relay's two bytes.
pub const LARGEST_RELAYED: u16 = u16::MAX - tunnel::OVERHEAD as u16;

/// What a mesh runs on.
pub struct Config {
    pub tun: Tun,
    /// Of the device, as it was set: 1420 fits every path that carries Ethernet's 1500.
    pub mtu: u16,
    /// Bound in the host's network namespace, one for each family that is to be used. IPv6's must be for IPv6 only.
    pub v4: Option<UdpSocket>,
    pub v6: Option<UdpSocket>,
    pub key: PrivateKey,
    /// The addresses behind this node, of one or both families.
    pub slices: Vec<IpNet>,
    pub relay: Relay,
}

/// A running mesh; it stops when this is dropped.
pub struct Mesh {
    core: Arc<Core>,
    tasks: JoinSet<io::Result<()>>,
}

impl Mesh {
    /// Starts on the current runtime, with nobody in it.
    pub fn start(config: Config) -> io::Result<Self> {
        let Config { tun, mtu, v4, v6, key, slices, relay } = config;
        let socket = |socket: Option<UdpSocket>| socket.map(udp::Socket::new).transpose().map(|s| s.map(Arc::new));
        let (v4, v6) = (socket(v4)?, socket(v6)?);
        let core = Arc::new(Core::new(tun.open()?, v4, v6, relay.outgoing, slices, mtu, key));
        let mut tasks = JoinSet::new();
        for socket in core.v4.iter().chain(&core.v6) {
            tasks.spawn(engine::inbound_udp(core.clone(), socket.clone()));
        }
        tasks.spawn(engine::outbound(core.clone()));
        let relayed = engine::inbound_relay(core.clone(), relay.incoming);
        tasks.spawn(async move {
            relayed.await;
            // Without a relay what is direct goes on.
            std::future::pending().await
        });
        let control = engine::control(core.clone());
        tasks.spawn(async move {
            control.await;
            Ok(())
        });
        Ok(Self { core, tasks })
    }

    /// Who is in the network, as a whole. Whoever isn't is cut off at once, sessions included.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, PeerInfo>) {
        let table = map::Table::new(peers, &self.core.table(), SystemTime::now());
        self.core.replace(table);
    }

    /// The host's own addresses at which peers on the same network may reach its sockets (not those of pods' networks). Call
    /// it again when they change: paths are proven anew then.
    pub fn set_addresses(&self, own: Vec<IpAddr>) {
        self.core.set_addresses(own);
    }

    /// Whom to ask for our address as the world sees it ([`longshore_tunnel::reflect`]).
    pub fn set_reflectors(&self, addresses: &[SocketAddr]) {
        self.core.set_reflectors(addresses);
    }

    /// What to publish as this node's [`PeerInfo::candidates`].
    pub fn local_candidates(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.core.candidates.subscribe()
    }

    /// Changes the key. Publish the new one (first in [`PeerInfo::keys`], the old one behind it) at the same time: peers
    /// that don't know it yet are served under the old one for three minutes.
    pub fn rotate(&self, key: PrivateKey) {
        let now = Instant::now();
        {
            let mut keys = self.core.keys.write();
            for (_, until) in keys.iter_mut() {
                until.get_or_insert(now + engine::OLD_KEY);
            }
            keys.insert(0, (tunnel::OwnKey::new(key), None));
        }
        self.core.table().peers().for_each(|peer| self.core.match_keys(now, peer));
        self.core.wake.notify_one();
    }

    /// Peers with whom there is traffic, in the order of their ids.
    pub fn links(&self) -> Vec<Link> {
        let table = self.core.table();
        let link = |peer: &Arc<peer::Peer>| Some(Link::of(&peer.id, peer.live.lock().as_mut()?, self.core.mtu));
        table.peers().filter_map(link).collect()
    }

    /// Waits until it can't go on: the device or a socket is gone.
    pub async fn failed(&mut self) -> io::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => io::Error::other(error),
            Some(Ok(Ok(()))) | None => io::Error::other("a part of the mesh ended"),
        }
    }
}

/// IPv4 addresses as such, whatever family the socket is of.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
