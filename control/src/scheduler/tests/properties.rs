//! What holds whatever comes and goes.

use super::naive::Naive;
use super::*;
use proptest::prelude::*;
use proptest::strategy::Strategy as AnyOf;

/// One step in a cluster's life.
#[derive(Clone, Debug)]
enum Step {
    Node {
        name: u8,
        zone: u8,
        cores: u8,
        tainted: bool,
        cordoned: bool,
    },
    NoNode {
        name: u8,
    },
    /// A pod of one of the sorts below; on a node, or waiting.
    Pod {
        name: u8,
        sort: u8,
        namespace: bool,
        priority: u8,
        on: Option<u8>,
        going: bool,
        nominated: Option<u8>,
    },
    NoPod {
        name: u8,
    },
    Namespace {
        other: bool,
        team: u8,
    },
    Service {
        there: bool,
    },
    /// Bind what is decided.
    Bind,
}

fn step() -> impl AnyOf<Value = Step> {
    let node = (0..5u8, 0..4u8, 1..5u8, prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let pod =
        (0..24u8, 0..SORTS, prop::bool::weighted(0.2), 0..3u8, prop::option::of(0..5u8), prop::bool::weighted(0.15));
    prop_oneof![
        3 => node.prop_map(|(name, zone, cores, tainted, cordoned)| Step::Node { name, zone, cores, tainted, cordoned }),
        1 => (0..5u8).prop_map(|name| Step::NoNode { name }),
        8 => (pod, prop::option::weighted(0.1, 0..5u8)).prop_map(|((name, sort, namespace, priority, on, going), nominated)| {
            Step::Pod { name, sort, namespace, priority, on, going, nominated }
        }),
        2 => (0..24u8).prop_map(|name| Step::NoPod { name }),
        1 => (any::<bool>(), 0..3u8).prop_map(|(other, team)| Step::Namespace { other, team }),
        1 => any::<bool>().prop_map(|there| Step::Service { there }),
        2 => Just(Step::Bind),
    ]
}

const SORTS: u8 = 9;
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What each sort of pod asks for.
fn sort(sort: u8) -> Value {
    let web = json!({"labelSelector": {"matchLabels": {"app": "web"}}});
    let term = |key: &str| {
        let mut term = web.clone();
        term["topologyKey"] = key.into();
        term
    };
    let required = |kind: &str, term: Value| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let preferred = |kind: &str, term: Value| json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": term}]}}});
    let spread = |key: &str, when: &str, more: Value| {
        let mut rule = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {"app": "web"}}});
        merge(&mut rule, more);
        json!({"topologySpreadConstraints": [rule]})
    };
    let (app, spec) = match sort {
        0 => ("web", json!({})),
        1 => ("web", required("podAntiAffinity", term(HOST))),
        2 => ("web", required("podAffinity", term(ZONE))),
        3 => ("db", {
            let mut near = term(ZONE);
            near["namespaceSelector"] = json!({"matchLabels": {"team": "t1"}});
            required("podAntiAffinity", near)
        }),
        4 => ("web", spread(ZONE, "DoNotSchedule", json!({"minDomains": 2}))),
        5 => ("web", spread(HOST, "DoNotSchedule", json!({"nodeTaintsPolicy": "Honor"}))),
        6 => ("db", preferred("podAffinity", term(ZONE))),
        7 => ("web", spread(ZONE, "ScheduleAnyway", json!({}))),
        _ => ("db", json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]})),
    };
    json!({"metadata": {"labels": {"app": app}}, "spec": spec})
}

/// A view and the scheduler beside it.
struct Life {
    view: View,
    scheduler: Scheduler,
    trees: BTreeMap<String, Value>,
}

impl Life {
    fn new() -> Self {
        let view = View::default();
        Self { scheduler: Scheduler::of(&view), view, trees: BTreeMap::new() }
    }

    fn change(&mut self, resource: &'static str, namespace: &str, name: &str, tree: Option<Value>) {
        let key = ObjectKey::new(resource, namespace, name);
        let projection = tree.map(|t| Projection::of(resource, &t));
        let change = Change { key, revision: self.view.revision() + 1, projection };
        if let Some(applied) = self.view.apply(change, Timestamp::UNIX_EPOCH) {
            self.scheduler.apply(&self.view, &applied);
        }
    }

    fn pod(&mut self, name: &str, tree: Option<Value>) {
        // A name is in one namespace at a time.
        if let Some(old) = self.trees.remove(name) {
            let namespace = old["metadata"]["namespace"].as_str().unwrap_or_default().to_string();
            if tree.as_ref().is_none_or(|t| t["metadata"]["namespace"] != namespace.as_str()) {
                self.change("pods", &namespace, name, None);
            }
        }
        if let Some(tree) = tree {
            let namespace = tree["metadata"]["namespace"].as_str().unwrap_or_default().to_string();
            self.trees.insert(name.to_string(), tree.clone());
            self.change("pods", &namespace, name, Some(tree));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Node { name, zone, cores, tainted, cordoned } => {
                let name = format!("n{name}");
                let mut labels = json!({HOST: name});
                if *zone > 0 {
                    labels[ZONE] = format!("z{zone}").into();
                }
                let taints = if *tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
                let more =
                    json!({"metadata": {"labels": labels}, "spec": {"taints": taints, "unschedulable": cordoned}});
                self.change("nodes", "", &name, Some(node(&name, &cores.to_string(), more)));
            }
            Step::NoNode { name } => self.change("nodes", "", &format!("n{name}"), None),
            Step::Pod { name, sort: which, namespace, priority, on, going, nominated } => {
                let name = format!("p{name}");
                let mut tree = pod(&name, sort(*which));
                tree["metadata"]["namespace"] = if *namespace { "e" } else { "d" }.into();
                tree["spec"]["priority"] = (*priority).into();
                match (on, nominated) {
                    (Some(on), _) => tree["spec"]["nodeName"] = format!("n{on}").into(),
                    (None, Some(nominated)) => tree["status"] = json!({"nominatedNodeName": format!("n{nominated}")}),
                    (None, None) => {}
                }
                if *going {
                    tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                }
                self.pod(&name, Some(tree));
            }
            Step::NoPod { name } => self.pod(&format!("p{name}"), None),
            Step::Namespace { other, team } => {
                let name = if *other { "e" } else { "d" };
                let tree = json!({"metadata": {"name": name, "uid": name, "labels": {"team": format!("t{team}")}}});
                self.change("namespaces", "", name, Some(tree));
            }
            Step::Service { there } => {
                let tree = json!({"metadata": {"name": "s", "namespace": "d", "uid": "s"}, "spec": {"selector": {"app": "web"}}});
                self.change("services", "d", "s", there.then_some(tree));
            }
            Step::Bind => {
                for decision in self.scheduler.schedule(&self.view, 1000, 5).decisions {
                    let name = decision.pod.meta.name.clone();
                    let Some(mut tree) = self.trees.get(&name).cloned() else { continue };
                    match decision.verdict {
                        Verdict::Bind { node } => tree["spec"]["nodeName"] = node.into(),
                        Verdict::Preempt { preemption, .. } => {
                            tree["status"]["nominatedNodeName"] = preemption.node.clone().into();
                            for victim in &preemption.victims {
                                self.pod(&victim.meta.name, None);
                            }
                        }
                        Verdict::Wait { .. } => continue,
                    }
                    self.pod(&name, Some(tree));
                }
            }
        }
    }
}

/// A batch in words that say everything about it.
fn told(batch: &Batch) -> Vec<String> {
    let line = |d: &Decision| format!("{:?} {:?} {:?}", d.pod.key, d.explanation(Timestamp::UNIX_EPOCH), d.is_news());
    batch.decisions.iter().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// The state kept up decides as one made from scratch, scores and words included; a batch leaves no trace; and equal
    /// input gives equal output.
    #[test]
    fn kept_up_is_as_good_as_made_anew(steps in prop::collection::vec(step(), 1..80), seed in any::<u64>()) {
        let mut life = Life::new();
        for (i, step) in steps.iter().enumerate() {
            life.step(step);
            if i % 4 == 0 || i + 1 == steps.len() {
                let fresh = told(&Scheduler::of(&life.view).schedule(&life.view, 1000, seed));
                prop_assert_eq!(&told(&life.scheduler.schedule(&life.view, 1000, seed)), &fresh);
                prop_assert_eq!(&told(&life.scheduler.schedule(&life.view, 1000, seed)), &fresh, "a batch left a trace");
            }
        }
    }

    /// Checked by the plain rules: what is bound may be bound at that moment, and what waits fits nowhere; who has to go is
    /// less important, on that node, and makes room by going.
    #[test]
    fn every_decision_keeps_the_rules(steps in prop::collection::vec(step(), 1..60), seed in any::<u64>()) {
        let mut life = Life::new();
        steps.iter().for_each(|s| life.step(s));
        let nominated = life.view.list::<Pod>().any(|p| !p.nominated_node.is_empty() && p.node_name.is_empty());
        let mut naive = Naive::of(&life.view);
        let (mut promised, mut victims) = (nominated, std::collections::BTreeSet::new());
        for decision in life.scheduler.schedule(&life.view, 1000, seed).decisions {
            let pod = &decision.pod;
            match &decision.verdict {
                Verdict::Bind { node } => {
                    prop_assert!(naive.fits(pod, node), "{} may not be on {node}", pod.meta.name);
                    naive.pods.push((pod.clone(), node.clone()));
                }
                Verdict::Wait { message, .. } => {
                    let somewhere = naive.nodes.keys().find(|n| naive.fits(pod, n));
                    prop_assert!(promised || somewhere.is_none(), "{} fits on {somewhere:?}: {message}", pod.meta.name);
                }
                Verdict::Preempt { preemption, .. } => {
                    prop_assert!(!preemption.victims.is_empty());
                    let mut freed = naive.clone();
                    for victim in &preemption.victims {
                        prop_assert!(victim.priority < pod.priority, "{} outranks nobody", pod.meta.name);
                        prop_assert_eq!(&victim.node_name, &preemption.node);
                        freed.pods.retain(|(p, _)| p.key != victim.key);
                        victims.insert(victim.key.clone());
                    }
                    prop_assert!(promised || !naive.nodes.keys().any(|n| naive.fits(pod, n)), "nobody needed to go");
                    prop_assert!(freed.fits(pod, &preemption.node), "their going makes no room");
                    // Each of them is needed.
                    for victim in &preemption.victims {
                        let mut almost = freed.clone();
                        almost.pods.push((victim.clone(), preemption.node.clone()));
                        prop_assert!(promised || !almost.fits(pod, &preemption.node), "{} needn't go", victim.meta.name);
                    }
                    promised = true;
                }
            }
        }
    }
}
