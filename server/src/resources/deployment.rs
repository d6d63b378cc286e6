//! Deployment.

use super::age::age;
use super::findings::{Findings, IMMUTABLE};
use super::tree::{at, child, child_of, fill, fill_zero, int_at, put, same};
use super::*;
use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use longshore_api::field::Path;

pub static RESOURCE: Resource = Resource {
    group: "apps",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    type_name: "io.k8s.api.apps.v1.Deployment",
    subresources: &[Subresource::SCALE, Subresource::status("apps", "Deployment")],
    columns: COLUMNS,
    cells,
    default,
    prepare_create: |_, tree| {
        pod::without_status(tree);
        set_generation(tree, 1);
    },
    prepare_update: |_, tree, old| {
        put(tree, "status", at(old, "/status").clone());
        // Annotations reach the ReplicaSets, so a change of them is a change of what is wanted.
        let unchanged = same(at(tree, "/spec"), at(old, "/spec"))
            && same(at(tree, "/metadata/annotations"), at(old, "/metadata/annotations"));
        count_generation(tree, old, unchanged);
    },
    validate,
    validate_update,
    validate_status_update,
    warnings: workload::warnings,
    scale: Some(workload::SCALE),
    ..BASE
};

const COLUMNS: &[Column] = &[
    Column::new("Ready", "string", "Number of the pod with ready state"),
    Column::new(
        "Up-to-date",
        "string",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    Column::new(
        "Available",
        "string",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    Column::AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide("Images", "Images referenced by each container in the template."),
    Column::wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment.",
    ),
];

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let [names, images] = workload::container_cells(tree);
    let selector = workload::selector_query(at(tree, "/spec/selector")).unwrap_or_else(|| "<invalid>".to_string());
    vec![
        format!("{}/{}", int_at(tree, "/status/readyReplicas"), int_at(tree, "/spec/replicas")).into(),
        int_at(tree, "/status/updatedReplicas").into(),
        int_at(tree, "/status/availableReplicas").into(),
        age(tree, now),
        names,
        images,
        selector.into(),
    ]
}

fn default(tree: &mut Value) {
    let Some(spec) = child(tree, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    pod::template_defaults(spec);
    let Some(strategy) = child_of(spec, "strategy") else { return };
    fill_zero(strategy, "type", "RollingUpdate");
    if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
        let Some(rolling) = child_of(strategy, "rollingUpdate") else { return };
        fill(rolling, "maxUnavailable", "25%");
        fill(rolling, "maxSurge", "25%");
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    let Some(spec) = found.part::<DeploymentSpec>(tree, "spec") else { return found.into_errors() };
    found.non_negative(&path.child("replicas"), spec.replicas.unwrap_or_default().into());
    let selector = (!at(tree, "/spec/selector").is_null()).then_some(&spec.selector);
    let why = "activeDeadlineSeconds in Deployment is not Supported";
    workload::selector_and_template(selector, Some(&spec.template), why, &path, &mut found);
    strategy(spec.strategy.as_ref(), &path.child("strategy"), &mut found);
    let ready = i64::from(spec.min_ready_seconds.unwrap_or_default());
    found.non_negative(&path.child("minReadySeconds"), ready);
    if let Some(limit) = spec.revision_history_limit {
        found.non_negative(&path.child("revisionHistoryLimit"), limit.into());
    }
    if let Some(deadline) = spec.progress_deadline_seconds {
        let path = path.child("progressDeadlineSeconds");
        found.non_negative(&path, deadline.into());
        if i64::from(deadline) <= ready {
            found.invalid(&path, deadline, "must be greater than minReadySeconds");
        }
    }
    found.into_errors()
}

fn strategy(strategy: Option<&DeploymentStrategy>, path: &Path, found: &mut Findings) {
    let none = DeploymentStrategy::default();
    let strategy = strategy.unwrap_or(&none);
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            found.forbidden(&path.child("rollingUpdate"), why);
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            let why = "this should be defaulted and never be nil";
            found.required(&path.child("rollingUpdate"), why);
        }
        ("RollingUpdate", Some(rolling)) => {
            let path = path.child("rollingUpdate");
            let unavailable = int_or_percent(rolling.max_unavailable.as_ref(), &path.child("maxUnavailable"), found);
            let surge = int_or_percent(rolling.max_surge.as_ref(), &path.child("maxSurge"), found);
            let zero = |value: &Option<Amount>| matches!(value, Some(Amount { number: 0, .. }) | None);
            if zero(&unavailable) && zero(&surge) {
                let shown = serde_json::to_value(&rolling.max_unavailable).unwrap_or(Value::Null);
                found.invalid(&path.child("maxUnavailable"), shown, "may not be 0 when `maxSurge` is 0");
            }
            if unavailable.is_some_and(|u| u.percent && u.number > 100) {
                let shown = serde_json::to_value(&rolling.max_unavailable).unwrap_or(Value::Null);
                found.invalid(&path.child("maxUnavailable"), shown, "must not be greater than 100%");
            }
        }
        (other, _) => found.not_supported(path, other, &["Recreate", "RollingUpdate"]),
    }
}

/// A number or a percentage of something.
struct Amount {
    number: i64,
    percent: bool,
}

fn int_or_percent(value: Option<&IntOrString>, path: &Path, found: &mut Findings) -> Option<Amount> {
    match value? {
        IntOrString::Int(number) => {
            found.non_negative(path, (*number).into());
            Some(Amount { number: (*number).into(), percent: false })
        }
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            let Some(number) = digits.and_then(|d| d.parse().ok()) else {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                found.invalid(path, text.as_str(), why);
                return Some(Amount { number: 1, percent: false });
            };
            Some(Amount { number, percent: true })
        }
    }
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    if !same(at(tree, "/spec/selector"), at(old, "/spec/selector")) {
        found.invalid(&Path::new("spec").child("selector"), at(tree, "/spec/selector").clone(), IMMUTABLE);
    }
    found.into_errors()
}

fn validate_status_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("status");
    let (Some(status), Some(was)) =
        (found.part::<DeploymentStatus>(tree, "status"), found.part::<DeploymentStatus>(old, "status"))
    else {
        return found.into_errors();
    };
    found.non_negative(&path.child("observedGeneration"), status.observed_generation.unwrap_or_default());
    let [replicas, updated, ready, available, unavailable] = [
        status.replicas,
        status.updated_replicas,
        status.ready_replicas,
        status.available_replicas,
        status.unavailable_replicas,
    ]
    .map(Option::unwrap_or_default);
    for (field, value) in [
        ("replicas", replicas),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", unavailable),
    ] {
        found.non_negative(&path.child(field), value.into());
    }
    if let Some(collisions) = status.collision_count {
        found.non_negative(&path.child("collisionCount"), collisions.into());
    }
    for (field, value) in [("updatedReplicas", updated), ("readyReplicas", ready), ("availableReplicas", available)] {
        if value > replicas {
            found.invalid(&path.child(field), value, "cannot be greater than status.replicas");
        }
    }
    if available > ready {
        found.invalid(&path.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
    if status.collision_count.unwrap_or_default() < was.collision_count.unwrap_or_default() {
        let count = status.collision_count;
        found.invalid(&path.child("collisionCount"), count, "cannot be decremented");
    }
    found.into_errors()
}
