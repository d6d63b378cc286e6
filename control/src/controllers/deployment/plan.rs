//! One look at one Deployment: what is, what was decided so far, and at the end the actions that make it so.

use super::NAME;
use super::revision::{DESIRED, MAX};
use crate::action::{Action, EventType, Outcome, Report};
use crate::controllers::{Change, sooner};
use crate::projection::{Deployment, DeploymentStatus, ReplicaSet, Strategy};
use crate::view::{Item, View};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Deref;

/// A ReplicaSet and what it is to become.
pub(super) struct Set {
    pub item: Item<ReplicaSet>,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub annotations: BTreeMap<String, String>,
}

impl Deref for Set {
    type Target = ReplicaSet;
    fn deref(&self) -> &ReplicaSet {
        &self.item
    }
}

/// A ReplicaSet that isn't there yet.
pub(super) struct NewSet {
    pub name: String,
    pub replicas: i32,
    pub object: Value,
}

pub(super) struct Plan<'a> {
    pub view: &'a View,
    pub deployment: Item<Deployment>,
    pub now: Timestamp,
    /// All ReplicaSets of ours, oldest first.
    pub sets: Vec<Set>,
    /// The one of the present template, in `sets`.
    pub new: Option<usize>,
    pub create: Option<NewSet>,
    /// The status to be written.
    pub status: DeploymentStatus,
    /// The `deployment.kubernetes.io/revision` annotation to be written, if it is another than there is.
    pub revision: Option<String>,
    pub delete: Vec<usize>,
    pub again_at: Option<Timestamp>,
    scaled: Vec<Action>,
}

impl<'a> Plan<'a> {
    pub fn new(view: &'a View, deployment: Item<Deployment>, owned: Vec<Item<ReplicaSet>>, now: Timestamp) -> Self {
        let mut sets: Vec<Set> = owned
            .into_iter()
            .map(|item| Set {
                replicas: item.replicas,
                min_ready_seconds: item.min_ready_seconds,
                annotations: item.annotations.clone(),
                item,
            })
            .collect();
        sets.sort_by(|a, b| (a.meta.created(), &a.meta.name).cmp(&(b.meta.created(), &b.meta.name)));
        let new = sets.iter().position(|s| s.template == deployment.template);
        let status = deployment.status.clone();
        Self {
            view,
            deployment,
            now,
            sets,
            new,
            create: None,
            status,
            revision: None,
            delete: Vec::new(),
            again_at: None,
            scaled: Vec::new(),
        }
    }

    /// Indexes of all sets but the new one, oldest first.
    pub fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|i| Some(*i) != self.new).collect()
    }

    pub fn active_old(&self) -> Vec<usize> {
        self.old().into_iter().filter(|i| self.sets[*i].replicas > 0).collect()
    }

    /// Replicas asked for, over all sets.
    pub fn total_replicas(&self) -> i32 {
        self.sets.iter().map(|s| s.replicas).sum()
    }

    pub fn max_surge(&self) -> i32 {
        self.fenceposts().0
    }

    pub fn max_unavailable(&self) -> i32 {
        if self.deployment.replicas == 0 { 0 } else { self.fenceposts().1.min(self.deployment.replicas) }
    }

    /// Surge rounded up, unavailability down; both zero would never move, so one may then be unavailable.
    fn fenceposts(&self) -> (i32, i32) {
        let Strategy::RollingUpdate { max_surge, max_unavailable } = &self.deployment.strategy else { return (0, 0) };
        let surge = max_surge.of_total(self.deployment.replicas, true);
        let unavailable = max_unavailable.of_total(self.deployment.replicas, false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// Scales a set, with the annotations that proportional scaling goes by. Says whether its size changes.
    pub fn scale_set(&mut self, index: usize, replicas: i32) -> bool {
        let (desired, max) = (self.deployment.replicas, self.deployment.replicas + self.max_surge());
        let set = &mut self.sets[index];
        set.annotations.insert(DESIRED.into(), desired.to_string());
        set.annotations.insert(MAX.into(), max.to_string());
        let from = std::mem::replace(&mut set.replicas, replicas);
        if from == replicas {
            return false;
        }
        let way = if replicas > from { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} from {from} to {replicas}", set.meta.name);
        self.tell(EventType::Normal, "ScalingReplicaSet", message);
        true
    }

    fn tell(&mut self, kind: EventType, reason: &'static str, message: String) {
        if let Some(record) = self.view.record(&self.deployment.key) {
            self.scaled.push(Action::Event(Change::of(record).event(NAME, kind, reason, message)));
        }
    }

    pub fn look_again(&mut self, at: Timestamp) {
        self.again_at = sooner(self.again_at, Some(at));
    }

    /// Everything decided, as actions: ReplicaSets first, the status that tells of them last.
    pub fn finish(self) -> Outcome {
        let Some(record) = self.view.record(&self.deployment.key) else { return Outcome::default() };
        let me = Change::of(record);
        let mut actions = Vec::new();
        for set in &self.sets {
            let Some(record) = self.view.record(&set.item.key) else { continue };
            if let Some(patch) = set.patch() {
                actions.push(Change::of(record).exact(None, patch));
            }
        }
        actions.extend(self.scaled);
        let failing = self.view.failure(NAME, &self.deployment.key).is_some();
        let status = status_patch(&self.deployment, &self.status, self.revision.as_deref());
        let status = status.map(|patch| me.exact(Some("status"), patch));
        if let Some(new) = self.create {
            let failure = me.event(
                NAME,
                EventType::Warning,
                "ReplicaSetCreateError",
                format!("Failed to create new replica set \"{}\": {{}}", new.name),
            );
            let success = me.event(
                NAME,
                EventType::Normal,
                "ScalingReplicaSet",
                format!("Scaled up replica set {} from 0 to {}", new.name, new.replicas),
            );
            let create = Action::Create {
                resource: "replicasets.apps",
                namespace: self.deployment.meta.namespace.clone(),
                object: new.object,
                report: Some(Report { success: (new.replicas > 0).then_some(success), failure }),
            };
            // A creation that keeps failing must not keep the status from saying so.
            if failing {
                actions.extend(status);
                actions.push(create);
            } else {
                actions.push(create);
                actions.extend(status);
            }
        } else {
            actions.extend(status);
        }
        for index in self.delete {
            if let Some(record) = self.view.record(&self.sets[index].item.key) {
                actions.push(Change::of(record).delete(None));
            }
        }
        Outcome { actions, again_at: self.again_at }
    }
}

impl Set {
    /// What is to change of it; none if it is as it should be.
    fn patch(&self) -> Option<Value> {
        let mut spec = serde_json::Map::new();
        if self.replicas != self.item.replicas {
            spec.insert("replicas".into(), json!(self.replicas));
        }
        if self.min_ready_seconds != self.item.min_ready_seconds {
            spec.insert("minReadySeconds".into(), json!(self.min_ready_seconds));
        }
        let mut annotations = serde_json::Map::new();
        for (name, value) in &self.annotations {
            if self.item.annotations.get(name) != Some(value) {
                annotations.insert(name.clone(), json!(value));
            }
        }
        for name in self.item.annotations.keys().filter(|n| !self.annotations.contains_key(*n)) {
            annotations.insert(name.clone(), Value::Null);
        }
        if spec.is_empty() && annotations.is_empty() {
            return None;
        }
        let mut patch = serde_json::Map::new();
        if !spec.is_empty() {
            patch.insert("spec".into(), spec.into());
        }
        if !annotations.is_empty() {
            patch.insert("metadata".into(), json!({"annotations": annotations}));
        }
        Some(patch.into())
    }
}

/// The status as a merge patch: zero counts are left out on the wire, so what became zero is taken away.
fn status_patch(deployment: &Deployment, status: &DeploymentStatus, revision: Option<&str>) -> Option<Value> {
    let mut patch = serde_json::Map::new();
    if let Some(revision) = revision {
        patch.insert("metadata".into(), json!({"annotations": {super::revision::REVISION: revision}}));
    }
    if *status != deployment.status {
        let count = |n: i32| if n == 0 { Value::Null } else { json!(n) };
        patch.insert(
            "status".into(),
            json!({
                "observedGeneration": status.observed_generation,
                "replicas": count(status.replicas),
                "updatedReplicas": count(status.updated_replicas),
                "readyReplicas": count(status.ready_replicas),
                "availableReplicas": count(status.available_replicas),
                "unavailableReplicas": count(status.unavailable_replicas),
                "terminatingReplicas": status.terminating_replicas,
                "collisionCount": status.collision_count,
                "conditions": status.conditions,
            }),
        );
    }
    (!patch.is_empty()).then(|| patch.into())
}
