//! From the device to peers.

use super::Core;
use super::burst::{Burst, Bursts};
use crate::map::Table;
use crate::packet::segment::{Outgoing, TooBig};
use crate::packet::{icmp, mss, virtio};
use crate::path::{Route, Via};
use crate::tunnel::OVERHEAD;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

/// Header and the largest packet.
const BUFFER: usize = virtio::LENGTH + 65_536;
/// Reads in one go, before what was gathered is sent.
const READS: usize = 32;

struct Outbound {
    core: Arc<Core>,
    bursts: Bursts,
    scratch: Vec<u8>,
}

/// Runs until the device is gone.
pub async fn outbound(core: Arc<Core>) -> io::Result<()> {
    let mut outbound = Outbound { core: core.clone(), bursts: Bursts::default(), scratch: Vec::with_capacity(65_536) };
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut length = core.device.read(&mut buffer).await?;
        let (table, now) = (core.table(), Instant::now());
        for _ in 0..READS {
            outbound.take(&table, now, &mut buffer[..length]);
            if outbound.bursts.is_full() {
                break;
            }
            match core.device.try_read(&mut buffer)? {
                Some(next) => length = next,
                None => break,
            }
        }
        outbound.send().await;
    }
}

impl Outbound {
    /// One packet of the kernel's, cut and sealed into bursts. What leads nowhere is dropped.
    fn take(&mut self, table: &Table, now: Instant, bytes: &mut [u8]) {
        let Some((header, packet)) = bytes.split_first_chunk_mut() else { return };
        let Some(virtio) = virtio::Virtio::decode(header) else { return };
        let Some(mut outgoing) = Outgoing::new(virtio, packet) else { return };
        let Some(peer) = table.behind(outgoing.ip.destination) else { return };
        if let Some(tcp) = outgoing.tcp().copied() {
            mss::clamp(outgoing.bytes_mut(), &tcp, self.core.mtu);
        }
        let mut guard = peer.live.lock();
        let live = self.core.enliven(now, peer, &mut guard);
        if live.finder.used(now) {
            live.due = now;
            self.core.wake.notify_one();
        }
        let (via, limit) = match live.finder.route() {
            Route::Direct { to, size } => (Via::Udp(to), usize::from(size) - OVERHEAD),
            Route::Relay => (Via::Relay, usize::from(self.core.mtu)),
        };
        live.sent += outgoing.whole().len() as u64;
        let Some(tunnel) = live.tunnel() else { return };
        let bursts = &mut self.bursts;
        if let (Via::Relay, Some(whole)) = (via, outgoing.segments(peer.info.relayed.into())) {
            // The relay is a stream: what the kernel hands over whole is sealed once, and handed to the other kernel whole.
            bursts.add(peer, via, whole.len() + OVERHEAD, |room| tunnel.seal(now, whole, room));
            return;
        }
        let cut = outgoing.cut(limit.min(usize::from(self.core.mtu)), &mut self.scratch, |packet| {
            bursts.add(peer, via, packet.len() + OVERHEAD, |room| tunnel.seal(now, packet, room));
        });
        if cut == Err(TooBig) {
            // Its sender learns; this one takes the way that carries it.
            let packet = outgoing.whole();
            if let Some(answer) = icmp::too_big(&outgoing.ip, packet, limit as u16) {
                self.core.device.write(&[IoSlice::new(&[0; virtio::LENGTH]), IoSlice::new(&answer)]);
            }
            if packet.len() <= usize::from(self.core.mtu) {
                bursts.add(peer, Via::Relay, packet.len() + OVERHEAD, |room| tunnel.seal(now, packet, room));
            }
        }
    }

    async fn send(&mut self) {
        for burst in self.bursts.drain() {
            send(&self.core, &burst).await;
            self.bursts.give_back(burst);
        }
    }
}

async fn send(core: &Core, burst: &Burst) {
    let (segment, bytes) = (burst.segment(), burst.bytes());
    let to = match burst.via {
        Via::Relay => return core.relay_out(&burst.peer, segment, bytes),
        Via::Udp(to) => to,
    };
    let Some(socket) = core.socket(to) else { return };
    if let Err(why) = socket.send(to, segment, bytes).await
        && let Some(live) = &mut *burst.peer.live.lock()
    {
        let (now, mut actions) = (Instant::now(), Vec::new());
        live.finder.refused(now, to, why, &mut actions);
        core.perform(now, &burst.peer, live, actions);
    }
}
