//! The rules for where a pod may run: affinity, tolerations, spread constraints.

use crate::resources::findings::{Findings, all, text};
use crate::resources::labels::label_name;
use crate::resources::selectors;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use longshore_api::field::Path;
use longshore_api::names;
use std::collections::BTreeSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const BAD_OPERATOR: &str = "not a valid selector operator";

pub fn affinity(affinity: Option<&Affinity>, path: &Path, found: &mut Findings) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        node_affinity(node, &path.child("nodeAffinity"), found);
    }
    let mut terms =
        |required: &Option<Vec<PodAffinityTerm>>, preferred: &Option<Vec<WeightedPodAffinityTerm>>, path: Path| {
            for (i, term) in all(required).iter().enumerate() {
                pod_term(term, &path.child(REQUIRED).index(i), found);
            }
            for (i, term) in all(preferred).iter().enumerate() {
                let path = path.child(PREFERRED).index(i);
                weight(term.weight, &path, found);
                pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), found);
            }
        };
    if let Some(pod) = &affinity.pod_affinity {
        let (required, preferred) = (
            &pod.required_during_scheduling_ignored_during_execution,
            &pod.preferred_during_scheduling_ignored_during_execution,
        );
        terms(required, preferred, path.child("podAffinity"));
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let (required, preferred) = (
            &pod.required_during_scheduling_ignored_during_execution,
            &pod.preferred_during_scheduling_ignored_during_execution,
        );
        terms(required, preferred, path.child("podAntiAffinity"));
    }
}

fn weight(weight: i32, path: &Path, found: &mut Findings) {
    if !(1..=100).contains(&weight) {
        found.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn node_affinity(affinity: &NodeAffinity, path: &Path, found: &mut Findings) {
    if let Some(NodeSelector { node_selector_terms: terms }) =
        &affinity.required_during_scheduling_ignored_during_execution
    {
        let path = path.child(REQUIRED).child("nodeSelectorTerms");
        if terms.is_empty() {
            found.required(&path, "must have at least one node selector term");
        }
        for (i, term) in terms.iter().enumerate() {
            node_term(term, true, &path.index(i), found);
        }
    }
    for (i, term) in all(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(term.weight, &path, found);
        // A preference with a value that no label can have is merely never fulfilled.
        node_term(&term.preference, false, &path.child("preference"), found);
    }
}

fn node_term(term: &NodeSelectorTerm, check_values: bool, path: &Path, found: &mut Findings) {
    for (i, requirement) in all(&term.match_expressions).iter().enumerate() {
        node_requirement(requirement, check_values, &path.child("matchExpressions").index(i), found);
    }
    for (i, requirement) in all(&term.match_fields).iter().enumerate() {
        node_field(requirement, &path.child("matchFields").index(i), found);
    }
}

fn node_requirement(requirement: &NodeSelectorRequirement, check_values: bool, path: &Path, found: &mut Findings) {
    let (values, path_of) = (all(&requirement.values), path.child("values"));
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            found.required(&path_of, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            found.forbidden(&path_of, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            found.required(&path_of, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => found.invalid(&path.child("operator"), other, BAD_OPERATOR),
    }
    label_name(&requirement.key, &path.child("key"), found);
    for (i, value) in values.iter().enumerate().filter(|_| check_values) {
        found.each(&path_of.index(i), value, names::label_value(value));
    }
}

fn node_field(requirement: &NodeSelectorRequirement, path: &Path, found: &mut Findings) {
    let values = all(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            found.required(&path.child("values"), why);
        }
        "In" | "NotIn" => {}
        other => found.invalid(&path.child("operator"), other, BAD_OPERATOR),
    }
    if requirement.key != "metadata.name" {
        found.invalid(&path.child("key"), requirement.key.as_str(), "not a valid field selector key");
        return;
    }
    for (i, value) in values.iter().enumerate() {
        found.each(&path.child("values").index(i), value, names::dns1123_subdomain(value));
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path, found: &mut Findings) {
    selectors::validate(term.label_selector.as_ref(), &path.child("labelSelector"), found);
    selectors::validate(term.namespace_selector.as_ref(), &path.child("namespaceSelector"), found);
    for name in all(&term.namespaces) {
        found.each(&path.child("namespace"), name, names::dns1123_label(name));
    }
    let (matching, differing) = (all(&term.match_label_keys), all(&term.mismatch_label_keys));
    label_keys(matching, differing, term.label_selector.as_ref(), path, found);
    let path = path.child("topologyKey");
    if term.topology_key.is_empty() {
        found.required(&path, "can not be empty");
    }
    label_name(&term.topology_key, &path, found);
}

/// `matchLabelKeys` and `mismatchLabelKeys` refine a selector; they can't speak of the same label.
fn label_keys(
    matching: &[String],
    differing: &[String],
    selector: Option<&LabelSelector>,
    path: &Path,
    found: &mut Findings,
) {
    for (field, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", differing)] {
        let path = path.child(field);
        if !keys.is_empty() && selector.is_none() {
            found.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            label_name(key, &path.index(i), found);
        }
    }
    if let Some(selector) = selector {
        let mut selected: BTreeSet<&str> = selector.match_labels.iter().flatten().map(|(k, _)| k.as_str()).collect();
        for expression in all(&selector.match_expressions) {
            let key = expression.key.as_str();
            if let Some(i) = matching.iter().rposition(|k| k == key).filter(|_| selected.contains(key)) {
                found.invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
            }
            selected.insert(key);
        }
    }
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| differing.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        found.invalid(&path.child("matchLabelKeys").index(i), key.as_str(), why);
    }
}

pub fn taint_effect(effect: &str, path: &Path, found: &mut Findings) {
    found.none_or_one_of(path, Some(effect), &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
}

pub fn tolerations(tolerations: &[Toleration], path: &Path, found: &mut Findings) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (effect, value) = (text(&toleration.effect), text(&toleration.value));
        if !key.is_empty() {
            label_name(key, &path.child("key"), found);
        }
        let operator_path = path.child("operator");
        if key.is_empty() && operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            found.invalid(&operator_path, operator, why);
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            found.invalid(&path.child("effect"), effect, why);
        }
        match operator {
            "Equal" | "" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    found.invalid(&operator_path, value, wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                found.invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => found.not_supported(&operator_path, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            taint_effect(effect, &path.child("effect"), found);
        }
    }
}

pub fn spread(constraints: &[TopologySpreadConstraint], path: &Path, found: &mut Findings) {
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    const POLICIES: [&str; 2] = ["Honor", "Ignore"];
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let action = constraint.when_unsatisfiable.as_str();
        if constraint.max_skew <= 0 {
            found.invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
        }
        if constraint.topology_key.is_empty() {
            found.required(&path.child("topologyKey"), "can not be empty");
        }
        found.none_or_one_of(&path.child("whenUnsatisfiable"), Some(action), &ACTIONS);
        let again = constraints[i + 1..]
            .iter()
            .any(|other| other.topology_key == constraint.topology_key && other.when_unsatisfiable == action);
        if again {
            let shown = format!("{{{}, {action}}}", constraint.topology_key);
            found.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), shown);
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            if domains <= 0 {
                found.invalid(&path, domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                found.invalid(&path, domains, why);
            }
        }
        found.none_or_one_of(&path.child("nodeAffinityPolicy"), constraint.node_affinity_policy.as_deref(), &POLICIES);
        found.none_or_one_of(&path.child("nodeTaintsPolicy"), constraint.node_taints_policy.as_deref(), &POLICIES);
        let selector = constraint.label_selector.as_ref();
        label_keys(all(&constraint.match_label_keys), &[], selector, &path, found);
        selectors::validate(selector, &path.child("labelSelector"), found);
    }
}
