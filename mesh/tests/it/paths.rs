//! Which way packets take.

use crate::node::{Hub, Node, introduce, until};
use crate::tcp::{self, Flow};
use longshore_e2e::internet::{Internet, Nat};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where nodes ask for their own addresses.
const REFLECTOR: &str = "203.0.113.1:3478";
const SOON: Duration = Duration::from_secs(10);

/// Two nodes at sites with these NATs, who know their addresses and each other.
async fn two(internet: &mut Internet, nats: [Nat; 2]) -> ([longshore_e2e::internet::Site; 2], [Node; 2], Arc<Hub>) {
    let hub = Arc::new(Hub::default());
    let reflector = internet.server().udp(REFLECTOR);
    reflector.set_nonblocking(true).unwrap();
    tokio::spawn(longshore_tunnel::reflect::serve(tokio::net::UdpSocket::from_std(reflector).unwrap()));
    let sites = nats.map(|nat| internet.site(nat));
    let nodes = [Node::at(&sites[0], 1, &hub), Node::at(&sites[1], 2, &hub)];
    for (node, nat) in nodes.iter().zip(nats) {
        node.mesh.set_reflectors(&[REFLECTOR.parse().unwrap()]);
        let known = match nat {
            Nat::None | Nat::UdpBlocked => 1,
            _ => 2,
        };
        until("addresses are known", SOON, || node.mesh.local_candidates().borrow().len() >= known).await;
    }
    introduce(&[&nodes[0], &nodes[1]]);
    (sites, nodes, hub)
}

async fn meet(nats: [Nat; 2]) {
    let mut internet = Internet::with_server();
    let (_sites, [a, b], _hub) = two(&mut internet, nats).await;
    tcp::echo(&a, &b).await;
    let took = until("both are direct", SOON, || a.direct(&b).is_some() && b.direct(&a).is_some()).await;
    tcp::echo(&b, &a).await;
    assert!(took < SOON, "{took:?}");
    assert_eq!(a.link(&b).unwrap().mtu, crate::node::MTU);
}

async fn stay_relayed(nats: [Nat; 2]) {
    let mut internet = Internet::with_server();
    let (_sites, [a, b], hub) = two(&mut internet, nats).await;
    tcp::echo(&a, &b).await;
    let flow = Flow::start(&a, &b).await;
    let carried = hub.carried.load(Ordering::Relaxed);
    until("bytes flow", SOON, || flow.received() > 2_000_000).await;
    assert!(a.direct(&b).is_none() && b.direct(&a).is_none());
    assert!(hub.carried.load(Ordering::Relaxed) - carried > 2_000_000, "they went over the relay");
    flow.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_network_talk_directly() {
    meet([Nat::None, Nat::None]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_cone_and_port_restricted_meet() {
    meet([Nat::FullCone, Nat::PortRestricted]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_port_restricted_meet() {
    meet([Nat::PortRestricted, Nat::PortRestricted]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn symmetric_and_address_restricted_meet() {
    meet([Nat::Symmetric, Nat::AddressRestricted]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn symmetric_and_full_cone_meet() {
    meet([Nat::FullCone, Nat::Symmetric]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_symmetric_stay_relayed() {
    stay_relayed([Nat::Symmetric, Nat::Symmetric]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_blocks_udp_is_relayed() {
    stay_relayed([Nat::UdpBlocked, Nat::None]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_cut_in_the_middle_of_a_transfer_heals_without_a_reset() {
    let mut internet = Internet::with_server();
    let (sites, [a, b], _hub) = two(&mut internet, [Nat::PortRestricted, Nat::FullCone]).await;
    internet.lose(&sites[0], 1);
    let flow = Flow::start(&a, &b).await;
    until("both are direct", SOON, || a.direct(&b).is_some() && b.direct(&a).is_some()).await;
    internet.cut_udp(&sites[0], true);
    let relayed = until("both left the dead path", SOON, || a.direct(&b).is_none() && b.direct(&a).is_none()).await;
    assert!(relayed < Duration::from_secs(5), "{relayed:?}");
    let before = flow.received();
    until("bytes flow over the relay", SOON, || flow.received() > before + 1_000_000).await;
    internet.cut_udp(&sites[0], false);
    let back = Duration::from_secs(30);
    until("both are direct again", back, || a.direct(&b).is_some() && b.direct(&a).is_some()).await;
    let before = flow.received();
    until("bytes flow directly", SOON, || flow.received() > before + 1_000_000).await;
    flow.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_changes_its_address_is_followed() {
    let mut internet = Internet::with_server();
    let (sites, [a, b], _hub) = two(&mut internet, [Nat::None, Nat::PortRestricted]).await;
    let flow = Flow::start(&a, &b).await;
    until("both are direct", SOON, || a.direct(&b).is_some() && b.direct(&a).is_some()).await;
    sites[0].host.ip("addr flush dev eth0\naddr add 203.0.113.77/24 dev eth0");
    let moved = "203.0.113.77".parse().unwrap();
    a.mesh.set_addresses(vec![moved]);
    until("the other sends to the new address", SOON, || b.direct(&a).is_some_and(|to| to.ip() == moved)).await;
    let before = flow.received();
    until("bytes flow", SOON, || flow.received() > before + 1_000_000).await;
    flow.finish().await;
}
