//! A node that is marked as an edge serves its cluster's domains itself, also while the server is away.

use crate::edge::{Edge, HOST, PATIENCE, SERVICE, evil, ingress, shown};
use crate::mesh::until_direct;
use longshore_e2e::installation::free_port;
use longshore_e2e::{Docker, Installation, Machine, Pebble, eventually, sample};
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

#[test]
fn a_marked_node_serves_what_runs_on_another() {
    let machine = Machine::start();
    let server = format!("{}:{}", machine.host(), free_port(machine.host()));
    let mut installation = Installation::start_with(machine.host(), &["--edge-http", &server]);
    let here = Docker::start(&installation.folder().join("docker"));
    let there = Docker::start_in(&installation.folder().join("docker-there"), Some(machine.name()));
    there.make_sample_image();
    let mut office = installation.start_agent("office", &here);
    let _laptop = installation.start_agent_on(&machine, "laptop", &there);
    let kubectl = installation.kubectl();
    let ca = installation.server_folder().join("ca.crt").display().to_string();
    let edge = Edge { ip: machine.host().into(), http: free_port("0.0.0.0"), https: free_port("0.0.0.0"), ca };

    eventually("both nodes are there", PATIENCE, || kubectl.try_run(&["get", "node", "office", "laptop"]).map(drop));
    kubectl.run(&["cordon", "office"]);
    kubectl.apply(&[&sample::deployment(2, "v1"), SERVICE, &ingress("web", HOST)].concat());
    kubectl.wait_ready_pods("app=hello", 2);
    let ports = [("http", edge.http), ("https", edge.https)];
    let ports = ports.map(|(name, port)| format!("longshore.dev/edge-{name}-port={port}"));
    kubectl.run(&["annotate", "node", "office", &ports[0], &ports[1], "longshore.dev/edge-address=office.example"]);
    edge.get(&edge.secure()).expect_err("nobody is there yet");
    // A port that is somebody else's is told, and had once it is free.
    let other = TcpListener::bind(("0.0.0.0", edge.https)).expect("the port is free");
    kubectl.run(&["label", "node", "office", "longshore.dev/edge=true"]);
    let said = |reason: &str| {
        let of = format!("involvedObject.kind=Node,involvedObject.name=office,reason={reason}");
        let events = kubectl.json(&["get", "events", "--field-selector", &of])["items"].clone();
        let said = events.as_array().map(|all| all.iter().map(|e| (e["type"].clone(), e["count"].clone())).collect());
        said.filter(|all: &Vec<_>| !all.is_empty()).ok_or_else(|| format!("no event {reason}"))
    };
    let told = eventually("the Node is told", PATIENCE, || said("EdgePortUnavailable"));
    assert_eq!(told, [(json!("Warning"), json!(1))]);
    drop(other);
    eventually("the Node is told that it is well", PATIENCE, || said("EdgePortServed"));
    assert!(edge.answers(200).contains("v1"));
    let (status, _) = edge.get(&format!("http://{HOST}:{}/", edge.http)).expect("plain HTTP is answered");
    assert_eq!(status, 308, "it is sent to TLS");
    let told = json!({"hostname": "office.example", "ports": [{"port": edge.http, "protocol": "TCP"}, {"port": edge.https, "protocol": "TCP"}]});
    eventually("the Ingress is told", PATIENCE, || {
        let ingress = kubectl.json(&["get", "ingress", "web"]);
        let all = ingress["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        all.contains(&told).then_some(()).ok_or_else(|| ingress["status"].to_string())
    });

    // At IPv6 as well.
    let six = Edge { ip: "[::1]".into(), ..edge.clone() };
    assert!(six.answers(200).contains("v1"));

    // Addresses that somebody wrote down by hand lead nowhere: this host's own, the server's.
    kubectl.apply(&evil(machine.host()));
    let url = format!("http://{HOST}:{}/evil", edge.http);
    eventually("nobody is reached", PATIENCE, || match edge.get(&url)? {
        (502, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // It follows the pods.
    kubectl.run(&["scale", "deployment", "hello", "--replicas", "0"]);
    edge.answers(503);
    kubectl.run(&["scale", "deployment", "hello", "--replicas", "1"]);
    edge.answers(200);

    // Without the server it goes on, and so does an agent that is started anew, with what it has kept.
    until_direct(&kubectl, true);
    let pod = kubectl.wait_ready_pods("app=hello", 1).remove(0)["status"]["podIP"].clone();
    let map = installation.folder().join("agent-office/network/map.json");
    eventually("the pod's address is kept", PATIENCE, || {
        let text = std::fs::read_to_string(&map).map_err(|error| error.to_string())?;
        let frames: Vec<Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let mut endpoints = frames.iter().filter_map(|frame| frame["endpoints"]["endpoints"].as_array()).flatten();
        let kept = endpoints.any(|endpoint| endpoint["address"] == pod && endpoint["ready"] == true);
        kept.then_some(()).ok_or(text)
    });
    installation.kill_server();
    edge.answers(200);
    office.kill();
    office.start();
    edge.answers(200);
    installation.start_server();

    // A node that is marked no more serves nothing and keeps no key.
    let kept = installation.folder().join("agent-office").join("edge.json");
    assert!(kept.exists(), "{}", kept.display());
    kubectl.run(&["label", "node", "office", "longshore.dev/edge-"]);
    eventually("nobody serves", PATIENCE, || match edge.get(&edge.secure()) {
        Err(why) if why.contains("connect") && !kept.exists() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The host's name leads to the node alone, so that only the node can prove it.
#[test]
fn a_node_proves_its_host_by_tls() {
    let ip = "127.0.0.1";
    let (server, http, https) = (free_port(ip), free_port("0.0.0.0"), free_port("0.0.0.0"));
    let pebble = Pebble::start(ip, http, https);
    let (server, roots) = (format!("{ip}:{server}"), pebble.roots().display().to_string());
    let arguments = ["--edge-http", &server, "--edge-acme", &pebble.directory, "--edge-acme-roots", &roots];
    let arguments = [&arguments[..], &["--edge-acme-challenge", "tls-alpn-01"]].concat();
    let installation = Installation::start_with(ip, &arguments);
    let docker = Docker::start(&installation.folder().join("docker"));
    let _agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.wait_node_ready("worker");
    let ports = [("http", http), ("https", https)];
    let ports = ports.map(|(name, port)| format!("longshore.dev/edge-{name}-port={port}"));
    kubectl.run(&["annotate", "node", "worker", &ports[0], &ports[1]]);
    kubectl.run(&["label", "node", "worker", "longshore.dev/edge=true"]);
    eventually("the node listens", PATIENCE, || TcpStream::connect((ip, https)).map(drop).map_err(|e| e.to_string()));

    kubectl.apply(&[SERVICE, &ingress("web", HOST)].concat());
    eventually("the authority's certificate is shown", Duration::from_secs(60), || {
        let said = shown(&format!("{ip}:{https}"));
        said.contains("Pebble").then_some(()).ok_or(said)
    });
}
