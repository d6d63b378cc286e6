//! ReplicaSet.

use super::age::age;
use super::findings::{Findings, IMMUTABLE};
use super::tree::{at, child, fill, int_at, put, same};
use super::*;
use k8s_openapi::api::apps::v1::{ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use longshore_api::field::Path;
use serde::Deserialize;

pub static RESOURCE: Resource = Resource {
    group: "apps",
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    type_name: "io.k8s.api.apps.v1.ReplicaSet",
    subresources: &[Subresource::SCALE, Subresource::status("apps", "ReplicaSet")],
    columns: COLUMNS,
    cells,
    default,
    prepare_create: |_, tree| {
        pod::without_status(tree);
        set_generation(tree, 1);
    },
    prepare_update: |_, tree, old| {
        put(tree, "status", at(old, "/status").clone());
        count_generation(tree, old, same(at(tree, "/spec"), at(old, "/spec")));
    },
    validate,
    validate_update,
    validate_status_update,
    warnings: workload::warnings,
    fields: |tree| BTreeMap::from([("status.replicas", int_at(tree, "/status/replicas").to_string())]),
    scale: Some(workload::SCALE),
    ..BASE
};

const COLUMNS: &[Column] = &[
    Column::new(
        "Desired",
        "integer",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    Column::new(
        "Current",
        "integer",
        "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    Column::new(
        "Ready",
        "integer",
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    Column::AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide("Images", "Images referenced by each container in the template."),
    Column::wide(
        "Selector",
        "Selector is a label query over pods that should match the replica count. If the selector is empty, it is defaulted to the labels present on the pod template. Label keys and values that must match in order to be controlled by this replica set. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let [names, images] = workload::container_cells(tree);
    let selector = LabelSelector::deserialize(at(tree, "/spec/selector")).unwrap_or_default();
    let selector = match selectors::query(&selector) {
        Some(query) if query.is_empty() => "<none>".to_string(),
        Some(query) => query,
        None => "<error>".to_string(),
    };
    vec![
        int_at(tree, "/spec/replicas").into(),
        int_at(tree, "/status/replicas").into(),
        int_at(tree, "/status/readyReplicas").into(),
        age(tree, now),
        names,
        images,
        selector.into(),
    ]
}

fn default(tree: &mut Value) {
    let Some(spec) = child(tree, "spec") else { return };
    fill(spec, "replicas", 1);
    pod::template_defaults(spec);
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    if let Some(spec) = found.part::<ReplicaSetSpec>(tree, "spec") {
        found.non_negative(&path.child("replicas"), spec.replicas.unwrap_or_default().into());
        found.non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or_default().into());
        let selector = (!at(tree, "/spec/selector").is_null()).then_some(&spec.selector);
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        workload::selector_and_template(selector, spec.template.as_ref(), why, &path, &mut found);
    }
    found.into_errors()
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    if !same(at(tree, "/spec/selector"), at(old, "/spec/selector")) {
        found.invalid(&Path::new("spec").child("selector"), at(tree, "/spec/selector").clone(), IMMUTABLE);
    }
    found.into_errors()
}

fn validate_status_update(tree: &Value, _: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("status");
    let Some(status) = found.part::<ReplicaSetStatus>(tree, "status") else { return found.into_errors() };
    let (replicas, labeled) = (status.replicas, status.fully_labeled_replicas.unwrap_or_default());
    let (ready, available) = (status.ready_replicas.unwrap_or_default(), status.available_replicas.unwrap_or_default());
    for (field, value) in [
        ("replicas", replicas),
        ("fullyLabeledReplicas", labeled),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ] {
        found.non_negative(&path.child(field), value.into());
    }
    found.non_negative(&path.child("observedGeneration"), status.observed_generation.unwrap_or_default());
    const TOO_MANY: &str = "cannot be greater than status.replicas";
    for (field, value) in
        [("fullyLabeledReplicas", labeled), ("readyReplicas", ready), ("availableReplicas", available)]
    {
        if value > replicas {
            found.invalid(&path.child(field), value, TOO_MANY);
        }
    }
    if available > ready {
        found.invalid(&path.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
    found.into_errors()
}
