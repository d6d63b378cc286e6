//! Service.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    type_name: "io.k8s.api.core.v1.Service",
    subresources: &[Subresource::status("", "Service")],
    ..BASE
};
