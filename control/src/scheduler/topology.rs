//! Where nodes stand: for each label that somebody spreads by, which of its values ("domains") a node has.
//!
//! Values are numbered once, so that a look at a node is a look into an array and counts per domain are arrays.

use super::target::Labels;
use std::collections::HashMap;

/// No domain: the node lacks the label.
pub(super) const NOWHERE: u32 = u32::MAX;

pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyId(u32);

/// Each node a domain of its own, whatever its labels.
pub(super) const EACH_NODE: KeyId = KeyId(0);

#[derive(Debug)]
pub(super) struct Topology {
    keys: Vec<Key>,
    by_name: HashMap<String, KeyId>,
}

#[derive(Debug, Default)]
struct Key {
    name: String,
    domains: HashMap<String, u32>,
    /// By slot.
    of: Vec<u32>,
}

impl Default for Topology {
    fn default() -> Self {
        Self { keys: vec![Key::default()], by_name: HashMap::new() }
    }
}

impl Topology {
    /// The key of a label. A new one asks `nodes` (slots and labels) once.
    pub fn key<'a>(&mut self, name: &str, nodes: impl Iterator<Item = (u32, &'a Labels)>) -> KeyId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = KeyId(self.keys.len() as u32);
        let mut key = Key { name: name.to_string(), ..Key::default() };
        for (slot, labels) in nodes {
            let domain = key.number(labels);
            key.set(slot, domain);
        }
        self.keys.push(key);
        self.by_name.insert(name.to_string(), id);
        id
    }

    pub fn domain(&self, key: KeyId, slot: u32) -> u32 {
        self.keys[key.0 as usize].of.get(slot as usize).copied().unwrap_or(NOWHERE)
    }

    /// How many domains were ever seen: their numbers are below.
    pub fn domains(&self, key: KeyId) -> usize {
        let key = &self.keys[key.0 as usize];
        if key.name.is_empty() { key.of.len() } else { key.domains.len() }
    }

    /// How many more domains are remembered than a cluster of `nodes` can have.
    pub fn is_stale(&self, nodes: usize) -> bool {
        self.keys.iter().any(|k| k.domains.len() > 2 * nodes + 64)
    }

    /// The node of a slot has these labels now; none: there is no node any more.
    pub fn set(&mut self, slot: u32, labels: Option<&Labels>) {
        for key in &mut self.keys {
            let domain = match labels {
                None => NOWHERE,
                Some(_) if key.name.is_empty() => slot,
                Some(labels) => key.number(labels),
            };
            key.set(slot, domain);
        }
    }
}

impl Key {
    fn number(&mut self, labels: &Labels) -> u32 {
        let Some(value) = labels.get(&self.name) else { return NOWHERE };
        if let Some(domain) = self.domains.get(value) {
            return *domain;
        }
        let domain = self.domains.len() as u32;
        self.domains.insert(value.clone(), domain);
        domain
    }

    fn set(&mut self, slot: u32, domain: u32) {
        let slot = slot as usize;
        if self.of.len() <= slot {
            self.of.resize(slot + 1, NOWHERE);
        }
        self.of[slot] = domain;
    }
}
