//! The state that the sentences speak of: all objects as the log has them, what really runs on the machines, and how far
//! deployments have been allowed to go.

use super::rollout::{Ceilings, Past};
use super::services::Readiness;
use super::{is_terminating, text, uid};
use crate::witness::Entry;
use jiff::Timestamp;
use longshore_server::store::{ChangeKind, Key};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One change, with what was there before it.
pub struct Step {
    pub entry: Entry,
    pub before: Option<Arc<Value>>,
    /// Virtual time.
    pub at: Duration,
}

impl Step {
    pub fn name(&self) -> String {
        let key = &self.entry.key;
        match key.namespace.is_empty() {
            true => format!("{} {}", key.resource, key.name),
            false => format!("{} {}/{}", key.resource, key.namespace, key.name),
        }
    }

    /// Before and after an update of an object of `resource`.
    pub fn update(&self, resource: &str) -> Option<(&Value, &Value)> {
        let right = *self.entry.key.resource == *resource && self.entry.kind == ChangeKind::Updated;
        right.then_some(()).and(self.before.as_deref()).zip(self.entry.object.as_deref())
    }

    /// The object after the step.
    pub fn after(&self) -> Option<&Value> {
        self.entry.object.as_deref().filter(|_| self.entry.kind != ChangeKind::Deleted)
    }
}

#[derive(Default)]
pub struct Model {
    objects: BTreeMap<Key, Arc<Value>>,
    pub(super) ceilings: Ceilings,
    pub(super) past: Past,
    pub(super) readiness: Readiness,
    /// Containers that run: node, pod's uid, container's id → its name (empty for a sandbox).
    containers: BTreeMap<(String, String, String), String>,
    /// Pods whose objects somebody asked to be taken away by force.
    forced: BTreeSet<String>,
}

impl Model {
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// All objects of a resource.
    pub fn list<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Arc<Value>> + 'a {
        let first = Key { resource: resource.into(), namespace: "".into(), name: "".into() };
        self.objects.range(first..).take_while(move |(key, _)| *key.resource == *resource).map(|(_, object)| object)
    }

    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    pub fn named(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.get(&Key { resource: resource.into(), namespace: namespace.into(), name: name.into() })
    }

    pub(super) fn by_uid(&self, resource: &'static str, wanted: &str) -> Option<&Arc<Value>> {
        self.list(resource).find(|object| uid(object) == wanted)
    }

    pub fn force(&mut self, pod: &str) {
        self.forced.insert(pod.to_string());
    }

    pub fn is_forced(&self, pod: &str) -> bool {
        self.forced.contains(pod)
    }

    /// Nodes on which containers of the pod run, with their names.
    pub fn running(&self, pod: &str) -> Vec<(&str, &str)> {
        let of = self.containers.iter().filter(|((_, uid, _), _)| uid == pod);
        of.map(|((node, ..), name)| (node.as_str(), if name.is_empty() { "its sandbox" } else { name })).collect()
    }

    /// All containers that run: node, pod, name.
    pub fn containers(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.containers.iter().map(|((node, uid, _), name)| (node.as_str(), uid.as_str(), name.as_str()))
    }

    /// A container starts on a node: Err when that must not be.
    pub fn starts(&mut self, node: &str, pod: &str, id: &str, name: &str) -> Result<(), (&'static str, String)> {
        let found = self.no_two_nodes_run_one_pod(node, pod).map_err(|why| ("no_two_nodes_run_one_pod", why));
        let found = found.and_then(|()| {
            let twice = self.no_container_runs_twice_on_a_node(node, pod, name);
            twice.map_err(|why| ("no_container_runs_twice_on_a_node", why))
        });
        self.containers.insert((node.into(), pod.into(), id.into()), name.into());
        found
    }

    pub fn stops(&mut self, node: &str, pod: &str, id: &str) {
        self.containers.remove(&(node.into(), pod.into(), id.into()));
    }

    /// Whether a pod's object is there and marked.
    pub fn is_being_deleted(&self, pod: &str) -> bool {
        self.by_uid("pods", pod).is_some_and(|object| is_terminating(object))
    }

    /// A container of a pod is killed by its node: Err when the pod's deletion leaves it more time. (An object that is gone
    /// leaves none.)
    pub fn no_container_is_killed_before_its_grace_is_over(&self, pod: &str, now: Timestamp) -> Result<(), String> {
        let object = self.by_uid("pods", pod).filter(|object| is_terminating(object));
        let until = object.and_then(|object| text(object, "/metadata/deletionTimestamp").parse::<Timestamp>().ok());
        match until.filter(|until| now < *until) {
            Some(until) => Err(format!("a container of pod {pod} is killed at {now}, it has time until {until}")),
            None => Ok(()),
        }
    }

    fn no_two_nodes_run_one_pod(&self, node: &str, pod: &str) -> Result<(), String> {
        match self.running(pod).into_iter().find(|(other, _)| *other != node) {
            Some((other, _)) => Err(format!("pod {pod} runs on {other} and now on {node}")),
            None => Ok(()),
        }
    }

    fn no_container_runs_twice_on_a_node(&self, node: &str, pod: &str, name: &str) -> Result<(), String> {
        let mut of = self.containers.iter().filter(|((on, uid, _), _)| on == node && uid == pod);
        match of.any(|(_, other)| other == name) {
            true => Err(format!("container {name:?} of pod {pod} runs on {node} and is started again")),
            false => Ok(()),
        }
    }

    pub fn apply(&mut self, step: &Step) {
        let key = &step.entry.key;
        match step.after() {
            Some(_) => drop(self.objects.insert(key.clone(), step.entry.object.clone().expect("it is there"))),
            None if step.entry.kind == ChangeKind::Deleted => drop(self.objects.remove(key)),
            None => {}
        }
        if matches!(&*key.resource, "deployments.apps" | "replicasets.apps") {
            let mut ceilings = std::mem::take(&mut self.ceilings);
            ceilings.note(self, step);
            self.ceilings = ceilings;
            self.past.note(step);
        }
        if *key.resource == *"pods" {
            self.readiness.note(step);
        }
    }
}

/// What matters of an object, in a few words.
pub(super) fn summary(resource: &str, object: &Value) -> String {
    let number = |pointer: &str| object.pointer(pointer).map_or("-".into(), Value::to_string);
    let mut words = match resource {
        "pods" => {
            let ready = if super::is_ready(object) { "ready" } else { "not ready" };
            let finalizers = if object.pointer("/metadata/ownerReferences").is_none() { " unowned" } else { "" };
            format!(": {} {ready} on {:?}{finalizers}", text(object, "/status/phase"), text(object, "/spec/nodeName"))
        }
        "deployments.apps" | "replicasets.apps" => format!(
            ": wants {} has {} ready {} available {} updated {} generation {}/{}",
            number("/spec/replicas"),
            number("/status/replicas"),
            number("/status/readyReplicas"),
            number("/status/availableReplicas"),
            number("/status/updatedReplicas"),
            number("/status/observedGeneration"),
            number("/metadata/generation"),
        ),
        "nodes" => {
            let unschedulable = if object["spec"]["unschedulable"] == true { " cordoned" } else { "" };
            let ready = super::is_ready(object);
            format!(": ready {ready}{unschedulable} taints {}", number("/spec/taints"))
        }
        "events" => format!(": {} {}", text(object, "/reason"), text(object, "/message")),
        _ => String::new(),
    };
    if is_terminating(object) {
        words.push_str(&format!(" TERMINATING {}", number("/metadata/finalizers")));
    }
    words
}
