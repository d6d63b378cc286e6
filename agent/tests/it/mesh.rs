//! The node's part of the mesh on a pretended machine, without a server.

use crate::machine::{HOST, Machine, call, push, ranges, run, tell};
use longshore_agent::connection::Link;
use longshore_agent::connection::exchange::Exchange;
use longshore_agent::connection::identity::Identity;
use longshore_agent::network::{PodNetwork, mesh};
use longshore_agent::pods::network::Network;
use longshore_api::network::{Frame, MESH_ENDPOINTS_ANNOTATION, MESH_KEYS_ANNOTATION, Node};
use longshore_mesh::{PrivateKey, PublicKey};
use nlink::netlink::namespace::Netns;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

const SLICE: &str = "10.244.3.0/24";
const FAR: Ipv4Addr = Ipv4Addr::new(10, 244, 9, 9);

fn join(machine: &Machine, agent: &Arc<PodNetwork>) -> AbortOnDropHandle<()> {
    let identity = Identity::load_or_make(machine.dir.path(), "n1", "https://192.0.2.1:1", None).unwrap();
    let exchange = Arc::new(Exchange::new(Arc::new(identity)));
    AbortOnDropHandle::new(tokio::spawn(mesh::keep(agent.clone(), Link::default(), exchange)))
}

fn other() -> Frame {
    Frame::Node(Node {
        name: "n2".into(),
        id: "n-2".into(),
        pod_range: "10.244.9.0/24".into(),
        mesh_keys: vec![PrivateKey::generate().public().to_string()],
        ..Node::default()
    })
}

async fn told(agent: &PodNetwork, annotation: &str) -> String {
    let mut annotations = agent.annotations();
    let known = annotations.wait_for(|all| all.get(annotation).is_some_and(|value| !value.is_empty())).await;
    known.unwrap()[annotation].clone()
}

/// The one address that the agent tells the others, beside the relay.
async fn endpoint(agent: &PodNetwork) -> String {
    let mut annotations = agent.annotations();
    let found = |all: &BTreeMap<String, String>| {
        let (endpoint, relayed) = all.get(MESH_ENDPOINTS_ANNOTATION)?.split_once(',')?;
        (relayed == "relay:65503").then(|| endpoint.to_owned())
    };
    let known = annotations.wait_for(|all| found(all).is_some()).await;
    found(&known.unwrap()).unwrap()
}

/// Where the cluster's namespace sends packets for another node's pod.
fn way(machine: &Machine) -> String {
    let inside = Netns::from_path(machine.dir.path().join("c-a/network/netns")).unwrap();
    let get = || std::process::Command::new("ip").args(["route", "get", &FAR.to_string()]).output();
    let output = inside.run(get).unwrap().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

async fn until_way(machine: &Machine, says: &str) {
    while !way(machine).contains(says) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_with_the_second_node_and_its_end_lets_nothing_out() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let (pod, _) = machine.pod(&agent, "a").await;
    let meshed = join(&machine, &agent);
    let key = told(&agent, MESH_KEYS_ANNOTATION).await;
    key.parse::<PublicKey>().unwrap();
    until_way(&machine, "No route to host").await;

    push(&agent, &[other()]);
    let address: SocketAddr = endpoint(&agent).await.parse().unwrap();
    assert_eq!(address.ip(), HOST, "the cable into the namespace is none of the addresses");
    until_way(&machine, "dev mesh").await;
    // No server has ever vouched for the other one: its packets go nowhere.
    assert_eq!(call(&pod.netns, FAR, 80).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(agent.links().await.is_empty());

    // Whoever takes the device away gets it back.
    let inside = Netns::from_path(machine.dir.path().join("c-a/network/netns")).unwrap();
    run(&inside, "ip", &["link", "delete", "mesh"]);
    until_way(&machine, "No route to host").await;
    until_way(&machine, "dev mesh").await;

    // Out through the host's own way it never goes.
    drop(meshed);
    until_way(&machine, "No route to host").await;
    assert_eq!(call(&pod.netns, FAR, 80).await.unwrap_err().kind(), io::ErrorKind::HostUnreachable);
    assert!(agent.links().await.is_empty());

    // An agent started again is the one that the others know.
    drop(agent);
    let agent = machine.agent_started_again("c-a");
    tell(&agent, &[Frame::Cluster(ranges()), other(), Frame::Synced]);
    machine.pod(&agent, "b").await;
    let meshed = join(&machine, &agent);
    assert_eq!(told(&agent, MESH_KEYS_ANNOTATION).await, key);
    assert_eq!(endpoint(&agent).await, address.to_string());
    run(&machine.host, "ip", &["address", "add", "198.51.100.9/24", "dev", "eth0"]);
    let mut annotations = agent.annotations();
    annotations.wait_for(|all| all[MESH_ENDPOINTS_ANNOTATION].contains("198.51.100.9:")).await.unwrap();
    drop(meshed);
    agent.teardown().await.unwrap();
}
