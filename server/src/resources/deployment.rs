//! Deployment.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "apps",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    type_name: "io.k8s.api.apps.v1.Deployment",
    subresources: &[Subresource::SCALE, Subresource::status("apps", "Deployment")],
    ..BASE
};
