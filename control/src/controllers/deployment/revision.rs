//! Revisions: which ReplicaSet carries the present template, how it is named, and what its annotations remember.

use super::NAME;
use super::plan::{NewSet, Plan};
use crate::controllers::controller_reference;
use crate::projection::{Condition, Deployment, Status};
use serde_json::json;
use std::collections::BTreeMap;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// What a ReplicaSet doesn't inherit from its Deployment.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
const HASH_LABEL: &str = "pod-template-hash";
/// How long a history may become, in characters.
const HISTORY_LENGTH: usize = 2000;

pub(super) fn revision_of(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or_default()
}

impl Plan<'_> {
    /// Brings the new ReplicaSet's annotations and the Deployment's revision in step; makes one if `create`.
    pub fn find_new_set(&mut self, create: bool) {
        let last =
            self.old().into_iter().map(|i| revision_of(&self.sets[i].item.annotations)).max().unwrap_or_default();
        let next = last + 1;
        if let Some(new) = self.new {
            let inherited = inherited(&self.deployment);
            let set = &mut self.sets[new];
            set.annotations.extend(inherited);
            advance(&mut set.annotations, next);
            set.min_ready_seconds = self.deployment.min_ready_seconds;
            let (revision, name) = (set.annotations.get(REVISION).cloned(), set.meta.name.clone());
            self.note_revision(revision);
            if self.has_deadline() && Condition::find(&self.status.conditions, "Progressing").is_none() {
                let message = format!("Found new replica set \"{name}\"");
                self.set_condition("Progressing", Status::True, "FoundNewReplicaSet", message);
            }
        } else if create {
            self.create_new_set(next);
        }
    }

    fn create_new_set(&mut self, revision: i64) {
        let deployment = self.deployment.clone();
        let hash = hash(deployment.template.essence(), self.status.collision_count);
        let name = format!("{}-{hash}", deployment.meta.name);
        if self.view.exists("replicasets.apps", &deployment.meta.namespace, &name) {
            // Somebody else's, or of another template: the next look uses another name.
            self.status.collision_count = Some(self.status.collision_count.unwrap_or_default() + 1);
            return;
        }
        let replicas = self.new_set_replicas(0);
        let mut annotations = inherited(&deployment);
        annotations.insert(REVISION.into(), revision.to_string());
        annotations.insert(DESIRED.into(), deployment.replicas.to_string());
        annotations.insert(MAX.into(), (deployment.replicas + self.max_surge()).to_string());
        let mut template = deployment.template.tree();
        template["metadata"]["labels"][HASH_LABEL] = json!(hash);
        let mut labels = deployment.template.labels.clone();
        labels.insert(HASH_LABEL.into(), hash.clone());
        let mut match_labels = deployment.match_selector.match_labels.clone();
        match_labels.insert(HASH_LABEL.into(), hash.clone());
        let mut selector = json!({"matchLabels": match_labels});
        if !deployment.match_selector.match_expressions.is_empty() {
            let expressions = deployment.match_selector.match_expressions.iter().map(|e| {
                let mut expression = json!({"key": e.key, "operator": e.operator});
                if !e.values.is_empty() {
                    expression["values"] = json!(e.values);
                }
                expression
            });
            selector["matchExpressions"] = expressions.collect();
        }
        let owner = controller_reference("apps/v1", "Deployment", &deployment.meta.name, &deployment.meta.uid);
        let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
        if deployment.min_ready_seconds != 0 {
            spec["minReadySeconds"] = json!(deployment.min_ready_seconds);
        }
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": deployment.meta.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner],
            },
            "spec": spec,
        });
        self.note_revision(Some(revision.to_string()));
        if self.has_deadline() {
            match self.view.failure(NAME, &self.deployment.key).filter(|f| f.verb == "create") {
                Some(failure) => {
                    let message = format!("Failed to create new replica set \"{name}\": {}", failure.message);
                    self.set_condition("Progressing", Status::False, "ReplicaSetCreateError", message);
                }
                None => {
                    let message = format!("Created new replica set \"{name}\"");
                    self.set_condition("Progressing", Status::True, "NewReplicaSetCreated", message);
                }
            }
        }
        self.create = Some(NewSet { name, replicas, object });
    }

    fn note_revision(&mut self, revision: Option<String>) {
        if revision.as_ref() != self.deployment.annotations.get(REVISION) {
            self.revision = revision;
        }
    }

    /// Old ReplicaSets beyond the history's limit, oldest revisions first, if nothing of them runs.
    pub fn clean_up(&mut self) {
        let Some(limit) = self.deployment.revision_history_limit.filter(|l| *l != i32::MAX) else { return };
        let mut old: Vec<usize> = self.old().into_iter().filter(|i| !self.sets[*i].meta.is_terminating()).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        old.sort_by_key(|i| (revision_of(&self.sets[*i].annotations), *i));
        self.delete = old
            .into_iter()
            .take(surplus)
            .filter(|i| {
                let set = &self.sets[*i];
                set.status.replicas == 0
                    && set.replicas == 0
                    && set.item.replicas == 0
                    && set.meta.generation <= set.status.observed_generation
            })
            .collect();
    }
}

/// The Deployment's annotations that its ReplicaSets carry too.
fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let theirs = |(name, _): &(&String, &String)| !OWN.contains(&name.as_str());
    deployment.annotations.iter().filter(theirs).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Raises the revision to `next`. A set that had one is being rolled back to: the old one goes into its history.
fn advance(annotations: &mut BTreeMap<String, String>, next: i64) {
    let old = annotations.get(REVISION).cloned();
    let number = match &old {
        None => 0,
        Some(text) if text.is_empty() => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return,
        },
    };
    if number >= next {
        return;
    }
    annotations.insert(REVISION.into(), next.to_string());
    let Some(old) = old else { return };
    let mut history: Vec<String> = annotations
        .get(HISTORY)
        .map(|h| h.split(',').filter(|r| !r.is_empty()).map(str::to_string).collect())
        .unwrap_or_default();
    history.push(old);
    while history.len() > 1 && history.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_LENGTH {
        history.remove(0);
    }
    annotations.insert(HISTORY.into(), history.join(","));
}

/// Ten characters at most that name a template (and how often that name was already taken): FNV-1a, written without
/// vowels and look-alikes, as Kubernetes writes generated names.
fn hash(essence: &str, collisions: Option<i32>) -> String {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let mut hash = essence.bytes().fold(0x811c_9dc5, step);
    if let Some(count) = collisions {
        hash = count.to_le_bytes().into_iter().fold(hash, step);
    }
    const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|b| char::from(SAFE[usize::from(b) % SAFE.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_back_keeps_the_revisions_a_set_had() {
        let mut annotations = BTreeMap::from([(REVISION.to_string(), "1".to_string())]);
        advance(&mut annotations, 3);
        advance(&mut annotations, 3);
        advance(&mut annotations, 5);
        assert_eq!(annotations[REVISION], "5");
        assert_eq!(annotations[HISTORY], "1,3");
    }

    #[test]
    fn names_differ_by_template_and_collision() {
        let all = [hash("a", None), hash("b", None), hash("a", Some(1)), hash("a", Some(2))];
        for (i, one) in all.iter().enumerate() {
            assert!(one.len() <= 10 && all[i + 1..].iter().all(|other| other != one), "{all:?}");
        }
    }
}
