use super::*;
use crate::pods::world::World;
use proptest::prelude::*;
use serde_json::{Value, json};

fn two() -> World {
    World::new(json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}))
}

fn start(name: &str, attempt: u32) -> Step {
    Step::Start { name: name.into(), init: false, attempt }
}

#[test]
fn a_pod_begins_with_its_volumes_its_sandbox_and_its_network() {
    let mut world = two();
    assert_eq!(world.act(9).steps, [Step::Prepare, Step::RunSandbox { attempt: 0 }]);
    assert_eq!(world.act(9).steps, [Step::Network { sandbox: "id-1".into() }]);
    assert_eq!(world.act(9).steps, [start("a", 0), start("b", 0)]);
    assert_eq!(world.plan(), Plan::default(), "and then there is nothing to do");
}

#[test]
fn crashes_back_off_in_the_kubelets_words() {
    let mut world = two();
    world.settle();
    world.end("a", 1);
    assert_eq!(world.act(9).steps, [start("a", 1)], "the first restart is immediate");
    world.end("a", 1);
    let held = world.act(9);
    assert_eq!((held.steps.len(), held.wake_at), (0, Some(world.now + SignedDuration::from_secs(10))));
    assert_eq!(held.crash_loops["a"], "back-off 10s restarting failed container=a pod=p_ns(u)");
    world.pass(10);
    assert_eq!(world.act(9).steps, [start("a", 2)]);
    world.end("a", 0);
    assert!(world.act(9).crash_loops["a"].starts_with("back-off 20s"), "a completed one is held back too");
    assert!(world.running("b").is_some_and(|b| b.attempt == 0), "the other one isn't touched");
}

#[test]
fn a_lost_sandbox_takes_everything_with_it() {
    let mut world = two();
    world.settle();
    world.exit("id-1", 137);
    let plan = world.act(9);
    let own = Duration::from_secs(30);
    let kills =
        plan.steps.iter().filter(|s| matches!(s, Step::Kill { why: Kill::SandboxGone, grace, .. } if *grace == own));
    assert_eq!(kills.count(), 2, "which keep the time that their pod gives them");
    assert_eq!(world.act(9).steps, [Step::RunSandbox { attempt: 1 }]);
    world.settle();
    let all: Vec<_> =
        ["a", "b"].iter().map(|n| world.running(n).unwrap()).map(|r| (r.attempt, r.sandbox.clone())).collect();
    assert_eq!(all[0].0, 1);
    assert!(all.iter().all(|(_, sandbox)| sandbox != "id-1"));
    assert!(!world.records.iter().any(|r| r.id == "id-1"), "the dead one is removed");
}

#[test]
fn an_end_takes_containers_then_sidecars_backwards_then_the_sandbox() {
    let mut world = World::new(json!({
        "initContainers": [{"name": "s1", "image": "i", "restartPolicy": "Always"},
            {"name": "s2", "image": "i", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
        "terminationGracePeriodSeconds": 30,
    }));
    world.settle();
    world.ending = Some(Ending::Deleted { grace: Duration::from_secs(30) });
    world.memory.ending_since = Some(world.now);
    world.pass(12);
    let mut order = Vec::new();
    loop {
        let plan = world.act(9);
        if plan.finished {
            break;
        }
        order.push(
            plan.steps
                .iter()
                .map(|step| match step {
                    Step::Kill { name, grace, why: Kill::Ending, .. } => {
                        assert_eq!(*grace, Duration::from_secs(18), "what is left of the grace");
                        name.clone()
                    }
                    Step::StopSandbox { .. } => "sandbox".into(),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(order, [vec!["a", "b"], vec!["s2"], vec!["s1"], vec!["sandbox"]]);
    world.memory.ending_since = Some(world.now - SignedDuration::from_secs(600));
    world.ending = None;
    let mut late = two();
    late.settle();
    late.ending = Some(Ending::Deleted { grace: Duration::ZERO });
    assert!(late.plan().steps.iter().all(|s| matches!(s, Step::Kill { grace, .. } if *grace == MINIMUM_GRACE)));
}

#[test]
fn probes_and_changes_restart_one_container() {
    let mut world = World::new(json!({"terminationGracePeriodSeconds": 30, "containers": [
        {"name": "a", "image": "i", "livenessProbe": {"terminationGracePeriodSeconds": 5}}, {"name": "b", "image": "i"}]}));
    world.settle();
    let id = world.running("a").unwrap().id.clone();
    world.health.get_mut(&id).unwrap().failed = Some(FailedProbe::Liveness);
    let why = Kill::Probe(FailedProbe::Liveness);
    assert_eq!(world.act(9).steps, [Step::Kill { id, name: "a".into(), why, grace: Duration::from_secs(5) }]);
    world.settle();
    world.pod.spec.as_mut().unwrap().containers[1].image = Some("j".into());
    let id = world.running("b").unwrap().id.clone();
    let kill = Step::Kill { id, name: "b".into(), why: Kill::Changed, grace: Duration::from_secs(30) };
    assert_eq!(world.act(9).steps, [kill]);
    world.settle();
    assert_eq!(world.running("b").unwrap().attempt, 1);
}

#[test]
fn what_is_left_in_the_making_is_made_again_and_strangers_go() {
    let mut world = two();
    world.settle();
    world.end("a", 1);
    world.make_only("a", false, 1);
    let made = world.records.last().unwrap().id.clone();
    assert_eq!(world.act(9).steps, [Step::Remove { id: made }, start("a", 1)]);
    let mut stranger = world.running("b").unwrap().clone();
    stranger.id = "stranger".into();
    stranger.name = "c".into();
    world.records.push(stranger);
    assert!(matches!(&world.act(9).steps[..], [Step::Kill { id, why: Kill::Unknown, .. }] if id == "stranger"));
}

#[test]
fn the_last_dead_container_is_kept_and_older_ones_go() {
    let mut world = two();
    world.settle();
    for _ in 0..4 {
        world.end("a", 1);
        world.pass(301);
        world.settle();
    }
    let kept: Vec<u32> = world.records.iter().filter(|r| r.name == "a").map(|r| r.attempt).collect();
    assert_eq!(kept, [3, 4]);
}

#[test]
fn policies_decide_what_runs_again() {
    for (policy, code, again) in
        [("Always", 0, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 0, false), ("Never", 1, false)]
    {
        let mut world = World::new(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]}));
        world.settle();
        world.end("a", code);
        let plan = world.settle();
        assert_eq!(world.running("a").is_some(), again, "{policy} after {code}");
        assert_eq!(plan.finished, !again, "{policy} after {code}");
    }
}

#[test]
fn a_container_whose_image_is_on_its_way_or_held_back_waits() {
    let mut world = two();
    world.memory.pulling.insert("a".into());
    let retry_at = Some(world.now + SignedDuration::from_secs(7));
    let blocked = Blocked { reason: "ErrImagePull".into(), message: String::new(), retry_at };
    world.memory.blocked.insert("b".into(), blocked);
    let plan = world.settle();
    assert_eq!(plan.wake_at, retry_at);
    assert!(world.started.is_empty());
    world.memory.pulling.clear();
    world.pass(7);
    world.settle();
    assert!(world.running("a").is_some() && world.running("b").is_some());
}

/// What may happen to a pod, in any order.
#[derive(Clone, Debug)]
enum Event {
    Exits {
        which: usize,
        code: i32,
    },
    SandboxDies,
    EverythingDies,
    /// Somebody removes a dead container behind our back.
    Vanishes {
        which: usize,
    },
    Passes {
        seconds: i64,
    },
    /// The worker comes by, and may be interrupted after some steps.
    Works {
        steps: usize,
    },
    AgentRestarts,
    ImageChanges {
        which: usize,
    },
    ProbeFails {
        which: usize,
    },
    NetworkIsLost,
}

fn event() -> impl Strategy<Value = Event> {
    let which = || 0..8usize;
    prop_oneof![
        3 => (which(), prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(which, code)| Event::Exits { which, code }),
        1 => Just(Event::SandboxDies),
        1 => Just(Event::EverythingDies),
        1 => which().prop_map(|which| Event::Vanishes { which }),
        3 => prop_oneof![Just(1), Just(15), Just(400)].prop_map(|seconds| Event::Passes { seconds }),
        8 => (0..4usize).prop_map(|steps| Event::Works { steps }),
        1 => Just(Event::AgentRestarts),
        1 => which().prop_map(|which| Event::ImageChanges { which }),
        1 => which().prop_map(|which| Event::ProbeFails { which }),
        1 => Just(Event::NetworkIsLost),
    ]
}

fn happens(world: &mut World, event: &Event) {
    let nth = |world: &World, which: usize, running: bool| {
        let all: Vec<String> = world
            .records
            .iter()
            .filter(|r| r.role != Role::Sandbox && r.is_running() == running)
            .map(|r| r.id.clone())
            .collect();
        (!all.is_empty()).then(|| all[which % all.len()].clone())
    };
    match event {
        Event::Exits { which, code } => {
            if let Some(id) = nth(world, *which, true) {
                world.exit(&id, *code);
            }
        }
        Event::SandboxDies | Event::EverythingDies => {
            let all = matches!(event, Event::EverythingDies);
            let ids: Vec<_> =
                world.records.iter().filter(|r| all || r.role == Role::Sandbox).map(|r| r.id.clone()).collect();
            ids.iter().for_each(|id| world.exit(id, 255));
        }
        Event::Vanishes { which } => {
            // After it was told of: what nobody ever knew can't be counted.
            let plan = world.plan();
            world.said = world.status(&plan);
            if let Some(id) = nth(world, *which, false) {
                world.records.retain(|r| r.id != id);
            }
        }
        Event::Passes { seconds } => world.pass(*seconds),
        Event::Works { steps } => drop(world.act(*steps)),
        Event::AgentRestarts => world.restart_agent(),
        Event::ImageChanges { which } => {
            let containers = &mut world.pod.spec.as_mut().unwrap().containers;
            let index = which % containers.len();
            let image = containers[index].image.get_or_insert_default();
            image.push('x');
        }
        Event::ProbeFails { which } => {
            if let Some(id) = nth(world, *which, true)
                && let Some(health) = world.health.get_mut(&id)
            {
                health.failed = Some(FailedProbe::Liveness);
            }
        }
        Event::NetworkIsLost => world.memory.networked = None,
    }
}

/// Sentences that hold after every event.
fn check(world: &World, policy: &str) {
    for (container, init) in spec::containers(&world.pod) {
        let name = &container.name;
        let running = world.records.iter().filter(|r| &r.name == name && r.is_running()).count();
        assert!(running <= 1, "{running} containers of {name} run");
        let attempts: Vec<u32> = world.started.iter().filter(|s| &s.0 == name).map(|s| s.1).collect();
        assert!(attempts.windows(2).all(|pair| pair[0] < pair[1]), "attempts of {name}: {attempts:?}");
        // Init containers must bear being run again.
        if policy == "Never" && !init {
            assert!(attempts.len() <= 1, "{name} ran {} times", attempts.len());
        }
    }
    let sandboxes = world.records.iter().filter(|r| r.role == Role::Sandbox && r.is_running()).count();
    assert!(sandboxes <= 1, "{sandboxes} sandboxes run");
    // Nobody starts before those that go first have done their work in the same sandbox.
    for (place, (name, _, sandbox)) in world.started.iter().enumerate() {
        let names: Vec<&str> = spec::containers(&world.pod).map(|(c, _)| c.name.as_str()).collect();
        let first: Vec<&str> = spec::containers(&world.pod)
            .filter(|(_, init)| *init)
            .map(|(c, _)| c.name.as_str())
            .take_while(|init| init != name)
            .collect();
        for before in first.iter().filter(|b| names.contains(b)) {
            let done = world.started[..place].iter().any(|(n, _, s)| n == before && s == sandbox);
            assert!(done, "{name} was started before {before} in {sandbox}");
        }
    }
}

fn spec_of(policy: &str, init: bool, sidecar: bool) -> Value {
    let mut inits = Vec::new();
    if init {
        inits.push(json!({"name": "init", "image": "i"}));
    }
    if sidecar {
        inits.push(json!({"name": "side", "image": "i", "restartPolicy": "Always"}));
    }
    json!({"restartPolicy": policy, "initContainers": inits,
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_container_runs_once_at_a_time_and_counts_upwards(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        init: bool,
        sidecar: bool,
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new(spec_of(policy, init, sidecar));
        let mut counts = BTreeMap::new();
        for event in &events {
            happens(&mut world, event);
            check(&world, policy);
            for status in world.said.container_statuses.iter().flatten() {
                let before = counts.insert(status.name.clone(), status.restart_count).unwrap_or(0);
                prop_assert!(before <= status.restart_count, "restarts of {} went back", status.name);
            }
        }
        // When nothing happens any more the pod comes to rest: it runs, or it is over.
        for _ in 0..40 {
            let plan = world.settle();
            check(&world, policy);
            if let Some(running) = world.running("init").map(|r| r.id.clone()) {
                world.exit(&running, 0);
            }
            match plan.wake_at {
                Some(at) => world.now = at,
                None => world.pass(1),
            }
        }
        let plan = world.settle();
        let all_run = ["a", "b"].iter().all(|name| world.running(name).is_some());
        let over = plan.finished && !world.records.iter().any(Record::is_running);
        match policy {
            "Always" => prop_assert!(all_run && !plan.finished, "{:?}", world.records),
            _ => prop_assert!(over || world.records.iter().any(|r| r.role == Role::App && r.is_running()), "{:?}", world.records),
        }
        let end = world.status(&plan);
        let phase = end.phase.as_deref().unwrap_or_default();
        prop_assert_eq!(matches!(phase, "Succeeded" | "Failed"), over, "{}", phase);

        // And a deletion always ends.
        world.ending = Some(Ending::Deleted { grace: Duration::from_secs(1) });
        let plan = world.settle();
        prop_assert!(plan.finished && !world.records.iter().any(Record::is_running));
    }
}
