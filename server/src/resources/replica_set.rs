//! ReplicaSet.

use super::*;

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
    ..BASE
};
