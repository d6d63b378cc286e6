//! Priorities, and who has to go for whom, through store, API and driver as they are.

use super::*;

fn class(name: &str, value: i64) -> Value {
    json!({"metadata": {"name": name}, "value": value})
}

const CLASSES: &str = "priorityclasses.scheduling.k8s.io";

/// A pod that asks for so many of a node's 64 cores.
fn pod(name: &str, cores: &str, class: &str) -> Value {
    let container = json!({"name": "c", "image": "web:1", "resources": {"requests": {"cpu": cores}}});
    json!({"metadata": {"name": name}, "spec": {"priorityClassName": class, "containers": [container]}})
}

fn condition(pod: &Value, kind: &str) -> Option<Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_more_important_pod_gets_its_room_and_says_whose_it_was() {
    let world = World::with_nodes(1).await;
    world.create(CLASSES, "", class("gold", 1000)).await;
    // A finalizer keeps its object, so that it is seen between being told to go and being gone.
    let mut low = pod("low", "60", "");
    low["metadata"]["finalizers"] = json!(["example.com/wait"]);
    world.create("pods", "default", low).await;
    let phase = |w: &World, name: &str| w.get("pods", "default", name).map(|p| p["status"]["phase"].clone());
    world.until("low runs", |w| phase(w, "low") == Some(json!("Running"))).await;
    world.create("pods", "default", pod("equal", "60", "")).await;
    world.create("pods", "default", pod("high", "10", "gold")).await;
    world
        .until("room is made", |w| {
            w.get("pods", "default", "high").is_some_and(|p| p["status"]["nominatedNodeName"] == "n0")
        })
        .await;
    world
        .until("low is told to go", |w| {
            w.get("pods", "default", "low").is_some_and(|p| !p["metadata"]["deletionTimestamp"].is_null())
        })
        .await;
    let low = world.get("pods", "default", "low").unwrap();
    let mark = condition(&low, "DisruptionTarget").expect("it is marked");
    assert_eq!(
        (&mark["status"], &mark["reason"], &mark["message"]),
        (
            &json!("True"),
            &json!("PreemptionByScheduler"),
            &json!("default-scheduler: preempting to accommodate a higher priority pod")
        )
    );
    let high = world.get("pods", "default", "high").unwrap();
    let uid = high["metadata"]["uid"].as_str().unwrap();
    let preempted = format!("Preempted by pod {uid} on node n0");
    world.until("it is told", |w| w.events("Preempted") == [preempted.clone()]).await;
    let message = condition(&high, "PodScheduled").unwrap()["message"].as_str().unwrap_or_default().to_string();
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");

    world.patch("pods", "default", "low", None, json!({"metadata": {"finalizers": null}})).await;
    world.until("high runs", |w| phase(w, "high") == Some(json!("Running"))).await;
    let high = world.get("pods", "default", "high").unwrap();
    assert!(high["status"]["nominatedNodeName"].is_null(), "nothing is kept for it any more");
    assert_eq!(high["spec"]["priority"], 1000);
    // What asks for as much as there was waits: nobody is less important.
    world
        .until("equal says why", |w| {
            let equal = w.get("pods", "default", "equal").unwrap();
            condition(&equal, "PodScheduled").is_some_and(|c| {
                c["message"]
                    == "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
            })
        })
        .await;
    assert_eq!(world.events("Preempted").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_can_be_read_while_the_pod_is_there() {
    let world = World::with_nodes(3).await;
    world.create("pods", "default", pod("web", "1", "")).await;
    world.create("pods", "default", pod("huge", "100", "")).await;
    world.until("one is bound", |w| w.get("pods", "default", "web").unwrap()["spec"]["nodeName"].is_string()).await;
    world.until("one waits", |w| w.events("FailedScheduling").len() == 1).await;
    let cx = world.context();
    let bound = world.api.scheduling(&cx, "default", "web").await.unwrap();
    let web = world.get("pods", "default", "web").unwrap();
    assert_eq!((&bound["nodeName"], &bound["podUID"]), (&web["spec"]["nodeName"], &web["metadata"]["uid"]));
    assert_eq!(
        (&bound["kind"], &bound["nodes"], &bound["feasibleNodes"]),
        (&json!("PodScheduling"), &json!(3), &json!(3))
    );
    let best = &bound["best"][0];
    assert_eq!(best["node"], bound["nodeName"]);
    let sum: i64 = best["parts"].as_array().unwrap().iter().filter_map(|p| p["score"].as_i64()).sum();
    assert_eq!(best["score"], sum);
    let waits = world.api.scheduling(&cx, "default", "huge").await.unwrap();
    assert_eq!(waits["refused"], json!([{"reason": "Insufficient cpu", "nodes": 3}]));
    assert_eq!(waits["nodeName"], "");
    assert!(waits["message"].as_str().unwrap().starts_with("0/3 nodes are available: 3 Insufficient cpu."), "{waits}");
    world.delete("pods", "default", "huge", DeleteOptions::default()).await;
    assert_eq!(world.api.scheduling(&cx, "default", "huge").await.unwrap_err().code, 404);
    // Another pod of that name is another pod.
    let mut elsewhere = pod("huge", "1", "");
    elsewhere["spec"]["schedulerName"] = "somebody-elses".into();
    world.create("pods", "default", elsewhere).await;
    let unknown = world.api.scheduling(&cx, "default", "huge").await.unwrap_err();
    assert_eq!((unknown.code, unknown.message.as_str()), (404, "pods/scheduling.longshore.dev \"huge\" not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_holds_a_pod_back_until_it_is_taken_away() {
    let world = World::with_nodes(1).await;
    let mut gated = pod("gated", "1", "");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    world.create("pods", "default", gated).await;
    world.create("pods", "default", pod("free", "1", "")).await;
    world.until("free is bound", |w| w.get("pods", "default", "free").unwrap()["spec"]["nodeName"] == "n0").await;
    let held = world.get("pods", "default", "gated").unwrap();
    assert!(held["spec"]["nodeName"].is_null());
    assert_eq!(condition(&held, "PodScheduled").unwrap()["reason"], "SchedulingGated");
    world.patch("pods", "default", "gated", None, json!({"spec": {"schedulingGates": null}})).await;
    world.until("it is bound", |w| w.get("pods", "default", "gated").unwrap()["spec"]["nodeName"] == "n0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_bindings_are_one_flush() {
    let world = World::with_nodes(10).await;
    let many = |i: usize| pod(&format!("p{i}"), "10m", "");
    for i in 0..1000 {
        let mut waiting = many(i);
        waiting["spec"]["schedulerName"] = "by-hand".into();
        world.create("pods", "default", waiting).await;
    }
    let (cx, before) = (world.context(), world.cluster.revision());
    let bindings: Vec<crate::apiserver::binding::Binding> = (0..1000)
        .map(|i| crate::apiserver::binding::Binding {
            namespace: "default".into(),
            name: format!("p{i}"),
            uid: String::new(),
            node: format!("n{}", i % 10),
            annotations: Default::default(),
        })
        .collect();
    let filter = WatchFilter { resource: Some("pods".into()), internal: true, ..WatchFilter::default() };
    let mut watch = world.cluster.watch(None, filter).unwrap();
    let answers = world.api.bind(&cx, &bindings).await;
    assert!(answers.iter().all(Result::is_ok));
    // Watchers are told flush by flush; the first may leave before the others are there.
    let (mut seen, mut flushes) = (0, 0);
    while seen < 1000 {
        match watch.next().await {
            WatchItem::Changes(changes) => {
                seen += changes.iter().filter(|c| c.object.revision > before).count();
                flushes += usize::from(changes.iter().any(|c| c.object.revision > before));
            }
            WatchItem::Progress(_) => {}
            WatchItem::Ended(end) => panic!("{end:?}"),
        }
    }
    // A watcher takes its queue in parts of 32 changes: a thousand are 32 parts, and each further flush adds one.
    assert!(flushes <= 32 + 3, "{flushes} parts for a thousand bindings");
}
