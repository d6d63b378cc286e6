//! Who the peers of policies are: the address sets that nodes are told of ([`longshore_api::network_policy`]), kept up as
//! pods, namespaces and policies change. Pure.
//!
//! A set belongs to what it is of (these namespaces and pods, that name of a port), not to a policy: policies that say the
//! same of their peers share it. A change of a pod looks at the sets that take pods of its namespace, and at no policy; a
//! change of a policy looks at pods only for sets that nobody had before.
//!
//! Pods in the host's network have no address of their own: no selector means them. A pod that is done counts no more; one
//! that ends counts until it is gone.

mod spec;
#[cfg(test)]
mod tests;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use longshore_api::network::{Frame, Key, Name, Protocol};
use longshore_api::network_policy::{Part, Peers, Policy};
use longshore_api::selector::LabelSelector;
use longshore_control::projection::Pod;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

type Labels = BTreeMap<String, String>;
type SetId = Arc<str>;

/// What a set is of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Pods {
        namespaces: Namespaces,
        pods: LabelSelector,
    },
    /// Where any pod has a port of this name.
    Port {
        protocol: Protocol,
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Namespaces {
    One(String),
    Labelled(LabelSelector),
}

/// An address, and a port in sets of ports (0 in others).
type Member = (IpAddr, u16);

struct Set {
    wanted: Wanted,
    /// How many policies name it.
    users: usize,
    /// By the parts' first addresses. Two pods have one address where the one isn't known to be gone yet.
    parts: HashMap<IpAddr, BTreeMap<Member, usize>>,
}

/// Where pods live.
#[derive(Default)]
struct Home {
    pods: HashMap<String, Arc<Pod>>,
    /// The sets that may have pods from here.
    takers: BTreeSet<SetId>,
}

#[derive(Default)]
pub struct Policies {
    policies: HashMap<Name, (Policy, BTreeSet<SetId>)>,
    sets: HashMap<SetId, Set>,
    namespaces: HashMap<String, Labels>,
    /// Those with pods.
    homes: HashMap<String, Home>,
    /// What may be other than when it was last asked for.
    touched_parts: BTreeSet<Part>,
    touched_policies: BTreeSet<Name>,
}

impl Policies {
    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    pub fn set_policy(&mut self, name: Name, policy: Option<NetworkPolicy>) {
        let policy = policy.map(|policy| spec::policy(name.clone(), policy.spec.unwrap_or_default()));
        if policy.as_ref().map(|(policy, _)| policy) == self.policies.get(&name).map(|(policy, _)| policy) {
            return;
        }
        self.touched_policies.insert(name.clone());
        // Sets that stay in use stay as they are.
        let after = policy.map(|(policy, wanted)| {
            let ids = wanted.keys().cloned().collect();
            wanted.into_iter().for_each(|(id, wanted)| self.use_set(id, wanted));
            (policy, ids)
        });
        let before = match after {
            Some(after) => self.policies.insert(name, after),
            None => self.policies.remove(&name),
        };
        before.into_iter().flat_map(|(_, sets)| sets).for_each(|id| self.leave_set(&id));
    }

    fn use_set(&mut self, id: SetId, wanted: Wanted) {
        if let Some(set) = self.sets.get_mut(&id) {
            set.users += 1;
            return;
        }
        let mut set = Set { wanted, users: 1, parts: HashMap::new() };
        for (namespace, home) in &mut self.homes {
            if set.wanted.takes_from(namespace, self.namespaces.get(namespace)) {
                home.takers.insert(id.clone());
                let pods = home.pods.values().map(|pod| &**pod);
                pods.for_each(|pod| set.change(&id, None, Some(pod), &mut self.touched_parts));
            }
        }
        self.sets.insert(id, set);
    }

    fn leave_set(&mut self, id: &SetId) {
        let Some(set) = self.sets.get_mut(id) else { return };
        set.users -= 1;
        if set.users > 0 {
            return;
        }
        self.touched_parts.extend(set.parts.keys().map(|of| Part { set: id.to_string(), of: *of }));
        self.sets.remove(id);
        for home in self.homes.values_mut() {
            home.takers.remove(id);
        }
    }

    /// None: it is no more, or never was.
    pub fn set_pod(&mut self, namespace: &str, name: &str, pod: Option<Arc<Pod>>) {
        let pod = pod.filter(|pod| !pod.host_network && !pod.is_finished() && !pod.ips.is_empty());
        if pod.is_none() && !self.homes.get(namespace).is_some_and(|home| home.pods.contains_key(name)) {
            return;
        }
        let home = self.homes.entry(namespace.to_owned()).or_insert_with(|| {
            let labels = self.namespaces.get(namespace);
            let takers = self.sets.iter().filter(|(_, set)| set.wanted.takes_from(namespace, labels));
            Home { pods: HashMap::new(), takers: takers.map(|(id, _)| id.clone()).collect() }
        });
        let before = match &pod {
            Some(pod) => home.pods.insert(name.to_owned(), pod.clone()),
            None => home.pods.remove(name),
        };
        // Most of what a pod says of itself is no news to anybody.
        if before.as_ref().zip(pod.as_ref()).is_some_and(|(before, pod)| alike(before, pod)) {
            return;
        }
        for id in &home.takers {
            if let Some(set) = self.sets.get_mut(id) {
                set.change(id, before.as_deref(), pod.as_deref(), &mut self.touched_parts);
            }
        }
        if home.pods.is_empty() {
            self.homes.remove(namespace);
        }
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        if self.namespaces.get(name) == labels {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        let Some(home) = self.homes.get_mut(name) else { return };
        for (id, set) in &mut self.sets {
            let (took, takes) = (home.takers.contains(id), set.wanted.takes_from(name, labels));
            if took == takes {
                continue;
            }
            match takes {
                true => home.takers.insert(id.clone()),
                false => home.takers.remove(id),
            };
            for pod in home.pods.values() {
                let (before, after) = if takes { (None, Some(&**pod)) } else { (Some(&**pod), None) };
                set.change(id, before, after, &mut self.touched_parts);
            }
        }
    }

    /// What changed since this was last asked, as units: policies after the sets that they name.
    pub fn changes(&mut self) -> Vec<(Key, Option<Frame>)> {
        let parts = std::mem::take(&mut self.touched_parts);
        let policies = std::mem::take(&mut self.touched_policies);
        let parts = parts.into_iter().map(|part| {
            let peers = self.sets.get(part.set.as_str()).and_then(|set| set.peers(&part));
            (Key::Peers(part), peers.map(Frame::Peers))
        });
        let policies = policies.into_iter().map(|name| {
            let policy = self.policies.get(&name).map(|(policy, _)| Frame::Policy(policy.clone()));
            (Key::Policy(name), policy)
        });
        parts.chain(policies).collect()
    }
}

/// Whether no set can tell them apart.
fn alike(one: &Pod, other: &Pod) -> bool {
    one.meta.labels == other.meta.labels && one.ips == other.ips && one.ports == other.ports
}

impl Wanted {
    /// Whether pods of a namespace may be in it.
    fn takes_from(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        match self {
            Self::Pods { namespaces: Namespaces::One(one), .. } => one == namespace,
            Self::Pods { namespaces: Namespaces::Labelled(selector), .. } => {
                selector.matches(labels.unwrap_or(&Labels::new()))
            }
            Self::Port { .. } => true,
        }
    }

    /// What a pod of such a namespace is in it.
    fn members(&self, pod: &Pod) -> BTreeSet<Member> {
        let ips = || pod.ips.iter().filter_map(|ip| ip.parse().ok());
        match self {
            Self::Pods { pods, .. } if pods.matches(&pod.meta.labels) => ips().map(|ip| (ip, 0)).collect(),
            Self::Pods { .. } => BTreeSet::new(),
            Self::Port { protocol, name } => {
                let named = pod
                    .ports
                    .iter()
                    .filter(|port| port.name == *name && spec::protocol(&port.protocol) == Some(*protocol));
                let ports = named.filter_map(|port| u16::try_from(port.port).ok());
                ports.flat_map(|port| ips().map(move |ip| (ip, port))).collect()
            }
        }
    }
}

impl Set {
    fn change(&mut self, id: &SetId, before: Option<&Pod>, after: Option<&Pod>, touched: &mut BTreeSet<Part>) {
        let members = |pod: Option<&Pod>| pod.map(|pod| self.wanted.members(pod)).unwrap_or_default();
        let (before, after) = (members(before), members(after));
        for member in after.difference(&before) {
            let part = Part::new(&**id, member.0);
            let count = self.parts.entry(part.of).or_default().entry(*member).or_default();
            *count += 1;
            if *count == 1 {
                touched.insert(part);
            }
        }
        for member in before.difference(&after) {
            let part = Part::new(&**id, member.0);
            let Some(members) = self.parts.get_mut(&part.of) else { continue };
            if let Some(count) = members.get_mut(member) {
                *count -= 1;
                if *count == 0 {
                    members.remove(member);
                    if members.is_empty() {
                        self.parts.remove(&part.of);
                    }
                    touched.insert(part);
                }
            }
        }
    }

    fn peers(&self, part: &Part) -> Option<Peers> {
        let members = self.parts.get(&part.of)?.keys();
        let mut peers = Peers { part: part.clone(), addresses: Vec::new(), ports: Vec::new() };
        match self.wanted {
            Wanted::Pods { .. } => peers.addresses = members.map(|(ip, _)| *ip).collect(),
            Wanted::Port { .. } => peers.ports = members.map(|(ip, port)| SocketAddr::new(*ip, *port)).collect(),
        }
        Some(peers)
    }
}
