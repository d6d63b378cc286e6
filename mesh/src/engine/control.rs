//! What is due by time: paths, handshakes, forgetting, and learning our own addresses.

use super::Core;
use crate::map::Table;
use crate::path::message::Number;
use crate::path::{Route, Via};
use crate::peer::{Live, Peer};
use crate::tunnel;
use longshore_tunnel::reflect;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How often reflectors are asked, so that NATs keep what they told us.
const REFLECTED: Duration = Duration::from_secs(20);
/// Asked again after so long, where there is no answer yet.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// Questions without an answer after which an address no longer counts.
const UNANSWERED: u32 = 3;
/// How often a living peer is looked at, at least.
const LOOKED_AT: Duration = Duration::from_millis(500);
/// How often the credentials of peers are looked at, at least: the host's clock may be set.
const SWEPT: Duration = Duration::from_secs(10);

/// What is known of our own addresses.
#[derive(Default)]
pub struct Reflection {
    reflectors: BTreeMap<SocketAddr, Reflector>,
    own: Vec<IpAddr>,
    due: Option<Instant>,
}

#[derive(Default)]
struct Reflector {
    number: Number,
    unanswered: u32,
    seen: Option<SocketAddr>,
}

/// Runs as long as the mesh.
pub async fn control(core: Arc<Core>) {
    loop {
        let now = Instant::now();
        let due = core.reflect(now).min(core.sweep(now)).min(core.look_after_peers(now));
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = core.wake.notified() => {}
        }
    }
}

impl Core {
    /// Peers whose credential has run out and old keys of our own go.
    fn sweep(&self, now: Instant) -> Instant {
        let clock = SystemTime::now();
        let expired = self.table.read().without_expired(clock);
        if let Some(table) = expired {
            self.replace(table);
        }
        let gone = {
            let mut keys = self.keys.write();
            let before = keys.len();
            keys.retain(|(_, until)| until.is_none_or(|until| now < until));
            keys.len() != before
        };
        if gone {
            self.table().peers().for_each(|peer| self.match_keys(now, peer));
        }
        let first = self.table().peers().map(|peer| peer.info.expires).min();
        let first = first.and_then(|first| first.duration_since(clock).ok());
        now + first.unwrap_or(SWEPT).min(SWEPT)
    }

    /// Puts another table in the place of the one that holds; whoever isn't in it is cut off.
    pub fn replace(&self, table: Table) {
        let table = Arc::new(table);
        let before = std::mem::replace(&mut *self.table.write(), table.clone());
        for gone in before.peers().filter(|peer| table.peer(&peer.id).is_none()) {
            self.end(gone, &mut gone.live.lock());
        }
        let now = Instant::now();
        for peer in table.peers() {
            self.match_keys(now, peer);
            if let Some(live) = &mut *peer.live.lock() {
                live.finder.list(now, &peer.info.candidates);
                live.due = now;
            }
        }
        self.wake.notify_one();
    }

    pub fn end(&self, peer: &Peer, live: &mut Option<Live>) {
        if let Some(live) = live.take() {
            tracing::debug!(peer = %peer.id, "a peer is let go");
            self.forget_indices(live.tunnels.iter().map(|tunnel| tunnel.index));
        }
    }

    /// Tunnels under keys that don't count are dropped; under the newest pair there is one.
    pub fn match_keys(&self, now: Instant, peer: &Peer) {
        let mut guard = peer.live.lock();
        let Some(live) = &mut *guard else { return };
        let own = self.own_keys();
        self.forget_indices(live.retain(&own, &peer.info.keys));
        if let (Some(own), Some(theirs)) = (own.first(), peer.info.keys.first())
            && live.of(&own.public, theirs).is_none()
        {
            live.tunnels.insert(0, self.tunnel(now, peer, own, *theirs));
            live.due = now;
        }
    }

    fn look_after_peers(&self, now: Instant) -> Instant {
        let mut next = now + Duration::from_secs(3600);
        for peer in self.table().peers() {
            let mut guard = peer.live.lock();
            let Some(live) = &mut *guard else { continue };
            if live.forgotten(now) {
                self.end(peer, &mut guard);
                continue;
            }
            if live.due <= now {
                self.look_after(now, peer, live);
            }
            next = next.min(live.due);
        }
        next
    }

    fn look_after(&self, now: Instant, peer: &Peer, live: &mut Live) {
        let before = live.finder.route();
        let mut actions = Vec::new();
        let due = live.finder.poll(now, &mut actions);
        self.perform_quietly(now, peer, live, actions);
        if before != live.finder.route() {
            tracing::debug!(peer = %peer.id, route = ?live.finder.route(), "a peer is reached in another way");
        }
        let via = match live.finder.route() {
            Route::Direct { to, .. } => Via::Udp(to),
            Route::Relay => Via::Relay,
        };
        let wanted = now.saturating_duration_since(live.finder.last_used()) < Duration::from_secs(10);
        let mut room = [0; tunnel::LEAST_ROOM + tunnel::OVERHEAD];
        for tunnel in &mut live.tunnels {
            let length = tunnel.tick(now, wanted, &mut room);
            if length > 0 {
                let _ = self.try_send(peer, via, &room[..length]);
            }
        }
        live.due = due.min(now + LOOKED_AT);
    }

    /// Asks reflectors where it is time; when to come again.
    fn reflect(&self, now: Instant) -> Instant {
        let mut reflection = self.reflection.lock();
        if reflection.reflectors.is_empty() {
            return now + REFLECTED;
        }
        if let Some(due) = reflection.due.filter(|due| *due > now) {
            return due;
        }
        let mut all_answered = true;
        for (address, reflector) in &mut reflection.reflectors {
            if reflector.unanswered >= UNANSWERED {
                reflector.seen = None;
            }
            reflector.unanswered = reflector.unanswered.saturating_add(1);
            all_answered &= reflector.seen.is_some() || reflector.unanswered > UNANSWERED;
            reflector.number = rand::random();
            if let Some(socket) = self.socket(*address) {
                let _ = socket.try_send(*address, &reflect::question(reflector.number));
            }
        }
        let due = now + if all_answered { REFLECTED } else { ASKED_AGAIN };
        reflection.due = Some(due);
        self.publish(&reflection);
        due
    }

    /// An answer of a reflector came.
    pub fn reflected(&self, by: SocketAddr, number: Number, address: SocketAddr) {
        let mut reflection = self.reflection.lock();
        let Some(reflector) = reflection.reflectors.get_mut(&by).filter(|r| r.number == number) else { return };
        reflector.unanswered = 0;
        if reflector.seen.replace(address) != Some(address) {
            self.publish(&reflection);
        }
    }

    pub fn set_reflectors(&self, addresses: &[SocketAddr]) {
        let mut reflection = self.reflection.lock();
        reflection.reflectors.retain(|address, _| addresses.contains(address));
        for address in addresses {
            reflection.reflectors.entry(*address).or_default();
        }
        reflection.due = None;
        drop(reflection);
        self.wake.notify_one();
    }

    /// Addresses of the host. Where they changed, everything about paths is to be proven again.
    pub fn set_addresses(&self, own: Vec<IpAddr>) {
        let mut reflection = self.reflection.lock();
        if reflection.own == own {
            return;
        }
        reflection.own = own;
        reflection.due = None;
        self.publish(&reflection);
        drop(reflection);
        let now = Instant::now();
        for peer in self.table().peers() {
            if let Some(live) = &mut *peer.live.lock() {
                let mut actions = Vec::new();
                live.finder.moved(now, &mut actions);
                self.perform(now, peer, live, actions);
            }
        }
        self.wake.notify_one();
    }

    fn publish(&self, reflection: &Reflection) {
        let port = |ip: &IpAddr| {
            let socket = if ip.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() };
            socket.and_then(|socket| socket.local_address().ok()).map(|local| SocketAddr::new(*ip, local.port()))
        };
        let mut known: Vec<_> = reflection.own.iter().filter_map(port).collect();
        for seen in reflection.reflectors.values().filter_map(|reflector| reflector.seen) {
            if !known.contains(&seen) {
                known.push(seen);
            }
        }
        self.candidates.send_if_modified(|before| {
            let changed = *before != known;
            *before = known;
            changed
        });
    }
}
