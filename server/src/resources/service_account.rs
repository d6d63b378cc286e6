//! ServiceAccount.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    type_name: "io.k8s.api.core.v1.ServiceAccount",
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &["create"],
    }],
    ..BASE
};
