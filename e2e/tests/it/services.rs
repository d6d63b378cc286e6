//! Services and names, as programs in pods and people at the machine use them.

use longshore_e2e::{Docker, Installation, Kubectl, eventually, http_get, sample};
use serde_json::json;
use std::time::Duration;

const OTHERS: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: hello}
  ports: [{name: front, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  selector: {app: hello}
  ports: [{name: front, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  ports: [{name: front, port: 80}]
";

/// What a program in pod `client` prints.
fn inside(kubectl: &Kubectl, command: &str) -> Result<String, String> {
    kubectl.shell(&["client"], command)
}

fn fetch(kubectl: &Kubectl, url: &str) -> Result<String, String> {
    inside(kubectl, &format!("wget -q -O - {url}"))
}

#[test]
fn a_service_is_found_by_address_and_name_and_follows_its_pods() {
    let mut installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let _agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.apply(&[&sample::deployment(2, "v1"), OTHERS, &sample::idle_pod("default", "client")].concat());
    kubectl.wait_ready_pods("app=client", 1);
    let names = |kubectl: &Kubectl, count| -> Vec<String> {
        let pods = kubectl.wait_ready_pods("app=hello", count);
        pods.iter().map(|p| p["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    };
    let pods = names(&kubectl, 2);

    let service = kubectl.json(&["get", "service", "web"]);
    let address = service["spec"]["clusterIP"].as_str().expect("it has one");
    let hello = |name: &str| format!("hello v1 from {name}\n");
    for url in [address, "web", "web.default", "web.default.svc.cluster.local"].map(|host| format!("http://{host}/")) {
        for name in &pods {
            eventually(&format!("{name} answers at {url}"), Duration::from_secs(20), || {
                let said = fetch(&kubectl, &url)?;
                (said == hello(name)).then_some(()).ok_or(said)
            });
        }
    }
    let each = inside(&kubectl, "nslookup each.default.svc.cluster.local").expect("a name");
    for pod in kubectl.pods("app=hello") {
        let ip = pod["status"]["podIP"].as_str().expect("an address");
        assert!(each.contains(ip), "{ip} is in {each}");
    }
    let refused = fetch(&kubectl, "http://nobody/").expect_err("nobody is there");
    assert!(refused.contains("refused"), "at once, and no time-out: {refused}");
    let unknown = fetch(&kubectl, "http://unheard-of/").expect_err("there is no such name");
    assert!(unknown.contains("bad address"), "{unknown}");

    // The port of every node, at any address of the host.
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("it has one");
    let port = u16::try_from(port).expect("a port");
    let said = http_get(port).expect("the service answers");
    assert!(said.contains("hello v1 from"), "{said}");

    // Who goes is asked no more, and names are answered without the server.
    kubectl.run(&["scale", "deployment", "hello", "--replicas", "1"]);
    let left = names(&kubectl, 1).remove(0);
    eventually("only the last one answers", Duration::from_secs(20), || {
        (0..10).try_for_each(|_| {
            let said = fetch(&kubectl, "http://web/")?;
            (said == hello(&left)).then_some(()).ok_or(said)
        })
    });
    kubectl.run(&["patch", "service", "web", "-p", &json!({"spec": {"selector": {"app": "none"}}}).to_string()]);
    eventually("a service without pods refuses", Duration::from_secs(20), || match fetch(&kubectl, "http://web/") {
        Err(refused) if refused.contains("refused") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let client = docker.pod_containers().into_iter().find(|(_, name)| name == "main").expect("it runs").0;
    installation.stop_server();
    let found = docker.run(&["exec", &client, "nslookup", "web.default.svc.cluster.local"]);
    assert!(found.contains(address), "without the server: {found}");
}
