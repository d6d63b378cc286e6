//! What sentences notice, and what they let pass.

use super::{Model, SAFETY, Step, uid};
use crate::witness::Entry;
use longshore_server::store::{ChangeKind, Key};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Writes an object and says which sentences that breaks.
fn write(model: &mut Model, second: u64, resource: &'static str, object: Value) -> Vec<&'static str> {
    let name = uid(&object).to_string();
    let key = Key { resource: resource.into(), namespace: "".into(), name: name.as_str().into() };
    let before = model.get(&key);
    let kind = if before.is_some() { ChangeKind::Updated } else { ChangeKind::Created };
    let entry = Entry { kind, key, revision: 0, object: Some(Arc::new(object)) };
    let step = Step { entry, before, at: Duration::from_secs(second) };
    let broken = SAFETY.iter().filter(|(_, holds)| holds(model, &step).is_err()).map(|(sentence, _)| *sentence);
    let broken = broken.collect();
    model.apply(&step);
    broken
}

fn pod(ready: &str) -> Value {
    json!({"metadata": {"uid": "p"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn slice() -> Value {
    let pod = json!({"kind": "Pod", "namespace": "", "name": "p", "uid": "p"});
    json!({"metadata": {"uid": "s"}, "endpoints": [{"targetRef": pod, "conditions": {"ready": true}}]})
}

#[test]
fn who_is_named_as_ready_was_so_of_late() {
    let sentence = ["services_name_as_ready_what_was_ready_of_late"];
    let none: [&str; 0] = [];
    let mut model = Model::default();
    let mut name = |second, ready: Option<&str>| {
        if let Some(ready) = ready {
            assert_eq!(write(&mut model, second, "pods", pod(ready)), none);
        }
        write(&mut model, second, "endpointslices.discovery.k8s.io", slice())
    };
    assert_eq!(name(1, Some("False")), sentence);
    assert_eq!(name(2, Some("True")), none);
    assert_eq!(name(1000, None), none);
    assert_eq!(name(1010, Some("False")), none);
    assert_eq!(name(1070, None), none);
    assert_eq!(name(1071, None), sentence);
}

#[test]
fn a_deleted_pods_containers_have_their_time() {
    let mut model = Model::default();
    let metadata = json!({"uid": "p", "deletionTimestamp": "2026-01-01T00:00:30Z"});
    write(&mut model, 0, "pods", json!({"metadata": metadata}));
    let kill = |pod: &str, time: &str| {
        let now = format!("2026-01-01T00:00:{time}Z").parse().expect("a time");
        model.no_container_is_killed_before_its_grace_is_over(pod, now).is_ok()
    };
    assert!(!kill("p", "29.9"));
    assert!(kill("p", "30"));
    assert!(kill("another", "01"));
}

fn set(uid: &str, replicas: u64, available: u64) -> Value {
    let owner = json!([{"controller": true, "uid": "d"}]);
    json!({"metadata": {"uid": uid, "ownerReferences": owner}, "spec": {"replicas": replicas},
        "status": {"availableReplicas": available}})
}

/// Five pods, of which four must stay available. The old set is at four, its status still says five; the new one has two.
fn shrink_the_old_set_to(replicas: u64) -> Vec<&'static str> {
    let sets = "replicasets.apps";
    let mut model = Model::default();
    let bounds = json!({"maxSurge": 2, "maxUnavailable": 1});
    let spec = json!({"replicas": 5, "strategy": {"type": "RollingUpdate", "rollingUpdate": bounds}});
    write(&mut model, 0, "deployments.apps", json!({"metadata": {"uid": "d"}, "spec": spec}));
    let steps = [(20, "old", 5, 0), (30, "old", 5, 5), (40, "new", 2, 0), (41, "old", 4, 5), (42, "new", 2, 2)];
    for (second, name, replicas, available) in steps {
        assert_eq!(write(&mut model, second, sets, set(name, replicas, available)), [] as [&str; 0]);
    }
    write(&mut model, 43, sets, set("old", replicas, 5))
}

#[test]
fn a_status_of_before_the_last_step_is_no_availability() {
    assert_eq!(shrink_the_old_set_to(2), [] as [&str; 0]);
    assert_eq!(shrink_the_old_set_to(1), ["never_fewer_available_than_allowed"]);
}
