//! Silence of nodes, of the server, of everything: who is called unknown, and who is moved.

use crate::world::{World, condition, deployment};
use jiff::SignedDuration;

const MINUTES_6: SignedDuration = SignedDuration::from_mins(6);

fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// Nodes `n0`…, and six ready pods of a deployment spread over them.
fn running(nodes: usize) -> World {
    let mut world = World::new();
    for n in 0..nodes {
        world.node(&format!("n{n}"));
    }
    world.put("deployments.apps", "default", "web", deployment(6, "web:1"));
    world.settle();
    assert_eq!(world.ready_count(), 6);
    world
}

fn ready(world: &World, node: &str) -> String {
    condition(world.get("nodes", node), "Ready").to_string()
}

#[test]
fn a_server_that_was_away_for_six_minutes_evicts_nothing() {
    let mut world = running(3);
    let before = world.ready_pods();
    world.server_away(MINUTES_6);
    // Agents come back within their jittered back-off, one after the other.
    for n in 0..3 {
        world.pass(seconds(12));
        world.connect(&format!("n{n}"));
    }
    world.pass(SignedDuration::from_mins(20));
    assert_eq!(world.marked, []);
    assert_eq!(world.ready_pods(), before);
    assert!((0..3).all(|n| ready(&world, &format!("n{n}")) == "True"));
}

#[test]
fn a_server_that_was_cut_off_for_six_minutes_evicts_nothing() {
    let mut world = running(3);
    let before = world.ready_pods();
    (0..3).for_each(|n| world.disconnect(&format!("n{n}")));
    world.pass(MINUTES_6);
    assert!((0..3).all(|n| ready(&world, &format!("n{n}")) == "Unknown"), "shown as silent, never as healthy");
    for n in 0..3 {
        world.connect(&format!("n{n}"));
        world.pass(seconds(12));
    }
    world.pass(SignedDuration::from_mins(20));
    assert_eq!(world.marked, []);
    assert_eq!(world.ready_pods(), before);
}

#[test]
fn a_server_that_returns_to_one_silent_node_gives_it_a_whole_toleration() {
    let mut world = running(3);
    world.server_away(MINUTES_6);
    world.connect("n0");
    world.connect("n1");
    world.pass(seconds(39));
    assert_eq!(ready(&world, "n2"), "True", "its grace begins with the new owner");
    world.pass(seconds(2));
    assert_eq!(ready(&world, "n2"), "Unknown");
    world.pass(seconds(290));
    assert_eq!(world.marked, []);
    world.pass(seconds(60));
    assert!(!world.marked.is_empty());
}

#[test]
fn a_node_that_dies_is_unknown_soon_and_its_pods_move_after_their_toleration() {
    let mut world = running(3);
    let lost = world.ready_pods()["n2"].clone();
    world.disconnect("n2");
    world.pass(seconds(19));
    assert_eq!(ready(&world, "n2"), "True", "an agent that restarts is given time");
    world.pass(seconds(2));
    assert_eq!(ready(&world, "n2"), "Unknown");
    assert_eq!(world.ready_count(), 6 - lost.len(), "they count as not ready at once");
    world.pass(seconds(295));
    assert_eq!(world.marked, []);
    world.pass(seconds(30));
    assert_eq!(world.marked.len(), lost.len());
    assert_eq!(world.ready_count(), 6, "others took their place");
    let still = world.list("pods").len();
    assert_eq!(still, 6 + lost.len(), "the objects stay until the node confirms");
    world.connect("n2");
    world.pass(seconds(60));
    assert_eq!(world.list("pods").len(), 6);
    assert_eq!(ready(&world, "n2"), "True");
    assert!(world.get("nodes", "n2")["spec"]["taints"].is_null());
}

#[test]
fn an_agent_that_is_back_within_its_grace_was_never_away() {
    let mut world = running(2);
    let before = world.ready_pods();
    world.disconnect("n0");
    world.pass(seconds(15));
    world.connect("n0");
    world.pass(SignedDuration::from_mins(10));
    assert_eq!((world.ready_pods(), world.marked.len()), (before, 0));
    assert!(world.get("nodes", "n0")["spec"]["taints"].is_null());
}

#[test]
fn when_most_of_a_zone_is_silent_nobody_is_moved() {
    let mut world = running(6);
    (0..4).for_each(|n| world.disconnect(&format!("n{n}")));
    world.pass(SignedDuration::from_mins(30));
    assert_eq!(world.marked, []);
    // One of them is back: now three of six are out, and the rest are moved, node after node.
    world.connect("n0");
    world.pass(SignedDuration::from_mins(10));
    assert!(!world.marked.is_empty());
    assert_eq!(world.ready_count(), 6);
}

#[test]
fn a_node_that_flaps_moves_nobody() {
    let mut world = running(2);
    for _ in 0..50 {
        world.disconnect("n0");
        world.pass(seconds(60));
        world.connect("n0");
        world.pass(seconds(60));
    }
    assert_eq!(world.marked, []);
}
