use super::*;
use crate::projection::Projection;
use crate::view::Change;
use proptest::prelude::*;
use serde_json::Value;

fn put(view: &mut View, resource: &'static str, tree: Value) {
    let text = |f: &str| tree["metadata"][f].as_str().unwrap_or_default().to_string();
    let key = ObjectKey::new(resource, text("namespace"), text("name"));
    let revision = view.revision() + 1;
    view.apply(Change { key, revision, projection: Some(Projection::of(resource, &tree)) }, Timestamp::UNIX_EPOCH);
}

fn node(name: &str, cpu: &str, more: Value) -> Value {
    let mut tree = json!({"metadata": {"name": name, "uid": name, "labels": {"zone-less": "true"}}, "spec": {},
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
        Verdict::Wait { message } => message.clone(),
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
    for i in 0..4 {
        let owner = json!([{"uid": "rs", "kind": "ReplicaSet", "controller": true}]);
        put(&mut view, "pods", pod(&format!("p{i}"), json!({"metadata": {"ownerReferences": owner}})));
    }
    let placed: Vec<String> = verdicts(&view)
        .into_iter()
        .map(|(_, v)| match v {
            Verdict::Bind { node } => node,
            Verdict::Wait { message } => panic!("{message}"),
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
    assert_eq!(verdicts(&view)[0].1, Verdict::Bind { node: "b".into() });
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({"metadata": {"labels": {"disk": "ssd"}}})));
    put(&mut view, "nodes", node("b", "4", json!({})));
    let term = json!([{"weight": 50, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": term}});
    put(&mut view, "pods", pod("p", json!({"spec": {"affinity": affinity}})));
    assert_eq!(verdicts(&view)[0].1, Verdict::Bind { node: "a".into() });
}

#[test]
fn others_pods_and_gated_ones_are_left_alone() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "4", json!({})));
    put(&mut view, "pods", pod("p", json!({"spec": {"schedulerName": "mine"}})));
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
    assert_eq!(all[0].1, Verdict::Bind { node: "a".into() });
    let Verdict::Wait { message } = &all[1].1 else { panic!("bound twice") };
    assert!(message.starts_with(
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: "
    ));
}

proptest! {
    /// No batch ever takes more of a node than it has, and equal input gives equal output.
    #[test]
    fn never_overcommits_and_is_deterministic(
        nodes in prop::collection::vec((1..8i64, 1..5i64), 1..12),
        pods in prop::collection::vec(0..3000i64, 1..60),
        seed in any::<u64>(),
    ) {
        let mut view = View::default();
        for (i, (cpu, count)) in nodes.iter().enumerate() {
            let more = json!({"status": {"allocatable": {"pods": count.to_string()}}});
            put(&mut view, "nodes", node(&format!("n{i}"), &cpu.to_string(), more));
        }
        for (i, cpu) in pods.iter().enumerate() {
            let container = json!({"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m")}}});
            put(&mut view, "pods", pod(&format!("p{i}"), json!({"spec": {"containers": [container]}})));
        }
        let waiting = pending(&view);
        let decisions = schedule(&view, &waiting, seed);
        let mut left: HashMap<String, (i64, i64)> =
            nodes.iter().enumerate().map(|(i, (cpu, count))| (format!("n{i}"), (cpu * 1000, *count))).collect();
        for decision in &decisions {
            if let Verdict::Bind { node } = &decision.verdict {
                let (cpu, count) = left.get_mut(node).unwrap();
                *cpu -= decision.pod.requests.cpu;
                *count -= 1;
                prop_assert!(*cpu >= 0 && *count >= 0, "{node} is overcommitted");
            }
        }
        for decision in &decisions {
            if matches!(decision.verdict, Verdict::Wait { .. }) {
                let fits = left.values().any(|(cpu, count)| *cpu >= decision.pod.requests.cpu && *count > 0);
                prop_assert!(!fits, "{} would have fitted", decision.pod.meta.name);
            }
        }
        let again = schedule(&view, &waiting, seed);
        prop_assert!(decisions.iter().zip(&again).all(|(a, b)| a.verdict == b.verdict));
    }
}
