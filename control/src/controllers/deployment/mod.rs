//! Deployments: new pod templates rolled out by scaling ReplicaSets, within surge and unavailability.
//!
//! The decisions are Kubernetes's, number by number, since people tune them by its documentation: [`rollout`] has the two
//! strategies, [`scaling`] proportional scaling, [`revision`] names and histories, [`status`] counts and conditions.

mod plan;
mod revision;
mod rollout;
mod scaling;
mod status;

use super::claim::Claimer;
use super::{Change, Controller};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::{Deployment, Pod, ReplicaSet, Strategy};
use crate::view::{Applied, Item, Kind, View};
use jiff::Timestamp;
use plan::Plan;

pub struct DeploymentController;

const NAME: &str = "deployment-controller";

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Deployment::RESOURCE => vec![(*change.key).clone()],
            ReplicaSet::RESOURCE => {
                let owner = |uid: &str| view.by_uid(uid).map(|r| (*r.key).clone());
                let mut keys: Vec<_> =
                    change.sides().filter_map(|r| r.meta().controller()).filter_map(|c| owner(&c.uid)).collect();
                if let Some(after) = change.after.as_ref().filter(|r| r.meta().controller().is_none()) {
                    let labels = &after.meta().labels;
                    keys.extend(
                        view.list_in::<Deployment>(&after.meta().namespace)
                            .filter(|d| !d.selector.0.is_empty() && d.selector.matches(labels))
                            .map(|d| (*d.key).clone()),
                    );
                }
                keys.retain(|k| k.resource == Deployment::RESOURCE);
                keys.dedup();
                keys
            }
            // Recreate waits for the last old pod to be gone; nothing else of a pod concerns a Deployment directly.
            Pod::RESOURCE => {
                let gone_or_done = |r: &crate::view::Record| r.get::<Pod>().is_none_or(|p| p.is_finished());
                if change.after.as_ref().is_some_and(|r| !gone_or_done(r)) {
                    return Vec::new();
                }
                let deployment = change.record().and_then(|r| r.meta().controller()).and_then(|set| {
                    let set = view.by_uid(&set.uid)?.get::<ReplicaSet>()?;
                    view.by_uid(&set.meta.controller()?.uid)?.get::<Deployment>()
                });
                deployment.filter(|d| d.strategy == Strategy::Recreate).map(|d| (*d.key).clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Outcome {
        let Some(deployment) = view.item::<Deployment>(key) else { return Outcome::default() };
        if deployment.selector.0.is_empty() {
            return selects_everything(view, &deployment);
        }
        let claimer = Claimer {
            api_version: "apps/v1",
            kind: "Deployment",
            owner: &deployment.meta,
            selector: &deployment.selector,
        };
        let claimed = claimer.claim::<ReplicaSet>(view);
        if !claimed.actions.is_empty() {
            return Outcome { actions: claimed.actions, again_at: None };
        }
        let mut plan = Plan::new(view, deployment, claimed.owned, now);
        if plan.deployment.meta.is_terminating() {
            plan.sync_status();
            return plan.finish();
        }
        plan.check_paused();
        if plan.deployment.paused || plan.is_scaling() {
            plan.find_new_set(false);
            plan.scale();
            if plan.deployment.paused {
                plan.clean_up();
            }
            plan.sync_status();
            return plan.finish();
        }
        match plan.deployment.strategy {
            Strategy::Recreate => plan.recreate(),
            Strategy::RollingUpdate { .. } => plan.roll(),
            Strategy::Unknown => {}
        }
        plan.finish()
    }
}

/// Validation refuses an empty selector; what is stored with one all the same is left alone, and told.
fn selects_everything(view: &View, deployment: &Item<Deployment>) -> Outcome {
    let Some(record) = view.record(&deployment.key) else { return Outcome::default() };
    let change = Change::of(record);
    let message = "This deployment is selecting all pods. A non-empty selector is required.".to_string();
    let mut actions = Vec::new();
    if deployment.status.observed_generation < deployment.meta.generation {
        actions.push(Action::Event(change.event(NAME, EventType::Warning, "SelectingAll", message)));
        let status = serde_json::json!({"status": {"observedGeneration": deployment.meta.generation}});
        actions.push(change.strategic(Some("status"), status));
    }
    Outcome { actions, again_at: None }
}
