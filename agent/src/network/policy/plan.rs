//! What policies mean on this node: chains of rules, and which pod's connections go through which. Pure.
//!
//! ```text
//! pod's address ─ map ─> union of its policies ─> each policy ─> (a rule of many peers and ports)
//! ```
//!
//! Chains and ranges are named by what they say. So pods with the same policies share a chain, policies that say the same
//! are one, what is there under a name is right, and a change is some names more and some less. What a connection costs
//! grows with what is said of its two pods alone.

use super::Pods;
use super::ranges::{self, Interval};
use crate::network::map::Map;
use crate::pods::network::Identity;
use ipnet::Ipv4Net;
use longshore_api::network::{Name, Protocol};
use longshore_api::network_policy::{Peer, Policy, Port, Rule};
use longshore_api::selector::LabelSelector;
use nlink::netlink::nftables::SetElement;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Of a connection, seen from the pod that it is judged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Ingress,
    Egress,
}

/// Which chains lead to which: one only to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// One rule's ports, where it has many of both.
    Rule,
    Policy,
    Union,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Rule, Self::Policy, Self::Union];

    /// How their names begin.
    pub fn letter(self) -> char {
        match self {
            Self::Rule => 'r',
            Self::Policy => 'p',
            Self::Union => 'u',
        }
    }
}

/// Matches what is of the peers and of the port; none: any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub direction: Direction,
    pub peers: Option<Set>,
    pub port: Option<PortMatch>,
    pub then: Then,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    Accept,
    Drop,
    Jump(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortMatch {
    Any(Protocol),
    Range(Protocol, u16, u16),
    Named(Protocol, Set),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// Addresses of a set of the map.
    Pods(String),
    /// Addresses with ports of a set of the map.
    Ports(String),
    Ranges(Vec<Interval>),
}

impl Set {
    pub fn name(&self) -> String {
        match self {
            Self::Pods(id) => format!("a{id}"),
            Self::Ports(id) => format!("n{id}"),
            Self::Ranges(ranges) => named('b', ranges),
        }
    }

    /// The set of the map that it is.
    pub fn of_map(&self) -> Option<&str> {
        match self {
            Self::Pods(id) | Self::Ports(id) => Some(id),
            Self::Ranges(_) => None,
        }
    }

    /// Keys of elements; ranges have theirs from the beginning and none here.
    pub fn elements(&self, map: &Map) -> BTreeSet<Vec<u8>> {
        let Some(id) = self.of_map() else { return BTreeSet::new() };
        let parts = map.peers(id);
        let addresses = parts.clone().flat_map(|part| &part.addresses).filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(SetElement::ipv4(*ip)),
            IpAddr::V6(_) => None,
        });
        let ports = parts.flat_map(|part| &part.ports).filter_map(|at| match at {
            SocketAddr::V4(at) => Some(SetElement::concat([SetElement::ipv4(*at.ip()), SetElement::port(at.port())])),
            SocketAddr::V6(_) => None,
        });
        let key = |element: SetElement| element.key().to_vec();
        match self {
            Self::Ports(_) => ports.map(key).collect(),
            _ => addresses.map(key).collect(),
        }
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub chains: BTreeMap<Level, BTreeMap<String, Vec<Line>>>,
    pub sets: BTreeMap<String, Set>,
    /// Isolated pods, and the chain that decides.
    pub ingress: BTreeMap<Ipv4Addr, String>,
    pub egress: BTreeMap<Ipv4Addr, String>,
}

pub fn plan(map: &Map, pods: &Pods) -> Plan {
    let mut plan = Plan::default();
    let mut compiled: BTreeMap<&Name, Option<LabelSelector>> = BTreeMap::new();
    let mut chains: BTreeMap<(Direction, &Name), Option<String>> = BTreeMap::new();
    for (ip, identity) in pods {
        let mut of_pod: BTreeMap<Direction, BTreeSet<String>> = BTreeMap::new();
        for (name, policy) in map.policies_in(&identity.namespace) {
            let selector = compiled.entry(name).or_insert_with(|| policy.selector.compile().ok());
            if !selector.as_ref().is_some_and(|selector| selects(selector, identity)) {
                continue;
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                let chain = chains.entry((direction, name)).or_insert_with(|| plan.policy(direction, policy));
                if let Some(chain) = chain {
                    of_pod.entry(direction).or_default().insert(chain.clone());
                }
            }
        }
        for (direction, policies) in of_pod {
            let union = plan.union(direction, policies);
            match direction {
                Direction::Ingress => plan.ingress.insert(*ip, union),
                Direction::Egress => plan.egress.insert(*ip, union),
            };
        }
    }
    plan
}

fn selects(selector: &LabelSelector, pod: &Identity) -> bool {
    selector.matches(&pod.labels)
}

impl Plan {
    fn chain(&mut self, level: Level, lines: Vec<Line>) -> String {
        let name = named(level.letter(), &lines);
        for line in &lines {
            let port = match &line.port {
                Some(PortMatch::Named(_, set)) => Some(set),
                _ => None,
            };
            for set in line.peers.iter().chain(port) {
                self.sets.entry(set.name()).or_insert_with(|| set.clone());
            }
        }
        self.chains.entry(level).or_default().insert(name.clone(), lines);
        name
    }

    /// What no policy accepts goes nowhere.
    fn union(&mut self, direction: Direction, policies: BTreeSet<String>) -> String {
        let line = |then| Line { direction, peers: None, port: None, then };
        let lines = policies.into_iter().map(|policy| line(Then::Jump(policy))).chain([line(Then::Drop)]);
        self.chain(Level::Union, lines.collect())
    }

    /// None where the policy says nothing of that direction.
    fn policy(&mut self, direction: Direction, policy: &Policy) -> Option<String> {
        let rules = match direction {
            Direction::Ingress => policy.ingress.as_ref()?,
            Direction::Egress => policy.egress.as_ref()?,
        };
        let lines = rules.iter().flat_map(|rule| self.rule(direction, rule)).collect();
        Some(self.chain(Level::Policy, lines))
    }

    fn rule(&mut self, direction: Direction, rule: &Rule) -> Vec<Line> {
        let peers = match &rule.peers {
            None => vec![None],
            Some(peers) => sets(peers).into_iter().map(Some).collect(),
        };
        let ports = match &rule.ports {
            None => vec![None],
            Some(ports) => ports.iter().map(|port| Some(port_match(port))).collect(),
        };
        let line = |peers, port, then| Line { direction, peers, port, then };
        if peers.len() > 1 && ports.len() > 1 {
            let accept = ports.into_iter().map(|port| line(None, port, Then::Accept));
            let chain = self.chain(Level::Rule, accept.collect());
            return peers.into_iter().map(|peers| line(peers, None, Then::Jump(chain.clone()))).collect();
        }
        let each = |peers: Option<Set>| {
            let ports = ports.clone();
            ports.into_iter().map(move |port| line(peers.clone(), port, Then::Accept))
        };
        peers.into_iter().flat_map(each).collect()
    }
}

/// All ranges are one set. What isn't IPv4 is nobody here.
fn sets(peers: &[Peer]) -> BTreeSet<Set> {
    let (mut sets, mut intervals) = (BTreeSet::new(), Vec::new());
    for peer in peers {
        match peer {
            Peer::Pods(id) => {
                sets.insert(Set::Pods(id.clone()));
            }
            Peer::Block { range, except } => {
                if let Ok(range) = range.parse::<Ipv4Net>() {
                    let except: Vec<Ipv4Net> = except.iter().filter_map(|e| e.parse().ok()).collect();
                    intervals.extend(ranges::without(range, &except));
                }
            }
        }
    }
    let intervals = ranges::united(intervals);
    if !intervals.is_empty() {
        sets.insert(Set::Ranges(intervals));
    }
    sets
}

fn port_match(port: &Port) -> PortMatch {
    match port {
        Port::Any(protocol) => PortMatch::Any(*protocol),
        Port::Range(protocol, first, last) => PortMatch::Range(*protocol, *first, *last),
        Port::Named(protocol, set) => PortMatch::Named(*protocol, Set::Ports(set.clone())),
    }
}

fn named(letter: char, what: &impl Debug) -> String {
    format!("{letter}{}", hex::encode(&Sha256::digest(format!("{what:?}"))[..10]))
}
