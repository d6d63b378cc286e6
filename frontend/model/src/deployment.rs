//! How a Deployment is doing, in one sentence, and its revisions.

use crate::kube::{Deployment, Pod, ReplicaSet, condition};
use crate::pod;
use crate::state::{Action, Sentence, State};
use crate::time;
use crate::words::{Word, t};
use std::sync::Arc;

/// The annotation that numbers a rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";

/// How far a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub wanted: i64,
    pub updated: i64,
    pub ready: i64,
    pub available: i64,
    pub total: i64,
}

impl Progress {
    pub fn of(deployment: &Deployment) -> Self {
        let status = &deployment.status;
        Self {
            wanted: deployment.spec.replicas.unwrap_or(1),
            updated: status.updated_replicas,
            ready: status.ready_replicas,
            available: status.available_replicas,
            total: status.replicas,
        }
    }

    pub fn complete(&self) -> bool {
        self.updated >= self.wanted && self.total <= self.updated && self.available >= self.updated
    }
}

/// The sentence. `pods` are the Deployment's own, where they are known: the worst of them is the evidence.
pub fn sentence(deployment: &Deployment, pods: &[Arc<Pod>], now: i64) -> Sentence {
    let progress = Progress::of(deployment);
    let Progress { wanted, available, updated, .. } = progress;
    let counts: &[(&str, &dyn std::fmt::Display)] =
        &[("ready", &available), ("wanted", &wanted), ("updated", &updated)];
    if deployment.metadata.deletion_timestamp.is_some() {
        return Sentence::new(State::Progressing, t(Word::DeploymentLeaving));
    }
    if deployment.status.observed_generation < deployment.metadata.generation {
        return Sentence::new(State::Progressing, Word::DeploymentUnseen.with(counts));
    }
    let conditions = &deployment.status.conditions;
    let worst = worst(pods, now);
    if let Some(failure) = condition(conditions, "ReplicaFailure").filter(|c| c.status == "True") {
        return Sentence::new(
            if available > 0 { State::Degraded } else { State::Failing },
            Word::DeploymentCannotCreate.with(counts),
        )
        .evidence(&failure.message)
        .next(Word::NextEdit, Some(Action::EditYaml));
    }
    let progressing = condition(conditions, "Progressing");
    if progressing.is_some_and(|c| c.status == "False" && c.reason == "ProgressDeadlineExceeded")
        && !progress.complete()
    {
        let state = if available > 0 { State::Degraded } else { State::Failing };
        let sentence = Sentence::new(state, Word::DeploymentStuck.with(counts));
        return match worst {
            Some(worst) => sentence.evidence(worst.text).next(Word::NextRollBack, Some(Action::RollBack)),
            None => sentence
                .evidence(progressing.map(|c| c.message.clone()).unwrap_or_default())
                .next(Word::NextRollBack, Some(Action::RollBack)),
        };
    }
    if wanted == 0 {
        let word = if progress.total > 0 { Word::DeploymentScalingDown } else { Word::DeploymentScaledToNothing };
        let state = if progress.total > 0 { State::Progressing } else { State::Idle };
        return Sentence::new(state, word.with(counts));
    }
    if deployment.spec.paused && !progress.complete() {
        let state = if available >= wanted { State::Idle } else { State::Degraded };
        return Sentence::new(state, Word::DeploymentPaused.with(counts)).next(Word::NextResume, Some(Action::Resume));
    }
    if progress.complete() && available >= wanted {
        let changed = progressing
            .map(|c| if c.last_update_time.is_empty() { &c.last_transition_time } else { &c.last_update_time })
            .filter(|time| !time.is_empty())
            .unwrap_or(&deployment.metadata.creation_timestamp);
        let ago = time::ago_text(changed, now);
        let text = Word::DeploymentServing.with(&[("ready", &available), ("wanted", &wanted), ("ago", &ago)]);
        return Sentence::new(State::Good, text);
    }
    let failing = worst.filter(|w| w.state >= State::Degraded);
    if progress.updated < wanted || progress.total > progress.updated {
        let state = if failing.is_some() { State::Degraded } else { State::Progressing };
        return with_worst(Sentence::new(state, Word::DeploymentRolling.with(counts)), failing);
    }
    match (available, failing) {
        (0, Some(worst)) => with_worst(Sentence::new(State::Failing, Word::DeploymentDown.with(counts)), Some(worst)),
        (_, Some(worst)) => with_worst(Sentence::new(State::Degraded, Word::DeploymentShort.with(counts)), Some(worst)),
        (_, None) => Sentence::new(State::Progressing, Word::DeploymentStarting.with(counts)),
    }
}

fn with_worst(mut sentence: Sentence, worst: Option<Sentence>) -> Sentence {
    if let Some(worst) = worst {
        sentence.evidence = Some(match worst.evidence {
            Some(evidence) => format!("{} {evidence}", worst.text),
            None => worst.text,
        });
        sentence.next = worst.next;
    }
    sentence
}

/// What the pod that needs most attention says about itself.
fn worst(pods: &[Arc<Pod>], now: i64) -> Option<Sentence> {
    let living = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    living.map(|p| pod::sentence(p, None, now)).filter(|s| s.state >= State::Degraded).max_by_key(|s| s.state)
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    pub number: i64,
    pub replica_set: String,
    pub images: Vec<String>,
    pub made: String,
    pub cause: Option<String>,
    /// The one that the Deployment asks for now.
    pub current: bool,
    pub replicas: i64,
}

/// The revisions of a Deployment, newest first.
pub fn history(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<Revision> {
    let mut revisions: Vec<Revision> = sets
        .iter()
        .filter(|set| set.metadata.controller().is_some_and(|o| o.uid == deployment.metadata.uid))
        .filter_map(|set| {
            Some(Revision {
                number: set.metadata.annotations.get(REVISION)?.parse().ok()?,
                replica_set: set.metadata.name.clone(),
                images: set.spec.template.spec.containers.iter().map(|c| c.image.clone()).collect(),
                made: set.metadata.creation_timestamp.clone(),
                cause: set.metadata.annotations.get("kubernetes.io/change-cause").cloned(),
                current: false,
                replicas: set.status.replicas,
            })
        })
        .collect();
    revisions.sort_by_key(|r| -r.number);
    if let Some(newest) = revisions.first_mut() {
        newest.current = true;
    }
    revisions
}

/// The patch that rolls back: the template of that ReplicaSet, without the label that names it. JSON patch, because a
/// merge would leave what the newer template added.
pub fn roll_back(set: &serde_json::Value) -> Option<serde_json::Value> {
    let mut template = set.pointer("/spec/template")?.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(|l| l.as_object_mut()) {
        labels.remove("pod-template-hash");
    }
    Some(serde_json::json!([{"op": "replace", "path": "/spec/template", "value": template}]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use serde_json::{Value, json};

    const NOW: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z

    fn deployment(spec: Value, status: Value) -> Deployment {
        let metadata = json!({"name": "web", "uid": "d", "generation": 2, "creationTimestamp": "2025-12-31T23:00:00Z"});
        let mut status = status;
        if status.get("observedGeneration").is_none() {
            status["observedGeneration"] = 2.into();
        }
        Read::read(&json!({"metadata": metadata, "spec": spec, "status": status}))
    }
    fn says(spec: Value, status: Value) -> Sentence {
        sentence(&deployment(spec, status), &[], NOW)
    }

    #[test]
    fn serving_counts_available_replicas() {
        let sentence = says(
            json!({"replicas": 3}),
            json!({"replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
                "conditions": [{"type": "Progressing", "status": "True", "lastUpdateTime": "2025-12-31T23:56:00Z"}]}),
        );
        assert_eq!((sentence.state, sentence.text.as_str()), (State::Good, "Serving 3 of 3, changed 4 minutes ago."));
    }

    #[test]
    fn a_change_nobody_took_up_yet_is_never_good() {
        let status = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3});
        assert_eq!(says(json!({"replicas": 3}), status).state, State::Progressing);
    }

    #[test]
    fn a_stuck_rollout_that_still_serves_is_degraded_and_offers_the_way_back() {
        let stuck = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "has timed out"}]);
        let sentence = says(
            json!({"replicas": 3}),
            json!({"replicas": 4, "updatedReplicas": 1, "availableReplicas": 3, "conditions": stuck}),
        );
        assert_eq!(sentence.state, State::Degraded);
        assert_eq!(sentence.next.unwrap().action, Some(Action::RollBack));
        assert_eq!(
            says(json!({"replicas": 3}), json!({"replicas": 1, "updatedReplicas": 1, "conditions": stuck})).state,
            State::Failing
        );
    }

    #[test]
    fn states_on_the_way() {
        assert_eq!(says(json!({"replicas": 0}), json!({})).state, State::Idle);
        assert_eq!(says(json!({"replicas": 0}), json!({"replicas": 2})).state, State::Progressing);
        assert_eq!(
            says(json!({"replicas": 3}), json!({"replicas": 4, "updatedReplicas": 1, "availableReplicas": 3})).state,
            State::Progressing
        );
        assert_eq!(
            says(json!({"replicas": 3}), json!({"replicas": 3, "updatedReplicas": 3, "availableReplicas": 1})).state,
            State::Progressing
        );
        assert_eq!(
            says(
                json!({"replicas": 3, "paused": true}),
                json!({"replicas": 3, "updatedReplicas": 0, "availableReplicas": 3})
            )
            .state,
            State::Idle
        );
    }

    #[test]
    fn the_worst_pod_is_the_evidence() {
        let pod: Pod = Read::read(
            &json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"containerStatuses":
            [{"name": "web", "image": "nope:1", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}}),
        );
        let deployment = deployment(json!({"replicas": 1}), json!({"replicas": 1, "updatedReplicas": 1}));
        let sentence = sentence(&deployment, &[Arc::new(pod)], NOW);
        assert_eq!(sentence.state, State::Failing);
        assert!(sentence.evidence.unwrap().contains("nope:1"));
        assert_eq!(sentence.next.unwrap().action, Some(Action::ChangeImage));
    }

    #[test]
    fn history_is_newest_first_and_only_its_own() {
        let set = |name: &str, number: &str, owner: &str| -> Arc<ReplicaSet> {
            Arc::new(Read::read(&json!({"metadata": {"name": name, "annotations": {REVISION: number},
                "ownerReferences": [{"uid": owner, "controller": true}]}, "spec": {"template": {"spec": {"containers": [{"image": name}]}}}})))
        };
        let sets = [set("a", "9", "d"), set("b", "10", "d"), set("c", "11", "other")];
        let history = history(&deployment(json!({}), json!({})), &sets);
        assert_eq!(history.iter().map(|r| (r.number, r.current)).collect::<Vec<_>>(), [(10, true), (9, false)]);
    }

    #[test]
    fn rolling_back_replaces_the_whole_template() {
        let set =
            json!({"spec": {"template": {"metadata": {"labels": {"app": "a", "pod-template-hash": "x"}}, "spec": {}}}});
        let patch = roll_back(&set).unwrap();
        assert_eq!(patch[0]["value"]["metadata"]["labels"], json!({"app": "a"}));
    }
}
