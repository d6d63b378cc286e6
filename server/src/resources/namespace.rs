//! Namespace.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    type_name: "io.k8s.api.core.v1.Namespace",
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] },
        Subresource::status("", "Namespace"),
    ],
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    ..BASE
};
