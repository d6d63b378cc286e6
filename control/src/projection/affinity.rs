//! Where a pod wants to be in relation to other pods: affinity, anti-affinity, spreading.
//!
//! Selectors are compiled once, here. `matchLabelKeys` need no reading: they were made part of the selectors they refine
//! when the pod was created.

use longshore_api::selector::{LabelSelector, SpecSelector};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodAffinity {
    /// All of these must hold.
    pub required: Vec<PodTerm>,
    pub preferred: Vec<WeightedPodTerm>,
}

impl PodAffinity {
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.preferred.is_empty()
    }
}

/// "Where pods like these run", `where` being a value of a node's label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodTerm {
    /// None matches no pod, the empty one every pod.
    pub selector: Option<LabelSelector>,
    /// Without these and without a namespace selector: the pod's own.
    pub namespaces: Vec<String>,
    pub namespace_selector: Option<LabelSelector>,
    pub topology_key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WeightedPodTerm {
    /// 1 to 100.
    pub weight: i64,
    pub term: PodTerm,
}

/// One of `spec.topologySpreadConstraints`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: String,
    /// `DoNotSchedule`; otherwise it is only a preference.
    pub required: bool,
    /// None matches no pod.
    pub selector: Option<LabelSelector>,
    /// With fewer domains than these, the emptiest is taken to be one that isn't there.
    pub min_domains: Option<i64>,
    /// Whether nodes that the pod's selector and affinity rule out are left out of the count.
    pub honors_affinity: bool,
    /// Whether nodes with taints that the pod doesn't tolerate are left out of the count.
    pub honors_taints: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Vec<WireTerm>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Vec<WireWeighted>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireTerm {
    label_selector: Option<SpecSelector>,
    namespaces: Vec<String>,
    namespace_selector: Option<SpecSelector>,
    topology_key: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireWeighted {
    weight: i64,
    pod_affinity_term: WireTerm,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireSpread {
    max_skew: i64,
    topology_key: String,
    when_unsatisfiable: String,
    label_selector: Option<SpecSelector>,
    min_domains: Option<i64>,
    node_affinity_policy: Option<String>,
    node_taints_policy: Option<String>,
}

/// A selector that doesn't compile was never validated: it matches nothing.
fn compiled(selector: Option<SpecSelector>) -> Option<LabelSelector> {
    selector.and_then(|s| s.compile().ok())
}

impl From<WireTerm> for PodTerm {
    fn from(wire: WireTerm) -> Self {
        Self {
            selector: compiled(wire.label_selector),
            namespaces: wire.namespaces,
            namespace_selector: compiled(wire.namespace_selector),
            topology_key: wire.topology_key,
        }
    }
}

impl From<WireAffinity> for PodAffinity {
    fn from(wire: WireAffinity) -> Self {
        let weighted = |w: WireWeighted| WeightedPodTerm { weight: w.weight, term: w.pod_affinity_term.into() };
        Self {
            required: wire.required.into_iter().map(PodTerm::from).collect(),
            preferred: wire.preferred.into_iter().map(weighted).collect(),
        }
    }
}

impl From<WireSpread> for SpreadConstraint {
    fn from(wire: WireSpread) -> Self {
        Self {
            max_skew: wire.max_skew,
            topology_key: wire.topology_key,
            required: wire.when_unsatisfiable != "ScheduleAnyway",
            selector: compiled(wire.label_selector),
            min_domains: wire.min_domains,
            honors_affinity: wire.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: wire.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}
