//! Network policies, as people write them.

use longshore_e2e::{Docker, Installation, Kubectl, eventually, sample};
use std::time::Duration;

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: hello}
  ports: [{name: front, port: 80, targetPort: http}]
";

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: hello}
spec:
  podSelector: {matchLabels: {app: hello}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: client}}
    - namespaceSelector: {matchLabels: {team: friends}}
    ports: [{port: http}]
";

const EGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
";

fn fetch(kubectl: &Kubectl, pod: &[&str]) -> Result<String, String> {
    kubectl.shell(pod, "busybox timeout 2 wget -q -O - http://web.default.svc.cluster.local/")
}

#[track_caller]
fn opens(kubectl: &Kubectl, pod: &[&str]) {
    eventually(&format!("{pod:?} is answered"), Duration::from_secs(20), || fetch(kubectl, pod).map(drop));
}

#[track_caller]
fn closes(kubectl: &Kubectl, pod: &[&str]) {
    eventually(&format!("{pod:?} isn't answered"), Duration::from_secs(20), || match fetch(kubectl, pod) {
        // No word comes back: it is the client that ends, by SIGTERM.
        Err(why) if why.contains("143") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn policies_say_who_reaches_whom() {
    let installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let _agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.run(&["create", "namespace", "other"]);
    eventually("the namespace has its account", Duration::from_secs(20), || {
        kubectl.try_run(&["get", "serviceaccount", "default", "-n", "other"]).map(drop)
    });
    let pods = [("default", "client"), ("default", "stranger"), ("other", "guest")];
    let pods = pods.map(|(namespace, name)| sample::idle_pod(namespace, name)).concat();
    kubectl.apply(&[&sample::deployment(2, "v1"), SERVICE, &pods].concat());
    for name in ["client", "stranger"] {
        kubectl.wait_ready_pods(&format!("app={name}"), 1);
    }
    kubectl.wait_ready_pods("app=hello", 2);
    let (client, stranger, guest) = (["client"], ["stranger"], ["guest", "-n", "other"]);
    for pod in [&client[..], &stranger, &guest] {
        opens(&kubectl, pod);
    }

    // Who comes in: chosen pods by a port's name, and those of namespaces as they are labelled.
    kubectl.apply(INGRESS);
    closes(&kubectl, &stranger);
    opens(&kubectl, &client);
    closes(&kubectl, &guest);
    kubectl.run(&["label", "namespace", "other", "team=friends"]);
    opens(&kubectl, &guest);
    let table = kubectl.run(&["get", "netpol"]);
    assert!(table.contains("POD-SELECTOR") && table.contains("app=hello"), "{table}");
    let said = kubectl.run(&["describe", "netpol", "hello"]);
    assert!(said.contains("To Port: http/TCP") && said.contains("PodSelector: app=client"), "{said}");

    // Who is new is isolated as well, and answers its probes all the same.
    kubectl.run(&["scale", "deployment", "hello", "--replicas", "3"]);
    for pod in kubectl.wait_ready_pods("app=hello", 3) {
        let ip = pod["status"]["podIP"].as_str().expect("an address").to_owned();
        let ask = format!("busybox timeout 2 wget -q -O - http://{ip}:8080/");
        let refused = kubectl.shell(&stranger, &ask).expect_err("nobody lets it in");
        assert!(refused.contains("143"), "{refused}");
        kubectl.shell(&client, &ask).expect("it is let in");
    }

    // What goes out: names are found, and nobody else.
    kubectl.apply(EGRESS);
    closes(&kubectl, &client);
    let found = kubectl.shell(&client, "nslookup web.default.svc.cluster.local").expect("names are allowed");
    assert!(found.contains("web.default.svc.cluster.local"), "{found}");
    let hello = r#"[{"op": "add", "path": "/spec/egress/-", "value": {"to": [{"podSelector": {"matchLabels": {"app": "hello"}}}]}}]"#;
    kubectl.run(&["patch", "netpol", "client", "--type", "json", "-p", hello]);
    opens(&kubectl, &client);

    kubectl.run(&["delete", "netpol", "--all"]);
    opens(&kubectl, &stranger);
}
