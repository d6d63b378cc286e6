//! Names that a cluster's users have answered elsewhere, as Kubernetes documents it: ConfigMap `kube-dns` in `kube-system`.

use longshore_e2e::{Docker, Installation, Kubectl, eventually, sample};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Answers one address for every name.
const NAME_SERVER: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 5353))
while True:
    q, a = s.recvfrom(512)
    end = q.index(0, 12) + 5
    is_a = q[end - 4:end - 2] == b'\\0\\1'
    head = q[:2] + b'\\x84\\0\\0\\1' + (b'\\0\\1' if is_a else b'\\0\\0') + b'\\0\\0\\0\\0'
    record = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4' + socket.inet_aton(sys.argv[1])
    s.sendto(head + q[12:end] + (record if is_a else b''), a)
";

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: dns}
spec:
  selector: {app: dns}
  ports: [{protocol: UDP, port: 53, targetPort: 5353}]
";

fn choose(kubectl: &Kubectl, stubs: &str) {
    let metadata = json!({"name": "kube-dns", "namespace": "kube-system"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"stubDomains": stubs}});
    kubectl.apply(&map.to_string());
}

#[test]
fn a_domain_is_answered_by_a_name_server_of_the_clusters_own() {
    let mut installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let _agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.apply(&[SERVICE, &sample::idle_pod("default", "client"), &sample::idle_pod("default", "dns")].concat());
    for name in ["client", "dns"] {
        kubectl.wait_ready_pods(&format!("app={name}"), 1);
    }
    let mut server = Command::new("nsenter");
    server.arg(format!("--net={}", docker.netns_of("dns").display())).args(["python3", "-c", NAME_SERVER, "192.0.2.7"]);
    let mut server = server.spawn().expect("python is installed");
    let address = kubectl.json(&["get", "service", "dns"])["spec"]["clusterIP"].as_str().expect("one").to_owned();
    let look_up = || kubectl.shell(&["client"], "nslookup www.acme.local.");
    look_up().expect_err("nobody knows the name");

    choose(&kubectl, &json!({"acme.local": [address]}).to_string());
    let is_found = |said: Result<String, String>| match said {
        Ok(said) if said.contains("192.0.2.7") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually("the name is found", PATIENCE, || is_found(look_up()));

    // What can't be read is told, and changes nothing.
    choose(&kubectl, "{\"acme.local\": [\"not an address\"]}");
    let warned = eventually("the ConfigMap is told", PATIENCE, || {
        let of = "involvedObject.kind=ConfigMap,involvedObject.name=kube-dns,type=Warning";
        let events = kubectl.json(&["get", "events", "-n", "kube-system", "--field-selector", of]);
        let event = &events["items"][0];
        let told = (event["reason"].as_str(), event["message"].as_str());
        told.0.zip(told.1).map(|(reason, why)| format!("{reason} {why}")).ok_or_else(|| events.to_string())
    });
    assert!(warned.starts_with("InvalidNameServers nodes go on with"), "{warned}");
    assert!(warned.contains("domain \"acme.local\": server \"not an address\" is neither IP nor IP:PORT"), "{warned}");
    is_found(look_up()).expect("it is as before");

    // Nor does the server's absence, nor its return.
    let client = docker.pod_containers().into_iter().find(|(_, name)| name == "main").expect("it runs").0;
    installation.kill_server();
    let said = docker.run(&["exec", &client, "nslookup", "www.acme.local."]);
    assert!(said.contains("192.0.2.7"), "{said}");
    installation.start_server();
    eventually("the server is there again", PATIENCE, || kubectl.try_run(&["get", "pod", "client"]));
    eventually("the name is found by way of the server", PATIENCE, || is_found(look_up()));

    kubectl.run(&["delete", "configmap", "kube-dns", "-n", "kube-system"]);
    eventually("the name is nobody's", PATIENCE, || match look_up() {
        Err(_) => Ok(()),
        Ok(said) => Err(said),
    });
    server.kill().and_then(|()| server.wait()).expect("it is ours");
}
