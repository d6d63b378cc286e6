//! Drivers that have nothing to do. Time is paused: waiting takes none.

use super::*;
use crate::gateway::testing::Agent;
use longshore_control::Projection;

impl World {
    /// Whether somebody beside the store holds what it knows of a node: the view does.
    fn is_driven(&self) -> bool {
        let key = Key { resource: "nodes".into(), namespace: "".into(), name: "n0".into() };
        let object = self.cluster.get_stale(&key).unwrap().unwrap();
        let Projection::Node(node) = &object.projection else { panic!("a node's") };
        Arc::strong_count(node) > 1
    }

    async fn until_driven(&self, driven: bool) {
        while self.is_driven() != driven {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_with_nothing_to_do_rests_until_something_changes() {
    let world = World::new().await;
    // First of all: until it was, its silence would be looked at in forty seconds.
    let tunnel = Agent::connect(&world.sessions, world.cluster.id(), "n0");
    world.node("n0").await;
    tokio::spawn(kubelet(world.api.clone(), world.cluster.clone()));
    world.until_driven(false).await;

    world.create("deployments.apps", "default", deployment("web", 2, "web:1")).await;
    world.until_deployed("web", 2).await;
    world.until_driven(false).await;

    // What goes while it rests is found by those who stay.
    world.delete("deployments.apps", "default", "web", DeleteOptions::default()).await;
    world.until("its pods go", |w| w.list("pods", "default").is_empty()).await;
    world.until_driven(false).await;

    tunnel.opener.close();
    world.until_driven(true).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(world.is_driven(), "a silent node is judged in time");
}

#[tokio::test(start_paused = true)]
async fn a_driver_of_a_node_without_a_tunnel_never_rests() {
    let world = World::with_nodes(1).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(world.is_driven());
}
