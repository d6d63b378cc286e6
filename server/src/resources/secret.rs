//! Secret.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    type_name: "io.k8s.api.core.v1.Secret",
    sealed: true,
    ..BASE
};
