//! The nodes, each with what it has and what is taken of it. A node keeps its slot for as long as it is there.

use super::counts::GroupId;
use super::score::digest;
use super::target::Labels;
use crate::projection::Node;
use crate::usage::Usage;
use crate::view::Item;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    slots: Vec<Option<Entry>>,
    by_name: BTreeMap<String, u32>,
    free: Vec<u32>,
    /// In which they are looked at: zone by zone in turn, so that the first hundred are spread already.
    order: Vec<u32>,
    stale: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub node: Item<Node>,
    pub usage: Usage,
    /// Who is there, by group.
    pub residents: Vec<Residents>,
    digest: u64,
}

/// Pods of one group on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Residents {
    pub group: GroupId,
    pub all: u32,
    /// Of them not on their way out.
    pub live: u32,
}

impl Entry {
    pub fn name(&self) -> &str {
        &self.node.meta.name
    }

    pub fn note(&mut self, group: GroupId, live: bool, up: bool) {
        let step = |count: u32, by: u32| if up { count + by } else { count.saturating_sub(by) };
        let at = match self.residents.iter().position(|r| r.group == group) {
            Some(at) => at,
            None => {
                self.residents.push(Residents { group, all: 0, live: 0 });
                self.residents.len() - 1
            }
        };
        let there = &mut self.residents[at];
        there.all = step(there.all, 1);
        there.live = step(there.live, u32::from(live));
        if there.all == 0 {
            self.residents.swap_remove(at);
        }
    }
}

impl Nodes {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn slot(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub fn get(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub fn name(&self, slot: u32) -> &str {
        self.get(slot).map_or("", Entry::name)
    }

    /// The node's name as a number.
    pub fn digest(&self, slot: u32) -> u64 {
        self.get(slot).map_or(0, |e| e.digest)
    }

    /// How many slots there are, empty ones included.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.slots.iter().enumerate().filter_map(|(i, e)| Some((i as u32, e.as_ref()?)))
    }

    pub fn labels(&self) -> impl Iterator<Item = (u32, &Labels)> {
        self.iter().map(|(slot, e)| (slot, &e.node.meta.labels))
    }

    pub fn insert(&mut self, node: Item<Node>) -> u32 {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.by_name.insert(node.meta.name.clone(), slot);
        let digest = digest(&node.meta.name);
        self.slots[slot as usize] = Some(Entry { node, usage: Usage::default(), residents: Vec::new(), digest });
        self.stale = true;
        slot
    }

    pub fn remove(&mut self, name: &str) {
        if let Some(slot) = self.by_name.remove(name) {
            self.slots[slot as usize] = None;
            self.free.push(slot);
            self.stale = true;
        }
    }

    /// A node's object changed; in its zone too, it may be.
    pub fn replace(&mut self, slot: u32, node: Item<Node>) {
        if let Some(entry) = self.get_mut(slot) {
            let moved = entry.node.zone_key() != node.zone_key();
            entry.node = node;
            self.stale |= moved;
        }
    }

    /// Brings the order up to date.
    pub fn settle(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let mut zones: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for slot in self.by_name.values() {
            let zone = self.get(*slot).map(|e| e.node.zone_key()).unwrap_or_default();
            zones.entry(zone).or_default().push(*slot);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or_default();
        let order = (0..longest).flat_map(|i| zones.values().filter_map(move |z| z.get(i).copied()));
        self.order = order.collect();
    }

    pub fn order(&self) -> &[u32] {
        &self.order
    }
}
