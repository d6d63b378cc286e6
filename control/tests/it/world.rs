//! A cluster without a server: objects as trees, actions carried out at once, nodes that do as they are told, and a clock
//! that jumps to whatever is due next.

use jiff::{SignedDuration, Timestamp};
use longshore_control::contacts::Contacts;
use longshore_control::controllers::{self, Controller};
use longshore_control::view::{Applied, Change, KindInfo, Settings};
use longshore_control::{Action, ObjectKey, PatchKind, Projection, View, scheduler};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Task = (usize, ObjectKey);

pub struct World {
    pub now: Timestamp,
    pub objects: BTreeMap<ObjectKey, Value>,
    view: View,
    controllers: Vec<Arc<dyn Controller>>,
    due: BTreeMap<Task, Timestamp>,
    revision: i64,
    named: u64,
    /// Nodes whose machine and tunnel are up.
    connected: BTreeSet<String>,
    /// Every pod that was ever marked for deletion, by name and when.
    pub marked: Vec<(String, Timestamp)>,
}

impl World {
    pub fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let mut world = Self {
            now,
            objects: BTreeMap::new(),
            view: View::default(),
            controllers: controllers::all(),
            due: BTreeMap::new(),
            revision: 0,
            named: 0,
            connected: BTreeSet::new(),
            marked: Vec::new(),
        };
        world.view = world.empty_view();
        world.put(
            "namespaces",
            "",
            "default",
            json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        );
        world
    }

    fn empty_view(&self) -> View {
        let mut view = View::default();
        view.contacts = Contacts::new(self.now);
        let kind = |resource: &str, namespaced| KindInfo { resource: resource.into(), namespaced };
        let kinds = [
            ("Pod", kind("pods", true)),
            ("Node", kind("nodes", false)),
            ("Deployment.apps", kind("deployments.apps", true)),
            ("ReplicaSet.apps", kind("replicasets.apps", true)),
        ];
        let kinds = kinds.into_iter().map(|(name, info)| (name.to_string(), info)).collect();
        view.settings = Settings { pod_ranges: vec![("10.244.0.0/16".into(), 24)], kinds, ..Settings::default() };
        view
    }

    /// The owner is gone and another one loads the cluster `away` later; tunnels have to be made anew.
    pub fn server_away(&mut self, away: SignedDuration) {
        self.now += away;
        self.connected.clear();
        self.due.clear();
        self.view = self.empty_view();
        let all: Vec<(ObjectKey, Value)> = self.objects.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let applied: Vec<Applied> = all.into_iter().filter_map(|(key, object)| self.see(key, Some(&object))).collect();
        applied.iter().for_each(|a| self.concern(a));
    }

    pub fn node(&mut self, name: &str) {
        let object = json!({
            "metadata": {"labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"}}
        });
        self.put("nodes", "", name, object);
        self.connect(name);
    }

    /// The node's tunnel is up; it says that it is well, and does what waits for it.
    pub fn connect(&mut self, name: &str) {
        self.connected.insert(name.to_string());
        self.view.contacts.connected(name, self.now);
        self.wake_contacts(name);
        self.settle();
    }

    pub fn disconnect(&mut self, name: &str) {
        self.connected.remove(name);
        self.view.contacts.disconnected(name, self.now);
        self.wake_contacts(name);
        self.settle();
    }

    fn wake_contacts(&mut self, name: &str) {
        for (place, controller) in self.controllers.iter().enumerate() {
            for key in controller.contact_keys(&self.view, name) {
                self.due.insert((place, key), self.now);
            }
        }
    }

    /// Creates or replaces an object.
    pub fn put(&mut self, resource: &'static str, namespace: &str, name: &str, mut object: Value) {
        let meta = object.as_object_mut().expect("an object").entry("metadata").or_insert_with(|| json!({}));
        meta["name"] = json!(name);
        if !namespace.is_empty() {
            meta["namespace"] = json!(namespace);
        }
        self.named += 1;
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("u{}", self.named));
            meta["creationTimestamp"] = json!(self.now);
        }
        if meta["generation"].is_null() {
            meta["generation"] = json!(1);
        }
        self.store(ObjectKey::new(resource, namespace, name), Some(object));
    }

    pub fn get(&self, resource: &'static str, name: &str) -> &Value {
        let namespace = if resource == "nodes" { "" } else { "default" };
        self.objects.get(&ObjectKey::new(resource, namespace, name)).unwrap_or(&Value::Null)
    }

    pub fn list(&self, resource: &str) -> Vec<&Value> {
        self.objects.iter().filter(|(k, _)| k.resource == resource).map(|(_, v)| v).collect()
    }

    /// A change of the spec, as a user makes it.
    pub fn patch_spec(&mut self, resource: &'static str, name: &str, patch: Value) {
        let key = ObjectKey::new(resource, "default", name);
        let mut object = self.objects.get(&key).expect("it is there").clone();
        merge(&mut object, &json!({"spec": patch}), PatchKind::Merge);
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        self.store(key, Some(object));
        self.settle();
    }

    fn store(&mut self, key: ObjectKey, object: Option<Value>) {
        match &object {
            Some(object) => {
                self.objects.insert(key.clone(), object.clone());
            }
            None => {
                self.objects.remove(&key);
            }
        }
        if let Some(applied) = self.see(key, object.as_ref()) {
            self.concern(&applied);
        }
    }

    fn see(&mut self, key: ObjectKey, object: Option<&Value>) -> Option<Applied> {
        self.revision += 1;
        let projection = object.map(|o| Projection::of(&key.resource, o));
        self.view.apply(Change { key, revision: self.revision, projection }, self.now)
    }

    fn concern(&mut self, applied: &Applied) {
        for (place, controller) in self.controllers.iter().enumerate() {
            for key in controller.keys(&self.view, applied) {
                self.due.insert((place, key), self.now);
            }
        }
    }

    /// Lets time pass; all that falls due in it happens at its own time.
    pub fn pass(&mut self, duration: SignedDuration) {
        let end = self.now + duration;
        self.settle();
        while let Some(next) = self.due.values().min().copied().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = end;
    }

    /// Until nothing is due now.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let task = self.due.iter().find(|(_, at)| **at <= self.now).map(|(task, _)| task.clone());
            let worked = match task {
                Some(task) => {
                    self.due.remove(&task);
                    let outcome = self.controllers[task.0].clone().reconcile(&self.view, &task.1, self.now);
                    if let Some(at) = outcome.again_at {
                        // Not now again for ever: the driver's own least nap.
                        self.due.insert(task.clone(), at.max(self.now + SignedDuration::from_millis(1)));
                    }
                    outcome.actions.into_iter().for_each(|action| self.carry_out(action));
                    true
                }
                None => self.schedule() || self.nodes_work(),
            };
            if !worked {
                return;
            }
        }
        panic!("the controllers never come to rest; due: {:?}", self.due.keys().collect::<Vec<_>>());
    }

    fn schedule(&mut self) -> bool {
        let pending = scheduler::pending(&self.view);
        let mut bound = false;
        for decision in scheduler::schedule(&self.view, &pending, 1) {
            for action in scheduler::actions(&decision, self.now, false) {
                bound |= matches!(action, Action::Bind { .. });
                self.carry_out(action);
            }
        }
        bound
    }

    /// What connected nodes do: say that they are well, start what is bound to them, stop what is marked.
    fn nodes_work(&mut self) -> bool {
        let mut worked = false;
        for name in self.connected.clone() {
            let key = ObjectKey::new("nodes", "", name.as_str());
            let mut node = self.objects.get(&key).expect("a node").clone();
            if condition(&node, "Ready") != "True" {
                let well =
                    |kind: &str, status: &str| json!({"type": kind, "status": status, "lastHeartbeatTime": self.now});
                let conditions = [
                    well("Ready", "True"),
                    well("MemoryPressure", "False"),
                    well("DiskPressure", "False"),
                    well("PIDPressure", "False"),
                ];
                merge(&mut node, &json!({"status": {"conditions": conditions}}), PatchKind::Strategic);
                self.store(key, Some(node));
                worked = true;
            }
            let pods: Vec<ObjectKey> = self
                .objects
                .iter()
                .filter(|(k, v)| k.resource == "pods" && v["spec"]["nodeName"] == name.as_str())
                .map(|(k, _)| k.clone())
                .collect();
            for key in pods {
                let mut pod = self.objects[&key].clone();
                if !pod["metadata"]["deletionTimestamp"].is_null() {
                    self.store(key, None);
                    worked = true;
                } else if condition(&pod, "Ready") != "True" {
                    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": self.now});
                    merge(
                        &mut pod,
                        &json!({"status": {"phase": "Running", "conditions": [ready]}}),
                        PatchKind::Strategic,
                    );
                    self.store(key, Some(pod));
                    worked = true;
                }
            }
        }
        worked
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Create { resource, namespace, mut object, .. } => {
                self.named += 1;
                let name = match object["metadata"]["name"].as_str() {
                    Some(name) => name.to_string(),
                    None => format!("{}{:05}", object["metadata"]["generateName"].as_str().unwrap_or("x"), self.named),
                };
                if resource == "pods" {
                    let tolerate = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
                    object["spec"]["tolerations"] =
                        json!([tolerate("node.kubernetes.io/not-ready"), tolerate("node.kubernetes.io/unreachable")]);
                    object["status"] = json!({"phase": "Pending"});
                }
                self.put(resource, &namespace, &name, object);
            }
            Action::Patch { key, uid, kind, patch, subresource, .. } => {
                let Some(mut object) = self.objects.get(&key).filter(|o| o["metadata"]["uid"] == uid).cloned() else {
                    return;
                };
                let before = object.clone();
                merge(&mut object, &patch, kind);
                if subresource.is_none() && before["spec"] != object["spec"] {
                    object["metadata"]["generation"] =
                        json!(object["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
                }
                if object != before {
                    self.store(key, Some(object));
                }
            }
            Action::Delete { key, .. } => self.delete(key),
            Action::Bind { namespace, name, node, .. } => {
                let key = ObjectKey::new("pods", namespace, name);
                let Some(mut pod) = self.objects.get(&key).cloned() else { return };
                let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": self.now});
                merge(
                    &mut pod,
                    &json!({"spec": {"nodeName": node}, "status": {"conditions": [scheduled]}}),
                    PatchKind::Strategic,
                );
                self.store(key, Some(pod));
            }
            Action::DeleteCollection { .. } | Action::FinalizeNamespace { .. } | Action::Event(_) => {}
        }
    }

    pub fn delete(&mut self, key: ObjectKey) {
        let Some(mut object) = self.objects.get(&key).cloned() else { return };
        let bound = key.resource == "pods" && object["spec"]["nodeName"].is_string();
        if !bound {
            self.store(key, None);
        } else if object["metadata"]["deletionTimestamp"].is_null() {
            self.marked.push((key.name.clone(), self.now));
            object["metadata"]["deletionTimestamp"] = json!(self.now + SignedDuration::from_secs(30));
            object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
            self.store(key, Some(object));
        }
    }

    /// Names of the pods that are ready and not on their way out, by node.
    pub fn ready_pods(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut by_node: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let ready = |p: &&Value| condition(p, "Ready") == "True" && p["metadata"]["deletionTimestamp"].is_null();
        for pod in self.list("pods").into_iter().filter(ready) {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
            by_node.entry(text(&pod["spec"]["nodeName"])).or_default().insert(text(&pod["metadata"]["name"]));
        }
        by_node
    }

    pub fn ready_count(&self) -> usize {
        self.ready_pods().values().map(BTreeSet::len).sum()
    }
}

/// The status of a condition; empty where there is none.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let all = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str()).unwrap_or_default()
}

pub fn deployment(replicas: u32, image: &str) -> Value {
    json!({"spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// A merge patch; in a strategic one lists of conditions are merged by their type, which is all that controllers use.
fn merge(target: &mut Value, patch: &Value, kind: PatchKind) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let object = target.as_object_mut().expect("it was made one");
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
        } else if kind == PatchKind::Strategic && name == "conditions" {
            let list = object.entry(name).or_insert_with(|| json!([]));
            for new in value.as_array().into_iter().flatten() {
                let all = list.as_array_mut().expect("conditions are a list");
                match all.iter_mut().find(|c| c["type"] == new["type"]) {
                    Some(old) => merge(old, new, kind),
                    None => all.push(new.clone()),
                }
            }
        } else {
            merge(object.entry(name).or_insert(Value::Null), value, kind);
        }
    }
}
