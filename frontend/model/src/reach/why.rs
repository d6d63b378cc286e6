//! Why A reaches B, or doesn't: name, Service and its endpoints, policies at both ends, the path between the nodes.
//!
//! All steps are walked, also behind one that stops the connection: who mends the first wants to know of the second.

mod service;

use super::policy::{self, Direction, End, Labels, Policy};
use crate::kube::{EndpointSlice, Ingress, Node, Pod, Service};
use crate::link::link_sentence;
use crate::node;
use crate::state::{Sentence, State};
use crate::topology::Links;
use crate::words::{Word, t};
use longshore_api::network::Protocol;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::sync::Arc;

/// All that is looked at.
pub struct World<'a> {
    pub pods: &'a [Arc<Pod>],
    pub namespaces: &'a BTreeMap<String, Labels>,
    pub policies: &'a [Policy],
    pub services: &'a [Service],
    pub slices: &'a [Arc<EndpointSlice>],
    pub nodes: &'a [Arc<Node>],
    pub ingresses: &'a [Ingress],
    pub links: &'a Links,
}

/// An end as it is chosen; as text it is `outside`, `outside:ADDRESS`, `pod:NAMESPACE/NAME` or `service:NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// None: any address.
    Outside(Option<IpAddr>),
    Pod(String, String),
    Service(String, String),
}

impl Party {
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let named = || rest.split_once('/').map(|(namespace, name)| (namespace.to_string(), name.to_string()));
        match kind {
            "outside" if rest.is_empty() => Some(Self::Outside(None)),
            "outside" => Some(Self::Outside(Some(rest.parse().ok()?))),
            "pod" => named().map(|(namespace, name)| Self::Pod(namespace, name)),
            "service" => named().map(|(namespace, name)| Self::Service(namespace, name)),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Outside(None) => t(Word::Outside).into(),
            Self::Outside(Some(ip)) => ip.to_string(),
            Self::Pod(_, name) | Self::Service(_, name) => name.clone(),
        }
    }
}

impl Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(None) => f.write_str("outside"),
            Self::Outside(Some(ip)) => write!(f, "outside:{ip}"),
            Self::Pod(namespace, name) => write!(f, "pod:{namespace}/{name}"),
            Self::Service(namespace, name) => write!(f, "service:{namespace}/{name}"),
        }
    }
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub what: Word,
    /// Failing: it stops here.
    pub state: State,
    pub text: String,
    pub details: Vec<String>,
    /// What to do about it.
    pub next: Option<String>,
    /// Policies to look at: namespace and name.
    pub policies: Vec<(String, String)>,
}

/// Who is reached at last.
struct Target {
    name: String,
    end: End,
    pod: Option<Arc<Pod>>,
    port: u16,
}

struct Walk<'a> {
    world: &'a World<'a>,
    from: &'a Party,
    sender: Option<(Arc<Pod>, End)>,
    steps: Vec<Step>,
}

/// Port: of a Service its own, of a pod the container's; none: the first that is declared.
pub fn why(world: &World, from: &Party, to: &Party, protocol: Protocol, port: Option<u16>) -> (Sentence, Vec<Step>) {
    let mut walk = Walk { world, from, sender: None, steps: Vec::new() };
    let arrived = walk.start() && walk.go(to, protocol, port);
    let names: [(&str, &dyn Display); 2] = [("a", &from.shown()), ("b", &to.shown())];
    let first = |state: State| walk.steps.iter().find(|step| step.state == state);
    let sentence = if let Some(step) = first(State::Failing) {
        Sentence::new(State::Failing, Word::ReachNot.with(&names)).evidence(&step.text)
    } else if let Some(step) = first(State::Unknown).or(first(State::Degraded)).filter(|_| arrived) {
        Sentence::new(State::Degraded, Word::ReachPerhaps.with(&names)).evidence(&step.text)
    } else {
        Sentence::new(State::Good, Word::ReachYes.with(&names))
    };
    (sentence, walk.steps)
}

impl Walk<'_> {
    fn say(&mut self, what: Word, state: State, text: impl Into<String>) -> &mut Step {
        let step = Step { what, state, text: text.into(), details: Vec::new(), next: None, policies: Vec::new() };
        self.steps.push(step);
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// Stops the connection.
    fn stop(&mut self, what: Word, text: impl Into<String>, next: Word) -> bool {
        self.say(what, State::Failing, text).next = Some(t(next).into());
        false
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let mut pods = self.world.pods.iter();
        pods.find(|p| p.metadata.name == name && p.metadata.namespace == namespace).cloned()
    }

    fn start(&mut self) -> bool {
        let Party::Pod(namespace, name) = self.from else { return true };
        let Some(pod) = self.pod(namespace, name) else {
            return self.stop(Word::StepSender, Word::ReachGone.with(&[("name", name)]), Word::NextChoose);
        };
        let end = End::of(&pod, self.world.namespaces);
        if pod.status.phase != "Running" {
            let text = Word::ReachNotRunning.with(&[("name", name), ("phase", &pod.status.phase)]);
            self.stop(Word::StepSender, text, Word::NextLookAtPods);
        }
        self.sender = Some((pod, end));
        true
    }

    fn go(&mut self, to: &Party, protocol: Protocol, port: Option<u16>) -> bool {
        match to {
            Party::Outside(address) => self.outside(*address, protocol, port.unwrap_or(443)),
            Party::Pod(namespace, name) => {
                let Some(pod) = self.pod(namespace, name) else {
                    return self.stop(Word::StepReceiver, Word::ReachGone.with(&[("name", name)]), Word::NextChoose);
                };
                let declared: Vec<u16> = declared(&pod, protocol);
                let port = port.or(declared.first().copied()).unwrap_or(80);
                if self.sender.is_none() {
                    self.entrance(&pod, port);
                }
                if pod.status.phase != "Running" || pod.status.pod_ip.is_empty() {
                    let text = Word::ReachNotRunning.with(&[("name", name), ("phase", &pod.status.phase)]);
                    self.stop(Word::StepReceiver, text, Word::NextLookAtPods);
                } else if declared.is_empty() || declared.contains(&port) {
                    let text = Word::ReachRuns.with(&[("name", name), ("address", &pod.status.pod_ip)]);
                    self.say(Word::StepReceiver, State::Good, text);
                } else {
                    let text = Word::ReachUndeclared.with(&[("name", name), ("port", &port)]);
                    self.say(Word::StepReceiver, State::Unknown, text);
                }
                let end = End::of(&pod, self.world.namespaces);
                let targets = [Target { name: name.clone(), end, pod: Some(pod), port }];
                self.finish(&targets, protocol, false)
            }
            Party::Service(namespace, name) => {
                let mut services = self.world.services.iter();
                let found = services.find(|s| s.metadata.name == *name && s.metadata.namespace == *namespace);
                match found {
                    Some(service) => self.service(service, port),
                    None => self.stop(Word::StepName, Word::ReachGone.with(&[("name", name)]), Word::NextChoose),
                }
            }
        }
    }

    fn outside(&mut self, address: Option<IpAddr>, protocol: Protocol, port: u16) -> bool {
        let target = Target { name: t(Word::Outside).into(), end: End { address, pod: None }, pod: None, port };
        self.policies(Direction::Egress, &[target], protocol);
        if let Some((pod, _)) = &self.sender {
            let text = Word::ReachOut.with(&[("node", &pod.spec.node_name)]);
            self.say(Word::StepPath, State::Good, text);
        }
        true
    }

    /// Whether anything leads to a pod from outside.
    fn entrance(&mut self, pod: &Pod, port: u16) {
        let mut ports = pod.spec.containers.iter().flat_map(|c| &c.ports);
        if let Some(port) = ports.find(|p| p.host_port > 0 && p.container_port == i64::from(port)) {
            let text = Word::ReachHostPort.with(&[("port", &port.host_port), ("node", &pod.spec.node_name)]);
            self.say(Word::StepEntrance, State::Good, text);
        } else {
            self.stop(Word::StepEntrance, t(Word::ReachNoEntrance), Word::NextEntrance);
        }
    }

    /// Policies at both ends, then the path.
    fn finish(&mut self, targets: &[Target], protocol: Protocol, by_edge: bool) -> bool {
        if self.sender.is_some() {
            self.policies(Direction::Egress, targets, protocol);
        }
        if by_edge {
            self.say(Word::StepIngress, State::Good, t(Word::ReachIngressFree));
        } else {
            self.policies(Direction::Ingress, targets, protocol);
        }
        self.path(targets);
        true
    }

    /// What the policies of one end say of all targets.
    fn policies(&mut self, direction: Direction, targets: &[Target], protocol: Protocol) {
        let outside = End { address: if let Party::Outside(ip) = self.from { *ip } else { None }, pod: None };
        let sender = self.sender.as_ref();
        let from = sender.map_or(&outside, |(_, end)| end);
        let (mut free, mut denied, mut partly) = (0, Vec::new(), false);
        let (mut allowing, mut forbidding) = (Vec::new(), Vec::new());
        for target in targets {
            let itself = sender.zip(target.pod.as_ref()).is_some_and(|((a, _), b)| a.metadata.uid == b.metadata.uid);
            let from_host = sender.zip(target.pod.as_ref()).is_some_and(|((a, _), b)| {
                a.spec.host_network && a.spec.node_name == b.spec.node_name && direction == Direction::Ingress
            });
            let (own, other) = match direction {
                Direction::Egress => (from, &target.end),
                Direction::Ingress => (&target.end, from),
            };
            let judged = policy::judge(self.world.policies, direction, own, other);
            if judged.isolating.is_empty() || itself || from_host {
                free += 1;
                continue;
            }
            let namespace = own.pod.as_ref().map(|pod| pod.namespace.clone()).unwrap_or_default();
            match judged.by(protocol, target.port) {
                Some((name, some)) => {
                    partly |= some;
                    note(&mut allowing, &namespace, name);
                }
                None => {
                    denied.push(format!("{}:{}", target.name, target.port));
                    judged.isolating.iter().for_each(|name| note(&mut forbidding, &namespace, name));
                }
            }
        }
        let list = |policies: &[(String, String)]| {
            policies.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let port = format!("{} {}", protocol.as_str(), targets.first().map_or(0, |target| target.port));
        let (what, none, next) = match direction {
            Direction::Egress => (Word::StepEgress, Word::ReachFreeOut, Word::NextEgress),
            Direction::Ingress => (Word::StepIngress, Word::ReachFreeIn, Word::NextIngress),
        };
        if !denied.is_empty() {
            let values: [(&str, &dyn Display); 4] =
                [("policies", &list(&forbidding)), ("port", &port), ("denied", &denied.len()), ("all", &targets.len())];
            let whole = denied.len() == targets.len();
            let word = match (whole, direction) {
                (false, _) => Word::ReachDeniedSome,
                (true, Direction::Egress) => Word::ReachDeniedOut,
                (true, Direction::Ingress) => Word::ReachDeniedIn,
            };
            let other = match direction {
                Direction::Egress => targets.first().map(|target| &target.end),
                Direction::Ingress => Some(from),
            };
            let next = next.with(&[("port", &port), ("peer", &other.map(peer).unwrap_or_default())]);
            let step = self.say(what, if whole { State::Failing } else { State::Degraded }, word.with(&values));
            step.details =
                if whole { vec![t(Word::ReachSilent).into()] } else { denied.into_iter().take(DETAILS).collect() };
            step.next = Some(next);
            step.policies = forbidding;
        } else if allowing.is_empty() || free == targets.len() {
            self.say(what, State::Good, t(none));
        } else {
            let word = if partly { Word::ReachAllowedSome } else { Word::ReachAllowed };
            let state = if partly { State::Degraded } else { State::Good };
            let text = word.with(&[("policies", &list(&allowing)), ("port", &port)]);
            self.say(what, state, text).policies = allowing;
        }
    }

    fn path(&mut self, targets: &[Target]) {
        let from = self.sender.as_ref().map(|(pod, _)| pod.spec.node_name.clone());
        let mut nodes: Vec<&str> =
            targets.iter().filter_map(|t| Some(t.pod.as_ref()?.spec.node_name.as_str())).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for to in nodes.into_iter().take(DETAILS) {
            let silent =
                from.iter().map(String::as_str).chain([to]).find(|name| !self.connected(name)).map(str::to_string);
            if let Some(node) = silent {
                let step = self.say(Word::StepPath, State::Unknown, Word::ReachAway.with(&[("node", &node)]));
                step.next = Some(t(Word::NextCheckAgent).into());
                continue;
            }
            let Some(from) = from.as_deref().filter(|from| *from != to) else {
                let word = if from.is_some() { Word::ReachSameNode } else { Word::ReachNodeThere };
                self.say(Word::StepPath, State::Good, word.with(&[("node", &to)]));
                continue;
            };
            let between = |a: &str, b: &str| self.world.links.get(a)?.iter().find(|link| link.node == b);
            let link = between(from, to).or_else(|| between(to, from)).map(link_sentence);
            let values: [(&str, &dyn Display); 2] = [("a", &from), ("b", &to)];
            match link {
                Some(said) => {
                    // Over the server is slower, and it is a way.
                    let text = format!("{} {}", Word::ReachNodes.with(&values), said.what);
                    self.say(Word::StepPath, State::Good, text).details = vec![said.how];
                }
                None => {
                    self.say(Word::StepPath, State::Idle, Word::ReachNoLink.with(&values));
                }
            }
        }
    }

    fn connected(&self, name: &str) -> bool {
        let found = self.world.nodes.iter().find(|node| node.metadata.name == name);
        found.is_some_and(|node| node::silent_since(node).is_none())
    }
}

/// Each policy once.
fn note(all: &mut Vec<(String, String)>, namespace: &str, name: &str) {
    if !all.iter().any(|(ns, n)| ns == namespace && n == name) {
        all.push((namespace.into(), name.into()));
    }
}

/// Lines below a step.
const DETAILS: usize = 6;

fn declared(pod: &Pod, protocol: Protocol) -> Vec<u16> {
    let ports = pod.spec.containers.iter().flat_map(|c| &c.ports);
    let of_protocol = ports.filter(|p| policy::protocol(&p.protocol) == Some(protocol));
    of_protocol.filter_map(|p| u16::try_from(p.container_port).ok()).collect()
}

/// An end as a rule would name it.
fn peer(end: &End) -> String {
    match (&end.pod, end.address) {
        (Some(pod), _) => {
            let labels = pod.labels.iter().filter(|(key, _)| *key != "pod-template-hash");
            let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
            format!("{} ({})", labels.join(", "), pod.namespace)
        }
        (None, Some(ip)) => ip.to_string(),
        (None, None) => "0.0.0.0/0".into(),
    }
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
