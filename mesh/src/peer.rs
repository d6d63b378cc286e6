//! One peer, and what lives of it while there is traffic: tunnels, its path, counters.

use crate::keys::PublicKey;
use crate::map::PeerInfo;
use crate::path::{Finder, Route};
use crate::tunnel::{OwnKey, Tunnel};
use longshore_api::ids::NodeId;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Without traffic for so long, nothing is kept of a peer but its place in the map.
pub const FORGOTTEN: Duration = Duration::from_secs(180);

pub struct Peer {
    pub id: NodeId,
    pub info: PeerInfo,
    pub live: Arc<Mutex<Option<Live>>>,
}

pub struct Live {
    /// Newest pair of keys first. More than one only while a key is being changed.
    pub tunnels: Vec<Tunnel>,
    pub finder: Finder,
    pub sent: u64,
    pub received: u64,
    /// When the finder or a tunnel wants to be looked at.
    pub due: Instant,
}

impl Live {
    /// The one to send by: the newest that works.
    pub fn tunnel(&mut self) -> Option<&mut Tunnel> {
        let index = self.tunnels.iter().position(Tunnel::has_session).unwrap_or(0);
        self.tunnels.get_mut(index)
    }

    pub fn indexed(&mut self, index: u32) -> Option<&mut Tunnel> {
        self.tunnels.iter_mut().find(|tunnel| tunnel.index == index)
    }

    pub fn of(&mut self, own: &PublicKey, theirs: &PublicKey) -> Option<&mut Tunnel> {
        self.tunnels.iter_mut().find(|tunnel| tunnel.is_of(own, theirs))
    }

    /// Drops tunnels under keys that no longer count; their indices.
    pub fn retain(&mut self, own: &[OwnKey], theirs: &[PublicKey]) -> Vec<u32> {
        let counts = |t: &mut Tunnel| own.iter().any(|key| key.public == t.own) && theirs.contains(&t.theirs);
        self.tunnels.extract_if(.., |tunnel| !counts(tunnel)).map(|tunnel| tunnel.index).collect()
    }

    pub fn forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.finder.last_used()) > FORGOTTEN
    }
}

/// How a peer is reached now, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub peer: NodeId,
    /// None: over the relay.
    pub direct: Option<SocketAddr>,
    /// Bytes of the largest packet of pods that the way carries.
    pub mtu: u16,
    pub rtt: Option<Duration>,
    /// Bytes of pods' packets.
    pub sent: u64,
    pub received: u64,
    /// How long ago; none: not yet.
    pub last_handshake: Option<Duration>,
}

impl Link {
    pub fn of(peer: &NodeId, live: &mut Live, mtu: u16) -> Self {
        let (direct, carried) = match live.finder.route() {
            Route::Relay => (None, mtu),
            Route::Direct { to, size } => (Some(to), mtu.min(size - crate::tunnel::OVERHEAD as u16)),
        };
        Self {
            peer: peer.clone(),
            direct,
            mtu: carried,
            rtt: live.finder.rtt(),
            sent: live.sent,
            received: live.received,
            last_handshake: live.tunnel().and_then(|tunnel| tunnel.last_handshake()),
        }
    }
}
