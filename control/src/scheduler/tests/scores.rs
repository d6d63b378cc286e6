//! Each score by the API's documented rules: which of two nodes is better, and by how much.

use super::*;

/// The points of each part on each node for pod `p`, weights taken out.
fn points(view: &View, part: Part) -> BTreeMap<String, i64> {
    let mut scheduler = Scheduler::of(view);
    let pod = pending(view).into_iter().find(|p| p.meta.name == "p").expect("it waits");
    let decision = scheduler.decide_all(&[pod], 1).remove(0);
    let weight = Profile::default().weights[part as usize];
    let of =
        |s: &NodeScore| s.parts.iter().find(|(name, _)| *name == part.name()).map_or(0, |(_, points)| points / weight);
    decision.why.best.iter().map(|s| (s.node.clone(), of(s))).collect()
}

fn assert_points(view: &View, part: Part, expected: &[(&str, i64)]) {
    let expected: BTreeMap<String, i64> = expected.iter().map(|(node, points)| (node.to_string(), *points)).collect();
    assert_eq!(points(view, part), expected, "{}", part.name());
}

fn preferring(kind: &str, weight: i64, app: &str, key: &str) -> Value {
    let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    json!({"spec": {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": weight, "podAffinityTerm": term}]}}}})
}

const ZONE: &str = "topology.kubernetes.io/zone";

#[test]
fn free_nodes_are_better() {
    let mut view = nodes(&[json!({}), json!({})]);
    let half = json!([{"name": "c", "resources": {"requests": {"cpu": "4", "memory": "4Gi"}}}]);
    put(&mut view, "pods", running("there", "a", json!({"spec": {"containers": half}})));
    put(
        &mut view,
        "pods",
        pod(
            "p",
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "memory": "2Gi"}}}]}}),
        ),
    );
    assert_points(&view, Part::Room, &[("a", 25), ("b", 75)]);
}

#[test]
fn a_pod_that_asks_for_nothing_is_taken_to_need_something() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "1", json!({"status": {"allocatable": {"memory": "2000Mi"}}})));
    put(&mut view, "nodes", node("b", "2", json!({"status": {"allocatable": {"memory": "2000Mi"}}})));
    put(&mut view, "pods", pod("p", json!({"spec": {"containers": [{"name": "c", "resources": null}]}})));
    assert_points(&view, Part::Room, &[("a", 90), ("b", 92)]);
    assert_points(&view, Part::Balance, &[("a", 0), ("b", 0)]);
}

#[test]
fn even_use_is_better() {
    // a: half of its CPU is used and nothing of its memory; the pod asks for memory only.
    let mut view = nodes(&[json!({}), json!({})]);
    let cpu = json!([{"name": "c", "resources": {"requests": {"cpu": "4"}}}]);
    put(&mut view, "pods", running("there", "a", json!({"spec": {"containers": cpu}})));
    let memory = json!([{"name": "c", "resources": {"requests": {"memory": "4Gi"}}}]);
    put(&mut view, "pods", pod("p", json!({"spec": {"containers": memory}})));
    // a becomes even (from 75 to 100), b uneven (from 100 to 75).
    assert_points(&view, Part::Balance, &[("a", 50 + (50 + 25) / 2), ("b", 50 + (50 - 25) / 2)]);
}

#[test]
fn preferred_node_affinity_adds_up() {
    let mut view = nodes(&[json!({"disk": "ssd", "gpu": "yes"}), json!({"disk": "ssd"}), json!({})]);
    let prefer = |key: &str, weight: i64| json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}});
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [prefer("disk", 30), prefer("gpu", 10)]}});
    put(&mut view, "pods", pod("p", json!({"spec": {"affinity": affinity}})));
    assert_points(&view, Part::NodeAffinity, &[("a", 100), ("b", 75), ("c", 0)]);
}

#[test]
fn disliked_taints_count() {
    let mut view = nodes(&[json!({}), json!({}), json!({})]);
    let taint = |key: &str| json!({"key": key, "effect": "PreferNoSchedule"});
    put(&mut view, "nodes", node("a", "8", json!({"spec": {"taints": [taint("x"), taint("y")]}})));
    put(&mut view, "nodes", node("b", "8", json!({"spec": {"taints": [taint("x")]}})));
    put(&mut view, "pods", pod("p", json!({})));
    assert_points(&view, Part::Taints, &[("a", 0), ("b", 50), ("c", 100)]);
}

#[test]
fn preferred_company_draws_and_repels() {
    let mut view = nodes(&[zone("1"), zone("2"), zone("3")]);
    put(&mut view, "pods", running("x", "a", labelled("app", "db")));
    put(&mut view, "pods", running("y", "a", labelled("app", "db")));
    put(&mut view, "pods", running("z", "b", labelled("app", "db")));
    put(&mut view, "pods", pod("p", preferring("podAffinity", 10, "db", ZONE)));
    assert_points(&view, Part::PodAffinity, &[("a", 100), ("b", 50), ("c", 0)]);
    put(&mut view, "pods", pod("p", preferring("podAntiAffinity", 10, "db", ZONE)));
    assert_points(&view, Part::PodAffinity, &[("a", 0), ("b", 50), ("c", 100)]);
}

#[test]
fn pods_that_are_there_have_their_say() {
    let mut view = nodes(&[zone("1"), zone("2"), zone("3")]);
    let mut fond = preferring("podAffinity", 100, "web", ZONE);
    merge(&mut fond, json!({"spec": {"nodeName": "a"}}));
    put(&mut view, "pods", pod("fond", fond));
    let mut shy = preferring("podAntiAffinity", 100, "web", ZONE);
    merge(&mut shy, json!({"spec": {"nodeName": "b"}}));
    put(&mut view, "pods", pod("shy", shy));
    put(&mut view, "pods", pod("p", labelled("app", "web")));
    assert_points(&view, Part::PodAffinity, &[("a", 100), ("b", 0), ("c", 50)]);
    // Who needs company draws it a little, too.
    let mut view = nodes(&[zone("1"), zone("2")]);
    let term = json!([{"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": ZONE}]);
    let needs = json!({"spec": {"nodeName": "a", "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}});
    put(&mut view, "pods", pod("needs", needs));
    put(&mut view, "pods", pod("p", labelled("app", "web")));
    assert_points(&view, Part::PodAffinity, &[("a", 100), ("b", 0)]);
}

#[test]
fn wanted_spread_prefers_emptier_domains() {
    let mut view = nodes(&[zone("1"), zone("2"), json!({})]);
    put(&mut view, "pods", running("x", "a", labelled("app", "web")));
    put(&mut view, "pods", running("y", "a", labelled("app", "web")));
    let mut tree = pod("p", labelled("app", "web"));
    tree["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}}]);
    put(&mut view, "pods", tree);
    // Two pods times ln(2 + 2) are 3 (rounded); the node without a zone takes no part.
    assert_points(&view, Part::Spread, &[("a", 0), ("b", 100), ("c", 0)]);
}

#[test]
fn pods_behind_a_service_are_spread_without_asking() {
    let mut view = nodes(&[zone("1"), zone("1"), zone("2")]);
    put(&mut view, "pods", running("x", "a", labelled("app", "web")));
    put(&mut view, "pods", pod("p", labelled("app", "web")));
    assert_points(&view, Part::Spread, &[("a", 0), ("b", 0), ("c", 0)]);
    let service =
        json!({"metadata": {"name": "web", "namespace": "d", "uid": "s"}, "spec": {"selector": {"app": "web"}}});
    put(&mut view, "services", service);
    // Costs: a ln 5 + ln 4 + 6 = 9, b ln 4 + 6 = 7, c 6.
    assert_points(&view, Part::Spread, &[("a", 100 * 6 / 9), ("b", 100 * (9 + 6 - 7) / 9), ("c", 100)]);
}

#[test]
fn images_that_are_there_already_are_worth_something() {
    let image = |names: Value, size: i64| json!({"status": {"images": [{"names": names, "sizeBytes": size}]}});
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "8", image(json!(["shop/web:1"]), 500 << 20)));
    put(&mut view, "nodes", node("b", "8", image(json!(["other:latest"]), 500 << 20)));
    let container = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    put(&mut view, "pods", pod("p", container("shop/web:1")));
    // Half of the nodes have it: half of its size counts.
    assert_points(&view, Part::Images, &[("a", 100 * (250 - 23) / (1000 - 23)), ("b", 0)]);
    put(&mut view, "pods", pod("p", container("other")));
    assert_points(&view, Part::Images, &[("a", 0), ("b", 100 * (250 - 23) / (1000 - 23))]);
}

#[test]
fn equals_are_drawn_by_the_seed() {
    let mut view = nodes(&[json!({}), json!({}), json!({}), json!({})]);
    put(&mut view, "pods", pod("p", json!({})));
    let choose = |seed| match schedule(&view, &pending(&view), seed).remove(0).verdict {
        Verdict::Bind { node } => node,
        other => panic!("{other:?}"),
    };
    assert_eq!(choose(3), choose(3));
    let all: std::collections::BTreeSet<String> = (0..64).map(choose).collect();
    assert_eq!(all.len(), 4, "each has its turn: {all:?}");
}
