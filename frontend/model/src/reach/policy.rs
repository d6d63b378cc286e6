//! NetworkPolicies as Kubernetes means them, for any two ends and all ports at once.
//!
//! What differs from place to place is as our nodes do it (decision 15): a pod in the host's network is neither selected
//! nor a peer by selectors; a named port is the receiving pod's. That a pod reaches itself, and a node its own pods, is no
//! matter of policies and the caller's to know.

use crate::kube::{self, NetworkPolicy, Pod};
use longshore_api::network::Protocol;
use longshore_api::selector::LabelSelector;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub type Labels = BTreeMap<String, String>;

/// One end of a connection, as policies see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// None: some address outside, which one isn't known.
    pub address: Option<IpAddr>,
    /// What selectors see; none outside, and in the host's network.
    pub pod: Option<Identity>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    pub namespace: String,
    pub namespace_labels: Labels,
    pub labels: Labels,
    pub ports: Vec<(String, Protocol, u16)>,
}

impl End {
    pub fn of(pod: &Pod, namespaces: &BTreeMap<String, Labels>) -> Self {
        let ip = if pod.spec.host_network { &pod.status.host_ip } else { &pod.status.pod_ip };
        let ports = pod
            .spec
            .containers
            .iter()
            .flat_map(|c| &c.ports)
            .filter_map(|p| Some((p.name.clone(), protocol(&p.protocol)?, u16::try_from(p.container_port).ok()?)));
        let identity = Identity {
            namespace: pod.metadata.namespace.clone(),
            namespace_labels: namespaces.get(&pod.metadata.namespace).cloned().unwrap_or_default(),
            labels: pod.metadata.labels.clone(),
            ports: ports.collect(),
        };
        // A pod that has no address yet must not pass for somebody outside.
        let address = ip.parse().unwrap_or(IpAddr::from([0; 16]));
        Self { address: Some(address), pod: (!pod.spec.host_network).then_some(identity) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// A policy, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub namespace: String,
    pub name: String,
    selects: Option<LabelSelector>,
    /// None: it says nothing of such connections.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    /// None: anybody.
    peers: Option<Vec<Peer>>,
    /// None: any port of any protocol.
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Peer {
    Block {
        range: Range,
        except: Vec<Range>,
    },
    /// Of the policy's own namespace, where no namespaces are selected.
    Pods {
        namespaces: Option<LabelSelector>,
        pods: LabelSelector,
    },
    /// Couldn't be read.
    Nobody,
}

#[derive(Clone, Debug, PartialEq)]
enum Port {
    Numbers(Ports),
    Named(Protocol, String),
}

/// Ports of one protocol, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
    /// Not with everybody out there, but with some addresses.
    pub some: bool,
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// `""` is TCP.
pub fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

impl Policy {
    pub fn read(policy: &NetworkPolicy) -> Self {
        let spec = &policy.spec;
        // As the API server fills it in where it isn't written.
        let isolates = |r#type: &str, by_default: bool| match spec.policy_types.is_empty() {
            true => by_default,
            false => spec.policy_types.iter().any(|t| t == r#type),
        };
        let ingress = spec.ingress.iter().map(|r| rule(&r.from, &r.ports));
        let egress = spec.egress.iter().map(|r| rule(&r.to, &r.ports));
        Self {
            namespace: policy.metadata.namespace.clone(),
            name: policy.metadata.name.clone(),
            selects: spec.pod_selector.compile(),
            ingress: isolates("Ingress", true).then(|| ingress.collect()),
            egress: isolates("Egress", !spec.egress.is_empty()).then(|| egress.collect()),
        }
    }

    fn rules(&self, direction: Direction) -> Option<&Vec<Rule>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    fn isolates(&self, direction: Direction, end: &End) -> bool {
        let selected = end.pod.as_ref().is_some_and(|pod| {
            pod.namespace == self.namespace && self.selects.as_ref().is_some_and(|s| s.matches(&pod.labels))
        });
        selected && self.rules(direction).is_some()
    }

    /// What it allows with another end; a named port is one of `receiver`.
    fn allows(&self, direction: Direction, other: &End, receiver: &End) -> Vec<Ports> {
        let rules = self.rules(direction).into_iter().flatten();
        rules.flat_map(|rule| rule.allows(&self.namespace, other, receiver)).collect()
    }
}

/// Lists that are empty are as good as none: anybody, any port.
fn rule(peers: &[kube::PolicyPeer], ports: &[kube::PolicyPort]) -> Rule {
    Rule {
        peers: (!peers.is_empty()).then(|| peers.iter().map(peer).collect()),
        ports: (!ports.is_empty()).then(|| ports.iter().filter_map(port).collect()),
    }
}

fn peer(peer: &kube::PolicyPeer) -> Peer {
    let read = || {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().filter_map(|range| Range::parse(range)).collect();
            return Some(Peer::Block { range: Range::parse(&block.cidr)?, except });
        }
        let namespaces = match &peer.namespace_selector {
            None => None,
            Some(selector) => Some(selector.compile()?),
        };
        // Both absent is refused by the server.
        (peer.namespace_selector.is_some() || peer.pod_selector.is_some()).then_some(())?;
        let pods = peer.pod_selector.as_ref().map_or(Some(LabelSelector::default()), |s| s.compile())?;
        Some(Peer::Pods { namespaces, pods })
    };
    read().unwrap_or(Peer::Nobody)
}

fn port(port: &kube::PolicyPort) -> Option<Port> {
    let protocol = protocol(&port.protocol)?;
    if let Some(name) = port.port.as_str() {
        return Some(Port::Named(protocol, name.into()));
    }
    let number = |n: i64| u16::try_from(n).ok();
    let (first, last) = match port.port.as_i64() {
        None => (0, u16::MAX),
        Some(first) => (number(first)?, number(port.end_port.unwrap_or(first))?),
    };
    Some(Port::Numbers(Ports { protocol, first, last, some: false }))
}

/// How much of an end a peer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Means {
    Not,
    Some,
    All,
}

impl Rule {
    fn allows(&self, own: &str, other: &End, receiver: &End) -> Vec<Ports> {
        let means = match &self.peers {
            None => Means::All,
            Some(peers) => peers.iter().map(|peer| peer.means(own, other)).max().unwrap_or(Means::Not),
        };
        if means == Means::Not {
            return Vec::new();
        }
        let ports = match &self.ports {
            None => everything(),
            Some(ports) => ports.iter().flat_map(|port| port.numbers(receiver)).collect(),
        };
        ports.into_iter().map(|ports| Ports { some: means == Means::Some, ..ports }).collect()
    }
}

impl Peer {
    fn means(&self, own: &str, end: &End) -> Means {
        match (self, &end.pod, end.address) {
            (Self::Nobody, ..) | (Self::Pods { .. }, None, _) => Means::Not,
            (Self::Pods { namespaces, pods }, Some(pod), _) => {
                let there = match namespaces {
                    None => pod.namespace == own,
                    Some(namespaces) => namespaces.matches(&pod.namespace_labels),
                };
                if there && pods.matches(&pod.labels) { Means::All } else { Means::Not }
            }
            (Self::Block { range, except }, _, Some(ip)) => {
                let inside = range.has(ip) && !except.iter().any(|e| e.has(ip));
                if inside { Means::All } else { Means::Not }
            }
            (Self::Block { range, except }, _, None) if except.iter().any(|e| e.bits <= range.bits) => Means::Not,
            // Exceptions from private ranges leave the world as it is.
            (Self::Block { range, except }, _, None) if range.bits == 0 && except.iter().all(Range::is_private) => {
                Means::All
            }
            (Self::Block { .. }, _, None) => Means::Some,
        }
    }
}

impl Port {
    fn numbers(&self, receiver: &End) -> Vec<Ports> {
        match self {
            Self::Numbers(ports) => vec![*ports],
            Self::Named(protocol, name) => {
                let ports = receiver.pod.iter().flat_map(|pod| &pod.ports);
                let named = ports.filter(|(n, p, _)| n == name && p == protocol);
                named.map(|(_, p, port)| Ports { protocol: *p, first: *port, last: *port, some: false }).collect()
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Range {
    first: IpAddr,
    bits: u32,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (first, bits) = text.split_once('/')?;
        Some(Self { first: first.parse().ok()?, bits: bits.parse().ok()? })
    }
    fn has(&self, ip: IpAddr) -> bool {
        match (self.first, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(32 - self.bits.min(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - self.bits.min(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
    fn is_private(&self) -> bool {
        match self.first {
            IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
        }
    }
}

fn everything() -> Vec<Ports> {
    PROTOCOLS.map(|protocol| Ports { protocol, first: 0, last: u16::MAX, some: false }).into()
}

/// What policies say of one end of a connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// By name, those that isolate it. None: whatever there is, is allowed.
    pub isolating: Vec<String>,
    /// What is allowed, and by which.
    pub allowed: Vec<(Ports, String)>,
}

/// Judges a connection between `own` and `other` for `own`.
pub fn judge(policies: &[Policy], direction: Direction, own: &End, other: &End) -> Judged {
    let receiver = if direction == Direction::Ingress { own } else { other };
    let mut judged = Judged::default();
    for policy in policies.iter().filter(|p| p.isolates(direction, own)) {
        judged.isolating.push(policy.name.clone());
        let allowed = policy.allows(direction, other, receiver).into_iter();
        judged.allowed.extend(allowed.map(|ports| (ports, policy.name.clone())));
    }
    judged
}

impl Judged {
    pub fn ports(&self) -> Vec<Ports> {
        if self.isolating.is_empty() { everything() } else { self.allowed.iter().map(|(ports, _)| *ports).collect() }
    }

    /// The policy that allows this port, if one does, and whether only with some addresses.
    pub fn by(&self, protocol: Protocol, port: u16) -> Option<(&str, bool)> {
        let fits = |p: &Ports| p.protocol == protocol && (p.first..=p.last).contains(&port);
        let found = self.allowed.iter().filter(|(p, _)| fits(p)).min_by_key(|(p, _)| p.some);
        found.map(|(p, name)| (name.as_str(), p.some))
    }
}

/// What both allow, in order and without overlaps.
pub fn both(a: &[Ports], b: &[Ports]) -> Vec<Ports> {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b))).filter(|(a, b)| a.protocol == b.protocol);
    let common = pairs.map(|(a, b)| Ports {
        protocol: a.protocol,
        first: a.first.max(b.first),
        last: a.last.min(b.last),
        some: a.some || b.some,
    });
    let mut all: Vec<Ports> = common.filter(|p| p.first <= p.last).collect();
    all.sort_by_key(|p| (p.protocol, p.first, p.some));
    let mut merged: Vec<Ports> = Vec::new();
    for ports in all {
        match merged.last_mut().filter(|l| l.protocol == ports.protocol) {
            Some(last) if last.some == ports.some && u32::from(ports.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(ports.last);
            }
            Some(last) if !last.some && ports.last <= last.last => {}
            _ => merged.push(ports),
        }
    }
    merged
}

/// Whether these are all ports there are, with everybody.
pub fn is_everything(ports: &[Ports]) -> bool {
    let whole =
        |protocol| ports.iter().any(|p| p.protocol == protocol && p.first <= 1 && p.last == u16::MAX && !p.some);
    PROTOCOLS.into_iter().all(whole)
}

/// `TCP 80, 8000–8010, UDP`.
pub fn text(ports: &[Ports]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut before = None;
    for p in ports {
        let name = if before == Some(p.protocol) { "" } else { p.protocol.as_str() };
        before = Some(p.protocol);
        let numbers = match (p.first, p.last) {
            (0 | 1, u16::MAX) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}–{last}"),
        };
        parts.push([name, &numbers].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "));
    }
    parts.join(", ")
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
