//! Where a pod can run at all.

use super::nodes::{Nodes, State};
use crate::projection::{Effect, Node, Pod, Taint};
use std::borrow::Cow;

/// Why a node won't do, and whether it never will (evicting others wouldn't help).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub reason: Cow<'static, str>,
    pub for_good: bool,
}

fn for_good(reason: &'static str) -> Refusal {
    Refusal { reason: Cow::Borrowed(reason), for_good: true }
}

/// Pods that ask for the same: what doesn't depend on who else is on a node is judged once for all of them.
pub(super) struct Class {
    /// Per node, why none of these pods may ever run there.
    refusals: Vec<Option<Refusal>>,
    /// Per node, the weight of preferred node affinities it meets.
    pub preference: Vec<i64>,
    /// Per node, how many `PreferNoSchedule` taints aren't tolerated.
    pub distaste: Vec<i64>,
    /// Set once one of them found no node in this batch.
    pub hopeless: Option<String>,
}

impl Class {
    /// All that filters and preferences depend on.
    pub fn name(pod: &Pod) -> String {
        format!(
            "{:?}{:?}{:?}{:?}{:?}",
            pod.node_selector, pod.node_affinity, pod.tolerations, pod.requests, pod.host_ports
        )
    }

    pub fn of(pod: &Pod, nodes: &Nodes) -> Self {
        let preference = |s: &State| {
            let met = pod.node_affinity.preferred.iter().filter(|p| p.preference.matches(&s.node));
            met.map(|p| p.weight).sum()
        };
        let distaste = |s: &State| {
            let disliked = |t: &&Taint| t.effect == Effect::PreferNoSchedule && !tolerates(pod, t);
            s.node.taints.iter().filter(disliked).count() as i64
        };
        Self {
            refusals: nodes.iter().map(|s| refusal(pod, &s.node)).collect(),
            preference: nodes.iter().map(preference).collect(),
            distaste: nodes.iter().map(distaste).collect(),
            hopeless: None,
        }
    }

    pub fn refusal(&self, index: usize) -> Option<&Refusal> {
        self.refusals[index].as_ref()
    }
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.tolerations.iter().any(|t| t.tolerates(taint))
}

/// What speaks against a node whoever else is there; the first reason in Kubernetes's order.
fn refusal(pod: &Pod, node: &Node) -> Option<Refusal> {
    let cordon = || Taint { key: "node.kubernetes.io/unschedulable".into(), ..Taint::default() };
    if node.unschedulable && !tolerates(pod, &cordon()) {
        return Some(for_good("node(s) were unschedulable"));
    }
    if node.taints.iter().any(|t| t.effect != Effect::PreferNoSchedule && !tolerates(pod, t)) {
        return Some(for_good("node(s) had untolerated taint(s)"));
    }
    let selected = pod.node_selector.iter().all(|(k, v)| node.meta.labels.get(k) == Some(v));
    let wanted = pod.node_affinity.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)));
    (!selected || !wanted).then(|| for_good("node(s) didn't match Pod's node affinity/selector"))
}

/// What is missing on a node now; empty if the pod fits.
pub(super) fn shortages(state: &State, pod: &Pod) -> Vec<Refusal> {
    let mut all = Vec::new();
    if pod.host_ports.iter().any(|p| state.usage.is_taken(p)) {
        let reason = Cow::Borrowed("node(s) didn't have free ports for the requested pod ports");
        return vec![Refusal { reason, for_good: false }];
    }
    let (has, taken, asked) = (state.allocatable(), &state.usage, &pod.requests);
    if taken.pods + 1 > has.pods {
        all.push(Refusal { reason: Cow::Borrowed("Too many pods"), for_good: false });
    }
    let mut check = |name: &str, asked: i64, has: i64, taken: i64| {
        if asked > 0 && asked > has - taken {
            all.push(Refusal { reason: Cow::Owned(format!("Insufficient {name}")), for_good: asked > has });
        }
    };
    check("cpu", asked.cpu, has.cpu, taken.requests.cpu);
    check("memory", asked.memory, has.memory, taken.requests.memory);
    check("ephemeral-storage", asked.ephemeral_storage, has.ephemeral_storage, taken.requests.ephemeral_storage);
    for (name, amount) in &asked.extended {
        let of = |r: &crate::projection::Resources| r.extended.get(name).copied().unwrap_or_default();
        check(name, *amount, of(has), of(&taken.requests));
    }
    all
}

/// How many feasible nodes are enough to choose among: all of a hundred, then a falling share, at least a hundred and at
/// least 5 % (Kubernetes's numbers). The next pod goes on where this one stopped.
fn enough(nodes: usize) -> usize {
    if nodes < 100 {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(100)
}

/// Nodes where the pod fits now.
pub(super) fn feasible(nodes: &Nodes, class: &Class, pod: &Pod, start: &mut usize) -> Vec<usize> {
    let (count, enough) = (nodes.len(), enough(nodes.len()));
    let mut found = Vec::new();
    for step in 0..count {
        let index = (*start + step) % count;
        if class.refusal(index).is_none() && shortages(nodes.get(index), pod).is_empty() {
            found.push(index);
            if found.len() >= enough && step + 1 < count {
                *start = (index + 1) % count;
                break;
            }
        }
    }
    found
}
