//! What the scheduler knows of a cluster, kept up change by change.
//!
//! It is a function of the view alone: whatever came and went on the way, the state is the one that a fresh start would
//! make (only numbers of slots, groups and the like differ). What a batch tries out on it is taken back before the batch
//! ends, so that only what the log says ever stays.

use super::counts::{Counts, GroupId, Question, TallyId};
use super::nodes::Nodes;
use super::target::Namespaces;
use super::topology::{KeyId, NOWHERE, Topology};
use crate::action::ObjectKey;
use crate::projection::{Node, Pod};
use crate::view::Item;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct State {
    pub nodes: Nodes,
    pub topology: Topology,
    pub counts: Counts,
    pub namespaces: Namespaces,
    /// Pods by the node they are bound to, whether or not it is there.
    pods: HashMap<String, BTreeMap<Arc<ObjectKey>, Item<Pod>>>,
    /// Pods that room was made for, by node.
    nominated: HashMap<String, Vec<Item<Pod>>>,
    images: Images,
    /// How often a pod was moved only to see what would be.
    pub tried: usize,
}

/// Which nodes have which image, for what a download would cost.
#[derive(Debug, Default)]
pub(super) struct Images {
    by_name: HashMap<String, BTreeMap<u32, i64>>,
    /// Moves with every change of images or of the number of nodes.
    pub version: u64,
}

impl Images {
    /// Slots and sizes.
    pub fn of(&self, name: &str) -> Option<&BTreeMap<u32, i64>> {
        self.by_name.get(name)
    }

    fn change(&mut self, slot: u32, node: &Node, up: bool) {
        self.version += 1;
        for image in &node.images {
            for name in &image.names {
                if up {
                    self.by_name.entry(name.clone()).or_default().insert(slot, image.size);
                } else if let Some(slots) = self.by_name.get_mut(name) {
                    slots.remove(&slot);
                    if slots.is_empty() {
                        self.by_name.remove(name);
                    }
                }
            }
        }
    }
}

/// What of a node decides who can run there.
fn same_shape(a: &Node, b: &Node) -> bool {
    a.unschedulable == b.unschedulable
        && a.taints == b.taints
        && a.meta.labels == b.meta.labels
        && a.allocatable == b.allocatable
}

impl State {
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The number of a label.
    pub fn key(&mut self, name: &str) -> KeyId {
        self.topology.key(name, self.nodes.labels())
    }

    /// Adds a node, or takes its change in. The slot, where anything about it is new that pods are judged by.
    pub fn put_node(&mut self, node: Item<Node>) -> Option<u32> {
        let name = node.meta.name.clone();
        let Some(slot) = self.nodes.slot(&name) else {
            let slot = self.nodes.insert(node.clone());
            self.topology.set(slot, Some(&node.meta.labels));
            self.images.change(slot, &node, true);
            let there: Vec<Item<Pod>> = self.pods.get(&name).into_iter().flat_map(|p| p.values().cloned()).collect();
            for pod in &there {
                let group = self.group(&pod.object);
                if let Some(entry) = self.nodes.get_mut(slot) {
                    entry.usage.add(pod);
                    entry.note(group, !pod.meta.is_terminating(), true);
                }
            }
            self.count_node(slot, true);
            return Some(slot);
        };
        let before = self.nodes.get(slot)?.node.clone();
        if before.images != node.images {
            self.images.change(slot, &before, false);
            self.images.change(slot, &node, true);
        }
        if same_shape(&before, &node) {
            self.nodes.replace(slot, node);
            return None;
        }
        self.count_node(slot, false);
        self.topology.set(slot, Some(&node.meta.labels));
        self.nodes.replace(slot, node);
        self.count_node(slot, true);
        Some(slot)
    }

    fn count_node(&mut self, slot: u32, up: bool) {
        if let Some(entry) = self.nodes.get(slot) {
            self.counts.node(slot, entry, &self.topology, up);
            for residents in &entry.residents {
                self.counts.population(residents.group, residents.all, up);
            }
        }
    }

    /// The slot that it had.
    pub fn remove_node(&mut self, name: &str) -> Option<u32> {
        let slot = self.nodes.slot(name)?;
        self.count_node(slot, false);
        if let Some(entry) = self.nodes.get(slot) {
            self.images.change(slot, &entry.node, false);
        }
        self.topology.set(slot, None);
        self.nodes.remove(name);
        Some(slot)
    }

    pub fn group(&mut self, pod: &Arc<Pod>) -> GroupId {
        let Self { counts, namespaces, topology, nodes, .. } = self;
        counts.group(pod, namespaces, |name| topology.key(name, nodes.labels()))
    }

    /// A pod bound to its node, as the log has it.
    pub fn put_pod(&mut self, pod: &Item<Pod>) {
        self.pods.entry(pod.node_name.clone()).or_default().insert(pod.key.clone(), pod.clone());
        if let Some(slot) = self.nodes.slot(&pod.node_name) {
            let group = self.group(&pod.object);
            self.move_pod(slot, group, pod, true);
        }
    }

    pub fn remove_pod(&mut self, pod: &Item<Pod>) {
        if let Some(there) = self.pods.get_mut(&pod.node_name) {
            there.remove(&pod.key);
            if there.is_empty() {
                self.pods.remove(&pod.node_name);
            }
        }
        if let Some(slot) = self.nodes.slot(&pod.node_name) {
            let group = self.group(&pod.object);
            self.move_pod(slot, group, pod, false);
        }
    }

    /// A newer state of a pod of which nothing changed that counts.
    pub fn replace_pod(&mut self, pod: &Item<Pod>) {
        if let Some(there) = self.pods.get_mut(&pod.node_name) {
            there.insert(pod.key.clone(), pod.clone());
        }
    }

    /// Pods bound to a node, by name.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Item<Pod>> {
        self.pods.get(node).into_iter().flat_map(|p| p.values())
    }

    /// Counts a pod in on a node, or out, only to see what would be: the opposite follows before anything is decided.
    pub fn try_pod(&mut self, slot: u32, group: GroupId, pod: &Pod, up: bool) {
        self.tried += 1;
        self.counts.trial = true;
        self.move_pod(slot, group, pod, up);
        self.counts.trial = false;
    }

    /// Counts a pod in on a node, or out.
    pub fn move_pod(&mut self, slot: u32, group: GroupId, pod: &Pod, up: bool) {
        let live = !pod.meta.is_terminating();
        let Some(entry) = self.nodes.get_mut(slot) else { return };
        if up {
            entry.usage.add(pod);
        } else {
            entry.usage.subtract(pod);
        }
        entry.note(group, live, up);
        self.counts.population(group, 1, up);
        self.counts.pod(group, live, slot, &self.topology, up);
    }

    /// Room was made for a pod. Its terms are known from now on, so that whoever is tried beside it heeds them.
    pub fn nominate(&mut self, node: &str, pod: &Item<Pod>) {
        self.group(&pod.object);
        self.nominated.entry(node.to_string()).or_default().push(pod.clone());
    }

    /// Whether room was kept for it there.
    pub fn withdraw(&mut self, node: &str, pod: &Item<Pod>) -> bool {
        let Some(there) = self.nominated.get_mut(node) else { return false };
        let before = there.len();
        there.retain(|p| p.key != pod.key);
        let was_there = there.len() < before;
        if there.is_empty() {
            self.nominated.remove(node);
        }
        was_there
    }

    pub fn has_nominated(&self, slot: u32) -> bool {
        !self.nominated.is_empty() && self.nominated.contains_key(self.nodes.name(slot))
    }

    /// Pods that room was made for on a node.
    pub fn nominated_on(&self, node: &str) -> &[Item<Pod>] {
        self.nominated.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn ask(&mut self, question: Question) -> TallyId {
        self.counts.ask(question, &self.nodes, &self.topology, &self.namespaces)
    }

    /// The domain of a node under a tally's label, and the count there; none where the node has no such label.
    pub fn count(&self, tally: TallyId, slot: u32) -> Option<u32> {
        let tally = self.counts.tally(tally);
        let domain = self.topology.domain(tally.key(), slot);
        (domain != NOWHERE).then(|| tally.count(domain))
    }

    /// Whether a fresh start would free much.
    pub fn is_stale(&self) -> bool {
        self.counts.is_stale() || self.topology.is_stale(self.nodes.len())
    }
}
