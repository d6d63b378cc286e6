//! How many pods of which sort are in which domain, kept up as pods come and go, so that no pod is ever counted twice.
//!
//! Selectors see of a pod only its namespace and labels, and other pods' decisions only its terms besides: pods that agree
//! in these are one *group*. What somebody counts (pods of some targets, per domain of a label, over some nodes) is a
//! *tally*; which groups a tally counts is decided once. A *term* counts the other way round: how many pods in a domain
//! say it, so that a newcomer who is meant by it finds out by one look.

use super::nodes::{Entry, Nodes};
use super::target::{Labels, Namespaces, Target};
use super::topology::{KeyId, NOWHERE, Topology};
use crate::projection::{Effect, Node, NodeAffinity, Pod, Toleration};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u32);
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TallyId(u32);
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TermId(u32);

#[derive(Debug)]
struct Group {
    /// One of them.
    pod: Arc<Pod>,
    tallies: Vec<TallyId>,
    terms: Vec<TermId>,
    /// How many there are on nodes.
    count: u64,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// A pod counts if it is meant by all of these.
    pub targets: Vec<Target>,
    /// Pods on their way out don't count.
    pub live: bool,
    pub key: KeyId,
    /// Only on these nodes; none: on all.
    pub nodes: Option<Eligibility>,
}

/// Which nodes count for a spread constraint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Eligibility {
    /// Labels that a node must have.
    pub keys: Vec<String>,
    pub selection: Option<(Labels, NodeAffinity)>,
    pub tolerations: Option<Vec<Toleration>>,
}

impl Eligibility {
    fn takes(&self, node: &Node) -> bool {
        let selected = |(labels, affinity): &(Labels, NodeAffinity)| selects(labels, affinity, node);
        self.keys.iter().all(|k| node.meta.labels.contains_key(k))
            && self.selection.as_ref().is_none_or(selected)
            && self.tolerations.as_ref().is_none_or(|t| tolerates_all(t, node))
    }
}

/// Whether a pod's selector and required node affinity take the node.
pub(super) fn selects(selector: &Labels, affinity: &NodeAffinity, node: &Node) -> bool {
    selector.iter().all(|(k, v)| node.meta.labels.get(k) == Some(v))
        && affinity.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
}

/// Whether none of the node's taints keeps the pod away.
pub(super) fn tolerates_all(tolerations: &[Toleration], node: &Node) -> bool {
    let hard = node.taints.iter().filter(|t| t.effect != Effect::PreferNoSchedule);
    hard.into_iter().all(|taint| tolerations.iter().any(|t| t.tolerates(taint)))
}

#[derive(Debug)]
pub(super) struct Tally {
    question: Question,
    /// By domain.
    counts: Vec<u32>,
    total: u64,
    /// By slot: whether the node counts. Kept only where some don't.
    eligible: Vec<bool>,
    /// By domain: nodes that count.
    nodes_in: Vec<u32>,
    domains: usize,
    /// The smallest count among domains that have nodes, and how many have it.
    least: Option<(u32, u32)>,
    /// Moves with every change that isn't only tried.
    pub version: u64,
}

impl Tally {
    pub fn key(&self) -> KeyId {
        self.question.key
    }

    pub fn count(&self, domain: u32) -> u32 {
        self.counts.get(domain as usize).copied().unwrap_or_default()
    }

    /// Over all domains.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many domains have nodes that count.
    pub fn domains(&self) -> usize {
        self.domains
    }

    /// The smallest count of a domain that has nodes that count; none if there is no such domain.
    pub fn least(&mut self) -> Option<u32> {
        if self.least.is_none() {
            let there = self.nodes_in.iter().enumerate().filter(|(_, n)| **n > 0).map(|(d, _)| self.count(d as u32));
            self.least = there.fold(None, |least, count| match least {
                Some((smallest, _)) if smallest < count => least,
                Some((smallest, many)) if smallest == count => Some((smallest, many + 1)),
                _ => Some((count, 1)),
            });
        }
        self.least.map(|(count, _)| count)
    }

    fn counts_node(&self, slot: u32) -> bool {
        self.question.nodes.is_none() || self.eligible.get(slot as usize).copied().unwrap_or_default()
    }

    fn change(&mut self, domain: u32, by: u32, up: bool) {
        if by == 0 {
            return;
        }
        let at = domain as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        let before = self.counts[at];
        let after = if up { before + by } else { before.saturating_sub(by) };
        self.counts[at] = after;
        self.total = if up { self.total + u64::from(by) } else { self.total.saturating_sub(u64::from(by)) };
        self.version += 1;
        if self.nodes_in.get(at).is_none_or(|n| *n == 0) {
            return;
        }
        self.least = match self.least {
            Some((least, 1)) if before == least && after > least => None,
            Some((least, many)) if before == least && after > least => Some((least, many - 1)),
            Some((least, _)) if after < least => Some((after, 1)),
            Some((least, many)) if after == least => Some((least, many + 1)),
            other => other,
        };
    }

    /// Takes a node in, or out, with all who are there.
    fn node(&mut self, id: TallyId, slot: u32, entry: &Entry, domain: u32, groups: &[Group], up: bool) {
        if let Some(nodes) = &self.question.nodes {
            let at = slot as usize;
            if self.eligible.len() <= at {
                self.eligible.resize(at + 1, false);
            }
            if up {
                self.eligible[at] = nodes.takes(&entry.node);
            }
        }
        if domain == NOWHERE || !self.counts_node(slot) {
            return;
        }
        let at = domain as usize;
        if self.nodes_in.len() <= at {
            self.nodes_in.resize(at + 1, 0);
        }
        let before = self.nodes_in[at];
        self.nodes_in[at] = if up { before + 1 } else { before.saturating_sub(1) };
        self.domains = match (before, self.nodes_in[at]) {
            (0, 1..) => self.domains + 1,
            (1.., 0) => self.domains - 1,
            _ => self.domains,
        };
        self.least = None;
        self.version += 1;
        let counted = entry.residents.iter().filter(|r| groups[r.group.0 as usize].tallies.contains(&id));
        let there = counted.map(|r| if self.question.live { r.live } else { r.all }).sum();
        self.change(domain, there, up);
    }
}

/// What pods say of each other, as others have to heed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Saying {
    pub target: Target,
    pub key: KeyId,
    pub tone: Tone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tone {
    /// Required anti-affinity: nobody of the target may come near.
    Refuses,
    /// Required affinity: they want to stay together, which draws others a little.
    Needs,
    /// A preference; negative: they would rather not.
    Likes(i64),
}

#[derive(Debug)]
struct Term {
    saying: Saying,
    /// By domain: how many pods there say it.
    counts: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    groups: Vec<Group>,
    group_ids: HashMap<u64, Vec<GroupId>>,
    tallies: Vec<Tally>,
    tally_ids: HashMap<Question, TallyId>,
    terms: Vec<Term>,
    term_ids: HashMap<Saying, TermId>,
    /// Groups of which there is nobody.
    empty: usize,
    /// Whether any target asks for labels of namespaces.
    pub asks_namespaces: bool,
    /// Changes are only tried: they leave versions as they are.
    pub trial: bool,
}

impl Counts {
    pub fn tally(&self, id: TallyId) -> &Tally {
        &self.tallies[id.0 as usize]
    }

    pub fn tally_mut(&mut self, id: TallyId) -> &mut Tally {
        &mut self.tallies[id.0 as usize]
    }

    /// Whether mostly what is no more is remembered.
    pub fn is_stale(&self) -> bool {
        self.empty > 1024 && self.empty > self.groups.len() / 2
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.groups.iter().any(|g| g.pod.meta.namespace == namespace)
    }

    /// The group of a pod, made where it is the first. `key` numbers a label.
    pub fn group(&mut self, pod: &Arc<Pod>, namespaces: &Namespaces, key: impl FnMut(&str) -> KeyId) -> GroupId {
        let mut hasher = DefaultHasher::new();
        (&pod.meta.namespace, &pod.meta.labels, &pod.affinity, &pod.anti_affinity).hash(&mut hasher);
        let hash = hasher.finish();
        let alike = |id: &&GroupId| {
            let other = &self.groups[id.0 as usize].pod;
            other.meta.namespace == pod.meta.namespace
                && other.meta.labels == pod.meta.labels
                && other.affinity == pod.affinity
                && other.anti_affinity == pod.anti_affinity
        };
        if let Some(id) = self.group_ids.get(&hash).and_then(|ids| ids.iter().find(alike)) {
            return *id;
        }
        let id = GroupId(self.groups.len() as u32);
        let terms = self.sayings(pod, key);
        let meant = |t: &Tally| t.question.targets.iter().all(|target| target.matches(pod, namespaces));
        let tallies = self.tallies.iter().enumerate().filter(|(_, t)| meant(t)).map(|(i, _)| TallyId(i as u32));
        self.groups.push(Group { pod: pod.clone(), tallies: tallies.collect(), terms, count: 0 });
        self.group_ids.entry(hash).or_default().push(id);
        self.empty += 1;
        id
    }

    fn sayings(&mut self, pod: &Pod, mut key: impl FnMut(&str) -> KeyId) -> Vec<TermId> {
        let required = |terms: &[crate::projection::PodTerm], tone: Tone| -> Vec<_> {
            terms.iter().map(|t| (t.clone(), tone)).collect()
        };
        let preferred = |terms: &[crate::projection::WeightedPodTerm], sign: i64| -> Vec<_> {
            terms.iter().map(|t| (t.term.clone(), Tone::Likes(sign * t.weight))).collect()
        };
        let all = required(&pod.anti_affinity.required, Tone::Refuses)
            .into_iter()
            .chain(required(&pod.affinity.required, Tone::Needs))
            .chain(preferred(&pod.affinity.preferred, 1))
            .chain(preferred(&pod.anti_affinity.preferred, -1));
        let sayings = all.map(|(term, tone)| Saying {
            target: Target::of(&term, &pod.meta.namespace),
            key: key(&term.topology_key),
            tone,
        });
        let sayings: Vec<Saying> = sayings.collect();
        sayings.into_iter().map(|saying| self.term(saying)).collect()
    }

    fn term(&mut self, saying: Saying) -> TermId {
        if let Some(id) = self.term_ids.get(&saying) {
            return *id;
        }
        self.asks_namespaces |= saying.target.asks_namespaces();
        let id = TermId(self.terms.len() as u32);
        self.terms.push(Term { saying: saying.clone(), counts: Vec::new() });
        self.term_ids.insert(saying, id);
        id
    }

    /// How many terms there are; [`Counts::terms_since`] gives those that came after.
    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    /// Terms from a number on that mean `pod`.
    pub fn terms_since(&self, from: usize, pod: &Pod, namespaces: &Namespaces) -> Vec<(TermId, Tone)> {
        let later = self.terms.iter().enumerate().skip(from);
        let meant = later.filter(|(_, t)| t.saying.target.matches(pod, namespaces));
        meant.map(|(i, t)| (TermId(i as u32), t.saying.tone)).collect()
    }

    /// How many pods that say `term` are in the domain of a node; 0 where the node has no such label.
    pub fn sayers(&self, term: TermId, topology: &Topology, slot: u32) -> u32 {
        let term = &self.terms[term.0 as usize];
        match topology.domain(term.saying.key, slot) {
            NOWHERE => 0,
            domain => term.counts.get(domain as usize).copied().unwrap_or_default(),
        }
    }

    /// The tally that answers a question, counted once where it is new.
    pub fn ask(&mut self, question: Question, nodes: &Nodes, topology: &Topology, namespaces: &Namespaces) -> TallyId {
        if let Some(id) = self.tally_ids.get(&question) {
            return *id;
        }
        let id = TallyId(self.tallies.len() as u32);
        self.asks_namespaces |= question.targets.iter().any(Target::asks_namespaces);
        for group in &mut self.groups {
            if question.targets.iter().all(|t| t.matches(&group.pod, namespaces)) {
                group.tallies.push(id);
            }
        }
        let mut tally = Tally {
            question: question.clone(),
            counts: Vec::new(),
            total: 0,
            eligible: Vec::new(),
            nodes_in: Vec::new(),
            domains: 0,
            least: None,
            version: 0,
        };
        for (slot, entry) in nodes.iter() {
            tally.node(id, slot, entry, topology.domain(tally.key(), slot), &self.groups, true);
        }
        self.tallies.push(tally);
        self.tally_ids.insert(question, id);
        id
    }

    /// So many more, or fewer, of a group are on nodes.
    pub fn population(&mut self, group: GroupId, by: u32, up: bool) {
        let group = &mut self.groups[group.0 as usize];
        let before = group.count;
        group.count = if up { before + u64::from(by) } else { before.saturating_sub(u64::from(by)) };
        match (before, group.count) {
            (0, 1..) => self.empty -= 1,
            (1.., 0) => self.empty += 1,
            _ => {}
        }
    }

    /// One pod of a group came to a node, or went.
    pub fn pod(&mut self, group: GroupId, live: bool, slot: u32, topology: &Topology, up: bool) {
        let group = &self.groups[group.0 as usize];
        for id in &group.tallies {
            let tally = &mut self.tallies[id.0 as usize];
            if (live || !tally.question.live) && tally.counts_node(slot) {
                let domain = topology.domain(tally.key(), slot);
                if domain != NOWHERE {
                    let version = tally.version;
                    tally.change(domain, 1, up);
                    if self.trial {
                        tally.version = version;
                    }
                }
            }
        }
        for id in &group.terms {
            let term = &mut self.terms[id.0 as usize];
            term.change(topology.domain(term.saying.key, slot), 1, up);
        }
    }

    /// A node came with all who are on it, or is about to go.
    pub fn node(&mut self, slot: u32, entry: &Entry, topology: &Topology, up: bool) {
        for (i, tally) in self.tallies.iter_mut().enumerate() {
            let domain = topology.domain(tally.key(), slot);
            tally.node(TallyId(i as u32), slot, entry, domain, &self.groups, up);
        }
        for residents in &entry.residents {
            for id in &self.groups[residents.group.0 as usize].terms {
                let term = &mut self.terms[id.0 as usize];
                term.change(topology.domain(term.saying.key, slot), residents.all, up);
            }
        }
    }
}

impl Term {
    fn change(&mut self, domain: u32, by: u32, up: bool) {
        if domain == NOWHERE {
            return;
        }
        let at = domain as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] = if up { self.counts[at] + by } else { self.counts[at].saturating_sub(by) };
    }
}
