//! Lease.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    type_name: "io.k8s.api.coordination.v1.Lease",
    ..BASE
};
