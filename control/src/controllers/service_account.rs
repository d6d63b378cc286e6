//! Every namespace has a ServiceAccount `default`, for pods that name none.

use super::Controller;
use crate::action::{Action, ObjectKey, Outcome};
use crate::projection::Namespace;
use crate::view::{Applied, Kind, View};
use jiff::Timestamp;
use serde_json::json;

pub struct ServiceAccountController;

const ACCOUNTS: &str = "serviceaccounts";

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn keys(&self, _view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Namespace::RESOURCE => vec![(*change.key).clone()],
            ACCOUNTS if change.key.name == "default" && change.after.is_none() => {
                vec![ObjectKey::new(Namespace::RESOURCE, "", change.key.namespace.clone())]
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, _now: Timestamp) -> Outcome {
        let alive = view.item::<Namespace>(key).is_some_and(|n| !n.meta.is_terminating());
        if !alive || view.exists(ACCOUNTS, &key.name, "default") {
            return Outcome::default();
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": key.name},
        });
        let create = Action::Create { resource: ACCOUNTS, namespace: key.name.clone(), object, report: None };
        Outcome { actions: vec![create], again_at: None }
    }
}
