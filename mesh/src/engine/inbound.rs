//! From sockets and relay to the device.

use super::Core;
use crate::keys::PublicKey;
use crate::map::Table;
use crate::packet::header::{Ip, Tcp};
use crate::packet::join::Batch;
use crate::packet::mss;
use crate::path::message::{self, Message};
use crate::path::{Route, Via};
use crate::peer::{Live, Peer};
use crate::tunnel::{Greeting, LEAST_ROOM, Opened, OwnKey};
use crate::udp::Socket;
use ipnet::IpNet;
use longshore_api::ids::NodeId;
use longshore_tunnel::reflect;
use longshore_tunnel::relay::Relayed;
use quinn_udp::RecvMeta;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Buffers that one call fills, each with up to 64 KB of datagrams that arrived together.
const BUFFERS: usize = 8;
const BUFFER: usize = 65_536;

/// WireGuard's messages: their first four bytes.
const HANDSHAKE: u32 = 1;
const RESPONSE: u32 = 2;
const DATA: u32 = 4;

/// By what a datagram came. From the relay, with who sent it.
#[derive(Clone, Copy)]
struct Origin<'a> {
    via: Via,
    peer: Option<&'a NodeId>,
}

impl Origin<'_> {
    /// What handshakes are counted by. Who comes by the relay is vouched for.
    fn address(&self) -> IpAddr {
        match self.via {
            Via::Udp(from) => from.ip(),
            Via::Relay => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

struct Inbound {
    core: Arc<Core>,
    /// Packets that were opened, until they are written.
    opened: Vec<u8>,
    used: usize,
    batch: Batch,
    /// For answers.
    room: Vec<u8>,
    /// The last index seen, and whose it is: most datagrams come in runs.
    last: Option<(u32, Arc<Peer>)>,
}

/// Runs until the socket fails for good.
pub async fn inbound_udp(core: Arc<Core>, socket: Arc<Socket>) -> io::Result<()> {
    let mut inbound = Inbound::new(core);
    let mut buffers = vec![0; BUFFERS * BUFFER];
    loop {
        let mut meta = [RecvMeta::default(); BUFFERS];
        let count = {
            let mut slices: Vec<_> = buffers.chunks_mut(BUFFER).map(IoSliceMut::new).collect();
            match socket.receive(&mut slices, &mut meta).await {
                Ok(count) => count,
                // What an ICMP said of an earlier datagram.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => {
                    continue;
                }
                Err(e) => return Err(e),
            }
        };
        let (table, now) = (inbound.core.table(), Instant::now());
        for (meta, buffer) in meta[..count].iter().zip(buffers.chunks(BUFFER)) {
            let from = Origin { via: Via::Udp(crate::canonical(meta.addr)), peer: None };
            inbound.take(&table, now, from, meta.stride, &buffer[..meta.len]);
        }
        inbound.flush();
    }
}

/// Runs until nobody relays any more.
pub async fn inbound_relay(core: Arc<Core>, mut incoming: mpsc::Receiver<Relayed>) {
    let mut inbound = Inbound::new(core);
    let mut relayed = Vec::with_capacity(BUFFERS);
    while incoming.recv_many(&mut relayed, BUFFERS).await > 0 {
        let (table, now) = (inbound.core.table(), Instant::now());
        for Relayed { peer, segment, bytes } in relayed.drain(..) {
            if bytes.len() <= BUFFER {
                inbound.take(&table, now, Origin { via: Via::Relay, peer: Some(&peer) }, segment.into(), &bytes);
            }
        }
        inbound.flush();
    }
}

impl Inbound {
    fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            opened: vec![0; BUFFERS * BUFFER + LEAST_ROOM],
            used: 0,
            batch: Batch::default(),
            room: vec![0; BUFFER],
            last: None,
        }
    }

    /// Datagrams of one sender.
    fn take(&mut self, table: &Table, now: Instant, from: Origin<'_>, stride: usize, bytes: &[u8]) {
        for datagram in bytes.chunks(stride.max(1)) {
            let Some(kind) = datagram.first_chunk().map(|kind| u32::from_le_bytes(*kind)) else { continue };
            match kind {
                HANDSHAKE => self.handshake(table, now, from, datagram),
                RESPONSE..=DATA => self.sealed(table, now, from, kind, datagram),
                _ if datagram[..4] == message::MAGIC => self.about_paths(table, now, from, datagram),
                _ => {
                    if let (Some((number, address)), Via::Udp(by)) = (reflect::answered(datagram), from.via) {
                        self.core.reflected(by, number, address);
                    }
                }
            }
        }
    }

    /// Who sent a message with an index of ours.
    fn indexed(&mut self, table: &Table, index: u32) -> Option<Arc<Peer>> {
        if let Some((last, peer)) = &self.last
            && *last == index
        {
            return Some(peer.clone());
        }
        let id = self.core.indices.read().get(&index).cloned()?;
        let peer = table.peer(&id)?.clone();
        self.last = Some((index, peer.clone()));
        Some(peer)
    }

    /// Data, or the rest of a handshake that we began.
    fn sealed(&mut self, table: &Table, now: Instant, from: Origin<'_>, kind: u32, datagram: &[u8]) {
        let at = if kind == RESPONSE { 8 } else { 4 };
        let Some(index) = datagram.get(at..at + 4).and_then(|i| i.first_chunk()) else { return };
        let index = u32::from_le_bytes(*index) >> 8;
        let Some(peer) = self.indexed(table, index) else { return };
        if from.peer.is_some_and(|said| *said != peer.id) {
            return;
        }
        let mut guard = peer.live.lock();
        let Some(live) = &mut *guard else { return };
        self.open(now, from, &peer, live, index, datagram);
    }

    fn handshake(&mut self, table: &Table, now: Instant, from: Origin<'_>, datagram: &[u8]) {
        for own in self.core.own_keys() {
            let theirs = match own.greeted(datagram, from.address()) {
                Greeting::By(theirs) => theirs,
                Greeting::Cookie(cookie) => return self.send_back(table, from, &cookie),
                Greeting::None => continue,
            };
            let Some(peer) = table.of_key(&theirs) else { return };
            if from.peer.is_some_and(|said| *said != peer.id) {
                return;
            }
            let mut guard = peer.live.lock();
            let live = self.core.enliven(now, peer, &mut guard);
            let index = self.pair(now, peer, live, &own, theirs);
            return self.open(now, from, peer, live, index, datagram);
        }
    }

    /// To whom it may be, as nobody is known yet.
    fn send_back(&self, table: &Table, from: Origin<'_>, bytes: &[u8]) {
        match (from.via, from.peer.and_then(|id| table.peer(id))) {
            (Via::Udp(to), _) => {
                let _ = self.core.socket(to).map(|socket| socket.try_send(to, bytes));
            }
            (Via::Relay, Some(peer)) => self.core.relay_out(peer, bytes.len(), bytes),
            (Via::Relay, None) => {}
        }
    }

    /// The index of the tunnel under a pair of keys, made where there is none. A newer pair comes first.
    fn pair(&self, now: Instant, peer: &Peer, live: &mut Live, own: &OwnKey, theirs: PublicKey) -> u32 {
        if let Some(tunnel) = live.of(&own.public, &theirs) {
            return tunnel.index;
        }
        let tunnel = self.core.tunnel(now, peer, own, theirs);
        let index = tunnel.index;
        let newest = self.core.own_keys().first().is_some_and(|newest| newest.public == own.public);
        let at = if newest && peer.info.keys.first() == Some(&theirs) { 0 } else { live.tunnels.len() };
        live.tunnels.insert(at, tunnel);
        index
    }

    fn open(&mut self, now: Instant, from: Origin<'_>, peer: &Arc<Peer>, live: &mut Live, index: u32, datagram: &[u8]) {
        if self.opened.len() < self.used + datagram.len() + LEAST_ROOM {
            self.flush();
        }
        let Some(tunnel) = live.indexed(index) else { return };
        let room = &mut self.opened[self.used..];
        match tunnel.open(from.address(), datagram, room) {
            Opened::Packet { length } => self.accept(now, peer, live, length),
            Opened::Answer { length } => {
                // To where it came from: only that is known to lead there.
                let _ = self.core.try_send(peer, from.via, &room[..length]);
                live.due = now;
                self.core.wake.notify_one();
            }
            Opened::Nothing => {}
            Opened::Wrong => return,
        }
        let via = match live.finder.route() {
            Route::Direct { to, .. } => Via::Udp(to),
            Route::Relay => Via::Relay,
        };
        let Some(tunnel) = live.indexed(index) else { return };
        while let Some(length) = tunnel.next_waiting(&mut self.room) {
            let _ = self.core.try_send(peer, via, &self.room[..length]);
        }
    }

    /// A packet of the peer's lies at the end of what was opened. It must come from behind it and be for behind us.
    fn accept(&mut self, now: Instant, peer: &Peer, live: &mut Live, length: usize) {
        let range = self.used..self.used + length;
        let packet = &mut self.opened[range.clone()];
        let Some(ip) = Ip::parse(packet) else { return };
        let within = |slices: &[IpNet], ip: &IpAddr| slices.iter().any(|slice| slice.contains(ip));
        if !within(&peer.info.slices, &ip.source) || !within(&self.core.slices, &ip.destination) {
            tracing::debug!(peer = %peer.id, source = %ip.source, destination = %ip.destination, "a packet that the peer may not send");
            return;
        }
        let tcp = Tcp::parse(&ip, packet);
        if let Some(tcp) = &tcp {
            mss::clamp(packet, tcp, self.core.mtu);
        }
        live.received += length as u64;
        if live.finder.used(now) {
            live.due = now;
            self.core.wake.notify_one();
        }
        match tcp.filter(|_| length > usize::from(self.core.mtu)) {
            // Sealed whole: its sender's kernel left cutting and summing to whoever has to.
            Some(tcp) => self.batch.push_segments(&self.opened, range, &tcp, self.core.mtu),
            None => self.batch.push(&self.opened, range, &ip),
        }
        self.used += length;
    }

    fn about_paths(&mut self, table: &Table, now: Instant, from: Origin<'_>, datagram: &[u8]) {
        let Some((sender, receiver)) = message::tags(datagram) else { return };
        let Some((theirs, peer)) = table.of_tag(&sender) else { return };
        let Some(own) = self.core.own_keys().into_iter().find(|own| own.tag == receiver) else { return };
        if from.peer.is_some_and(|said| *said != peer.id) {
            return;
        }
        let mut guard = peer.live.lock();
        let known = guard.as_mut().is_some_and(|live| live.of(&own.public, &theirs).is_some());
        if !known {
            // Judged before anything is made of it.
            let key = own.private.shared_with(&theirs);
            if !self.core.admits_stranger(now) || Message::decode(datagram, &key).is_none() {
                return;
            }
        }
        let live = self.core.enliven(now, peer, &mut guard);
        let index = self.pair(now, peer, live, &own, theirs);
        let Some(message) = live.indexed(index).and_then(|tunnel| tunnel.decode(datagram)) else { return };
        let mut actions = Vec::new();
        match message {
            Message::Ping(number) => {
                self.answer(peer, live, index, from.via, &Message::Pong(number));
                live.finder.pinged(now, from.via, &mut actions);
            }
            Message::Pong(number) => live.finder.ponged(now, from.via, &number, &mut actions),
            Message::Call(addresses) if from.via == Via::Relay => live.finder.called(now, &addresses, &mut actions),
            Message::Call(_) => {}
        }
        self.core.perform(now, peer, live, actions);
    }

    /// Under the keys of the question, by the way that it came.
    fn answer(&self, peer: &Peer, live: &mut Live, index: u32, via: Via, message: &Message) {
        if let Some(tunnel) = live.indexed(index) {
            let _ = self.core.try_send(peer, via, &tunnel.encode(message, 0));
        }
    }

    fn flush(&mut self) {
        let device = &self.core.device;
        self.batch.flush(&mut self.opened, |slices| device.write(slices));
        self.used = 0;
        // The next batch may meet another table.
        self.last = None;
    }
}
