//! Deployments from their creation to their end, with what a reader of the wire may rely on at every step.

use crate::world::{World, deployment};
use jiff::SignedDuration;
use longshore_control::ObjectKey;
use serde_json::json;

fn images(world: &World) -> Vec<String> {
    let mut images: Vec<String> = world
        .list("pods")
        .iter()
        .filter(|p| p["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|p| p["spec"]["containers"][0]["image"].as_str().map(String::from))
        .collect();
    images.sort();
    images.dedup();
    images
}

#[test]
fn deployed_scaled_rolled_out_and_back_and_deleted() {
    let mut world = World::new();
    (0..3).for_each(|n| world.node(&format!("n{n}")));
    world.put("deployments.apps", "default", "web", deployment(3, "web:1"));
    world.settle();
    assert_eq!(world.ready_count(), 3);
    assert!(world.ready_pods().values().all(|pods| pods.len() == 1), "spread: {:?}", world.ready_pods());

    world.patch_spec("deployments.apps", "web", json!({"replicas": 5}));
    assert_eq!(world.ready_count(), 5);
    world.patch_spec(
        "deployments.apps",
        "web",
        json!({"template": {"spec": {"containers": [{"name": "c", "image": "web:2"}]}}}),
    );
    world.pass(SignedDuration::from_secs(60));
    assert_eq!((world.ready_count(), images(&world)), (5, vec!["web:2".to_string()]));
    assert_eq!(world.list("replicasets.apps").len(), 2);
    world.patch_spec(
        "deployments.apps",
        "web",
        json!({"template": {"spec": {"containers": [{"name": "c", "image": "web:1"}]}}}),
    );
    world.pass(SignedDuration::from_secs(60));
    assert_eq!((world.ready_count(), images(&world)), (5, vec!["web:1".to_string()]));
    assert_eq!(world.list("replicasets.apps").len(), 2, "the way back takes the old set");
    let status = &world.get("deployments.apps", "web")["status"];
    assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(5), &json!(5)));
    assert_eq!(status["observedGeneration"], world.get("deployments.apps", "web")["metadata"]["generation"]);

    world.delete(ObjectKey::new("deployments.apps", "default", "web"));
    world.pass(SignedDuration::from_secs(60));
    assert!(world.list("replicasets.apps").is_empty() && world.list("pods").is_empty());
}

#[test]
fn a_rollout_to_an_image_that_never_runs_keeps_three_quarters_serving() {
    let mut world = World::new();
    world.node("n0");
    world.put("deployments.apps", "default", "web", deployment(8, "web:1"));
    world.settle();
    // From here on the node takes no new pod up: the new ones stay pending.
    world.disconnect("n0");
    world.patch_spec(
        "deployments.apps",
        "web",
        json!({"template": {"spec": {"containers": [{"name": "c", "image": "web:2"}]}}}),
    );
    world.pass(SignedDuration::from_secs(10));
    assert!(world.ready_count() >= 6, "{} serve", world.ready_count());
    let staying = world.list("pods").iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count();
    assert!(staying <= 10, "{staying}: no more than a quarter beyond");
}
