//! Why a node won't do, in Kubernetes's words, and the sentences made of them.

use crate::projection::Resources;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Why a pod can't run on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Refusal {
    /// The pod names the nodes it may run on, and this is none of them.
    NotNamed,
    Cordoned,
    Tainted,
    NotSelected,
    PortsTaken,
    /// What of [`Demand`] is short, a bit for each; `ever`: the node has too little even when it is empty.
    Short {
        what: u64,
        ever: bool,
    },
    NoSpreadLabel,
    Skewed,
    NoCompany,
    BadCompany,
    /// Somebody there refuses the pod.
    Unwelcome,
}

impl Refusal {
    /// Whether nobody's going would change it.
    pub fn is_final(self) -> bool {
        match self {
            Self::PortsTaken | Self::Skewed | Self::BadCompany | Self::Unwelcome => false,
            Self::Short { ever, .. } => ever,
            _ => true,
        }
    }

    /// Kubernetes's words; more than one where several resources are short.
    pub fn reasons(self, demand: &Demand) -> Vec<Cow<'static, str>> {
        vec![Cow::Borrowed(match self {
            Self::NotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Self::Cordoned => "node(s) were unschedulable",
            Self::Tainted => "node(s) had untolerated taint(s)",
            Self::NotSelected => "node(s) didn't match Pod's node affinity/selector",
            Self::PortsTaken => "node(s) didn't have free ports for the requested pod ports",
            Self::Short { what, .. } => return demand.reasons(what),
            Self::NoSpreadLabel => "node(s) didn't match pod topology spread constraints (missing required label)",
            Self::Skewed => "node(s) didn't match pod topology spread constraints",
            Self::NoCompany => "node(s) didn't match pod affinity rules",
            Self::BadCompany => "node(s) didn't match pod anti-affinity rules",
            Self::Unwelcome => "node(s) didn't satisfy existing pods anti-affinity rules",
        })]
    }
}

/// What a pod asks of a node, in the order of the bits of [`Refusal::Short`] from the second on; the first is the pod
/// itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub requests: Resources,
    pub extended: Vec<(String, i64)>,
}

pub(super) const PODS: u64 = 1;
pub(super) const CPU: u64 = 2;
pub(super) const MEMORY: u64 = 4;
pub(super) const STORAGE: u64 = 8;
/// The bit of the first extended resource.
pub(super) const EXTENDED: u32 = 4;

impl Demand {
    pub fn of(requests: &Resources) -> Self {
        // Beyond sixty there are no bits left; nobody asks for that many.
        let extended = requests.extended.iter().filter(|(_, n)| **n > 0).take(60);
        Self { requests: requests.clone(), extended: extended.map(|(k, v)| (k.clone(), *v)).collect() }
    }

    fn reasons(&self, what: u64) -> Vec<Cow<'static, str>> {
        let named = [(PODS, "Too many pods"), (CPU, "Insufficient cpu"), (MEMORY, "Insufficient memory")];
        let named = named.into_iter().chain([(STORAGE, "Insufficient ephemeral-storage")]);
        let named = named.filter(|(bit, _)| what & bit != 0).map(|(_, text)| Cow::Borrowed(text));
        let extended = self.extended.iter().enumerate().filter(|(i, _)| what & (1 << (EXTENDED + *i as u32)) != 0);
        named.chain(extended.map(|(_, (name, _))| Cow::Owned(format!("Insufficient {name}")))).collect()
    }
}

/// How many nodes for which reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram(BTreeMap<String, usize>);

impl Histogram {
    pub fn add(&mut self, refusal: Refusal, demand: &Demand, nodes: usize) {
        for reason in refusal.reasons(demand) {
            self.say(&reason, nodes);
        }
    }

    pub fn say(&mut self, reason: &str, nodes: usize) {
        if nodes > 0 {
            match self.0.get_mut(reason) {
                Some(count) => *count += nodes,
                None => drop(self.0.insert(reason.to_string(), nodes)),
            }
        }
    }

    /// The most frequent first.
    pub fn by_count(self) -> Vec<(String, usize)> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`, sorted as texts.
    pub fn sentence(&self, nodes: usize) -> String {
        let mut parts: Vec<String> = self.0.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        format!("0/{nodes} nodes are available: {}.", parts.join(", "))
    }
}
