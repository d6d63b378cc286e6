//! A node, its taints, and how pods choose and tolerate.

use super::meta::{Condition, Meta};
use super::read;
use super::resources::Resources;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Node {
    pub meta: Meta,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub pod_cidrs: Vec<String>,
    pub allocatable: Resources,
    pub conditions: Vec<Condition>,
    /// The container images that lie there.
    pub images: Vec<NodeImage>,
}

/// An image on a node, under all its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeImage {
    pub names: Vec<String>,
    /// Bytes.
    #[serde(rename = "sizeBytes")]
    pub size: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
pub enum Effect {
    #[default]
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    pub effect: Effect,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    pub key: String,
    pub operator: String,
    pub value: String,
    pub effect: Option<Effect>,
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// An empty key with `Exists` matches every taint, no effect matches every effect.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => self.value == taint.value,
                "Gt" | "Lt" => match (self.value.parse::<i64>(), taint.value.parse::<i64>()) {
                    (Ok(mine), Ok(theirs)) => (self.operator == "Gt") == (theirs > mine) && theirs != mine,
                    _ => false,
                },
                _ => false,
            }
    }
}

/// One alternative of a node selector: all its expressions hold. A term without any matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    pub match_expressions: Vec<NodeRequirement>,
    pub match_fields: Vec<NodeRequirement>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct NodeRequirement {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

impl NodeSelectorTerm {
    pub fn matches(&self, node: &Node) -> bool {
        let name = &node.meta.name;
        let labels = &node.meta.labels;
        !(self.match_expressions.is_empty() && self.match_fields.is_empty())
            && self.match_expressions.iter().all(|r| r.matches(labels.get(&r.key)))
            && self.match_fields.iter().all(|r| r.key == "metadata.name" && r.matches(Some(name)))
    }
}

impl NodeRequirement {
    fn matches(&self, value: Option<&String>) -> bool {
        let compare = |holds: fn(i64, i64) -> bool| {
            let mine = self.values.first().and_then(|v| v.parse::<i64>().ok());
            let theirs = value.and_then(|v| v.parse::<i64>().ok());
            matches!((theirs, mine), (Some(theirs), Some(mine)) if holds(theirs, mine))
        };
        match self.operator.as_str() {
            "In" => value.is_some_and(|v| self.values.contains(v)),
            "NotIn" => value.is_none_or(|v| !self.values.contains(v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => compare(|theirs, mine| theirs > mine),
            "Lt" => compare(|theirs, mine| theirs < mine),
            _ => false,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    unschedulable: bool,
    taints: Vec<Taint>,
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    allocatable: Option<Value>,
    capacity: Option<Value>,
    conditions: Vec<Condition>,
    images: Vec<NodeImage>,
}

/// The labels by which a node says where it stands; the second of each pair is the old name that some still use.
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];

impl Node {
    pub fn of(object: &Value) -> Self {
        let spec: Spec = object.get("spec").map(read).unwrap_or_default();
        let status: NodeStatus = object.get("status").map(read).unwrap_or_default();
        let mut pod_cidrs = spec.pod_cidrs;
        if pod_cidrs.is_empty() && !spec.pod_cidr.is_empty() {
            pod_cidrs.push(spec.pod_cidr);
        }
        Self {
            meta: Meta::of(object),
            unschedulable: spec.unschedulable,
            taints: spec.taints,
            pod_cidrs,
            allocatable: status.allocatable.or(status.capacity).map(|r| Resources::of(&r)).unwrap_or_default(),
            conditions: status.conditions,
            images: status.images,
        }
    }

    pub fn condition(&self, r#type: &str) -> Option<&Condition> {
        Condition::find(&self.conditions, r#type)
    }

    pub fn zone(&self) -> &str {
        first(&self.meta.labels, &ZONE)
    }

    /// Region and zone in one string, unique per zone; empty where neither is said.
    pub fn zone_key(&self) -> String {
        let (region, zone) = (first(&self.meta.labels, &REGION), self.zone());
        if region.is_empty() && zone.is_empty() { String::new() } else { format!("{region}:\0:{zone}") }
    }
}

fn first<'a>(labels: &'a BTreeMap<String, String>, names: &[&str]) -> &'a str {
    names.iter().find_map(|n| labels.get(*n)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_match_as_kubernetes_matches() {
        let taint =
            |key: &str, value: &str, effect| Taint { key: key.into(), value: value.into(), effect, time_added: None };
        let toleration = |text: Value| read::<Toleration>(&text);
        let gpu = taint("gpu", "a", Effect::NoSchedule);
        assert!(toleration(json!({"operator": "Exists"})).tolerates(&gpu));
        assert!(toleration(json!({"key": "gpu", "value": "a"})).tolerates(&gpu));
        assert!(!toleration(json!({"key": "gpu", "value": "b"})).tolerates(&gpu));
        assert!(!toleration(json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"})).tolerates(&gpu));
        let tier = taint("tier", "5", Effect::NoSchedule);
        assert!(toleration(json!({"key": "tier", "operator": "Gt", "value": "4"})).tolerates(&tier));
        assert!(!toleration(json!({"key": "tier", "operator": "Lt", "value": "5"})).tolerates(&tier));
    }

    #[test]
    fn node_selector_terms_match_labels_and_name() {
        let node = Node::of(&json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}}}));
        let term = |text: Value| read::<NodeSelectorTerm>(&text);
        assert!(!term(json!({})).matches(&node), "an empty term matches nothing");
        for (op, key, values, yes) in [
            ("In", "disk", vec!["ssd"], true),
            ("NotIn", "disk", vec!["ssd"], false),
            ("Exists", "disk", vec![], true),
            ("DoesNotExist", "gpu", vec![], true),
            ("Gt", "cores", vec!["4"], true),
            ("Lt", "cores", vec!["8"], false),
        ] {
            let t = term(json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]}));
            assert_eq!(t.matches(&node), yes, "{op}");
        }
        assert!(
            term(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})).matches(&node)
        );
    }
}
