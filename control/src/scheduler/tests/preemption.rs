//! Who has to go for whom.

use super::*;

fn cpu(cpu: &str, priority: i32) -> Value {
    json!({"spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn there(view: &mut View, name: &str, node: &str, amount: &str, priority: i32, started: &str) {
    let mut tree = running(name, node, cpu(amount, priority));
    tree["status"] = json!({"phase": "Running", "startTime": started});
    put(view, "pods", tree);
}

fn waiting(view: &mut View, name: &str, amount: &str, priority: i32) {
    put(view, "pods", pod(name, cpu(amount, priority)));
}

/// Where room is made for pod `name`, and who has to go.
fn room(view: &View, name: &str) -> (String, Vec<String>) {
    match decision(view, name).verdict {
        Verdict::Preempt { preemption, .. } => {
            (preemption.node, preemption.victims.iter().map(|v| v.meta.name.clone()).collect())
        }
        other => panic!("{other:?}"),
    }
}

fn words(view: &View, name: &str) -> String {
    match decision(view, name).verdict {
        Verdict::Wait { message, .. } => message.to_string(),
        other => panic!("{other:?}"),
    }
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-02-01T00:00:00Z";

fn two_nodes() -> View {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    put(&mut view, "nodes", node("b", "4", json!({})));
    view
}

#[test]
fn only_as_many_go_as_must_and_the_least_important_first() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    there(&mut view, "low", "a", "1", 1, EARLY);
    there(&mut view, "middle", "a", "1", 5, EARLY);
    there(&mut view, "lower", "a", "1", 0, EARLY);
    there(&mut view, "high", "a", "1", 100, EARLY);
    waiting(&mut view, "p", "2", 10);
    assert_eq!(room(&view, "p"), ("a".into(), vec!["low".into(), "lower".into()]));
}

#[test]
fn of_equals_the_latest_goes() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "2", json!({})));
    there(&mut view, "old", "a", "1", 0, EARLY);
    there(&mut view, "new", "a", "1", 0, LATE);
    waiting(&mut view, "p", "1", 10);
    assert_eq!(room(&view, "p").1, ["new"]);
}

#[test]
fn the_node_with_the_least_loss_is_chosen() {
    // The lowest of the highest victims' priorities.
    let mut view = two_nodes();
    there(&mut view, "a1", "a", "4", 5, EARLY);
    there(&mut view, "b1", "b", "2", 4, EARLY);
    there(&mut view, "b2", "b", "2", 4, EARLY);
    waiting(&mut view, "p", "4", 10);
    assert_eq!(room(&view, "p").0, "b");
    // Then the smallest sum: more victims are more.
    let mut view = two_nodes();
    there(&mut view, "a1", "a", "2", 5, EARLY);
    there(&mut view, "a2", "a", "2", 0, EARLY);
    there(&mut view, "b1", "b", "2", 5, EARLY);
    there(&mut view, "b2", "b", "2", 1, EARLY);
    waiting(&mut view, "p", "4", 10);
    assert_eq!(room(&view, "p").0, "a");
    // Then the one whose most important victim started last.
    let mut view = two_nodes();
    there(&mut view, "a1", "a", "4", 5, EARLY);
    there(&mut view, "b1", "b", "4", 5, LATE);
    waiting(&mut view, "p", "4", 10);
    assert_eq!(room(&view, "p").0, "b");
}

#[test]
fn nobody_of_equal_or_higher_priority_goes() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    there(&mut view, "equal", "a", "4", 10, EARLY);
    waiting(&mut view, "p", "1", 10);
    assert_eq!(
        words(&view, "p"),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
}

#[test]
fn says_what_is_in_the_way_even_without_the_less_important() {
    let mut view = two_nodes();
    there(&mut view, "low", "a", "1", 0, EARLY);
    there(&mut view, "high", "a", "3", 100, EARLY);
    put(&mut view, "nodes", node("b", "1", json!({})));
    waiting(&mut view, "p", "3", 10);
    assert_eq!(
        words(&view, "p"),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 1 Insufficient cpu, \
         1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_policy_of_never_waits_its_turn() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    there(&mut view, "low", "a", "4", 0, EARLY);
    let mut patient = cpu("1", 10);
    patient["spec"]["preemptionPolicy"] = "Never".into();
    put(&mut view, "pods", pod("p", patient));
    assert_eq!(
        words(&view, "p"),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
}

#[test]
fn waits_while_those_sent_away_are_going_then_takes_its_place() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    put(&mut view, "nodes", node("b", "4", json!({})));
    there(&mut view, "busy", "b", "4", 50, EARLY);
    let mut going = running("low", "a", cpu("4", 0));
    going["metadata"]["deletionTimestamp"] = LATE.into();
    going["status"] =
        json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]});
    put(&mut view, "pods", going);
    let mut nominated = cpu("2", 10);
    nominated["status"] = json!({"nominatedNodeName": "a"});
    put(&mut view, "pods", pod("p", nominated));
    assert!(words(&view, "p").ends_with("preemption: not eligible due to a terminating pod on the nominated node."));
    // A less important one doesn't get the room meanwhile, but what is left beside it.
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    put(&mut view, "pods", pod("p", json!({"spec": cpu("2", 10)["spec"], "status": {"nominatedNodeName": "a"}})));
    waiting(&mut view, "small", "2", 5);
    waiting(&mut view, "big", "3", 5);
    let decided: BTreeMap<String, bool> =
        verdicts(&view).into_iter().map(|(name, v)| (name, matches!(v, Verdict::Bind { .. }))).collect();
    assert_eq!(decided, [("big".into(), false), ("p".into(), true), ("small".into(), true)].into());
    let big: Vec<_> = pending(&view).into_iter().filter(|p| p.meta.name == "big").collect();
    let alone = schedule(&view, &big, 1).remove(0).verdict;
    assert!(matches!(alone, Verdict::Wait { .. }), "the room is another's: {alone:?}");
}

#[test]
fn two_that_make_room_do_not_count_on_the_same_room() {
    let mut view = two_nodes();
    there(&mut view, "a1", "a", "4", 0, EARLY);
    there(&mut view, "b1", "b", "4", 0, EARLY);
    waiting(&mut view, "p", "4", 10);
    waiting(&mut view, "q", "4", 10);
    waiting(&mut view, "r", "4", 10);
    let nodes: Vec<String> = verdicts(&view)
        .into_iter()
        .filter_map(|(_, v)| match v {
            Verdict::Preempt { preemption, .. } => Some(preemption.node),
            _ => None,
        })
        .collect();
    let distinct: std::collections::BTreeSet<_> = nodes.iter().collect();
    assert_eq!((nodes.len(), distinct.len()), (2, 2), "{nodes:?}");
}

#[test]
fn a_more_important_pod_takes_the_place_of_one_for_which_room_was_made() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    there(&mut view, "low", "a", "4", 0, EARLY);
    let mut lesser = cpu("4", 5);
    lesser["status"] = json!({"nominatedNodeName": "a"});
    put(&mut view, "pods", pod("lesser", lesser));
    waiting(&mut view, "p", "4", 10);
    let Verdict::Preempt { preemption, .. } = decision(&view, "p").verdict else { panic!("no room made") };
    assert_eq!(preemption.outranked.iter().map(|p| p.meta.name.as_str()).collect::<Vec<_>>(), ["lesser"]);
}

#[test]
fn what_a_batch_thinks_of_room_is_forgotten_with_it() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({"metadata": {"labels": {"disk": "ssd"}}})));
    put(&mut view, "nodes", node("b", "4", json!({})));
    there(&mut view, "low", "a", "4", 0, EARLY);
    let mut outranked = cpu("4", 5);
    outranked["status"] = json!({"nominatedNodeName": "a"});
    put(&mut view, "pods", pod("outranked", outranked));
    let mut first = cpu("4", 10);
    first["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    put(&mut view, "pods", pod("first", first));
    let mut scheduler = Scheduler::of(&view);
    for _ in 0..2 {
        let decisions = scheduler.schedule(&view, 9, 1).decisions;
        let [Verdict::Preempt { preemption, .. }, Verdict::Bind { node }] =
            [&decisions[0].verdict, &decisions[1].verdict]
        else {
            panic!("{decisions:?}")
        };
        assert_eq!((preemption.outranked.len(), node.as_str()), (1, "b"));
        let kept: Vec<&str> = scheduler.state.nominated_on("a").iter().map(|p| p.meta.name.as_str()).collect();
        assert_eq!(kept, ["outranked"], "as the log has it, once");
    }
}

#[test]
fn anti_affinity_is_a_reason_to_go_too() {
    let mut view = nodes(&[json!({"kubernetes.io/hostname": "a"})]);
    let term = json!([{"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]);
    let shy = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"priority": 0, "nodeName": "a",
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}});
    put(&mut view, "pods", pod("shy", shy));
    put(&mut view, "pods", running("other", "a", cpu("1", 0)));
    let mut tree = cpu("1", 10);
    merge(&mut tree, labelled("app", "web"));
    put(&mut view, "pods", pod("p", tree));
    assert_eq!(room(&view, "p").1, ["shy"]);
}

#[test]
fn making_room_is_written_in_the_order_of_kubernetes() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "1", json!({})));
    there(&mut view, "low", "a", "1", 0, EARLY);
    waiting(&mut view, "p", "1", 10);
    let mut all = actions(&decision(&view, "p"), Timestamp::UNIX_EPOCH, false);
    in_order(&mut all);
    let [
        Action::Patch { patch: mark, key, .. },
        Action::Patch { patch: told, .. },
        Action::Delete { key: gone, uid, grace_seconds: None, .. },
        Action::Event(preempted),
        Action::Event(failed),
    ] = &all[..]
    else {
        panic!("{all:?}")
    };
    let mark = &mark["status"]["conditions"][0];
    assert_eq!(
        (mark["type"].as_str(), mark["reason"].as_str()),
        (Some("DisruptionTarget"), Some("PreemptionByScheduler"))
    );
    assert_eq!(mark["message"], "default-scheduler: preempting to accommodate a higher priority pod");
    assert_eq!((key.name.as_str(), gone.name.as_str(), uid.as_str()), ("low", "low", "low"));
    assert_eq!(told["status"]["nominatedNodeName"], "a");
    assert_eq!(told["status"]["conditions"][0]["message"], "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!((preempted.reason, preempted.message.as_str()), ("Preempted", "Preempted by pod p on node a"));
    assert_eq!(failed.reason, "FailedScheduling");
}
