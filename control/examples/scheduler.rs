//! How many pods a second the scheduler places, as a pure function: `cargo run --release -p longshore-control --example
//! scheduler`. Prints a table; with `--json` one line of JSON for each measurement instead.
//!
//! Pods are placed in batches of a thousand, as the server does it, each batch's bindings coming back as changes before
//! the next; taking them in counts as scheduler's work, keeping the view does not.

#![allow(clippy::print_stdout)]

use jiff::Timestamp;
use longshore_control::projection::Projection;
use longshore_control::scheduler::{Scheduler, Verdict};
use longshore_control::view::{Applied, Change};
use longshore_control::{ObjectKey, View};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BATCH: usize = 1000;

struct Load {
    name: &'static str,
    pods: usize,
    /// Pods of one owner.
    each: usize,
    spec: fn(app: &str) -> Value,
}

const LOADS: [Load; 3] = [
    Load { name: "plain", pods: 5_000, each: 100, spec: |_| json!({}) },
    Load { name: "spread+anti-affinity", pods: 10_000, each: 100, spec: sociable },
    Load { name: "no room", pods: 10_000, each: 1_000, spec: |_| json!({"nodeSelector": {"disk": "none"}}) },
];

/// Spread over zones by rule, never two of an app on a node.
fn sociable(app: &str) -> Value {
    let selector = json!({"matchLabels": {"app": app}});
    json!({
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}],
    })
}

struct Cluster {
    view: View,
    scheduler: Scheduler,
    trees: std::collections::HashMap<String, Value>,
}

impl Cluster {
    fn put(&mut self, resource: &'static str, namespace: &str, name: &str, tree: &Value) -> Option<Applied> {
        let key = ObjectKey::new(resource, namespace, name);
        let change =
            Change { key, revision: self.view.revision() + 1, projection: Some(Projection::of(resource, tree)) };
        self.view.apply(change, Timestamp::UNIX_EPOCH)
    }

    fn of(nodes: usize, load: &Load) -> Self {
        let mut cluster = Self { view: View::default(), scheduler: Scheduler::default(), trees: Default::default() };
        for i in 0..nodes {
            let name = format!("node-{i:05}");
            let labels =
                json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 3)});
            let tree = json!({"metadata": {"name": name, "uid": name, "labels": labels},
                "status": {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}}});
            cluster.put("nodes", "", &name, &tree);
        }
        for i in 0..load.pods {
            let app = format!("app-{}", i / load.each);
            let name = format!("{app}-{i}");
            let mut spec = (load.spec)(&app);
            let requests = json!({"cpu": "100m", "memory": "128Mi"});
            spec["containers"] =
                json!([{"name": "c", "image": format!("{app}:1"), "resources": {"requests": requests}}]);
            let owner = json!([{"kind": "ReplicaSet", "name": app, "uid": app, "controller": true}]);
            let tree = json!({"metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": app},
                "ownerReferences": owner, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec});
            cluster.put("pods", "d", &name, &tree);
            cluster.trees.insert(name, tree);
        }
        cluster.scheduler = Scheduler::of(&cluster.view);
        cluster
    }

    /// Places everybody; how many, and what the scheduler needed for it.
    fn run(&mut self) -> (usize, usize, Duration) {
        let (mut bound, mut decided, mut spent) = (0, 0, Duration::ZERO);
        loop {
            let begin = Instant::now();
            let batch = self.scheduler.schedule(&self.view, BATCH, self.view.revision() as u64);
            spent += begin.elapsed();
            decided += batch.decisions.len();
            let before = bound;
            for decision in &batch.decisions {
                let Verdict::Bind { node } = &decision.verdict else { continue };
                let name = &decision.pod.meta.name;
                let Some(mut tree) = self.trees.remove(name) else { continue };
                tree["spec"]["nodeName"] = node.as_str().into();
                let applied = self.put("pods", "d", name, &tree);
                let begin = Instant::now();
                if let Some(applied) = applied {
                    self.scheduler.apply(&self.view, &applied);
                }
                spent += begin.elapsed();
                bound += 1;
            }
            if !batch.more || bound == before {
                return (bound, decided, spent);
            }
        }
    }
}

fn main() {
    let as_json = std::env::args().any(|a| a == "--json");
    if !as_json {
        println!("{:<22} {:>6} {:>8} {:>8} {:>10}", "load", "nodes", "pods", "bound", "pods/s");
    }
    for load in &LOADS {
        for nodes in [250, 500, 1000, 2000] {
            let mut cluster = Cluster::of(nodes, load);
            let (bound, decided, spent) = cluster.run();
            let rate = decided as f64 / spent.as_secs_f64();
            if as_json {
                println!(
                    "{}",
                    json!({"load": load.name, "nodes": nodes, "pods": load.pods, "bound": bound, "pods_per_second": rate.round()})
                );
            } else {
                println!("{:<22} {nodes:>6} {:>8} {bound:>8} {rate:>10.0}", load.name, load.pods);
            }
        }
    }
}
