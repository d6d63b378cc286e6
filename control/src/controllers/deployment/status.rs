//! A Deployment's counts and its conditions Available, Progressing and ReplicaFailure.

use super::plan::{Plan, Set};
use crate::controllers::whole_seconds;
use crate::projection::{Condition, DeploymentStatus, Status};
use jiff::SignedDuration;

impl Plan<'_> {
    pub fn has_deadline(&self) -> bool {
        self.deployment.progress_deadline_seconds.is_some()
    }

    /// Sets a condition as Kubernetes does: not at all if status and reason are the same, and with the time of the last
    /// transition kept if only the reason is new.
    pub fn set_condition(&mut self, r#type: &str, status: Status, reason: &str, message: String) {
        let now = whole_seconds(self.now);
        let current = Condition::find(&self.status.conditions, r#type);
        if current.is_some_and(|c| c.status == status && c.reason == reason) {
            return;
        }
        let transition = current.filter(|c| c.status == status).and_then(|c| c.last_transition_time).unwrap_or(now);
        self.status.conditions.retain(|c| c.r#type != r#type);
        self.status.conditions.push(Condition {
            r#type: r#type.into(),
            status,
            last_heartbeat_time: None,
            last_update_time: Some(now),
            last_transition_time: Some(transition),
            reason: reason.into(),
            message,
        });
    }

    fn drop_condition(&mut self, r#type: &str) {
        self.status.conditions.retain(|c| c.r#type != r#type);
    }

    /// Says that progress isn't judged while paused, and that it is again.
    pub fn check_paused(&mut self) {
        if !self.has_deadline() {
            return;
        }
        let reason = Condition::find(&self.status.conditions, "Progressing").map(|c| c.reason.clone());
        let reason = reason.as_deref();
        if reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        let known = reason == Some("DeploymentPaused");
        if self.deployment.paused && !known {
            self.set_condition("Progressing", Status::Unknown, "DeploymentPaused", "Deployment is paused".into());
        } else if !self.deployment.paused && known {
            self.set_condition("Progressing", Status::Unknown, "DeploymentResumed", "Deployment is resumed".into());
        }
    }

    /// Counts and availability, nothing about progress.
    pub fn sync_status(&mut self) {
        let sum = |count: fn(&Set) -> i32| self.sets.iter().map(count).sum::<i32>();
        let (replicas, available) = (sum(|s| s.status.replicas), sum(|s| s.status.available_replicas));
        let terminating = sum(|s| s.status.terminating_replicas.unwrap_or_default());
        let ready = sum(|s| s.status.ready_replicas);
        self.status.observed_generation = self.deployment.meta.generation;
        self.status.replicas = replicas;
        self.status.updated_replicas = self.new.map_or(0, |i| self.sets[i].status.replicas);
        self.status.ready_replicas = ready;
        self.status.available_replicas = available;
        self.status.unavailable_replicas = (replicas - available).max(0);
        self.status.terminating_replicas = Some(terminating);
        if available >= self.deployment.replicas - self.max_unavailable() {
            let message = "Deployment has minimum availability.".to_string();
            self.set_condition("Available", Status::True, "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.".to_string();
            self.set_condition("Available", Status::False, "MinimumReplicasUnavailable", message);
        }
    }

    /// All replicas are of the present template, available, and no others are left.
    pub fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let wanted = self.deployment.replicas;
        status.updated_replicas == wanted
            && status.replicas == wanted
            && status.available_replicas == wanted
            && status.observed_generation >= self.deployment.meta.generation
    }

    fn has_progressed(&self) -> bool {
        let (old, new) = (&self.deployment.status, &self.status);
        new.updated_replicas > old.updated_replicas
            || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
            || new.ready_replicas > old.ready_replicas
            || new.available_replicas > old.available_replicas
    }

    /// Whether the deadline has passed without progress; if it hasn't yet, this is looked at again when it does.
    fn has_timed_out(&mut self) -> bool {
        let Some(deadline) = self.deployment.progress_deadline_seconds else { return false };
        let Some(condition) = Condition::find(&self.status.conditions, "Progressing") else { return false };
        match condition.reason.as_str() {
            "NewReplicaSetAvailable" => return false,
            "ProgressDeadlineExceeded" => return true,
            _ => {}
        }
        let since = condition.last_update_time.unwrap_or(self.now);
        let due = since + SignedDuration::from_secs(i64::from(deadline));
        if due < self.now {
            return true;
        }
        self.look_again(due + SignedDuration::from_secs(1));
        false
    }

    pub fn sync_rollout_status(&mut self) {
        self.sync_status();
        if !self.has_deadline() {
            self.drop_condition("Progressing");
        }
        let current = Condition::find(&self.status.conditions, "Progressing").cloned();
        // Complete before, and nothing since: no progress to judge.
        let settled = self.status.replicas == self.status.updated_replicas
            && current.as_ref().is_some_and(|c| c.reason == "NewReplicaSetAvailable");
        if self.has_deadline() && !settled {
            let what = match (self.new, &self.create) {
                (Some(new), _) => format!("ReplicaSet \"{}\"", self.sets[new].meta.name),
                (None, Some(created)) => format!("ReplicaSet \"{}\"", created.name),
                (None, None) => format!("Deployment \"{}\"", self.deployment.meta.name),
            };
            if self.is_complete(&self.status.clone()) {
                let message = format!("{what} has successfully progressed.");
                self.set_condition("Progressing", Status::True, "NewReplicaSetAvailable", message);
            } else if self.has_progressed() {
                let message = format!("{what} is progressing.");
                self.note_progress(current, message);
            } else if self.has_timed_out() {
                let message = format!("{what} has timed out progressing.");
                self.set_condition("Progressing", Status::False, "ProgressDeadlineExceeded", message);
            }
            // Whatever was set just now is looked at again when its deadline passes.
            self.has_timed_out();
        }
        self.note_failures();
    }

    /// The same reason again, but with a new time: what the deadline is counted from.
    fn note_progress(&mut self, current: Option<Condition>, message: String) {
        self.drop_condition("Progressing");
        self.set_condition("Progressing", Status::True, "ReplicaSetUpdated", message);
        if let (Some(current), Some(condition)) = (current, self.status.conditions.last_mut())
            && current.status == Status::True
        {
            condition.last_transition_time = current.last_transition_time;
        }
    }

    /// A ReplicaSet's failure, the new one's first, shows on the Deployment.
    fn note_failures(&mut self) {
        let order = self.new.into_iter().chain(0..self.sets.len());
        let failure = order
            .filter_map(|i| Condition::find(&self.sets[i].status.conditions, "ReplicaFailure"))
            .map(|c| (c.status, c.reason.clone(), c.message.clone()))
            .next();
        match failure {
            Some((status, reason, message)) => self.set_condition("ReplicaFailure", status, &reason, message),
            None => self.drop_condition("ReplicaFailure"),
        }
    }
}
