//! Every namespace has a ConfigMap with the CA by which pods know the API server.

use super::{Change, Controller};
use crate::action::{Action, ObjectKey, Outcome};
use crate::projection::{ConfigMap, Namespace, ROOT_CA_CONFIG_MAP};
use crate::view::{Applied, Kind, View};
use jiff::Timestamp;
use serde_json::json;

pub struct RootCaPublisher;

const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn keys(&self, _view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Namespace::RESOURCE => vec![(*change.key).clone()],
            ConfigMap::RESOURCE if change.key.name == ROOT_CA_CONFIG_MAP => {
                vec![ObjectKey::new(Namespace::RESOURCE, "", change.key.namespace.clone())]
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, _now: Timestamp) -> Outcome {
        let ca = &view.settings.root_ca;
        let alive = view.item::<Namespace>(key).is_some_and(|n| !n.meta.is_terminating());
        if !alive || ca.is_empty() {
            return Outcome::default();
        }
        let data = json!({"ca.crt": ca});
        let metadata = json!({"annotations": {"kubernetes.io/description": DESCRIPTION}});
        let action = match view.get::<ConfigMap>(&key.name, ROOT_CA_CONFIG_MAP) {
            Some(map) if map.root_ca.as_ref() == Some(ca) => return Outcome::default(),
            Some(map) => {
                let Some(record) = view.record(&map.key) else { return Outcome::default() };
                Change::of(record).exact(None, json!({"metadata": metadata, "data": data}))
            }
            None => {
                let mut metadata = metadata;
                metadata["name"] = json!(ROOT_CA_CONFIG_MAP);
                metadata["namespace"] = json!(key.name);
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
                Action::Create { resource: ConfigMap::RESOURCE, namespace: key.name.clone(), object, report: None }
            }
        };
        Outcome { actions: vec![action], again_at: None }
    }
}
