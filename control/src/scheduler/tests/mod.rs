//! What is common to the scheduler's tests, and those of it as a whole.

mod filters;
mod naive;
mod preemption;
mod properties;
mod scores;

use super::batch::search;
use super::*;
use crate::action::{Action, ObjectKey};
use crate::projection::Projection;
use crate::view::Change;
use jiff::Timestamp;
use serde_json::{Value, json};

fn put(view: &mut View, resource: &'static str, tree: Value) -> Option<Applied> {
    let text = |f: &str| tree["metadata"][f].as_str().unwrap_or_default().to_string();
    let key = ObjectKey::new(resource, text("namespace"), text("name"));
    let revision = view.revision() + 1;
    view.apply(Change { key, revision, projection: Some(Projection::of(resource, &tree)) }, Timestamp::UNIX_EPOCH)
}

/// Nodes `a`, `b`, … with these labels each, eight cores and no pods.
fn nodes(labels: &[Value]) -> View {
    let mut view = View::default();
    for (name, labels) in ["a", "b", "c", "d", "e", "f"].iter().zip(labels) {
        put(&mut view, "nodes", node(name, "8", json!({"metadata": {"labels": labels}})));
    }
    view
}

fn zone(zone: &str) -> Value {
    json!({"topology.kubernetes.io/zone": zone})
}

/// A pod that runs already.
fn running(name: &str, node: &str, more: Value) -> Value {
    let mut tree = pod(name, json!({"spec": {"nodeName": node}}));
    merge(&mut tree, more);
    tree
}

fn labelled(name: &str, value: &str) -> Value {
    json!({"metadata": {"labels": {name: value}}})
}

/// Where pod `name` goes; panics with why it goes nowhere.
fn chosen(view: &View, name: &str) -> String {
    match verdicts(view).into_iter().find(|(n, _)| n == name) {
        Some((_, Verdict::Bind { node })) => node,
        other => panic!("{other:?}"),
    }
}

/// What was decided about pod `name`.
fn decision(view: &View, name: &str) -> Decision {
    let decisions = schedule(view, &pending(view), 7);
    decisions.into_iter().find(|d| d.pod.meta.name == name).expect("it waits")
}

fn node(name: &str, cpu: &str, more: Value) -> Value {
    let mut tree = json!({"metadata": {"name": name, "uid": name}, "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
    merge(&mut tree, more);
    tree
}

fn pod(name: &str, more: Value) -> Value {
    let mut tree = json!({"metadata": {"name": name, "namespace": "d", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
    merge(&mut tree, more);
    tree
}

fn merge(into: &mut Value, more: Value) {
    match more {
        Value::Object(fields) => fields.into_iter().for_each(|(k, v)| merge(&mut into[k], v)),
        value => *into = value,
    }
}

fn verdicts(view: &View) -> Vec<(String, Verdict)> {
    schedule(view, &pending(view), 7).into_iter().map(|d| (d.pod.meta.name.clone(), d.verdict)).collect()
}

fn message(view: &View) -> String {
    match &verdicts(view)[0].1 {
        Verdict::Wait { message, .. } | Verdict::Preempt { message, .. } => message.to_string(),
        Verdict::Bind { node } => panic!("bound to {node}"),
    }
}

#[test]
fn says_why_as_kubernetes_says_it() {
    let mut view = View::default();
    put(&mut view, "pods", pod("p", json!({"spec": {"nodeSelector": {"disk": "ssd"}}})));
    assert_eq!(message(&view), "no nodes available to schedule pods");
    let labels = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let with = |mut tree: Value, more: Value| {
        merge(&mut tree, more);
        tree
    };
    put(&mut view, "nodes", node("a", "100m", labels.clone()));
    put(
        &mut view,
        "nodes",
        node("b", "4", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}})),
    );
    put(&mut view, "nodes", node("c", "4", json!({})));
    put(&mut view, "nodes", node("d", "4", with(labels.clone(), json!({"spec": {"unschedulable": true}}))));
    put(&mut view, "nodes", node("e", "600m", labels));
    put(&mut view, "pods", pod("x", json!({"spec": {"nodeName": "e"}})));
    assert_eq!(
        message(&view),
        "0/5 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s), \
         1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/5 nodes are available: \
         1 No preemption victims found for incoming pod, 4 Preemption is not helpful for scheduling."
    );
}

#[test]
fn spreads_an_owners_pods_over_zones_and_nodes() {
    let mut view = View::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
        let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
        put(&mut view, "nodes", node(name, "8", labels));
    }
    let set = json!({"metadata": {"name": "rs", "namespace": "d", "uid": "rs"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    put(&mut view, "replicasets.apps", set);
    for i in 0..4 {
        let owner = json!([{"uid": "rs", "kind": "ReplicaSet", "controller": true}]);
        put(
            &mut view,
            "pods",
            pod(&format!("p{i}"), json!({"metadata": {"ownerReferences": owner, "labels": {"app": "web"}}})),
        );
    }
    let placed: Vec<String> = verdicts(&view)
        .into_iter()
        .map(|(_, v)| match v {
            Verdict::Bind { node } => node,
            other => panic!("{other:?}"),
        })
        .collect();
    let distinct: std::collections::BTreeSet<_> = placed.iter().collect();
    assert_eq!(distinct.len(), 4, "one a node: {placed:?}");
    assert!(placed[..2].contains(&"b1".to_string()), "the second goes to the other zone: {placed:?}");
}

#[test]
fn prefers_what_is_preferred() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}})));
    put(&mut view, "nodes", node("b", "4", json!({})));
    put(&mut view, "pods", pod("p", json!({})));
    assert_eq!(chosen(&view, "p"), "b");
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({"metadata": {"labels": {"disk": "ssd"}}})));
    put(&mut view, "nodes", node("b", "4", json!({})));
    let term = json!([{"weight": 50, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": term}});
    put(&mut view, "pods", pod("p", json!({"spec": {"affinity": affinity}})));
    assert_eq!(chosen(&view, "p"), "a");
}

#[test]
fn others_pods_and_gated_ones_are_left_alone() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    put(&mut view, "pods", pod("p", json!({"spec": {"schedulerName": "mine"}})));
    put(&mut view, "pods", pod("s", json!({"spec": {"nodeName": "a"}})));
    put(&mut view, "pods", pod("q", json!({"spec": {"schedulingGates": [{"name": "wait"}]}})));
    put(&mut view, "pods", pod("r", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})));
    assert!(pending(&view).is_empty());
}

#[test]
fn host_ports_are_given_once_a_node() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    for name in ["p", "q"] {
        put(
            &mut view,
            "pods",
            pod(
                name,
                json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}}),
            ),
        );
    }
    let all = verdicts(&view);
    assert_eq!(chosen(&view, "p"), "a");
    let Verdict::Wait { message, .. } = &all[1].1 else { panic!("bound twice") };
    assert!(message.starts_with(
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: "
    ));
}

#[test]
fn a_profile_packs_where_the_default_spreads() {
    let mut view = View::default();
    let packing = Profile { name: "packing".into(), strategy: Strategy::MostAllocated, ..Profile::default() };
    view.settings.profiles = Profiles(vec![Profile::default(), packing]);
    put(&mut view, "nodes", node("a", "4", json!({})));
    put(&mut view, "nodes", node("b", "4", json!({})));
    put(&mut view, "pods", running("there", "a", json!({})));
    put(&mut view, "pods", pod("p", json!({})));
    put(&mut view, "pods", pod("q", json!({"spec": {"schedulerName": "packing"}})));
    // Each on its own, so that neither sees where the other went.
    let alone = |name: &str| {
        let pods: Vec<_> = pending(&view).into_iter().filter(|p| p.meta.name == name).collect();
        match schedule(&view, &pods, 7).remove(0).verdict {
            Verdict::Bind { node } => node,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((alone("p").as_str(), alone("q").as_str()), ("b", "a"));
}

#[test]
fn more_important_pods_come_first_then_older_ones() {
    let mut view = View::default();
    for (name, priority, created, told) in [
        ("old", 0, "2026-01-01T00:00:00Z", false),
        ("told", 0, "2025-01-01T00:00:00Z", true),
        ("new", 0, "2026-01-02T00:00:00Z", false),
        ("important", 10, "2026-01-03T00:00:00Z", true),
    ] {
        let reason = if told { "Unschedulable" } else { "SchedulingGated" };
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": "m"});
        let tree = json!({"metadata": {"creationTimestamp": created}, "spec": {"priority": priority}, "status": {"conditions": [condition]}});
        put(&mut view, "pods", pod(name, tree));
    }
    let order: Vec<String> = pending(&view).iter().map(|p| p.meta.name.clone()).collect();
    assert_eq!(order, ["important", "old", "new", "told"]);
}

#[test]
fn a_waiting_pod_is_told_once_and_reminded_when_asked() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "100m", json!({})));
    put(&mut view, "pods", pod("p", json!({})));
    let now = Timestamp::UNIX_EPOCH;
    let first = decision(&view, "p");
    assert!(first.is_news());
    let said = actions(&first, now, false);
    assert!(
        matches!(&said[..], [Action::Patch { .. }, Action::Event(e)] if e.reason == "FailedScheduling"),
        "{said:?}"
    );
    let Verdict::Wait { message, .. } = &first.verdict else { panic!("it waits") };
    let condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": &**message});
    put(&mut view, "pods", pod("p", json!({"status": {"conditions": [condition]}})));
    let again = decision(&view, "p");
    assert!(!again.is_news() && actions(&again, now, false).is_empty());
    assert_eq!(actions(&again, now, true).len(), 1);
}

#[test]
fn a_batch_ends_after_so_much_news_and_says_that_there_is_more() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "8", json!({})));
    for i in 0..5 {
        put(&mut view, "pods", pod(&format!("p{i}"), json!({})));
    }
    let mut scheduler = Scheduler::of(&view);
    let batch = scheduler.schedule(&view, 3, 1);
    assert_eq!((batch.decisions.len(), batch.more), (3, true));
    let batch = scheduler.schedule(&view, 5, 1);
    assert_eq!((batch.decisions.len(), batch.more, scheduler.waiting()), (5, false, 5));
}

#[test]
fn many_that_fit_nowhere_take_turns() {
    let mut view = View::default();
    for i in 0..500 {
        put(&mut view, "nodes", node(&format!("n{i}"), "100m", json!({})));
    }
    // Each is a class of its own, and looks at every node.
    for i in 0..6000 {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"});
        let more = json!({"metadata": {"labels": {"n": i.to_string()}}, "status": {"conditions": [condition]}});
        put(&mut view, "pods", pod(&format!("p{i:04}"), more));
    }
    put(&mut view, "pods", pod("fresh", json!({})));
    let mut scheduler = Scheduler::of(&view);
    let mut seen: Vec<std::collections::BTreeSet<String>> = Vec::new();
    loop {
        let batch = scheduler.schedule(&view, usize::MAX, 1);
        seen.push(batch.decisions.iter().map(|d| d.pod.meta.name.clone()).collect());
        if !batch.more {
            break;
        }
    }
    assert_eq!(seen.len(), 2, "four thousand at a time");
    assert!(seen.iter().all(|batch| batch.contains("fresh")), "who just came waits for nobody");
    let all: std::collections::BTreeSet<&String> = seen.iter().flatten().collect();
    assert_eq!((all.len(), seen[0].len() + seen[1].len()), (6001, 6002), "everybody has a turn, and only one");
}

#[test]
fn a_decision_says_how_it_came_about() {
    let mut view = nodes(&[zone("1"), zone("1"), zone("2")]);
    put(&mut view, "nodes", node("d", "100m", json!({})));
    put(&mut view, "pods", pod("p", json!({})));
    let why = decision(&view, "p").why;
    assert_eq!((why.nodes, why.feasible), (4, 3));
    assert_eq!(why.refused, [("Insufficient cpu".to_string(), 1)]);
    assert_eq!(why.best.len(), 3);
    let first = &why.best[0];
    assert_eq!(first.total, first.parts.iter().map(|(_, points)| points).sum::<i64>());
    assert!(first.parts.iter().any(|(name, points)| *name == "TaintToleration" && *points == 300), "{first:?}");
}

#[test]
fn changes_that_matter_to_those_who_wait_call_for_a_look() {
    let mut view = nodes(&[json!({})]);
    let mut scheduler = Scheduler::of(&view);
    let mut apply = |view: &mut View, resource, tree| {
        let applied = put(view, resource, tree).expect("a change");
        scheduler.apply(view, &applied)
    };
    let big = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "8"}}}]}});
    assert_eq!(apply(&mut view, "pods", running("there", "a", json!({}))), Need::Nothing, "nobody waits");
    assert_eq!(apply(&mut view, "pods", pod("big", big)), Need::Now);
    assert_eq!(apply(&mut view, "pods", running("other", "a", json!({}))), Need::Nothing, "it takes room");
    let heartbeat = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(apply(&mut view, "nodes", node("a", "8", heartbeat)), Need::Nothing);
    assert_eq!(apply(&mut view, "nodes", node("a", "16", json!({}))), Need::Soon);
    let done = json!({"status": {"phase": "Succeeded"}});
    assert_eq!(apply(&mut view, "pods", running("other", "a", done)), Need::Soon);
    let term = json!([{"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}]);
    let near = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}});
    assert_eq!(apply(&mut view, "pods", pod("near", near)), Need::Now);
    assert_eq!(apply(&mut view, "pods", running("db", "a", labelled("app", "db"))), Need::Soon, "it may be company");
}

#[test]
fn what_fits_nowhere_is_judged_again_once_company_has_come() {
    let mut view = nodes(&[json!({"kubernetes.io/hostname": "a"})]);
    let term = json!([{"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}]);
    let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    for (name, created, spec) in [("before", 1, near.clone()), ("db", 2, json!({})), ("after", 3, near)] {
        let app = if name == "db" { "db" } else { "web" };
        let created = format!("2026-01-0{created}T00:00:00Z");
        let more = json!({"metadata": {"creationTimestamp": created, "labels": {"app": app}}, "spec": spec});
        put(&mut view, "pods", pod(name, more));
    }
    let bound: Vec<bool> = verdicts(&view).iter().map(|(_, v)| matches!(v, Verdict::Bind { .. })).collect();
    assert_eq!(bound, [false, true, true], "pods of one kind, in one batch");
}
