//! One address at which a peer may be reached, and what is known of it.

use super::Number;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Of UDP payload, that every path must carry to be used at all (what QUIC demands).
pub const LEAST_SIZE: u16 = 1200;
/// Sizes of UDP payload that are tried between the largest wanted and [`LEAST_SIZE`]: Ethernet under IPv4 and IPv6, then
/// less by what usual tunnels and access networks take.
const SIZES: [u16; 10] = [8972, 1472, 1452, 1432, 1412, 1392, 1372, 1332, 1292, 1252];
/// Pings in flight that are remembered.
const REMEMBERED: usize = 24;
/// How long the answers to probes of different sizes are waited for, at least.
const PROBED_FOR: Duration = Duration::from_millis(500);

/// The sizes to try, largest first.
pub fn sizes(above: u16, top: u16) -> impl Iterator<Item = u16> {
    std::iter::once(top).chain(SIZES.into_iter().filter(move |size| *size < top)).filter(move |size| *size > above)
}

#[derive(Debug)]
struct Ping {
    number: Number,
    sent: Instant,
    size: u16,
}

#[derive(Debug, Default)]
pub struct Candidate {
    /// From the map: it stays as long as it stands there.
    pub listed: bool,
    pings: VecDeque<Ping>,
    pub last_ping: Option<Instant>,
    pub last_pong: Option<Instant>,
    /// The first ping since the last answer.
    pub unanswered: Option<Instant>,
    /// The first ping of the full size since such a one was answered.
    pub full_unanswered: Option<Instant>,
    pub rtt: Option<Duration>,
    /// UDP payload that it carries; none: not known to work.
    pub size: Option<u16>,
    /// While sizes are probed: since when, and the largest that came through.
    pub probing: Option<(Instant, u16)>,
    pub probed: Option<Instant>,
}

impl Candidate {
    pub fn pinged(&mut self, now: Instant, number: Number, size: u16) {
        if self.pings.len() == REMEMBERED {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping { number, sent: now, size });
        self.last_ping = Some(now);
        self.unanswered.get_or_insert(now);
        if self.size.is_some_and(|full| size == full) {
            self.full_unanswered.get_or_insert(now);
        }
    }

    /// Takes an answer; whether it is one to a ping of ours.
    pub fn ponged(&mut self, now: Instant, number: &Number) -> bool {
        let Some(at) = self.pings.iter().position(|ping| ping.number == *number) else { return false };
        let Some(ping) = self.pings.remove(at) else { return false };
        let sample = now.saturating_duration_since(ping.sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.last_pong = Some(now);
        self.unanswered = None;
        if self.size.is_some_and(|full| ping.size >= full) {
            self.full_unanswered = None;
        }
        if let Some((_, best)) = &mut self.probing {
            *best = ping.size.max(*best);
        }
        true
    }

    /// Ends the probing of sizes where it can be ended: the largest came through, or it was waited long enough.
    pub fn settle(&mut self, now: Instant, top: u16) {
        let Some((since, best)) = self.probing else { return };
        if best >= top || now >= self.settles_at(since) {
            self.probing = None;
            self.probed = Some(now);
            let before = self.size.replace(best.min(top));
            if before != self.size {
                self.full_unanswered = None;
            }
        }
    }

    pub fn settles_at(&self, since: Instant) -> Instant {
        since + PROBED_FOR.max(self.rtt.unwrap_or_default() * 3)
    }

    /// It stopped working.
    pub fn fail(&mut self) {
        *self = Self { listed: self.listed, last_ping: self.last_ping, ..Self::default() };
    }

    /// A ping is overdue, by more than the path's own delay explains.
    pub fn troubled(&self, now: Instant) -> bool {
        let patience = Duration::from_millis(200) + self.rtt.unwrap_or_default() * 2;
        self.unanswered.is_some_and(|since| now.saturating_duration_since(since) > patience)
    }
}
