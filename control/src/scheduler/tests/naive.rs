//! The required rules once more, written as plainly as they are documented, to check the scheduler by: no counts kept, no
//! classes, every pod looked at each time.

use super::*;
use crate::projection::{Effect, PodTerm, SpreadConstraint};

/// Who is where.
#[derive(Clone, Default)]
pub struct Naive {
    pub nodes: BTreeMap<String, Item<Node>>,
    pub pods: Vec<(Item<Pod>, String)>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Naive {
    pub fn of(view: &View) -> Self {
        let runs = |p: &Item<Pod>| !p.node_name.is_empty() && !p.is_finished();
        Self {
            nodes: view.list::<Node>().map(|n| (n.meta.name.clone(), n)).collect(),
            pods: view.list::<Pod>().filter(runs).map(|p| (p.clone(), p.node_name.clone())).collect(),
            namespaces: view.list::<Namespace>().map(|n| (n.meta.name.clone(), n.meta.labels.clone())).collect(),
        }
    }

    fn means(&self, term: &PodTerm, home: &str, pod: &Pod) -> bool {
        let namespace = &pod.meta.namespace;
        let none = BTreeMap::new();
        let labels = self.namespaces.get(namespace).unwrap_or(&none);
        let here = match (&term.namespaces[..], &term.namespace_selector) {
            ([], None) => namespace == home,
            (names, selector) => names.contains(namespace) || selector.as_ref().is_some_and(|s| s.matches(labels)),
        };
        here && term.selector.as_ref().is_some_and(|s| s.matches(&pod.meta.labels))
    }

    fn value(&self, node: &str, key: &str) -> Option<&String> {
        self.nodes.get(node)?.meta.labels.get(key)
    }

    /// Whether two nodes are in one domain.
    fn together(&self, a: &str, b: &str, key: &str) -> bool {
        self.value(a, key).is_some_and(|value| self.value(b, key) == Some(value))
    }

    fn tolerated(pod: &Pod, node: &Node) -> bool {
        node.taints
            .iter()
            .filter(|t| t.effect != Effect::PreferNoSchedule)
            .all(|t| pod.tolerations.iter().any(|toleration| toleration.tolerates(t)))
    }

    fn selected(pod: &Pod, node: &Node) -> bool {
        pod.node_selector.iter().all(|(k, v)| node.meta.labels.get(k) == Some(v))
            && pod.node_affinity.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
    }

    fn spreads(&self, pod: &Pod, node: &str, constraint: &SpreadConstraint) -> bool {
        let Some(value) = self.value(node, &constraint.topology_key) else { return false };
        let all: Vec<&SpreadConstraint> = pod.spread.iter().filter(|c| c.required).collect();
        let counts = |n: &Node| {
            all.iter().all(|c| n.meta.labels.contains_key(&c.topology_key))
                && (!constraint.honors_affinity || Self::selected(pod, n))
                && (!constraint.honors_taints || Self::tolerated(pod, n))
        };
        let matching = |p: &Pod| {
            let selector = constraint.selector.as_ref().filter(|s| !s.0.is_empty());
            p.meta.namespace == pod.meta.namespace
                && !p.meta.is_terminating()
                && selector.is_some_and(|s| s.matches(&p.meta.labels))
        };
        let mut domains: BTreeMap<&String, i64> = BTreeMap::new();
        for n in self.nodes.values().filter(|n| counts(n)) {
            let there = self.pods.iter().filter(|(p, on)| *on == n.meta.name && matching(p)).count();
            *domains.entry(&n.meta.labels[&constraint.topology_key]).or_default() += there as i64;
        }
        let least = domains.values().min().copied().unwrap_or(i64::MAX / 2);
        let least = if (domains.len() as i64) < constraint.min_domains.unwrap_or(1) { 0 } else { least };
        let own = constraint.selector.as_ref().is_some_and(|s| s.matches(&pod.meta.labels));
        domains.get(value).copied().unwrap_or_default() + i64::from(own) - least <= constraint.max_skew
    }

    /// Whether a pod may run on a node now.
    pub fn fits(&self, pod: &Pod, name: &str) -> bool {
        let node = &self.nodes[name];
        let there: Vec<&Item<Pod>> = self.pods.iter().filter(|(_, on)| on == name).map(|(p, _)| p).collect();
        let cpu: i64 = there.iter().map(|p| p.requests.cpu).sum();
        let ports = there.iter().flat_map(|p| &p.host_ports).any(|p| pod.host_ports.contains(p));
        let home = &pod.meta.namespace;
        let required = &pod.affinity.required;
        let all_mean = |p: &Pod| required.iter().all(|t| self.means(t, home, p));
        let company = required
            .iter()
            .all(|t| self.pods.iter().any(|(p, on)| all_mean(p) && self.together(on, name, &t.topology_key)));
        let labelled = required.iter().all(|t| self.value(name, &t.topology_key).is_some());
        let counted = |(p, on): &(Item<Pod>, String)| {
            all_mean(p) && required.iter().any(|t| self.value(on, &t.topology_key).is_some())
        };
        let first = !self.pods.iter().any(counted) && all_mean(pod);
        let avoided = pod.anti_affinity.required.iter().any(|t| {
            self.pods.iter().any(|(p, on)| self.means(t, home, p) && self.together(on, name, &t.topology_key))
        });
        let unwelcome = self.pods.iter().any(|(p, on)| {
            let terms = &p.anti_affinity.required;
            terms.iter().any(|t| self.means(t, &p.meta.namespace, pod) && self.together(on, name, &t.topology_key))
        });
        !node.unschedulable
            && Self::tolerated(pod, node)
            && Self::selected(pod, node)
            && !ports
            && (there.len() as i64) < node.allocatable.pods
            && (pod.requests.cpu == 0 || cpu + pod.requests.cpu <= node.allocatable.cpu)
            && pod.spread.iter().filter(|c| c.required).all(|c| self.spreads(pod, name, c))
            && labelled
            && (company || first)
            && !avoided
            && !unwelcome
    }
}
