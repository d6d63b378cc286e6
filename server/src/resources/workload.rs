//! What Deployments and ReplicaSets share: a selector, a template, a number of replicas.

use super::findings::Findings;
use super::pod;
use super::tree::{at, int_at, list_at, put, str_at};
use super::{Scale, selectors};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use longshore_api::field::Path;
use serde::Deserialize;
use serde_json::Value;

pub const SCALE: Scale = Scale {
    desired: |tree| int_at(tree, "/spec/replicas") as i32,
    current: |tree| int_at(tree, "/status/replicas") as i32,
    selector: |tree| selector_query(at(tree, "/spec/selector")).unwrap_or_default(),
    set: |tree, replicas| {
        if let Some(spec) = tree.get_mut("spec") {
            put(spec, "replicas", replicas.into());
        }
    },
};

/// A selector as a query string; none where it makes no sense.
pub fn selector_query(selector: &Value) -> Option<String> {
    selectors::query(&LabelSelector::deserialize(selector).ok()?)
}

/// Names and images of a template's containers, as two cells.
pub fn container_cells(tree: &Value) -> [Value; 2] {
    let containers = list_at(tree, "/spec/template/spec/containers");
    ["/name", "/image"].map(|field| containers.iter().map(|c| str_at(c, field)).collect::<Vec<_>>().join(",").into())
}

/// The rules for a selector and a template that it must match.
pub fn selector_and_template(
    selector: Option<&LabelSelector>,
    template: Option<&PodTemplateSpec>,
    no_deadline: &str,
    spec: &Path,
    found: &mut Findings,
) {
    let path = spec.child("selector");
    match selector {
        None => found.required(&path, ""),
        Some(selector) => {
            selectors::validate(Some(selector), &path, found);
            if selectors::is_empty(selector) {
                let shown = serde_json::to_value(selector).unwrap_or(Value::Null);
                found.invalid(&path, shown, "empty selector is invalid for deployment");
            }
        }
    }
    let path = spec.child("template");
    let empty = PodTemplateSpec::default();
    let template = template.unwrap_or(&empty);
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    // No selector selects nothing, an empty one everything.
    let matches = selector.is_some_and(|s| selectors::is_empty(s) || selectors::matches(s, labels));
    if let Some(senseless) = selector.filter(|s| selectors::query(s).is_none()) {
        let shown = serde_json::to_value(senseless).unwrap_or(Value::Null);
        found.invalid(&spec.child("selector"), shown, "invalid label selector");
        return;
    }
    if !matches {
        let shown = serde_json::to_value(labels).unwrap_or(Value::Null);
        let path = path.child("metadata").child("labels");
        found.invalid(&path, shown, "`selector` does not match template `labels`");
    }
    pod::validate_template(template, &path, found);
    let pod = template.spec.as_ref();
    let policy = pod.and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    if policy != "Always" {
        found.not_supported(&path.child("spec").child("restartPolicy"), policy, &["Always"]);
    }
    if pod.is_some_and(|s| s.active_deadline_seconds.is_some()) {
        found.forbidden(&path.child("spec").child("activeDeadlineSeconds"), no_deadline);
    }
}

/// Pods are named after their controller.
pub fn name_warning(tree: &Value, old: Option<&Value>) -> Option<String> {
    let wrong = longshore_api::names::dns1123_label(str_at(tree, "/metadata/name"));
    let why =
        "this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended";
    (old.is_none() && !wrong.is_empty()).then(|| format!("metadata.name: {why}: [{}]", wrong.join(" ")))
}

/// Of a kind with a template.
pub fn warnings(tree: &Value, old: Option<&Value>) -> Vec<String> {
    let path = Path::new("spec").child("template");
    let template = old.map(|old| at(old, "/spec/template"));
    let of_template = pod::template_warnings(at(tree, "/spec/template"), template, &path);
    name_warning(tree, old).into_iter().chain(of_template).collect()
}
