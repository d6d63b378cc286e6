//! Emits, gzipped, one JSON object: the name of each schema → the schema, for all kinds listed here and what they
//! reference. References are written as OpenAPI v3 documents have them.

use k8s_openapi::api::{apps, authentication, authorization, autoscaling, coordination, core, discovery, events, networking, policy, scheduling};
use k8s_openapi::apimachinery::pkg::apis::meta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::Value;
use std::io::Write;

macro_rules! schemas {
    ($generator:expr, $($kind:ty),* $(,)?) => { $( let _ = $generator.subschema_for::<$kind>(); )* };
}

fn main() -> std::io::Result<()> {
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    schemas!(
        generator,
        apps::v1::Deployment, apps::v1::ReplicaSet, apps::v1::StatefulSet, apps::v1::DaemonSet, apps::v1::ControllerRevision,
        authentication::v1::TokenRequest, authentication::v1::TokenReview, authentication::v1::SelfSubjectReview,
        authorization::v1::SelfSubjectAccessReview, authorization::v1::SelfSubjectRulesReview,
        authorization::v1::SubjectAccessReview, authorization::v1::LocalSubjectAccessReview,
        autoscaling::v1::Scale, coordination::v1::Lease, discovery::v1::EndpointSlice, events::v1::Event,
        core::v1::Binding, core::v1::ConfigMap, core::v1::Endpoints, core::v1::Event, core::v1::Namespace, core::v1::Node,
        core::v1::Pod, core::v1::PodTemplate, core::v1::Secret, core::v1::Service, core::v1::ServiceAccount,
        networking::v1::Ingress, networking::v1::IngressClass, networking::v1::NetworkPolicy, policy::v1::Eviction, scheduling::v1::PriorityClass,
        meta::v1::APIResourceList, meta::v1::DeleteOptions, meta::v1::ListMeta, meta::v1::Patch, meta::v1::Status,
    );
    let mut schemas = Value::Object(generator.take_definitions(true));
    settle(&mut schemas);
    let mut out = flate2::write::GzEncoder::new(std::io::stdout().lock(), flate2::Compression::best());
    out.write_all(schemas.to_string().as_bytes())?;
    out.finish()?.flush()
}

/// A reference with a description beside it is an `allOf` of one, as Kubernetes writes it.
fn settle(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.values_mut().for_each(settle);
            if entries.len() > 1
                && let Some(reference) = entries.get("$ref").filter(|r| r.is_string()).cloned()
            {
                entries.remove("$ref");
                entries.insert("allOf".into(), serde_json::json!([{ "$ref": reference }]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}
