//! How a peer is reached: over the relay from the first packet on, directly as soon as a way is proven, back to the relay
//! when it falls silent. A state machine without I/O: time and random numbers come from outside.
//!
//! Both ends run it alike and need not agree: each chooses by what it has proven itself, and takes packets from wherever
//! they come. A way is proven by a pong to a ping of our own that was as large as what will be sent, so that a way that
//! swallows large packets is never chosen for them. Between two NATs both must send at about the same time: a call over
//! the relay makes the other end ping back at once.

mod candidate;
pub mod message;

use candidate::{Candidate, LEAST_SIZE, sizes};
use message::Number;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A ping without an answer is repeated after so long.
const REPEAT: Duration = Duration::from_millis(500);
/// A path that answered nothing for so long is dead: five pings in a row. With [`WATCHED`], the TCP connections on it have
/// seen a pause of less than three seconds by then.
const DEAD: Duration = Duration::from_millis(2000);
/// How often a path in use is pinged.
const WATCHED: Duration = Duration::from_millis(700);
/// How often one that isn't in use is, so that NATs keep it (the shortest that are seen forget after 30 s).
const KEPT: Duration = Duration::from_secs(15);
/// Without data for so long, it isn't in use.
const IDLE: Duration = Duration::from_secs(10);
/// How often better ways are looked for, and whether larger packets pass, while there is one.
const IMPROVED: Duration = Duration::from_secs(60);
/// How long an answered candidate that isn't chosen counts as a way.
const FRESH: Duration = Duration::from_secs(5);
/// Between two pings to a candidate that someone else's messages made us send.
const CALM: Duration = Duration::from_millis(150);
/// Addresses tried for one peer.
const MOST_CANDIDATES: usize = 24;

/// By which way something comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    Relay,
    Udp(SocketAddr),
}

/// How data goes to the peer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Relay,
    /// `size`: of UDP payload, at most.
    Direct {
        to: SocketAddr,
        size: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `size`: what the UDP payload is padded to.
    Ping { via: Via, number: Number, size: u16 },
    /// Over the relay, with our own addresses.
    Call,
}

/// Why the kernel did not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    TooBig,
    Unreachable,
}

pub struct Finder {
    /// The largest UDP payload that is of use.
    top: u16,
    numbers: Box<dyn FnMut() -> Number + Send>,
    candidates: BTreeMap<SocketAddr, Candidate>,
    relay: Candidate,
    chosen: Option<SocketAddr>,
    used: Instant,
    /// Rounds of trying everything since there was reason to begin anew.
    round: u32,
    next_round: Instant,
}

impl Finder {
    /// `top`: the largest UDP payload that is of use; `numbers`: random ones.
    pub fn new(now: Instant, top: u16, numbers: impl FnMut() -> Number + Send + 'static) -> Self {
        Self {
            top,
            numbers: Box::new(numbers),
            candidates: BTreeMap::new(),
            relay: Candidate::default(),
            chosen: None,
            used: now,
            round: 0,
            next_round: now,
        }
    }

    pub fn route(&self) -> Route {
        let chosen = self.chosen.and_then(|to| Some((to, self.candidates.get(&to)?.size?)));
        chosen.map_or(Route::Relay, |(to, size)| Route::Direct { to, size })
    }

    /// Round trip of the way in use, where it is known.
    pub fn rtt(&self) -> Option<Duration> {
        match self.chosen {
            Some(to) => self.candidates.get(&to)?.rtt,
            None => self.relay.rtt,
        }
    }

    /// When data last came or went.
    pub fn last_used(&self) -> Instant {
        self.used
    }

    /// Addresses from the map.
    pub fn list(&mut self, now: Instant, addresses: &[SocketAddr]) {
        self.candidates.retain(|address, candidate| {
            candidate.listed = addresses.contains(address);
            candidate.listed || candidate.size.is_some()
        });
        for address in addresses {
            if let Some(candidate) = self.candidate(*address) {
                let new = !std::mem::replace(&mut candidate.listed, true);
                if new && candidate.last_ping.is_none() {
                    self.begin_anew(now);
                }
            }
        }
    }

    /// The peer asks, over the relay, to be tried at these addresses now.
    pub fn called(&mut self, now: Instant, addresses: &[SocketAddr], actions: &mut Vec<Action>) {
        for address in addresses {
            self.candidate(*address);
        }
        if self.chosen.is_none() {
            self.try_all(now, CALM, actions);
        }
    }

    /// A ping of the peer's came; the caller answers it.
    pub fn pinged(&mut self, now: Instant, via: Via, actions: &mut Vec<Action>) {
        let Via::Udp(from) = via else { return };
        let fresh = |c: &Candidate| c.last_pong.is_some_and(|at| now.saturating_duration_since(at) < FRESH / 2);
        if self.chosen == Some(from) || self.candidate(from).is_none_or(|candidate| fresh(candidate)) {
            return;
        }
        self.ping(now, from, LEAST_SIZE, CALM, actions);
        // It may have moved: see whether it still answers where it was.
        if let Some(chosen) = self.chosen.filter(|chosen| *chosen != from) {
            self.ping(now, chosen, LEAST_SIZE, CALM, actions);
        }
    }

    /// A pong came.
    pub fn ponged(&mut self, now: Instant, via: Via, number: &Number, actions: &mut Vec<Action>) {
        let top = self.top;
        let Via::Udp(from) = via else {
            self.relay.ponged(now, number);
            return;
        };
        let Some(candidate) = self.candidates.get_mut(&from) else { return };
        if !candidate.ponged(now, number) {
            return;
        }
        if candidate.size.is_none() && candidate.probing.is_none() {
            self.probe(now, from, LEAST_SIZE, actions);
        } else {
            candidate.settle(now, top);
        }
        self.choose(now);
    }

    /// Data came or went. True: [`Finder::poll`] is due earlier than it said.
    pub fn used(&mut self, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.used, now);
        now.saturating_duration_since(before) >= WATCHED
    }

    /// Our own addresses changed: whatever was proven is to be proven again.
    pub fn moved(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.begin_anew(now);
        if let Some(chosen) = self.chosen {
            self.ping(now, chosen, LEAST_SIZE, Duration::ZERO, actions);
        }
    }

    /// The kernel refused to send to `to`.
    pub fn refused(&mut self, now: Instant, to: SocketAddr, why: Refusal, actions: &mut Vec<Action>) {
        let Some(candidate) = self.candidates.get_mut(&to) else { return };
        match why {
            Refusal::TooBig if candidate.size.is_some_and(|size| size > LEAST_SIZE) => {
                candidate.size = Some(LEAST_SIZE);
                self.probe(now, to, LEAST_SIZE, actions);
            }
            Refusal::TooBig => {}
            Refusal::Unreachable => {
                candidate.fail();
                if self.chosen == Some(to) {
                    self.lose(now);
                }
            }
        }
    }

    /// Does what is due; when to come again, unless something happens before.
    pub fn poll(&mut self, now: Instant, actions: &mut Vec<Action>) -> Instant {
        let top = self.top;
        self.candidates.values_mut().for_each(|candidate| candidate.settle(now, top));
        self.choose(now);
        self.watch(now, actions);
        self.explore(now, actions);
        self.due(now)
    }

    fn in_use(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IDLE
    }

    fn watched_every(&self, now: Instant) -> Duration {
        if self.in_use(now) { WATCHED } else { KEPT }
    }

    /// When the chosen path is to be pinged next.
    fn watch_at(&self, now: Instant, candidate: &Candidate) -> Instant {
        let pause = if candidate.unanswered.is_some() { REPEAT } else { self.watched_every(now) };
        candidate.last_ping.map_or(now, |last| last + pause)
    }

    fn watch(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(chosen) = self.chosen else { return };
        let Some(candidate) = self.candidates.get_mut(&chosen) else { return };
        if candidate.unanswered.is_some_and(|since| now >= since + DEAD) {
            candidate.fail();
            return self.lose(now);
        }
        // Small ones pass, large ones don't.
        if candidate
            .full_unanswered
            .is_some_and(|since| now >= since + REPEAT * 3 && candidate.last_pong >= Some(since))
        {
            candidate.size = Some(LEAST_SIZE);
            candidate.full_unanswered = None;
            return self.probe(now, chosen, LEAST_SIZE, actions);
        }
        let candidate = &self.candidates[&chosen];
        if now < self.watch_at(now, candidate) {
            return;
        }
        let (repeated, full) = (candidate.unanswered.is_some() || candidate.full_unanswered.is_some(), candidate.size);
        self.ping(now, chosen, full.unwrap_or(LEAST_SIZE), Duration::ZERO, actions);
        if repeated {
            self.ping(now, chosen, LEAST_SIZE, Duration::ZERO, actions);
        }
        if self.candidates[&chosen].troubled(now) {
            self.next_round = now;
        }
    }

    fn explore(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if now < self.next_round || !self.in_use(now) {
            return;
        }
        let chosen = self.chosen.and_then(|chosen| self.candidates.get(&chosen));
        let settled = chosen.is_some_and(|candidate| !candidate.troubled(now));
        let chosen_probed = chosen.and_then(|candidate| candidate.probed);
        if settled {
            self.next_round = now + IMPROVED;
            if let Some((chosen, size)) = self.chosen.and_then(|c| Some((c, self.candidates[&c].size?)))
                && size < self.top
                && chosen_probed.is_none_or(|at| now >= at + IMPROVED)
            {
                self.probe(now, chosen, size, actions);
            }
        } else {
            // 0.25, 0.5, 1 s and so on to half a minute.
            self.next_round = now + Duration::from_millis(250 << self.round.min(7)).min(Duration::from_secs(30));
            self.round += 1;
            actions.push(Action::Call);
            let number = (self.numbers)();
            self.relay.pinged(now, number, 0);
            actions.push(Action::Ping { via: Via::Relay, number, size: 0 });
        }
        self.try_all(now, CALM, actions);
    }

    fn due(&self, now: Instant) -> Instant {
        let mut due = now + KEPT;
        if self.in_use(now) {
            due = due.min(self.next_round);
        }
        for (address, candidate) in &self.candidates {
            if let Some((since, _)) = candidate.probing {
                due = due.min(candidate.settles_at(since));
            }
            if self.chosen == Some(*address) {
                due = due.min(self.watch_at(now, candidate));
            }
        }
        due.max(now)
    }

    fn begin_anew(&mut self, now: Instant) {
        self.round = 0;
        self.next_round = now;
    }

    fn lose(&mut self, now: Instant) {
        self.chosen = None;
        self.begin_anew(now);
        self.choose(now);
    }

    /// Takes the quickest way that works, and leaves one that does only for one that is clearly better.
    fn choose(&mut self, now: Instant) {
        let works = |candidate: &Candidate| {
            candidate.last_pong.is_some_and(|at| now.saturating_duration_since(at) < FRESH) && !candidate.troubled(now)
        };
        let others = self.candidates.iter().filter(|(address, c)| Some(**address) != self.chosen && works(c));
        let best = others.filter_map(|(address, c)| Some((c.rtt?, c.size?, *address))).min();
        let Some((rtt, size, address)) = best else { return };
        let better = match self.chosen.and_then(|chosen| self.candidates.get(&chosen)) {
            None => true,
            Some(chosen) if chosen.troubled(now) => true,
            Some(chosen) => {
                let before = chosen.rtt.unwrap_or(Duration::MAX);
                size >= chosen.size.unwrap_or(0) && rtt + rtt / 4 + Duration::from_millis(1) < before
            }
        };
        if better {
            self.chosen = Some(address);
            (self.round, self.next_round) = (0, now + IMPROVED);
        }
    }

    /// Room for an address, made by forgetting one that never worked. None: there is none.
    fn candidate(&mut self, address: SocketAddr) -> Option<&mut Candidate> {
        if !self.candidates.contains_key(&address) && self.candidates.len() >= MOST_CANDIDATES {
            let mut useless = self.candidates.iter().filter(|(_, c)| !c.listed && c.last_pong.is_none());
            let useless = *useless.next()?.0;
            self.candidates.remove(&useless);
        }
        Some(self.candidates.entry(address).or_default())
    }

    fn try_all(&mut self, now: Instant, calm: Duration, actions: &mut Vec<Action>) {
        let addresses: Vec<_> = self.candidates.keys().copied().filter(|a| Some(*a) != self.chosen).collect();
        for address in addresses {
            self.ping(now, address, LEAST_SIZE, calm, actions);
        }
    }

    /// Tries which sizes pass; while it isn't known, `least` is what does.
    fn probe(&mut self, now: Instant, to: SocketAddr, least: u16, actions: &mut Vec<Action>) {
        let top = self.top;
        let Some(candidate) = self.candidates.get_mut(&to) else { return };
        candidate.probing = Some((now, least));
        // The last one tells a narrow way from a dead one.
        for size in sizes(least, top).chain([LEAST_SIZE]) {
            self.ping(now, to, size, Duration::ZERO, actions);
        }
        if let Some(candidate) = self.candidates.get_mut(&to) {
            candidate.settle(now, top);
        }
    }

    /// Unless the last one is less than `calm` ago.
    fn ping(&mut self, now: Instant, to: SocketAddr, size: u16, calm: Duration, actions: &mut Vec<Action>) {
        let Some(candidate) = self.candidates.get_mut(&to) else { return };
        if candidate.last_ping.is_some_and(|last| now < last + calm) {
            return;
        }
        let number = (self.numbers)();
        candidate.pinged(now, number, size);
        actions.push(Action::Ping { via: Via::Udp(to), number, size });
    }
}

#[cfg(test)]
mod tests;
