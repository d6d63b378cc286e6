//! Nodes among others: without their server, beside another node, beside another cluster's node on the same Docker.

use longshore_e2e::kubectl::container_ids;
use longshore_e2e::{Docker, Installation, eventually, sample};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

fn text<'a>(pod: &'a Value, pointer: &str) -> &'a str {
    pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn while_the_server_is_away_pods_go_on_and_heal() {
    let mut installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.apply(&sample::deployment(2, "v1"));
    let pods = kubectl.wait_ready_pods("app=hello", 2);
    let before = container_ids(&pods);

    installation.kill_server();
    docker.run(&["kill", &before[0]]);
    let healed = eventually("the killed container is replaced without the server", Duration::from_secs(30), || {
        let now: Vec<String> = docker.pod_containers().into_iter().map(|(id, _)| id).collect();
        if now.len() == 2 && !now.contains(&before[0]) { Ok(now) } else { Err(format!("{now:?}")) }
    });
    for pod in &pods {
        let address = format!("{}:8080", text(pod, "/status/podIP"));
        let name = text(pod, "/metadata/name");
        let answer = eventually("the pod answers", Duration::from_secs(10), || agent.http_get(&address));
        assert!(answer.contains(&format!("hello v1 from {name}")), "{answer}");
    }

    installation.start_server();
    eventually("the server learns what happened meanwhile", Duration::from_secs(30), || {
        let now: BTreeSet<String> = container_ids(&kubectl.pods("app=hello")).into_iter().collect();
        if now == healed.iter().cloned().collect() { Ok(()) } else { Err(format!("{now:?}")) }
    });
    kubectl.wait_node_ready("worker");
    let after = kubectl.wait_ready_pods("app=hello", 2);
    assert_eq!(container_ids(&after).into_iter().collect::<BTreeSet<_>>(), healed.into_iter().collect());
}

#[test]
fn two_nodes_share_the_work() {
    let installation = Installation::start();
    let dockers = ["a", "b"].map(|name| Docker::start(&installation.folder().join(format!("docker-{name}"))));
    dockers.iter().for_each(Docker::make_sample_image);
    let a = installation.start_agent("a", &dockers[0]);
    let b = installation.start_agent("b", &dockers[1]);
    let kubectl = installation.kubectl();
    kubectl.apply(&sample::deployment(4, "v1"));
    let pods = kubectl.wait_ready_pods("app=hello", 4);
    for (agent, name, docker) in [(&a, "a", &dockers[0]), (&b, "b", &dockers[1])] {
        let own: Vec<_> = pods.iter().filter(|pod| text(pod, "/spec/nodeName") == name).collect();
        assert_eq!(own.len(), 2, "the pods are spread over both nodes");
        assert_eq!(docker.pod_containers().len(), 2);
        for pod in own {
            let answer = agent.http_get(&format!("{}:8080", text(pod, "/status/podIP"))).expect("its node reaches it");
            let pod = text(pod, "/metadata/name");
            assert!(answer.contains(&format!("from {pod}")), "{answer}");
            assert_eq!(kubectl.run(&["exec", pod, "--", "hostname"]).trim(), pod);
        }
    }
    let addresses: BTreeSet<&str> = pods.iter().map(|pod| text(pod, "/status/podIP")).collect();
    assert_eq!(addresses.len(), 4);
}

#[test]
fn two_clusters_share_a_machine_and_its_docker() {
    let first = Installation::start();
    let second = Installation::start();
    let docker = Docker::start(&first.folder().join("docker"));
    docker.make_sample_image();
    let agents = [first.start_agent("worker", &docker), second.start_agent("worker", &docker)];
    let clients = [first.kubectl(), second.kubectl()];
    let pods = clients.each_ref().map(|kubectl| {
        kubectl.apply(&sample::deployment(1, "v1"));
        kubectl.wait_ready_pods("app=hello", 1).remove(0)
    });
    // The same address twice: each belongs to its own cluster's network.
    assert_eq!(text(&pods[0], "/status/podIP"), text(&pods[1], "/status/podIP"));
    for (agent, pod) in agents.iter().zip(&pods) {
        let answer = agent.http_get(&format!("{}:8080", text(pod, "/status/podIP"))).expect("its node reaches it");
        let name = text(pod, "/metadata/name");
        assert!(answer.contains(&format!("from {name}")), "{answer}");
    }
    assert_eq!(docker.pod_containers().len(), 2);
    let [leaving, staying] = agents;
    drop(leaving);
    let left: Vec<String> = docker.pod_containers().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, container_ids(&pods[1..]), "who leaves touches nobody else's");
    let still = clients[1].wait_ready_pods("app=hello", 1);
    assert_eq!(container_ids(&still), left);
    drop(staying);
    assert!(docker.pod_containers().is_empty());
}
