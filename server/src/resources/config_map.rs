//! ConfigMap.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    type_name: "io.k8s.api.core.v1.ConfigMap",
    ..BASE
};
