//! Node.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    type_name: "io.k8s.api.core.v1.Node",
    subresources: &[Subresource::status("", "Node")],
    ..BASE
};
