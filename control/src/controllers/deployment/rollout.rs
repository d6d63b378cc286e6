//! The two strategies: rolling within surge and unavailability, and recreating.

use super::plan::Plan;
use crate::projection::{Phase, Pod, Strategy};

impl Plan<'_> {
    /// One step of a rolling update: grow the new set, or shrink the old ones, never both in one look.
    pub fn roll(&mut self) {
        self.find_new_set(true);
        let moved = self.create.is_some() || self.grow_new_set() || self.shrink_old_sets();
        if !moved && self.is_complete(&self.deployment.status.clone()) {
            self.clean_up();
        }
        self.sync_rollout_status();
    }

    /// How large the new set, now of `replicas`, may become.
    pub fn new_set_replicas(&self, replicas: i32) -> i32 {
        if !matches!(self.deployment.strategy, Strategy::RollingUpdate { .. }) {
            return self.deployment.replicas;
        }
        let room = self.deployment.replicas + self.max_surge() - self.total_replicas();
        if room <= 0 { replicas } else { replicas + room.min(self.deployment.replicas - replicas) }
    }

    fn grow_new_set(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let (replicas, wanted) = (self.sets[new].replicas, self.deployment.replicas);
        if replicas == wanted {
            return false;
        }
        let target = if replicas > wanted { wanted } else { self.new_set_replicas(replicas) };
        self.scale_set(new, target)
    }

    fn shrink_old_sets(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let old = self.active_old();
        if old.is_empty() {
            return false;
        }
        let min_available = self.deployment.replicas - self.max_unavailable();
        let new_unavailable = self.sets[new].replicas - self.sets[new].status.available_replicas;
        let spare = self.total_replicas() - min_available - new_unavailable;
        if spare <= 0 {
            return false;
        }
        // What doesn't work anyway goes first: it can't cost availability.
        let cleaned = self.drop_unhealthy(&old, spare);
        // What a set has beyond its size is on its way out: a status that still counts it must not cost another pod.
        let available: i32 = self.sets.iter().map(|s| s.status.available_replicas.min(s.replicas)).sum();
        let dropped = self.drop_available(&old, available - min_available);
        cleaned + dropped > 0
    }

    fn drop_unhealthy(&mut self, old: &[usize], spare: i32) -> i32 {
        let mut dropped = 0;
        for &index in old {
            let (replicas, available) = (self.sets[index].replicas, self.sets[index].status.available_replicas);
            if dropped >= spare {
                break;
            }
            let count = (spare - dropped).min(replicas - available);
            if replicas > 0 && count > 0 {
                self.scale_set(index, replicas - count);
                dropped += count;
            }
        }
        dropped
    }

    fn drop_available(&mut self, old: &[usize], spare: i32) -> i32 {
        let mut dropped = 0;
        for &index in old {
            let replicas = self.sets[index].replicas;
            let count = replicas.min(spare - dropped);
            if count > 0 {
                self.scale_set(index, replicas - count);
                dropped += count;
            }
        }
        dropped
    }

    /// All old pods go, and only when the last is gone the new ones come.
    pub fn recreate(&mut self) {
        self.find_new_set(false);
        let mut shrunk = false;
        for index in self.active_old() {
            shrunk |= self.scale_set(index, 0);
        }
        if !shrunk && !self.old_pods_run() {
            if self.new.is_none() {
                self.find_new_set(true);
            }
            if let Some(new) = self.new {
                self.scale_set(new, self.deployment.replicas);
            }
            if self.is_complete(&self.deployment.status.clone()) {
                self.clean_up();
            }
        }
        self.sync_rollout_status();
    }

    fn old_pods_run(&self) -> bool {
        self.old().into_iter().any(|i| {
            let set = &self.sets[i];
            let running = |p: crate::view::Item<Pod>| !matches!(p.phase, Phase::Succeeded | Phase::Failed);
            set.status.replicas > 0 || self.view.controlled::<Pod>(&set.meta.uid).any(running)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeploymentController;
    use crate::action::{Action, ObjectKey};
    use crate::controllers::Controller;
    use crate::projection::Projection;
    use crate::view::{Change, View};
    use jiff::Timestamp;
    use serde_json::{Value, json};

    fn template(image: &str) -> Value {
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
    }

    fn set(name: &str, image: &str, replicas: i64, available: i64) -> (&'static str, Value) {
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d", "controller": true});
        let tree = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}, "ownerReferences": [owner]},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template(image)},
            "status": {"replicas": available, "availableReplicas": available},
        });
        ("replicasets.apps", tree)
    }

    /// What a look at a Deployment of these asks of its sets: names and sizes.
    fn asked(strategy: Value, sets: [(&'static str, Value); 2]) -> Vec<(String, i64)> {
        let deployment = json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 1},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "a"}}, "template": template("web:2"), "strategy": strategy},
            "status": {"observedGeneration": 1},
        });
        let mut view = View::default();
        for (revision, (resource, tree)) in (1..).zip([("deployments.apps", deployment)].into_iter().chain(sets)) {
            let name = tree["metadata"]["name"].as_str().unwrap();
            let (key, projection) = (ObjectKey::new(resource, "n", name), Some(Projection::of(resource, &tree)));
            view.apply(Change { key, revision, projection }, Timestamp::UNIX_EPOCH);
        }
        let key = ObjectKey::new("deployments.apps", "n", "d");
        let look = DeploymentController.reconcile(&view, &key, Timestamp::UNIX_EPOCH);
        let sizes = look.actions.iter().filter_map(|action| match action {
            Action::Patch { key, patch, .. } => Some((key.name.clone(), patch["spec"]["replicas"].as_i64()?)),
            _ => None,
        });
        sizes.collect()
    }

    /// Found by the simulator: two new pods became available one right after the other; the old set was made smaller for the
    /// first, and its status, which still counted the pod on its way out, cost another one for the second.
    #[test]
    fn what_is_on_its_way_out_counts_as_available_no_more() {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}});
        let asked = asked(strategy, [set("old", "web:1", 2, 3), set("new", "web:2", 4, 3)]);
        assert_eq!(asked, [("old".to_string(), 1)], "four stay: three new ones and an old one");
    }

    /// Found by the simulator: a Deployment that recreates adopted the sets of one that was rolling, with another size.
    #[test]
    fn several_sets_of_a_deployment_that_recreates_go_whatever_their_size_was() {
        let told = |name, image, replicas| {
            let (resource, mut tree) = set(name, image, replicas, replicas);
            tree["metadata"]["annotations"] = json!({"deployment.kubernetes.io/desired-replicas": "3"});
            (resource, tree)
        };
        let asked = asked(json!({"type": "Recreate"}), [told("first", "web:0", 2), told("second", "web:1", 1)]);
        assert_eq!(asked, [("first".to_string(), 0), ("second".to_string(), 0)]);
    }
}
