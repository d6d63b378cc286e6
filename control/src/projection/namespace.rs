//! Namespaces, and the small kinds of which one fact matters.

use super::meta::{Condition, Meta};
use super::read;
use jiff::Timestamp;
use longshore_api::name_servers::{self, NameServers};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Namespace {
    pub meta: Meta,
    /// `spec.finalizers`; `kubernetes` stands there until the content is gone.
    pub finalizers: Vec<String>,
    pub phase: String,
    pub conditions: Vec<Condition>,
}

impl Namespace {
    pub fn of(object: &Value) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            phase: String,
            conditions: Vec<Condition>,
        }
        let status: Status = object.get("status").map(read).unwrap_or_default();
        Self {
            meta: Meta::of(object),
            finalizers: object.pointer("/spec/finalizers").map(read).unwrap_or_default(),
            phase: status.phase,
            conditions: status.conditions,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Lease {
    pub meta: Meta,
    pub holder: String,
    pub renewed: Option<Timestamp>,
    pub duration_seconds: Option<i64>,
}

impl Lease {
    pub fn of(object: &Value) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Spec {
            holder_identity: String,
            renew_time: Option<Timestamp>,
            lease_duration_seconds: Option<i64>,
        }
        let spec: Spec = object.get("spec").map(read).unwrap_or_default();
        Self {
            meta: Meta::of(object),
            holder: spec.holder_identity,
            renewed: spec.renew_time,
            duration_seconds: spec.lease_duration_seconds,
        }
    }
}

/// The ConfigMap in each namespace that carries the cluster's CA.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";

#[derive(Clone, Debug, Default)]
pub struct ConfigMap {
    pub meta: Meta,
    /// `data["ca.crt"]`, kept only of the ConfigMap whose content we answer for.
    pub root_ca: Option<String>,
    /// Of the ConfigMap that chooses the cluster's name servers; none where it chooses none. Err: what is wrong with it.
    pub name_servers: Option<Result<Arc<NameServers>, String>>,
}

impl ConfigMap {
    pub fn of(object: &Value) -> Self {
        let meta = Meta::of(object);
        let root_ca = (meta.name == ROOT_CA_CONFIG_MAP)
            .then(|| object.pointer("/data/ca.crt").and_then(Value::as_str).map(str::to_string))
            .flatten();
        let chooses = (meta.namespace.as_str(), meta.name.as_str()) == (name_servers::NAMESPACE, name_servers::NAME);
        let name_servers = chooses.then(|| NameServers::read(|key| object.get("data")?.get(key)?.as_str()));
        let name_servers = name_servers.filter(|read| read.as_ref().map_or(true, |chosen| !chosen.is_empty()));
        Self { meta, root_ca, name_servers: name_servers.map(|read| read.map(Arc::new)) }
    }
}
