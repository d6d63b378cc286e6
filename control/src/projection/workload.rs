//! Deployment and ReplicaSet, and the pod template they carry.

use super::meta::{Condition, Meta, annotations};
use super::read;
use longshore_api::selector::{LabelSelector, SpecSelector};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The label that tells the pods of one revision from those of another.
const HASH_LABEL: &str = "pod-template-hash";

/// A pod template: kept as text (a tree takes ten times the room) and parsed again only when something is made of it.
#[derive(Clone)]
pub struct Template {
    json: Arc<str>,
    /// Canonical text without the hash label, nulls and empty containers: two templates mean the same where these are equal.
    essence: Arc<str>,
    pub labels: BTreeMap<String, String>,
}

impl Default for Template {
    fn default() -> Self {
        Self::of(&Value::Null)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({})", self.json)
    }
}

impl PartialEq for Template {
    /// `EqualIgnoreHash` of Kubernetes.
    fn eq(&self, other: &Self) -> bool {
        self.essence == other.essence
    }
}

impl Template {
    pub fn of(tree: &Value) -> Self {
        let labels: BTreeMap<String, String> = tree.pointer("/metadata/labels").map(read).unwrap_or_default();
        let json: Arc<str> = tree.to_string().into();
        let mut essence = String::with_capacity(json.len());
        write_essence(&mut essence, tree);
        let essence = if *essence == *json { json.clone() } else { essence.into() };
        Self { json, essence, labels }
    }

    pub fn tree(&self) -> Value {
        serde_json::from_str(&self.json).unwrap_or(Value::Null)
    }

    /// What Kubernetes hashes to name a ReplicaSet; ours needs to be stable, not the same.
    pub fn essence(&self) -> &str {
        &self.essence
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Keys in order whatever order the tree keeps; the hash label is left out wherever a template has it.
fn write_essence(out: &mut String, tree: &Value) {
    match tree {
        Value::Object(fields) => {
            let mut sorted: Vec<_> =
                fields.iter().filter(|(k, v)| !is_nothing(v) && k.as_str() != HASH_LABEL).collect();
            sorted.sort_by_key(|(k, _)| *k);
            out.push('{');
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_essence(out, value);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_essence(out, item);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[derive(Clone, Debug)]
pub struct Deployment {
    pub meta: Meta,
    pub annotations: BTreeMap<String, String>,
    pub replicas: i32,
    pub selector: LabelSelector,
    /// The selector as it stands in the spec, for the ReplicaSets made from it.
    pub match_selector: SpecSelector,
    pub template: Template,
    pub strategy: Strategy,
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
    pub paused: bool,
    /// `None` where the deadline was switched off (the largest number).
    pub progress_deadline_seconds: Option<i32>,
    pub status: DeploymentStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    Recreate,
    RollingUpdate {
        max_surge: IntOrPercent,
        max_unavailable: IntOrPercent,
    },
    /// What validation let through unknown: nothing is rolled.
    #[default]
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    Int(i32),
    Percent(i32),
}

impl IntOrPercent {
    fn of(value: Option<&Value>, unset: Self) -> Self {
        match value {
            Some(Value::Number(n)) => Self::Int(n.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default()),
            Some(Value::String(text)) => {
                text.strip_suffix('%').and_then(|p| p.parse().ok()).map_or(Self::Int(0), Self::Percent)
            }
            _ => unset,
        }
    }

    /// Of `total`, rounded up or down.
    pub fn of_total(self, total: i32, up: bool) -> i32 {
        match self {
            Self::Int(n) => n,
            Self::Percent(p) => {
                let exact = i64::from(p) * i64::from(total);
                let whole = exact.div_euclid(100) + i64::from(up && exact.rem_euclid(100) != 0);
                i32::try_from(whole).unwrap_or(i32::MAX)
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub unavailable_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub collision_count: Option<i32>,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
pub struct ReplicaSet {
    pub meta: Meta,
    pub annotations: BTreeMap<String, String>,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub selector: LabelSelector,
    pub template: Template,
    pub status: ReplicaSetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicas: Option<i32>,
    selector: SpecSelector,
    strategy: WireStrategy,
    min_ready_seconds: i32,
    revision_history_limit: Option<i32>,
    paused: bool,
    progress_deadline_seconds: Option<i32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStrategy {
    r#type: String,
    rolling_update: RollingUpdate,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RollingUpdate {
    max_surge: Option<Value>,
    max_unavailable: Option<Value>,
}

fn parts(object: &Value) -> (Spec, Template) {
    let template = object.pointer("/spec/template").map(Template::of).unwrap_or_default();
    (object.get("spec").map(read).unwrap_or_default(), template)
}

impl Deployment {
    pub fn of(object: &Value) -> Self {
        let (spec, template) = parts(object);
        const QUARTER: IntOrPercent = IntOrPercent::Percent(25);
        let rolling = &spec.strategy.rolling_update;
        Self {
            meta: Meta::of(object),
            annotations: annotations(object),
            replicas: spec.replicas.unwrap_or(1),
            selector: spec.selector.compile().unwrap_or_default(),
            template,
            strategy: match spec.strategy.r#type.as_str() {
                "Recreate" => Strategy::Recreate,
                "" | "RollingUpdate" => Strategy::RollingUpdate {
                    max_surge: IntOrPercent::of(rolling.max_surge.as_ref(), QUARTER),
                    max_unavailable: IntOrPercent::of(rolling.max_unavailable.as_ref(), QUARTER),
                },
                _ => Strategy::Unknown,
            },
            match_selector: spec.selector,
            min_ready_seconds: spec.min_ready_seconds,
            revision_history_limit: spec.revision_history_limit,
            paused: spec.paused,
            progress_deadline_seconds: spec.progress_deadline_seconds.filter(|s| *s != i32::MAX),
            status: object.get("status").map(read).unwrap_or_default(),
        }
    }
}

impl ReplicaSet {
    pub fn of(object: &Value) -> Self {
        let (spec, template) = parts(object);
        Self {
            meta: Meta::of(object),
            annotations: annotations(object),
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds,
            selector: spec.selector.compile().unwrap_or_default(),
            template,
            status: object.get("status").map(read).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailable() {
        assert_eq!(IntOrPercent::Percent(25).of_total(10, true), 3);
        assert_eq!(IntOrPercent::Percent(25).of_total(10, false), 2);
        assert_eq!(IntOrPercent::Int(7).of_total(10, false), 7);
    }

    #[test]
    fn templates_are_equal_but_for_the_hash_label_and_what_says_nothing() {
        let one = Template::of(
            &json!({"metadata": {"labels": {"app": "a", "pod-template-hash": "x"}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "resources": {}}]}}),
        );
        let other =
            Template::of(&json!({"spec": {"containers": [{"name": "c"}]}, "metadata": {"labels": {"app": "a"}}}));
        let third =
            Template::of(&json!({"spec": {"containers": [{"name": "d"}]}, "metadata": {"labels": {"app": "a"}}}));
        assert_eq!(one, other);
        assert_ne!(one, third);
    }
}
