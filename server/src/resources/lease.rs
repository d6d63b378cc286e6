//! Lease.

use super::age::age;
use super::findings::{Findings, text};
use super::tree::str_at;
use super::*;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use longshore_api::field::Path;
use longshore_api::names;

pub static RESOURCE: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    type_name: "io.k8s.api.coordination.v1.Lease",
    create_on_update: true,
    unconditional_update: false,
    columns: &[
        Column::new(
            "Holder",
            "string",
            "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
        ),
        Column::AGE,
    ],
    cells: |tree, now| vec![str_at(tree, "/spec/holderIdentity").into(), age(tree, now)],
    validate,
    ..BASE
};

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    let Some(spec) = found.part::<LeaseSpec>(tree, "spec") else { return found.into_errors() };
    if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
        found.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = spec.lease_transitions {
        found.non_negative(&path.child("leaseTransitions"), count.into());
    }
    let strategy = text(&spec.strategy);
    let path_of = path.child("strategy").child("strategy");
    if strategy.contains('/') {
        found.each(&path_of, strategy, names::qualified_name(strategy));
    } else if spec.strategy.is_some() {
        found.none_or_one_of(&path_of, Some(strategy), &["OldestEmulationVersion"]);
    }
    if !text(&spec.preferred_holder).is_empty() && strategy.is_empty() {
        found.forbidden(&path.child("preferredHolder"), "may only be specified if `strategy` is defined");
    }
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn judges_numbers_and_strategy() {
        let wrong =
            |spec: Value| -> Vec<String> { validate(&json!({"spec": spec})).iter().map(ToString::to_string).collect() };
        assert_eq!(wrong(json!({"leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"})), [""; 0]);
        assert_eq!(
            wrong(json!({"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "x"})),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ]
        );
    }
}
