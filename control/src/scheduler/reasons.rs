//! Why a pod finds no node, as `kubectl describe` shows it: how many nodes for which reason.

use super::filter::{Class, shortages};
use super::nodes::Nodes;
use crate::projection::Pod;
use std::collections::BTreeMap;

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: …`
pub(super) fn no_node(nodes: &Nodes, class: &Class, pod: &Pod) -> String {
    let total = nodes.len();
    if total == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut helpless = 0;
    for index in 0..total {
        let refusals = match class.refusal(index) {
            Some(refusal) => vec![refusal.clone()],
            None => shortages(nodes.get(index), pod),
        };
        helpless += usize::from(refusals.iter().any(|r| r.for_good));
        for refusal in refusals {
            *counts.entry(refusal.reason.into_owned()).or_default() += 1;
        }
    }
    let preemption = [
        ("No preemption victims found for incoming pod".to_string(), total - helpless),
        ("Preemption is not helpful for scheduling".to_string(), helpless),
    ];
    format!(
        "{} preemption: {}",
        sentence(total, counts),
        sentence(total, preemption.into_iter().filter(|(_, n)| *n > 0))
    )
}

fn sentence(total: usize, counts: impl IntoIterator<Item = (String, usize)>) -> String {
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{total} nodes are available: {}.", parts.join(", "))
}
