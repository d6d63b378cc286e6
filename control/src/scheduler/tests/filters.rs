//! Each filter by the API's documented rules: which nodes of a small cluster would take a pod.

use super::*;

/// The nodes that would take pod `p`, and why the others wouldn't: by thinking away all other choices one after the other.
fn takers(view: &View) -> Vec<String> {
    let mut scheduler = Scheduler::of(view);
    let pod = pending(view).into_iter().find(|p| p.meta.name == "p").expect("it waits");
    scheduler.begin(1);
    let id = scheduler.class(&pod);
    let Scheduler { state, work, classes, profiles, .. } = &mut scheduler;
    classes[id].refresh(state, &profiles[0]);
    search(state, work, &classes[id], &pod);
    let mut names: Vec<String> = work.found.iter().map(|slot| state.nodes.name(*slot).to_string()).collect();
    names.sort();
    names
}

fn assert_takers(view: &View, names: &[&str], reasons: &[&str]) {
    assert_eq!(takers(view), names);
    let mut scheduler = Scheduler::of(view);
    let pods: Vec<_> = pending(view).into_iter().filter(|p| p.meta.name == "p").collect();
    let why = scheduler.decide_all(&pods, 1).remove(0).why;
    let said: Vec<&str> = why.refused.iter().map(|(reason, _)| reason.as_str()).collect();
    for reason in reasons {
        assert!(said.contains(reason), "{reason:?} in {said:?}");
    }
}

fn required(kind: &str, terms: Value) -> Value {
    json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
}

fn near(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

const ZONE: &str = "topology.kubernetes.io/zone";
const NO_COMPANY: &str = "node(s) didn't match pod affinity rules";
const BAD_COMPANY: &str = "node(s) didn't match pod anti-affinity rules";
const UNWELCOME: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const SKEWED: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

#[test]
fn affinity_wants_a_domain_where_such_pods_run() {
    let mut view = nodes(&[zone("1"), zone("1"), zone("2"), json!({})]);
    put(&mut view, "pods", running("db", "a", labelled("app", "db")));
    put(&mut view, "pods", pod("p", required("podAffinity", json!([near("db", ZONE)]))));
    assert_takers(&view, &["a", "b"], &[NO_COMPANY]);
}

#[test]
fn all_affinity_terms_must_be_met_by_the_same_pods() {
    let mut view = nodes(&[zone("1"), zone("2")]);
    put(&mut view, "pods", running("x", "a", json!({"metadata": {"labels": {"app": "db", "tier": "gold"}}})));
    put(&mut view, "pods", running("y", "b", labelled("app", "db")));
    put(&mut view, "pods", running("z", "b", labelled("tier", "gold")));
    let tier = json!({"labelSelector": {"matchLabels": {"tier": "gold"}}, "topologyKey": ZONE});
    put(&mut view, "pods", pod("p", required("podAffinity", json!([near("db", ZONE), tier]))));
    assert_takers(&view, &["a"], &[NO_COMPANY]);
}

#[test]
fn the_first_of_a_group_may_begin_anywhere_that_has_the_label() {
    let mut view = nodes(&[zone("1"), zone("2"), json!({})]);
    let mut own = required("podAffinity", json!([near("web", ZONE)]));
    merge(&mut own, labelled("app", "web"));
    put(&mut view, "pods", pod("p", own.clone()));
    assert_takers(&view, &["a", "b"], &[NO_COMPANY]);
    put(&mut view, "pods", running("first", "b", labelled("app", "web")));
    assert_takers(&view, &["b"], &[NO_COMPANY]);
}

#[test]
fn anti_affinity_keeps_away_from_such_pods_and_they_from_it() {
    let mut view = nodes(&[zone("1"), zone("1"), zone("2")]);
    put(&mut view, "pods", running("db", "a", labelled("app", "db")));
    put(&mut view, "pods", pod("p", required("podAntiAffinity", json!([near("db", ZONE)]))));
    assert_takers(&view, &["c"], &[BAD_COMPANY]);
    let mut view = nodes(&[zone("1"), zone("1"), zone("2")]);
    let mut shy = required("podAntiAffinity", json!([near("web", ZONE)]));
    merge(&mut shy, json!({"spec": {"nodeName": "a"}}));
    put(&mut view, "pods", pod("shy", shy));
    put(&mut view, "pods", pod("p", labelled("app", "web")));
    assert_takers(&view, &["c"], &[UNWELCOME]);
}

#[test]
fn anti_affinity_does_not_mind_nodes_without_the_label() {
    let mut view = nodes(&[json!({}), zone("1")]);
    put(&mut view, "pods", running("db", "a", labelled("app", "db")));
    put(&mut view, "pods", pod("p", required("podAntiAffinity", json!([near("db", ZONE)]))));
    assert_takers(&view, &["a", "b"], &[]);
}

#[test]
fn terms_speak_of_their_own_namespace_of_named_ones_or_of_selected_ones() {
    let namespace = |view: &mut View, name: &str, team: &str| {
        put(view, "namespaces", json!({"metadata": {"name": name, "uid": name, "labels": {"team": team}}}));
    };
    let there = |view: &mut View, namespace: &str, node: &str| {
        let mut tree = running(&format!("db-{namespace}"), node, labelled("app", "db"));
        tree["metadata"]["namespace"] = namespace.into();
        put(view, "pods", tree);
    };
    let mut term = near("db", "kubernetes.io/hostname");
    let hosts: Vec<Value> = ["a", "b", "c"].iter().map(|n| json!({"kubernetes.io/hostname": n})).collect();
    let mut view = nodes(&hosts);
    namespace(&mut view, "d", "one");
    namespace(&mut view, "e", "two");
    namespace(&mut view, "f", "two");
    for (name, node) in [("d", "a"), ("e", "b"), ("f", "c")] {
        there(&mut view, name, node);
    }
    let mut check = |term: &Value, takers: &[&str]| {
        put(&mut view, "pods", pod("p", required("podAntiAffinity", json!([term]))));
        assert_takers(&view, takers, &[]);
    };
    check(&term, &["b", "c"]);
    term["namespaces"] = json!(["e"]);
    check(&term, &["a", "c"]);
    term["namespaceSelector"] = json!({"matchLabels": {"team": "one"}});
    check(&term, &["c"]);
    term["namespaces"] = json!([]);
    term["namespaceSelector"] = json!({"matchLabels": {"team": "two"}});
    check(&term, &["a"]);
    term["namespaceSelector"] = json!({});
    check(&term, &[]);
}

#[test]
fn a_namespace_that_changes_its_labels_changes_whom_terms_mean() {
    let mut view = nodes(&[json!({"kubernetes.io/hostname": "a"})]);
    put(&mut view, "namespaces", json!({"metadata": {"name": "d", "uid": "d"}}));
    put(&mut view, "pods", running("db", "a", labelled("app", "db")));
    let mut term = near("db", "kubernetes.io/hostname");
    term["namespaceSelector"] = json!({"matchLabels": {"team": "one"}});
    put(&mut view, "pods", pod("p", required("podAntiAffinity", json!([term]))));
    let mut scheduler = Scheduler::of(&view);
    let bound = |scheduler: &mut Scheduler, view: &View| {
        matches!(scheduler.schedule(view, 9, 1).decisions[0].verdict, Verdict::Bind { .. })
    };
    assert!(bound(&mut scheduler, &view));
    let labels = json!({"metadata": {"name": "d", "uid": "d", "labels": {"team": "one"}}});
    let applied = put(&mut view, "namespaces", labels).expect("a change");
    assert_eq!(scheduler.apply(&view, &applied), Need::Soon);
    assert!(!bound(&mut scheduler, &view));
}

#[test]
fn no_selector_means_nobody_and_an_empty_one_everybody() {
    for (selector, taken) in [(json!(null), true), (json!({}), false)] {
        let mut view = nodes(&[json!({"kubernetes.io/hostname": "a"})]);
        put(&mut view, "pods", running("db", "a", json!({})));
        let term = json!([{"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]);
        put(&mut view, "pods", pod("p", required("podAntiAffinity", term)));
        assert_eq!(takers(&view), if taken { vec!["a"] } else { vec![] });
    }
}

/// A cluster of zones 1 (nodes a, b) and 2 (node c) and a node without a zone, with so many web pods in each zone.
fn spread(one: usize, two: usize, constraint: Value) -> View {
    let mut view = nodes(&[zone("1"), zone("1"), zone("2"), json!({})]);
    for (count, node) in [(one, "a"), (two, "c")] {
        for i in 0..count {
            put(&mut view, "pods", running(&format!("{node}{i}"), node, labelled("app", "web")));
        }
    }
    let mut rule = json!({"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    merge(&mut rule, constraint);
    let mut tree = pod("p", labelled("app", "web"));
    tree["spec"]["topologySpreadConstraints"] = json!([rule]);
    put(&mut view, "pods", tree);
    view
}

#[test]
fn spread_keeps_within_its_skew() {
    assert_takers(&spread(0, 0, json!({})), &["a", "b", "c"], &[NO_LABEL]);
    assert_takers(&spread(1, 0, json!({})), &["c"], &[SKEWED, NO_LABEL]);
    assert_takers(&spread(1, 0, json!({"maxSkew": 2})), &["a", "b", "c"], &[NO_LABEL]);
    assert_takers(&spread(3, 2, json!({})), &["c"], &[SKEWED]);
}

#[test]
fn a_pod_that_its_constraint_does_not_select_does_not_count_itself() {
    let mut view = spread(1, 0, json!({}));
    let mut other = pod("p", labelled("app", "other"));
    other["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    put(&mut view, "pods", other);
    assert_takers(&view, &["a", "b", "c"], &[]);
}

#[test]
fn too_few_domains_count_as_an_empty_one() {
    assert_takers(&spread(1, 1, json!({"minDomains": 2})), &["a", "b", "c"], &[]);
    assert_takers(&spread(1, 1, json!({"minDomains": 3})), &[], &[SKEWED, NO_LABEL]);
}

#[test]
fn pods_on_their_way_out_and_of_other_namespaces_do_not_count() {
    let mut view = spread(1, 0, json!({}));
    let going = json!({"metadata": {"labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    put(&mut view, "pods", running("a0", "a", going));
    let mut foreign = running("f", "c", labelled("app", "web"));
    foreign["metadata"]["namespace"] = "e".into();
    put(&mut view, "pods", foreign);
    assert_takers(&view, &["a", "b", "c"], &[]);
}

#[test]
fn nodes_that_the_pod_cannot_use_are_left_out_of_the_count_unless_told_otherwise() {
    // Zone 2 is empty, but the pod may only use zone 1.
    let only_one = json!({"spec": {"nodeSelector": {ZONE: "1"}}});
    let with = |constraint: Value, more: &Value| {
        let mut view = spread(2, 0, constraint);
        let mut tree = pod("p", labelled("app", "web"));
        tree["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": ZONE,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
        merge(&mut tree, more.clone());
        put(&mut view, "pods", tree);
        view
    };
    assert_takers(&with(json!({}), &only_one), &["a", "b"], &[]);
    let mut ignoring = only_one.clone();
    ignoring["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": ZONE, "nodeAffinityPolicy": "Ignore",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    assert_takers(&with(json!({}), &ignoring), &[], &[SKEWED]);
    // Zone 2 is tainted: it counts, unless taints are honoured.
    let tainted =
        json!({"metadata": {"labels": zone("2")}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let mut view = spread(2, 0, json!({}));
    put(&mut view, "nodes", node("c", "8", tainted.clone()));
    assert_takers(&view, &[], &[SKEWED]);
    let mut view = spread(2, 0, json!({"nodeTaintsPolicy": "Honor"}));
    put(&mut view, "nodes", node("c", "8", tainted));
    assert_takers(&view, &["a", "b"], &[]);
}

#[test]
fn all_hard_constraints_hold_together() {
    let host = |name: &str, zone: &str| json!({"kubernetes.io/hostname": name, ZONE: zone});
    let mut view = nodes(&[host("a", "1"), host("b", "1"), host("c", "2")]);
    put(&mut view, "pods", running("x", "a", labelled("app", "web")));
    put(&mut view, "pods", running("y", "c", labelled("app", "web")));
    let rule = |key: &str| {
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}})
    };
    let mut tree = pod("p", labelled("app", "web"));
    tree["spec"]["topologySpreadConstraints"] = json!([rule(ZONE), rule("kubernetes.io/hostname")]);
    put(&mut view, "pods", tree);
    assert_takers(&view, &["b"], &[SKEWED]);
}

#[test]
fn extended_resources_and_overhead_are_asked_for() {
    let mut view = View::default();
    put(&mut view, "nodes", node("a", "1", json!({"status": {"allocatable": {"example.com/gpu": "1"}}})));
    put(&mut view, "nodes", node("b", "8", json!({})));
    let gpu = json!([{"name": "c", "resources": {"requests": {"cpu": "900m", "example.com/gpu": "1"}}}]);
    put(&mut view, "pods", pod("p", json!({"spec": {"containers": gpu}})));
    assert_takers(&view, &["a"], &["Insufficient example.com/gpu"]);
    put(&mut view, "pods", pod("p", json!({"spec": {"containers": gpu, "overhead": {"cpu": "200m"}}})));
    assert_takers(&view, &[], &["Insufficient example.com/gpu", "Insufficient cpu"]);
    let text = message(&view);
    assert!(text.contains("2 Preemption is not helpful for scheduling."), "neither ever has it: {text}");
}

#[test]
fn a_pod_that_names_its_node_looks_at_no_other() {
    let mut view = nodes(&[json!({}), json!({}), json!({})]);
    put(&mut view, "nodes", node("b", "100m", json!({})));
    let fields = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]);
    let affinity =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": fields}}});
    put(&mut view, "pods", pod("p", json!({"spec": {"affinity": affinity}})));
    assert_eq!(
        message(&view),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: \
         0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
}

#[test]
fn taints_keep_away_who_does_not_tolerate_them() {
    for (effect, toleration, taken) in [
        ("NoSchedule", json!([]), false),
        ("NoExecute", json!([]), false),
        ("PreferNoSchedule", json!([]), true),
        ("NoSchedule", json!([{"key": "k", "operator": "Exists"}]), true),
        ("NoSchedule", json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}]), false),
    ] {
        let mut view = View::default();
        let taint = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
        put(&mut view, "nodes", node("a", "8", taint));
        put(&mut view, "pods", pod("p", json!({"spec": {"tolerations": toleration}})));
        assert_eq!(takers(&view).len(), usize::from(taken), "{effect}");
    }
}

#[test]
fn enough_nodes_end_the_search() {
    assert_eq!(
        [filter::enough(50), filter::enough(100), filter::enough(1000), filter::enough(6000)],
        [50, 100, 420, 300]
    );
}
