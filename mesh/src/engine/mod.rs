//! What moves: the device on one side, sockets and relay on the other, peers in between.

mod burst;
mod control;
mod inbound;
mod outbound;

pub use control::control;
pub use inbound::{inbound_relay, inbound_udp};
pub use outbound::outbound;

use crate::keys::{PrivateKey, PublicKey};
use crate::map::Table;
use crate::path::message::Message;
use crate::path::{Action, Finder, Via};
use crate::peer::{Live, Peer};
use crate::tun::Device;
use crate::tunnel::{OVERHEAD, OwnKey, Tunnel};
use crate::udp::Socket;
use bytes::Bytes;
use ipnet::IpNet;
use longshore_api::ids::NodeId;
use longshore_tunnel::relay::Relayed;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// How long an own key that was changed is still answered to: a session's life.
pub const OLD_KEY: Duration = Duration::from_secs(180);
/// Peers that nobody of us has spoken to and whose messages about paths begin something, a second.
const STRANGERS: u32 = 200;

pub struct Core {
    pub device: Device,
    pub v4: Option<Arc<Socket>>,
    pub v6: Option<Arc<Socket>>,
    pub relay: mpsc::Sender<Relayed>,
    /// Behind us.
    pub slices: Vec<IpNet>,
    /// Of the device.
    pub mtu: u16,
    pub table: RwLock<Arc<Table>>,
    /// Newest first; the older with the time until which they count.
    pub keys: RwLock<Vec<(OwnKey, Option<Instant>)>>,
    /// Whose tunnel an index is.
    pub indices: RwLock<HashMap<u32, NodeId>>,
    /// Our own addresses, to be published.
    pub candidates: watch::Sender<Vec<SocketAddr>>,
    pub reflection: Mutex<control::Reflection>,
    /// Wakes [`control`].
    pub wake: Notify,
    strangers: Mutex<(Instant, u32)>,
}

impl Core {
    pub fn new(
        device: Device,
        v4: Option<Arc<Socket>>,
        v6: Option<Arc<Socket>>,
        relay: mpsc::Sender<Relayed>,
        slices: Vec<IpNet>,
        mtu: u16,
        key: PrivateKey,
    ) -> Self {
        Self {
            device,
            v4,
            v6,
            relay,
            slices,
            mtu,
            table: RwLock::default(),
            keys: RwLock::new(vec![(OwnKey::new(key), None)]),
            indices: RwLock::default(),
            candidates: watch::Sender::new(Vec::new()),
            reflection: Mutex::default(),
            wake: Notify::new(),
            strangers: Mutex::new((Instant::now(), 0)),
        }
    }

    pub fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    pub fn own_keys(&self) -> Vec<OwnKey> {
        self.keys.read().iter().map(|(key, _)| key.clone()).collect()
    }

    pub fn socket(&self, to: SocketAddr) -> Option<&Arc<Socket>> {
        if to.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }

    /// What lives of a peer, made where there is nothing yet.
    pub fn enliven<'a>(&self, now: Instant, peer: &Peer, live: &'a mut Option<Live>) -> &'a mut Live {
        let live = live.get_or_insert_with(|| {
            tracing::debug!(peer = %peer.id, "a peer is there");
            let mut finder = Finder::new(now, self.mtu + OVERHEAD as u16, rand::random);
            finder.list(now, &peer.info.candidates);
            self.wake.notify_one();
            Live { tunnels: Vec::new(), finder, sent: 0, received: 0, due: now }
        });
        if live.tunnels.is_empty()
            && let (Some(theirs), Some((own, _))) = (peer.info.keys.first(), self.keys.read().first())
        {
            live.tunnels.push(self.tunnel(now, peer, own, *theirs));
        }
        live
    }

    /// A new tunnel with an index of its own.
    pub fn tunnel(&self, now: Instant, peer: &Peer, own: &OwnKey, theirs: PublicKey) -> Tunnel {
        let mut indices = self.indices.write();
        let mut index = rand::random::<u32>() >> 8;
        while indices.contains_key(&index) {
            index = rand::random::<u32>() >> 8;
        }
        indices.insert(index, peer.id.clone());
        Tunnel::new(now, own, theirs, index)
    }

    pub fn forget_indices(&self, gone: impl IntoIterator<Item = u32>) {
        let mut indices = self.indices.write();
        for index in gone {
            indices.remove(&index);
        }
    }

    /// Does what a finder wants, and has it looked at again.
    pub fn perform(&self, now: Instant, peer: &Peer, live: &mut Live, actions: Vec<Action>) {
        self.perform_quietly(now, peer, live, actions);
        live.due = now;
        self.wake.notify_one();
    }

    fn perform_quietly(&self, now: Instant, peer: &Peer, live: &mut Live, actions: Vec<Action>) {
        // What a refusal leads to is done in the next round.
        for action in actions {
            let (via, message, size) = match action {
                Action::Ping { via, number, size } => (via, Message::Ping(number), size),
                Action::Call => (Via::Relay, Message::Call(self.candidates.borrow().clone()), 0),
            };
            self.say(now, peer, live, via, &message, usize::from(size));
        }
    }

    /// Sends a message about paths.
    fn say(&self, now: Instant, peer: &Peer, live: &mut Live, via: Via, message: &Message, size: usize) {
        let Some(bytes) = live.tunnel().map(|tunnel| tunnel.encode(message, size)) else { return };
        if let Err((to, why)) = self.try_send(peer, via, &bytes) {
            live.finder.refused(now, to, why, &mut Vec::new());
        }
    }

    /// One datagram, dropped where there is no room.
    pub fn try_send(&self, peer: &Peer, via: Via, bytes: &[u8]) -> Result<(), (SocketAddr, crate::path::Refusal)> {
        match via {
            Via::Relay => {
                self.relay_out(peer, bytes.len(), bytes);
                Ok(())
            }
            Via::Udp(to) => match self.socket(to) {
                Some(socket) => socket.try_send(to, bytes).map_err(|why| (to, why)),
                None => Err((to, crate::path::Refusal::Unreachable)),
            },
        }
    }

    pub fn relay_out(&self, peer: &Peer, segment: usize, bytes: &[u8]) {
        let relayed = Relayed { peer: peer.id.clone(), segment: segment as u16, bytes: Bytes::copy_from_slice(bytes) };
        // A full queue drops, as any router does: waiting would hold up everybody else.
        if self.relay.try_send(relayed).is_err() {
            tracing::trace!(peer = %peer.id, "the relay's queue took nothing");
        }
    }

    /// Whether one more peer may be made because of a message that isn't known to be authentic yet.
    pub fn admits_stranger(&self, now: Instant) -> bool {
        let mut strangers = self.strangers.lock();
        if now.saturating_duration_since(strangers.0) >= Duration::from_secs(1) {
            *strangers = (now, 0);
        }
        strangers.1 += 1;
        strangers.1 <= STRANGERS
    }
}
