use super::*;
use crate::pods::plan::Blocked;
use crate::pods::world::World;
use k8s_openapi::api::core::v1::HostIP;
use serde_json::json;

fn world(policy: &str) -> World {
    World::new(
        json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}),
    )
}

fn now(world: &World) -> PodStatus {
    world.status(&world.plan())
}

fn phase(world: &World) -> String {
    now(world).phase.unwrap()
}

fn is(status: &PodStatus, kind: &str) -> (bool, Option<String>, Option<String>) {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
    (found.status == "True", found.reason.clone(), found.message.clone())
}

fn waiting(status: &PodStatus, index: usize) -> (String, Option<String>) {
    let state = status.container_statuses.as_ref().unwrap()[index].state.clone().unwrap();
    let waiting = state.waiting.expect("it waits");
    (waiting.reason.unwrap(), waiting.message)
}

#[test]
fn a_pod_is_pending_until_all_have_started_and_running_from_then_on() {
    let mut world = world("Always");
    let status = now(&world);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status, 0), ("ContainerCreating".into(), None));
    assert!(!is(&status, "PodReadyToStartContainers").0);
    world.act(9);
    world.act(9);
    world.act(1);
    assert!(is(&now(&world), "PodReadyToStartContainers").0);
    assert_eq!(phase(&world), "Pending", "one of two runs");
    world.settle();
    let status = now(&world);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(is(&status, "Ready").0 && is(&status, "ContainersReady").0 && is(&status, "Initialized").0);
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.1.0.5"), Some("192.0.2.1")));
    let first = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!((first.container_id.as_deref(), first.image_id.as_str()), (Some("docker://id-2"), "docker://sha256:1"));
    assert!(first.ready && first.started == Some(true) && first.restart_count == 0);
}

#[test]
fn ends_are_told_by_policy() {
    for (policy, codes, wanted) in [
        ("Never", [0, 0], "Succeeded"),
        ("Never", [0, 1], "Failed"),
        ("OnFailure", [0, 0], "Succeeded"),
        ("OnFailure", [0, 1], "Running"),
        ("Always", [0, 0], "Running"),
    ] {
        let mut world = world(policy);
        world.settle();
        world.end("a", codes[0]);
        world.end("b", codes[1]);
        world.settle();
        assert_eq!(phase(&world), wanted, "{policy} {codes:?}");
    }
    let mut world = world("Never");
    world.settle();
    world.end("a", 0);
    world.settle();
    assert_eq!(phase(&world), "Running", "the other one still runs");
    world.end("b", 0);
    world.settle();
    let status = now(&world);
    assert_eq!(is(&status, "Ready"), (false, Some("PodCompleted".into()), None));
    world.said = status;
    world.records.clear();
    let status = now(&world);
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "a last word isn't taken back");
    assert!(status.container_statuses.unwrap()[0].state.as_ref().unwrap().terminated.is_some());
}

#[test]
fn who_is_unready_is_named() {
    let mut world = world("Always");
    world.settle();
    let id = world.running("b").unwrap().id.clone();
    world.health.get_mut(&id).unwrap().ready = false;
    let message = Some("containers with unready status: [b]".into());
    assert_eq!(is(&now(&world), "Ready"), (false, Some("ContainersNotReady".into()), message.clone()));
    world.said = now(&world);
    world.pass(60);
    let later = now(&world);
    let ready = |s: &PodStatus| s.conditions.iter().flatten().find(|c| c.type_ == "Ready").cloned().unwrap();
    assert_eq!(ready(&later).last_transition_time, ready(&world.said).last_transition_time, "no change, no new time");
    world.health.get_mut(&id).unwrap().ready = true;
    assert_eq!(ready(&now(&world)).last_transition_time, Some(seconds(world.now)));
}

#[test]
fn readiness_gates_hold_a_pod_back() {
    let mut world = World::new(json!({"containers": [{"name": "a", "image": "i"}],
        "readinessGates": [{"conditionType": "example.com/gate"}]}));
    world.settle();
    let (ready, reason, message) = is(&now(&world), "Ready");
    assert_eq!((ready, reason.as_deref()), (false, Some("ReadinessGatesNotReady")));
    assert!(message.unwrap().contains("\"example.com/gate\" does not exist"));
    assert!(is(&now(&world), "ContainersReady").0);
    let gate = json!({"conditions": [{"type": "example.com/gate", "status": "True"}]});
    world.pod.status = serde_json::from_value(gate).unwrap();
    let status = now(&world);
    assert!(is(&status, "Ready").0);
    assert!(status.conditions.iter().flatten().any(|c| c.type_ == "example.com/gate"), "others' conditions stay");
}

#[test]
fn init_containers_are_waited_for_by_name() {
    let mut world =
        World::new(json!({"initContainers": [{"name": "one", "image": "i"}, {"name": "two", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}));
    world.settle();
    let status = now(&world);
    assert_eq!((status.phase.as_deref(), waiting(&status, 0).0.as_str()), (Some("Pending"), "PodInitializing"));
    let message = "containers with incomplete status: [one two]".to_owned();
    assert_eq!(is(&status, "Initialized"), (false, Some("ContainersNotInitialized".into()), Some(message)));
    world.end("one", 0);
    world.settle();
    assert_eq!(is(&now(&world), "Initialized").2.unwrap(), "containers with incomplete status: [two]");
    world.end("two", 1);
    world.settle();
    world.end("two", 1);
    let plan = world.plan();
    let status = world.status(&plan);
    let two = &status.init_container_statuses.as_ref().unwrap()[1];
    assert_eq!(two.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!((status.phase.as_deref(), two.restart_count), (Some("Pending"), 1));
}

#[test]
fn what_holds_a_container_back_is_said_unless_it_is_over() {
    let mut world = world("Never");
    world.settle();
    let block = Blocked { reason: "PostStartHookError".into(), message: "no".into(), retry_at: None };
    world.memory.blocked.insert("a".into(), block);
    world.end("a", 1);
    let ended = now(&world).container_statuses.unwrap()[0].state.clone().unwrap();
    assert!(ended.terminated.is_some(), "it won't run again: its end is the last word");
    world.pod.spec.as_mut().unwrap().restart_policy = Some("Always".into());
    assert_eq!(waiting(&now(&world), 0), ("PostStartHookError".into(), Some("no".into())));
}

#[test]
fn a_container_that_vanished_is_told_as_lost() {
    let mut world = world("Never");
    world.settle();
    world.said = now(&world);
    world.records.retain(|r| r.name != "a");
    world.end("b", 0);
    world.settle();
    let status = now(&world);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
}

#[test]
fn a_deadline_and_a_refusal_have_their_reasons() {
    let mut world = world("Always");
    world.settle();
    world.ending = Some(Ending::DeadlineExceeded);
    let status = now(&world);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    let refusal = Refusal { reason: "SysctlForbidden".into(), message: "no".into() };
    let empty = BTreeMap::new();
    let status = super::status(&Input {
        pod: &world.pod,
        last: &PodStatus::default(),
        records: &[],
        health: &BTreeMap::new(),
        memory: &Memory::default(),
        crash_loops: &empty,
        messages: &empty,
        image_ids: &empty,
        ips: &[],
        host_ips: &[],
        ending: Some(Ending::Refused),
        refusal: Some(&refusal),
        finished: true,
        now: world.now,
    });
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("SysctlForbidden")));
    assert_eq!(status.message.as_deref(), Some("Pod was rejected: no"));
    assert_eq!(status.container_statuses, None);
}

#[test]
fn a_patch_says_only_what_changed() {
    let mut world = world("Always");
    world.settle();
    let before = now(&world);
    assert_eq!(patch("u", &before, &before), None);
    let id = world.running("b").unwrap().id.clone();
    world.health.get_mut(&id).unwrap().ready = false;
    let change = patch("u", &before, &now(&world)).unwrap();
    assert_eq!(change["metadata"], json!({"uid": "u"}));
    let changed: Vec<&String> = change["status"].as_object().unwrap().keys().collect();
    assert_eq!(changed, ["conditions", "containerStatuses"]);
    let kinds: Vec<&str> =
        change["status"]["conditions"].as_array().unwrap().iter().filter_map(|c| c["type"].as_str()).collect();
    assert_eq!(kinds, ["Ready", "ContainersReady"], "nobody else's condition, none that is the same");

    let mut other = before.clone();
    other.pod_ips = Some(vec![PodIP { ip: "10.1.0.9".into() }]);
    other.reason = None;
    let mut reasoned = before.clone();
    reasoned.reason = Some("x".into());
    let change = patch("u", &reasoned, &other).unwrap();
    assert_eq!(change["status"]["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.1.0.9"}]));
    assert!(change["status"]["reason"].is_null() && change["status"].get("reason").is_some(), "what is gone is said");
}

/// Found by the simulator: lists of addresses merge by address, so the old one stayed beside the new one, which is refused.
#[test]
fn a_machine_that_has_another_address_says_only_the_new_one() {
    let mut world = world("Always");
    world.settle();
    let before = now(&world);
    let mut moved = before.clone();
    moved.host_ips = Some(vec![HostIP { ip: "192.0.2.9".into() }]);
    let change = patch("u", &before, &moved).unwrap();
    assert_eq!(change["status"]["hostIPs"], json!([{"$patch": "replace"}, {"ip": "192.0.2.9"}]));
}

#[test]
fn quality_of_service_by_requests_and_limits() {
    let of = |resources: serde_json::Value| {
        qos_class(&World::new(json!({"containers": [{"name": "a", "resources": resources}]})).pod)
    };
    assert_eq!(of(json!({})), "BestEffort");
    assert_eq!(of(json!({"requests": {"cpu": "1m"}})), "Burstable");
    assert_eq!(of(json!({"limits": {"cpu": "1"}})), "Burstable");
    assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}})), "Guaranteed");
    assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "10m"}})), "Burstable");
}

#[test]
fn a_condition_that_others_changed_is_said_anew() {
    let status = |ready: &str| -> PodStatus {
        let conditions = json!([
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "PodScheduled", "status": ready}]);
        serde_json::from_value(json!({"phase": "Running", "conditions": conditions})).unwrap()
    };
    let (now, mut said) = (status("True"), status("True"));
    assert!(!overruled(&mut said, &status("True")));
    assert_eq!(patch("u", &said, &now), None);
    assert!(overruled(&mut said, &status("False")));
    let patch = patch("u", &said, &now).unwrap();
    assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), 1);
    assert_eq!(patch["status"]["conditions"][0]["status"], "True");
}
