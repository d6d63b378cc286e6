//! Pods that are the same to who looks from afar: those of one owner.

use crate::kube::Pod;
use std::sync::Arc;

const HASH: &str = "pod-template-hash";

/// Pods of one owner with the same labels, those of its revisions together.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub namespace: String,
    pub name: String,
    /// In the order of their names; never empty.
    pub pods: Vec<Arc<Pod>>,
}

impl Workload {
    /// One that stands for all: a running one, where there is one.
    pub fn example(&self) -> &Arc<Pod> {
        self.pods.iter().find(|p| p.status.phase == "Running").unwrap_or(&self.pods[0])
    }
}

/// The name of a pod's Deployment, of its other owner, or its own.
fn name(pod: &Pod) -> &str {
    let Some(owner) = pod.metadata.controller() else { return &pod.metadata.name };
    let hash = pod.metadata.labels.get(HASH).filter(|_| owner.kind == "ReplicaSet");
    hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')).unwrap_or(&owner.name)
}

/// In the order of namespace and name. Pods that are done don't count.
pub fn group(pods: impl Iterator<Item = Arc<Pod>>) -> Vec<Workload> {
    let mut all = Vec::new();
    for pod in pods.filter(|p| !matches!(p.status.phase.as_str(), "Succeeded" | "Failed")) {
        let mut labels = pod.metadata.labels.clone();
        labels.remove(HASH);
        all.push((pod.metadata.namespace.clone(), name(&pod).to_string(), labels, pod));
    }
    all.sort_by(|a, b| (&a.0, &a.1, &a.2).cmp(&(&b.0, &b.1, &b.2)));
    let mut groups: Vec<Workload> = Vec::new();
    let mut last = None;
    for (namespace, name, labels, pod) in all {
        let key = Some((namespace.clone(), name.clone(), labels));
        match groups.last_mut().filter(|_| key == last) {
            Some(group) => group.pods.push(pod),
            None => groups.push(Workload { namespace, name, pods: vec![pod] }),
        }
        last = key;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use serde_json::json;

    fn pod(name: &str, owner: Option<(&str, &str)>, hash: &str, phase: &str) -> Arc<Pod> {
        let owners: Vec<_> = owner.iter().map(|(k, n)| json!({"kind": k, "name": n, "controller": true})).collect();
        Arc::new(Read::read(&json!({
            "metadata": {"name": name, "namespace": "a", "labels": {"app": "web", HASH: hash}, "ownerReferences": owners},
            "status": {"phase": phase}
        })))
    }

    #[test]
    fn revisions_of_one_deployment_are_one() {
        let pods = [
            pod("web-1-a", Some(("ReplicaSet", "web-1")), "1", "Pending"),
            pod("web-2-b", Some(("ReplicaSet", "web-2")), "2", "Running"),
            pod("set-x", Some(("ReplicaSet", "set")), "", "Running"),
            pod("job-x", Some(("Job", "job")), "", "Succeeded"),
            pod("alone", None, "", "Running"),
        ];
        let groups = group(pods.into_iter());
        let seen: Vec<_> = groups.iter().map(|w| (w.name.as_str(), w.pods.len())).collect();
        assert_eq!(seen, [("alone", 1), ("set", 1), ("web", 2)]);
        assert_eq!(groups[2].example().metadata.name, "web-2-b");
    }
}
