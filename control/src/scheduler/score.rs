//! Which of the nodes that would do is best.

use super::filter::Class;
use super::nodes::{Nodes, State};
use crate::projection::Pod;
use crate::usage::likely;
use crate::view::{Item, View};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Every part counts from 0 to this.
const BEST: i64 = 100;
/// How much the parts weigh against each other: Kubernetes's weights.
const FREE: i64 = 1;
const BALANCE: i64 = 1;
const PREFERENCE: i64 = 2;
const SPREAD: i64 = 2;
const TAINTS: i64 = 3;

/// Compared field by field; the draw only among equals.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    points: i64,
    draw: u64,
    index: usize,
}

/// The best of `found`; none if it is empty.
pub(super) fn best(
    nodes: &Nodes,
    groups: &mut Groups<'_>,
    class: &Class,
    pod: &Item<Pod>,
    found: &[usize],
    seed: u64,
) -> Option<usize> {
    if found.len() < 2 {
        return found.first().copied();
    }
    let spread = groups.spread(pod, nodes, found);
    let most = |values: &[i64]| found.iter().map(|i| values[*i]).max().unwrap_or_default().max(1);
    let (most_preferred, most_disliked) = (most(&class.preference), most(&class.distaste));
    let score = |(at, &index): (usize, &usize)| {
        let state = nodes.get(index);
        let (free, balance) = room(state, pod);
        let points = FREE * free
            + BALANCE * balance
            + PREFERENCE * (BEST * class.preference[index] / most_preferred)
            + SPREAD * spread[at]
            + TAINTS * (BEST - BEST * class.distaste[index] / most_disliked);
        Score { points, draw: draw(seed, &pod.meta.uid, &state.node.meta.name), index }
    };
    found.iter().enumerate().map(score).max().map(|s| s.index)
}

/// How much would stay free, and how evenly CPU and memory would be used.
fn room(state: &State, pod: &Pod) -> (i64, i64) {
    let (cpu, memory) = likely(pod);
    let has = state.allocatable();
    let parts = [(has.cpu, state.usage.likely_cpu + cpu), (has.memory, state.usage.likely_memory + memory)];
    let free = |(has, used): (i64, i64)| {
        if has <= 0 || used > has { 0 } else { (i128::from(has - used) * i128::from(BEST) / i128::from(has)) as i64 }
    };
    let [cpu, memory] = parts.map(free);
    ((cpu + memory) / 2, BEST - (cpu - memory).abs() / 2)
}

/// FNV-1a over seed, pod and node, mixed once more: a draw that anyone can repeat.
fn draw(seed: u64, pod: &str, node: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = pod.bytes().chain([0]).chain(node.bytes()).fold(0xcbf2_9ce4_8422_2325 ^ seed, step);
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Pods that belong together (of one owner, or else behind the same Services), and how many of them are where.
pub(super) struct Groups<'a> {
    view: &'a View,
    groups: HashMap<String, Group>,
}

#[derive(Default)]
struct Group {
    by_node: BTreeMap<usize, i64>,
    by_zone: BTreeMap<String, i64>,
}

impl Group {
    fn add(&mut self, index: usize, nodes: &Nodes) {
        *self.by_node.entry(index).or_default() += 1;
        *self.by_zone.entry(nodes.get(index).zone.clone()).or_default() += 1;
    }
}

impl<'a> Groups<'a> {
    pub fn new(view: &'a View) -> Self {
        Self { view, groups: HashMap::new() }
    }

    fn group(&mut self, pod: &Pod, nodes: &Nodes) -> Option<&mut Group> {
        let (name, members): (String, Box<dyn FnOnce(&View) -> Vec<Item<Pod>>>) = match pod.meta.controller() {
            Some(owner) => {
                let uid = owner.uid.clone();
                (uid.clone(), Box::new(move |view: &View| view.controlled::<Pod>(&uid).collect()))
            }
            None => {
                let services = self.view.services_selecting(&pod.meta.namespace, &pod.meta.labels);
                let names: BTreeSet<String> = services.iter().map(|s| s.meta.name.clone()).collect();
                if names.is_empty() {
                    return None;
                }
                let namespace = pod.meta.namespace.clone();
                let name = format!("{namespace}/{}", names.into_iter().collect::<Vec<_>>().join(","));
                let members = move |view: &View| {
                    let selectors = services.iter().filter_map(|s| s.selector.as_ref());
                    let found = selectors.flat_map(|s| view.pods_selected(&namespace, s));
                    found.map(|p| (p.key.clone(), p)).collect::<BTreeMap<_, _>>().into_values().collect()
                };
                (name, Box::new(members))
            }
        };
        let view = self.view;
        Some(self.groups.entry(name).or_insert_with(|| {
            let mut group = Group::default();
            for member in members(view).into_iter().filter(|p| p.is_active()) {
                if let Some(index) = nodes.index(&member.node_name) {
                    group.add(index, nodes);
                }
            }
            group
        }))
    }

    pub fn place(&mut self, pod: &Pod, index: usize, nodes: &Nodes) {
        if let Some(group) = self.group(pod, nodes) {
            group.add(index, nodes);
        }
    }

    /// For each of `found`, how well it spreads the pod's group over nodes and (twice as much) zones.
    fn spread(&mut self, pod: &Pod, nodes: &Nodes, found: &[usize]) -> Vec<i64> {
        let Some(group) = self.group(pod, nodes) else { return vec![BEST; found.len()] };
        let on = |index: &usize| group.by_node.get(index).copied().unwrap_or_default();
        let in_zone = |index: &usize| group.by_zone.get(&nodes.get(*index).zone).copied().unwrap_or_default();
        let (most_on, most_in) = (found.iter().map(on).max(), found.iter().map(in_zone).max());
        let zones: BTreeSet<&str> = found.iter().map(|i| nodes.get(*i).zone.as_str()).collect();
        let part = |count: i64, most: Option<i64>| match most {
            Some(most) if most > 0 => BEST * (most - count) / most,
            _ => BEST,
        };
        let score = |index: &usize| {
            let over_nodes = part(on(index), most_on);
            if zones.len() < 2 { over_nodes } else { (over_nodes + 2 * part(in_zone(index), most_in)) / 3 }
        };
        found.iter().map(score).collect()
    }
}
