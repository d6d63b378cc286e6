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
use super::table;
use crate::network::map::Map;
use crate::network::ruleset::family_of;
use crate::pods::network::Identity;
use ipnet::IpNet;
use longshore_api::network::{Name, Protocol};
use longshore_api::network_policy::{Peer, Policy, Port, Rule};
use longshore_api::selector::LabelSelector;
use nlink::netlink::nftables::{Family, SetElement};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

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

    /// Keys of a family's elements; ranges have theirs from the beginning and none here.
    pub fn elements(&self, map: &Map, family: Family) -> BTreeSet<Vec<u8>> {
        let Some(id) = self.of_map() else { return BTreeSet::new() };
        let parts = map.peers(id);
        let addresses = parts.clone().flat_map(|part| &part.addresses).filter(|ip| family_of(**ip) == family);
        let addresses = addresses.map(|ip| table::address(*ip));
        let ports = parts.flat_map(|part| &part.ports).filter(|at| family_of(at.ip()) == family);
        let ports = ports.map(|at| SetElement::concat([table::address(at.ip()), SetElement::port(at.port())]));
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
    pub ingress: BTreeMap<IpAddr, String>,
    pub egress: BTreeMap<IpAddr, String>,
}

/// `pods` have addresses of `family`.
pub fn plan(map: &Map, family: Family, pods: &Pods) -> Plan {
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
                let chain = chains.entry((direction, name)).or_insert_with(|| plan.policy(family, direction, policy));
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
    fn policy(&mut self, family: Family, direction: Direction, policy: &Policy) -> Option<String> {
        let rules = match direction {
            Direction::Ingress => policy.ingress.as_ref()?,
            Direction::Egress => policy.egress.as_ref()?,
        };
        let lines = rules.iter().flat_map(|rule| self.rule(family, direction, rule)).collect();
        Some(self.chain(Level::Policy, lines))
    }

    fn rule(&mut self, family: Family, direction: Direction, rule: &Rule) -> Vec<Line> {
        let peers = match &rule.peers {
            None => vec![None],
            Some(peers) => sets(family, peers).into_iter().map(Some).collect(),
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

/// All ranges are one set. Those of another family are of nobody here.
fn sets(family: Family, peers: &[Peer]) -> BTreeSet<Set> {
    let (mut sets, mut intervals) = (BTreeSet::new(), Vec::new());
    for peer in peers {
        match peer {
            Peer::Pods(id) => {
                sets.insert(Set::Pods(id.clone()));
            }
            Peer::Block { range, except } => {
                let parsed =
                    |text: &String| text.parse().ok().filter(|range: &IpNet| family_of(range.addr()) == family);
                if let Some(range) = parsed(range) {
                    let except: Vec<IpNet> = except.iter().filter_map(parsed).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_api::network::Frame;
    use longshore_api::network_policy::{Part, Peers};
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn last(ip: IpAddr) -> u8 {
        match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        }
    }

    fn identity(namespace: &str, app: &str) -> Identity {
        Identity { namespace: namespace.into(), labels: [("app".to_owned(), app.to_owned())].into() }
    }

    fn policy(name: &str, app: &str, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
        let selector = serde_json::from_value(serde_json::json!({"matchLabels": {"app": app}})).unwrap();
        Policy { namespace: "ns".into(), name: name.into(), selector, ingress, egress }
    }

    /// Set `s1` has 10.0.0.1 and 10.0.0.2, `s2` has 10.0.0.3; port `web` is 80 at 10.0.0.1 and 90 at 10.0.0.3.
    fn sets() -> Vec<Frame> {
        let set = |id: &str, last: &[u8], ports: &[(u8, u16)]| {
            let part = Part::new(id, ip(0));
            let ports = ports.iter().map(|(last, port)| SocketAddr::new(ip(*last), *port)).collect();
            Frame::Peers(Peers { part, addresses: last.iter().map(|l| ip(*l)).collect(), ports })
        };
        vec![set("s1", &[1, 2], &[]), set("s2", &[3], &[]), set("web", &[], &[(1, 80), (3, 90)])]
    }

    fn map(policies: impl IntoIterator<Item = Policy>) -> Map {
        Map::of(sets().into_iter().chain(policies.into_iter().map(Frame::Policy)))
    }

    #[test]
    fn who_says_the_same_shares_and_who_is_not_selected_has_nothing() {
        let rule = || vec![Rule { peers: Some(vec![Peer::Pods("s1".into())]), ports: None }];
        let policies = [policy("a", "web", Some(rule()), None), policy("b", "web", Some(rule()), None)];
        let pods = Pods::from([
            (ip(1), identity("ns", "web")),
            (ip(2), identity("ns", "web")),
            (ip(3), identity("ns", "db")),
            (ip(4), identity("other", "web")),
        ]);
        let plan = plan(&map(policies), Family::Ip, &pods);
        assert_eq!(plan.ingress.keys().copied().collect::<Vec<_>>(), [ip(1), ip(2)]);
        assert_eq!((plan.egress.len(), plan.sets.len()), (0, 1));
        let count = |level| plan.chains.get(&level).map_or(0, BTreeMap::len);
        assert_eq!(Level::ALL.map(count), [0, 1, 1]);
        assert_eq!(
            plan,
            super::plan(&map([policy("c", "web", Some(rule()), None)]), Family::Ip, &pods),
            "names are none of it"
        );
    }

    #[test]
    fn what_is_for_nobody_here_allows_nobody() {
        let nobody = Rule { peers: Some(vec![Peer::Block { range: "::/0".into(), except: vec![] }]), ports: None };
        let map = map([policy("a", "web", Some(vec![nobody]), None)]);
        let of_v4 = plan(&map, Family::Ip, &Pods::from([(ip(1), identity("ns", "web"))]));
        assert!(of_v4.chains[&Level::Policy].values().all(Vec::is_empty), "{of_v4:?}");
        assert_eq!(of_v4.ingress.len(), 1);
        // It is for everybody of the other family.
        let pod: IpAddr = "fd00::1".parse().unwrap();
        let of_v6 = plan(&map, Family::Ip6, &Pods::from([(pod, identity("ns", "web"))]));
        assert_eq!(of_v6.sets.values().collect::<Vec<_>>(), [&Set::Ranges(vec![(0, u128::MAX)])]);
        assert!(of_v6.ingress.contains_key(&pod));
    }

    #[derive(Clone, Copy, Debug)]
    struct Packet {
        from: IpAddr,
        to: IpAddr,
        protocol: Protocol,
        port: u16,
    }

    /// As the kernel goes through chains.
    fn passes(plan: &Plan, map: &Map, chain: &str, packet: Packet) -> Option<bool> {
        let contains = |set: &Set, key: SetElement| match set {
            Set::Ranges(ranges) => {
                let ip = u128::from(u32::from_be_bytes(key.key().try_into().unwrap()));
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&ip))
            }
            set => set.elements(map, Family::Ip).contains(key.key()),
        };
        let lines = plan.chains.values().find_map(|chains| chains.get(chain)).unwrap();
        for line in lines {
            let peer = if line.direction == Direction::Ingress { packet.from } else { packet.to };
            let of_peers = line.peers.as_ref().is_none_or(|set| contains(set, table::address(peer)));
            let of_port = match &line.port {
                None => true,
                Some(PortMatch::Any(protocol)) => *protocol == packet.protocol,
                Some(PortMatch::Range(protocol, first, last)) => {
                    *protocol == packet.protocol && (*first..=*last).contains(&packet.port)
                }
                Some(PortMatch::Named(protocol, set)) => {
                    let at = SetElement::concat([table::address(packet.to), SetElement::port(packet.port)]);
                    *protocol == packet.protocol && contains(set, at)
                }
            };
            if !of_peers || !of_port {
                continue;
            }
            match &line.then {
                Then::Accept => return Some(true),
                Then::Drop => return Some(false),
                Then::Jump(to) => match passes(plan, map, to, packet) {
                    None => {}
                    decided => return decided,
                },
            }
        }
        None
    }

    /// As Kubernetes says it.
    fn allowed(policies: &[Policy], pod: &Identity, direction: Direction, packet: Packet) -> bool {
        let peer = if direction == Direction::Ingress { packet.from } else { packet.to };
        let of_set = |id: &str| matches!((id, last(peer)), ("s1", 1 | 2) | ("s2", 3));
        let is_peer = |p: &Peer| match p {
            Peer::Pods(id) => of_set(id),
            Peer::Block { range, except } => {
                let within = |range: &String| range.parse::<IpNet>().is_ok_and(|range| range.contains(&peer));
                within(range) && !except.iter().any(within)
            }
        };
        let is_port = |p: &Port| match p {
            Port::Any(protocol) => *protocol == packet.protocol,
            Port::Range(protocol, first, last) => {
                *protocol == packet.protocol && *first <= packet.port && packet.port <= *last
            }
            Port::Named(protocol, _) => {
                let at = (last(packet.to), packet.port);
                *protocol == packet.protocol && [(1, 80), (3, 90)].contains(&at)
            }
        };
        let of_direction =
            |p: &Policy| if direction == Direction::Ingress { p.ingress.clone() } else { p.egress.clone() };
        let mine = policies.iter().filter(|p| p.selector.compile().unwrap().matches(&pod.labels));
        let rules: Vec<Vec<Rule>> = mine.filter_map(of_direction).collect();
        rules.is_empty()
            || rules.iter().flatten().any(|rule| {
                rule.peers.as_ref().is_none_or(|peers| peers.iter().any(is_peer))
                    && rule.ports.as_ref().is_none_or(|ports| ports.iter().any(is_port))
            })
    }

    fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
        let block = |range: &str, except: &[&str]| Peer::Block {
            range: range.into(),
            except: except.iter().map(ToString::to_string).collect(),
        };
        let peer = prop::sample::select(vec![
            Peer::Pods("s1".into()),
            Peer::Pods("s2".into()),
            Peer::Pods("unknown".into()),
            block("10.0.0.0/24", &["10.0.0.2/32"]),
            block("10.0.0.4/30", &[]),
            block("0.0.0.0/0", &["10.0.0.0/29"]),
            block("fd00::/8", &[]),
        ]);
        let port = prop::sample::select(vec![
            Port::Any(Protocol::Udp),
            Port::Range(Protocol::Tcp, 80, 80),
            Port::Range(Protocol::Tcp, 81, 90),
            Port::Range(Protocol::Sctp, 1, 65535),
            Port::Named(Protocol::Tcp, "web".into()),
        ]);
        let rule =
            (prop::option::of(prop::collection::vec(peer, 1..4)), prop::option::of(prop::collection::vec(port, 1..4)))
                .prop_map(|(peers, ports)| Rule { peers, ports });
        prop::option::of(prop::collection::vec(rule, 0..3))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// The chains let exactly that pass which the policies allow.
        #[test]
        fn chains_say_what_policies_say(all in prop::collection::vec((0usize..3, rules(), rules()), 0..5)) {
            let apps = ["web", "db", "web"];
            let policies: Vec<Policy> = all
                .into_iter()
                .enumerate()
                .map(|(n, (app, ingress, egress))| policy(&n.to_string(), apps[app], ingress, egress))
                .collect();
            let map = map(policies.clone());
            let pods = Pods::from([(ip(1), identity("ns", "web")), (ip(3), identity("ns", "db"))]);
            let plan = plan(&map, Family::Ip, &pods);
            for (pod, identity) in &pods {
                for other in (0..9).map(ip) {
                    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                        for port in [1, 80, 81, 90, 91] {
                            let packet = |from, to| Packet { from, to, protocol, port };
                            let (comes, goes) = (packet(other, *pod), packet(*pod, other));
                            for (direction, decides, packet) in [
                                (Direction::Ingress, &plan.ingress, comes),
                                (Direction::Egress, &plan.egress, goes),
                            ] {
                                let passed = decides.get(pod).map(|chain| passes(&plan, &map, chain, packet));
                                let wanted = allowed(&policies, identity, direction, packet);
                                prop_assert_eq!(passed.unwrap_or(Some(true)), Some(wanted), "{:?} {:?}", direction, packet);
                            }
                        }
                    }
                }
            }
        }
    }
}
