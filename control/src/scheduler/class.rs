//! Pods that ask for the same are one class: what doesn't depend on who else is where is judged once for all of them, and
//! what does is a handful of tallies and terms to look at.

use super::counts::{Eligibility, GroupId, Question, TallyId, TermId, Tone, selects, tolerates_all};
use super::explain::Why;
use super::profile::Profile;
use super::reasons::{Demand, Refusal};
use super::state::State;
use super::target::Target;
use super::topology::{EACH_NODE, HOSTNAME, KeyId, ZONE};
use crate::projection::{Effect, Node, Pod, SpreadConstraint, Taint};
use longshore_api::selector::LabelSelector;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Class {
    /// One of them.
    pub pod: Arc<Pod>,
    pub profile: usize,
    pub group: GroupId,
    pub demand: Demand,
    /// Where the pod names nodes: which.
    named: Option<BTreeSet<String>>,
    fixed: Vec<Fixed>,
    pub hard: Vec<HardSpread>,
    pub soft: Vec<SoftSpread>,
    /// Nodes without one of these labels are out of the running for good spreading.
    pub soft_keys: Vec<KeyId>,
    /// Required affinity: one tally for each term, each counting pods that meet all terms.
    pub company: Vec<TallyId>,
    /// Whether it would be its own company.
    pub own_company: bool,
    /// Required anti-affinity.
    pub avoided: Vec<TallyId>,
    /// Preferred affinity, and (negative) anti-affinity.
    pub liked: Vec<(TallyId, i64)>,
    terms_seen: usize,
    /// Terms of pods there that refuse these.
    pub refused_by: Vec<TermId>,
    /// Terms of pods there that draw these, or (negative) don't.
    pub drawn_by: Vec<(TermId, i64)>,
    pub images: ImagePoints,
    pub hopeless: Option<Hopeless>,
    /// The batch that last asked for it.
    pub used: u64,
}

/// What is so between a class and a node whoever is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fixed {
    pub refusal: Option<Refusal>,
    /// Weights of preferred node affinities that it meets.
    pub preference: i64,
    /// `PreferNoSchedule` taints that aren't tolerated.
    pub distaste: i64,
}

#[derive(Debug)]
pub(super) struct HardSpread {
    pub tally: TallyId,
    pub max_skew: i64,
    pub min_domains: i64,
    /// Whether such a pod counts itself.
    pub own: bool,
}

#[derive(Debug)]
pub(super) struct SoftSpread {
    pub tally: TallyId,
    pub key: KeyId,
    /// By node: as many domains as there are nodes to choose from.
    pub by_node: bool,
    pub max_skew: i64,
}

#[derive(Debug, Default)]
pub(super) struct ImagePoints {
    version: Option<u64>,
    /// By slot; empty where no node has any of the images.
    pub points: Vec<u8>,
}

/// The class found no node; with what words, while the counts it depends on stay as they were.
#[derive(Debug)]
pub(super) struct Hopeless {
    pub stamp: u64,
    pub message: Arc<str>,
    pub why: Arc<Why>,
}

impl Class {
    /// `default_selector` is whom such pods are spread from when they don't say: those behind the same Services or of the
    /// same owner.
    pub fn of(
        pod: &Arc<Pod>,
        profile: (usize, &Profile),
        default_selector: Option<&LabelSelector>,
        state: &mut State,
    ) -> Self {
        let namespace = pod.meta.namespace.as_str();
        let mut class = Self {
            group: state.group(pod),
            profile: profile.0,
            demand: Demand::of(&pod.requests),
            named: named(pod),
            fixed: Vec::new(),
            hard: Vec::new(),
            soft: Vec::new(),
            soft_keys: Vec::new(),
            company: Vec::new(),
            own_company: false,
            avoided: Vec::new(),
            liked: Vec::new(),
            terms_seen: 0,
            refused_by: Vec::new(),
            drawn_by: Vec::new(),
            images: ImagePoints::default(),
            hopeless: None,
            used: 0,
            pod: pod.clone(),
        };
        class.spread(state);
        if pod.spread.is_empty() && profile.1.spreads_by_default {
            class.spread_by_default(default_selector, state);
        }
        let required = &pod.affinity.required;
        let targets: Vec<Target> = required.iter().map(|t| Target::of(t, namespace)).collect();
        class.own_company = targets.iter().all(|t| t.matches(pod, &state.namespaces));
        for term in required {
            let key = state.key(&term.topology_key);
            class.company.push(state.ask(Question { targets: targets.clone(), live: false, key, nodes: None }));
        }
        let mut tally = |term: &crate::projection::PodTerm| {
            let key = state.key(&term.topology_key);
            let targets = vec![Target::of(term, namespace)];
            state.ask(Question { targets, live: false, key, nodes: None })
        };
        class.avoided = pod.anti_affinity.required.iter().map(&mut tally).collect();
        let liked =
            pod.affinity.preferred.iter().map(|t| (t, 1)).chain(pod.anti_affinity.preferred.iter().map(|t| (t, -1)));
        class.liked = liked.map(|(t, sign)| (tally(&t.term), sign * t.weight)).collect();
        for slot in 0..state.nodes.slots() as u32 {
            class.judge(slot, state);
        }
        class
    }

    fn spread(&mut self, state: &mut State) {
        let pod = self.pod.clone();
        let (hard, soft): (Vec<_>, Vec<_>) = pod.spread.iter().partition(|c| c.required);
        for constraint in &hard {
            let tally = self.ask(constraint, &hard, state);
            let own = constraint.selector.as_ref().is_some_and(|s| s.matches(&pod.meta.labels));
            let min_domains = constraint.min_domains.unwrap_or(1);
            self.hard.push(HardSpread { tally, max_skew: constraint.max_skew, min_domains, own });
        }
        for constraint in &soft {
            let key = state.key(&constraint.topology_key);
            let by_node = constraint.topology_key == HOSTNAME;
            let tally = if by_node {
                self.on_each_node(constraint.selector.as_ref(), state)
            } else {
                self.ask(constraint, &soft, state)
            };
            self.soft.push(SoftSpread { tally, key, by_node, max_skew: constraint.max_skew });
            self.soft_keys.push(key);
        }
    }

    /// Kubernetes's constraints for a whole cluster: over nodes with skew 3, over zones with 5, as far as nodes say where
    /// they are. Over nodes is meant by node here, whether or not it carries the label of its name.
    fn spread_by_default(&mut self, selector: Option<&LabelSelector>, state: &mut State) {
        let Some(selector) = selector else { return };
        let tally = self.on_each_node(Some(selector), state);
        self.soft.push(SoftSpread { tally, key: EACH_NODE, by_node: true, max_skew: 3 });
        let zone = SpreadConstraint {
            topology_key: ZONE.into(),
            selector: Some(selector.clone()),
            honors_affinity: true,
            max_skew: 5,
            ..SpreadConstraint::default()
        };
        let (tally, key) = (self.ask(&zone, &[], state), state.key(ZONE));
        self.soft.push(SoftSpread { tally, key, by_node: false, max_skew: 5 });
    }

    fn on_each_node(&self, selector: Option<&LabelSelector>, state: &mut State) -> TallyId {
        let targets = vec![Target::spread(selector, &self.pod.meta.namespace)];
        state.ask(Question { targets, live: true, key: EACH_NODE, nodes: None })
    }

    /// The tally of a constraint; a node counts if it has the labels of all of `together`.
    fn ask(&self, constraint: &SpreadConstraint, together: &[&SpreadConstraint], state: &mut State) -> TallyId {
        let pod = &self.pod;
        let mut keys: Vec<String> = together.iter().map(|c| c.topology_key.clone()).collect();
        keys.sort();
        keys.dedup();
        let selective = !pod.node_selector.is_empty() || pod.node_affinity.required.is_some();
        let required = || crate::projection::NodeAffinity { preferred: Vec::new(), ..pod.node_affinity.clone() };
        let nodes = Eligibility {
            keys,
            selection: (constraint.honors_affinity && selective).then(|| (pod.node_selector.clone(), required())),
            tolerations: constraint.honors_taints.then(|| pod.tolerations.clone()),
        };
        let key = state.key(&constraint.topology_key);
        let targets = vec![Target::spread(constraint.selector.as_ref(), &pod.meta.namespace)];
        state.ask(Question { targets, live: true, key, nodes: Some(nodes) })
    }

    pub fn fixed(&self, slot: u32) -> Fixed {
        self.fixed.get(slot as usize).copied().unwrap_or_default()
    }

    /// Judges a node anew, whose object changed.
    pub fn judge(&mut self, slot: u32, state: &State) {
        let at = slot as usize;
        if self.fixed.len() <= at {
            self.fixed.resize(at + 1, Fixed::default());
        }
        let Some(entry) = state.nodes.get(slot) else { return };
        let (pod, node) = (&self.pod, &*entry.node);
        let preferred = pod.node_affinity.preferred.iter().filter(|p| p.preference.matches(node));
        let tolerated = |t: &Taint| pod.tolerations.iter().any(|toleration| toleration.tolerates(t));
        let disliked = node.taints.iter().filter(|t| t.effect == Effect::PreferNoSchedule && !tolerated(t));
        self.fixed[at] = Fixed {
            refusal: self.refusal(node),
            preference: preferred.map(|p| p.weight).sum(),
            distaste: disliked.count() as i64,
        };
    }

    /// What speaks against a node whoever is there; the first in Kubernetes's order.
    fn refusal(&self, node: &Node) -> Option<Refusal> {
        let pod = &self.pod;
        let cordon = || Taint { key: "node.kubernetes.io/unschedulable".into(), ..Taint::default() };
        if self.named.as_ref().is_some_and(|names| !names.contains(&node.meta.name)) {
            Some(Refusal::NotNamed)
        } else if node.unschedulable && !pod.tolerations.iter().any(|t| t.tolerates(&cordon())) {
            Some(Refusal::Cordoned)
        } else if !tolerates_all(&pod.tolerations, node) {
            Some(Refusal::Tainted)
        } else if !selects(&pod.node_selector, &pod.node_affinity, node) {
            Some(Refusal::NotSelected)
        } else {
            None
        }
    }

    /// Takes in what changed since the last look: terms of pods that came, images.
    pub fn refresh(&mut self, state: &State, profile: &Profile) {
        for (term, tone) in state.counts.terms_since(self.terms_seen, &self.pod, &state.namespaces) {
            match tone {
                Tone::Refuses => self.refused_by.push(term),
                Tone::Needs if profile.hard_affinity_weight == 0 => {}
                Tone::Needs => self.drawn_by.push((term, profile.hard_affinity_weight)),
                Tone::Likes(weight) => self.drawn_by.push((term, weight)),
            }
        }
        self.terms_seen = state.counts.terms();
        if self.images.version != Some(state.images().version) {
            self.images = ImagePoints { version: Some(state.images().version), points: image_points(&self.pod, state) };
        }
    }

    /// Moves when pods that come may help such a pod to a place. None does where it needs neither company nor balance.
    pub fn stamp(&self, state: &State) -> u64 {
        let tallies = self.hard.iter().map(|h| h.tally).chain(self.company.iter().copied());
        tallies.map(|t| state.counts.tally(t).version).fold(0, u64::wrapping_add)
    }
}

/// The nodes that a pod's required affinity names by `metadata.name` in each of its terms; none where it doesn't.
fn named(pod: &Pod) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for term in pod.node_affinity.required.as_ref().filter(|terms| !terms.is_empty())? {
        let mut names: Option<BTreeSet<&String>> = None;
        for field in term.match_fields.iter().filter(|f| f.key == "metadata.name" && f.operator == "In") {
            let values: BTreeSet<&String> = field.values.iter().collect();
            names = Some(names.map_or_else(|| values.clone(), |n| n.intersection(&values).copied().collect()));
        }
        all.extend(names?.into_iter().cloned());
    }
    Some(all)
}

/// What lies between no help and all images there: 23 MB and 1 GB for each container, Kubernetes's numbers.
const LEAST_IMAGE: i64 = 23 << 20;
const MOST_IMAGE: i64 = 1000 << 20;

/// By slot, how much of the pod's images is there already; images that many nodes have count for more, so that not all
/// pods follow the first.
fn image_points(pod: &Pod, state: &State) -> Vec<u8> {
    let mut sums: Vec<i64> = Vec::new();
    let nodes = state.nodes.len().max(1) as f64;
    for image in &pod.images {
        let Some(there) = state.images().of(&with_tag(image)) else { continue };
        sums.resize(state.nodes.slots(), 0);
        let spread = there.len() as f64 / nodes;
        for (slot, size) in there {
            sums[*slot as usize] += (*size as f64 * spread) as i64;
        }
    }
    let most = MOST_IMAGE * pod.images.len() as i64;
    let points = |sum: i64| 100 * (sum.clamp(LEAST_IMAGE, most) - LEAST_IMAGE) / (most - LEAST_IMAGE).max(1);
    sums.into_iter().map(|sum| points(sum) as u8).collect()
}

/// `nginx` is `nginx:latest`.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') { image.to_string() } else { format!("{image}:latest") }
}
