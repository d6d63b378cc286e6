//! Two nodes in a small internet with NATs, delay, loss and cuts, in virtual time.

use super::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nat {
    None,
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    UdpBlocked,
}

impl Nat {
    const ALL: [Nat; 6] =
        [Nat::None, Nat::FullCone, Nat::AddressRestricted, Nat::PortRestricted, Nat::Symmetric, Nat::UdpBlocked];

    /// Whether hole punching can work between the two.
    fn meets(self, other: Nat) -> bool {
        let blocked = self == Nat::UdpBlocked || other == Nat::UdpBlocked;
        let hard = |a, b| a == Nat::Symmetric && matches!(b, Nat::Symmetric | Nat::PortRestricted);
        !blocked && !hard(self, other) && !hard(other, self)
    }
}

struct Node {
    finder: Finder,
    nat: Nat,
    public: Ipv4Addr,
    /// External port of each destination that has one of its own.
    mapped: BTreeMap<SocketAddr, u16>,
    contacted: BTreeSet<SocketAddr>,
    poll_at: Instant,
}

const PORT: u16 = 4000;

impl Node {
    /// What the reflector told.
    fn candidates(&self) -> Vec<SocketAddr> {
        let mut known = vec![SocketAddr::from(([192, 168, 0, 1], PORT))];
        match self.nat {
            Nat::UdpBlocked => {}
            // The reflector saw a mapping that no peer's packets will have.
            Nat::Symmetric => known.push((self.public, 6999).into()),
            _ => known.push((self.public, PORT).into()),
        }
        known
    }

    /// The packet's source as the world sees it.
    fn leaves(&mut self, to: SocketAddr) -> Option<SocketAddr> {
        let port = match self.nat {
            Nat::UdpBlocked => return None,
            Nat::Symmetric => {
                let next = 7000 + self.mapped.len() as u16;
                *self.mapped.entry(to).or_insert(next)
            }
            _ => PORT,
        };
        self.contacted.insert(to);
        Some((self.public, port).into())
    }

    fn lets_in(&self, from: SocketAddr, port: u16) -> bool {
        let ip = |a: &SocketAddr| a.ip() == from.ip();
        match self.nat {
            Nat::UdpBlocked => false,
            Nat::None => port == PORT,
            Nat::FullCone => port == PORT && !self.contacted.is_empty(),
            Nat::AddressRestricted => port == PORT && self.contacted.iter().any(ip),
            Nat::PortRestricted => port == PORT && self.contacted.contains(&from),
            Nat::Symmetric => self.mapped.get(&from) == Some(&port),
        }
    }
}

#[derive(Clone, Debug)]
enum Said {
    Ping(Number),
    Pong(Number),
    Call(Vec<SocketAddr>),
}

struct World {
    start: Instant,
    now: Instant,
    nodes: [Node; 2],
    /// What arrives when, at whom.
    under_way: Vec<(Instant, usize, Via, u16, Said)>,
    delay: Duration,
    loss: f64,
    /// UDP payload that the direct way carries; 0: it is cut.
    carries: u16,
    chance: StdRng,
    /// Until when data flows.
    busy: bool,
    sent: usize,
}

impl World {
    fn new(nats: [Nat; 2], seed: u64) -> Self {
        let start = Instant::now();
        let node = |index: usize| {
            let mut numbers = StdRng::seed_from_u64(seed + index as u64);
            Node {
                finder: Finder::new(start, 1452, move || numbers.random()),
                nat: nats[index],
                public: Ipv4Addr::new(203, 0, 113, index as u8 + 1),
                mapped: BTreeMap::new(),
                contacted: BTreeSet::new(),
                poll_at: start,
            }
        };
        let mut nodes = [node(0), node(1)];
        let known = [nodes[0].candidates(), nodes[1].candidates()];
        nodes[0].finder.list(start, &known[1]);
        nodes[1].finder.list(start, &known[0]);
        let chance = StdRng::seed_from_u64(seed);
        let delay = Duration::from_millis(20);
        Self {
            start,
            now: start,
            nodes,
            under_way: Vec::new(),
            delay,
            loss: 0.0,
            carries: 1472,
            chance,
            busy: true,
            sent: 0,
        }
    }

    fn act(&mut self, who: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ping { via, number, size } => self.say(who, via, size, Said::Ping(number)),
                Action::Call => {
                    let known = self.nodes[who].candidates();
                    self.say(who, Via::Relay, 0, Said::Call(known));
                }
            }
        }
    }

    fn say(&mut self, who: usize, via: Via, size: u16, said: Said) {
        self.sent += 1;
        let other = 1 - who;
        let at = self.now + self.delay;
        let Via::Udp(to) = via else { return self.under_way.push((at, other, Via::Relay, 0, said)) };
        let Some(from) = self.nodes[who].leaves(to) else { return };
        let lost = self.chance.random_bool(self.loss) || size > self.carries || self.carries == 0;
        if to.ip() == IpAddr::from(self.nodes[other].public) && !lost {
            self.under_way.push((at, other, Via::Udp(from), to.port(), said));
        }
    }

    fn hear(&mut self, who: usize, via: Via, port: u16, said: Said) {
        if matches!(via, Via::Udp(from) if !self.nodes[who].lets_in(from, port)) {
            return;
        }
        let (now, mut actions) = (self.now, Vec::new());
        let finder = &mut self.nodes[who].finder;
        match said {
            Said::Ping(number) => {
                finder.pinged(now, via, &mut actions);
                self.say(who, via, 0, Said::Pong(number));
            }
            Said::Pong(number) => finder.ponged(now, via, &number, &mut actions),
            Said::Call(addresses) => finder.called(now, &addresses, &mut actions),
        }
        self.act(who, actions);
        self.nodes[who].poll_at = self.now;
    }

    /// Lets time pass until `until` holds; how long it took, or None after `at_most`.
    fn run(&mut self, at_most: Duration, until: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        while !until(self) {
            let arrivals = self.under_way.iter().map(|m| m.0).min();
            let polls = self.nodes[0].poll_at.min(self.nodes[1].poll_at);
            let traffic = self.now + Duration::from_millis(100);
            let next = arrivals.map_or(polls, |a| a.min(polls)).min(traffic).max(self.now);
            if next > begin + at_most {
                self.now = begin + at_most;
                return None;
            }
            self.now = next;
            let arrived = |m: &mut (Instant, usize, Via, u16, Said)| m.0 <= next;
            for (_, who, via, port, said) in self.under_way.extract_if(.., arrived).collect::<Vec<_>>() {
                self.hear(who, via, port, said);
            }
            for who in 0..2 {
                if self.busy && self.nodes[who].finder.used(next) {
                    self.nodes[who].poll_at = next;
                }
                if self.nodes[who].poll_at <= next {
                    let mut actions = Vec::new();
                    let due = self.nodes[who].finder.poll(next, &mut actions);
                    self.nodes[who].poll_at = due.max(next + Duration::from_millis(1));
                    self.act(who, actions);
                }
            }
        }
        Some(self.now - begin)
    }

    fn pass(&mut self, time: Duration) {
        self.run(time, |_| false);
    }

    fn direct(&self, who: usize) -> bool {
        matches!(self.nodes[who].finder.route(), Route::Direct { .. })
    }

    fn both_direct(&self) -> bool {
        self.direct(0) && self.direct(1)
    }

    fn size(&self, who: usize) -> Option<u16> {
        match self.nodes[who].finder.route() {
            Route::Direct { size, .. } => Some(size),
            Route::Relay => None,
        }
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn every_pair_of_sites_meets_where_it_can_and_is_relayed_where_it_can_not() {
    for a in Nat::ALL {
        for b in Nat::ALL {
            let mut world = World::new([a, b], 1);
            let met = world.run(seconds(60), World::both_direct);
            assert_eq!(met.is_some(), a.meets(b), "{a:?} and {b:?}: {met:?}");
            if let Some(met) = met {
                assert!(met < Duration::from_millis(700), "{a:?} and {b:?} took {met:?}");
            }
        }
    }
}

#[test]
fn it_begins_on_the_relay() {
    let world = World::new([Nat::None, Nat::None], 1);
    assert!(!world.direct(0) && world.nodes[0].finder.route() == Route::Relay);
}

#[test]
fn a_cut_path_is_left_within_three_seconds_and_taken_again() {
    for seed in 0..20 {
        let mut world = World::new([Nat::PortRestricted, Nat::FullCone], seed);
        world.run(seconds(5), World::both_direct).unwrap();
        world.pass(Duration::from_millis(5000 + seed * 37));
        world.carries = 0;
        let left = world.run(seconds(10), |w| !w.direct(0) && !w.direct(1)).unwrap();
        assert!(left <= seconds(3), "{left:?}");
        world.pass(seconds(20));
        world.carries = 1472;
        let back = world.run(seconds(40), World::both_direct).unwrap();
        assert!(back <= seconds(31), "{back:?}");
    }
}

#[test]
fn a_way_that_swallows_large_packets_is_used_with_small_ones() {
    let mut world = World::new([Nat::None, Nat::None], 3);
    world.carries = 1380;
    world.run(seconds(3), World::both_direct).unwrap();
    assert_eq!(world.size(0), Some(1372));
    // It becomes narrower, later wider.
    world.carries = 1300;
    world.run(seconds(5), |w| w.size(0) == Some(1292) && w.size(1) == Some(1292)).unwrap();
    world.carries = 1472;
    world.run(seconds(130), |w| w.size(0) == Some(1452) && w.size(1) == Some(1452)).unwrap();
}

#[test]
fn a_way_narrower_than_the_least_is_not_used() {
    let mut world = World::new([Nat::None, Nat::None], 3);
    world.carries = 1199;
    assert_eq!(world.run(seconds(60), |w| w.direct(0) || w.direct(1)), None);
}

#[test]
fn a_node_that_moves_is_found_again() {
    let mut world = World::new([Nat::None, Nat::None], 5);
    world.run(seconds(3), World::both_direct).unwrap();
    world.pass(seconds(20));
    let moved = Ipv4Addr::new(203, 0, 113, 77);
    world.nodes[0].public = moved;
    let (now, mut actions) = (world.now, Vec::new());
    world.nodes[0].finder.moved(now, &mut actions);
    world.act(0, actions);
    let there =
        |w: &World| matches!(w.nodes[1].finder.route(), Route::Direct { to, .. } if to.ip() == IpAddr::from(moved));
    let found = world.run(seconds(5), there).unwrap();
    assert!(found < seconds(1), "{found:?}");
}

#[test]
fn what_cannot_meet_costs_little() {
    let mut world = World::new([Nat::Symmetric, Nat::Symmetric], 5);
    world.pass(seconds(60));
    let before = world.sent;
    world.pass(seconds(600));
    assert!((world.sent - before) / 600 < 2, "{} a second", (world.sent - before) / 600);
}

#[test]
fn an_idle_path_is_kept_by_a_ping_now_and_then() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], 5);
    world.run(seconds(3), World::both_direct).unwrap();
    world.busy = false;
    world.pass(seconds(15));
    let before = world.sent;
    world.pass(seconds(150));
    assert!(world.both_direct() && (1..=60).contains(&(world.sent - before)), "{}", world.sent - before);
}

#[test]
fn an_idle_relayed_peer_costs_nothing() {
    let mut world = World::new([Nat::UdpBlocked, Nat::None], 5);
    world.busy = false;
    world.pass(seconds(15));
    let before = world.sent;
    world.pass(seconds(300));
    assert_eq!(world.sent, before);
}

#[test]
fn a_pong_nobody_asked_for_proves_nothing() {
    let now = Instant::now();
    let mut finder = Finder::new(now, 1452, || [1; 12]);
    let to: SocketAddr = "203.0.113.9:1".parse().unwrap();
    finder.list(now, &[to]);
    let mut actions = Vec::new();
    finder.poll(now, &mut actions);
    assert!(actions.contains(&Action::Ping { via: Via::Udp(to), number: [1; 12], size: 1200 }));
    finder.ponged(now, Via::Udp(to), &[2; 12], &mut Vec::new());
    finder.ponged(now, Via::Udp("203.0.113.10:1".parse().unwrap()), &[1; 12], &mut Vec::new());
    finder.poll(now + seconds(1), &mut Vec::new());
    assert_eq!(finder.route(), Route::Relay);
}

#[test]
fn what_the_kernel_refuses_is_left_at_once() {
    let mut world = World::new([Nat::None, Nat::None], 5);
    world.run(seconds(3), World::both_direct).unwrap();
    let Route::Direct { to, .. } = world.nodes[0].finder.route() else { panic!() };
    let now = world.now;
    world.nodes[0].finder.refused(now, to, Refusal::TooBig, &mut Vec::new());
    assert_eq!(world.size(0), Some(1200));
    world.nodes[0].finder.refused(now, to, Refusal::Unreachable, &mut Vec::new());
    assert!(!world.direct(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Faults first, then healing: then it must be as good as it can be.
    #[test]
    fn after_any_faults_it_converges(
        seed: u64, a in 0usize..6, b in 0usize..6, loss in 0.0..0.3f64,
        cuts in proptest::collection::vec((0u16..1473, 10u64..8000), 0..6),
    ) {
        let (a, b) = (Nat::ALL[a], Nat::ALL[b]);
        let mut world = World::new([a, b], seed);
        world.loss = loss;
        for (carries, time) in cuts {
            world.carries = carries;
            world.pass(Duration::from_millis(time));
            // Never stuck on a way that doesn't work: three seconds after a cut nobody sends there.
            if carries < 1200 {
                world.pass(seconds(3));
                prop_assert!(!world.direct(0) && !world.direct(1));
            }
        }
        (world.loss, world.carries) = (0.0, 1472);
        let met = world.run(seconds(120), |w| w.size(0) == Some(1452) && w.size(1) == Some(1452));
        prop_assert_eq!(met.is_some(), a.meets(b), "{:?} and {:?} after {:?}", a, b, world.now - world.start);
        if met.is_some() {
            world.pass(seconds(30));
            prop_assert!(world.both_direct());
        }
    }
}
