//! Endpoints.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    type_name: "io.k8s.api.core.v1.Endpoints",
    ..BASE
};
