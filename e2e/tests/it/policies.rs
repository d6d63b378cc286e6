//! Network policies, as people write them.

use longshore_e2e::{Docker, Installation, Kubectl, eventually, sample};
use std::time::Duration;

const OTHERS: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: hello}
  ports: [{name: front, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'longshore/hello:v1', command: [sleep, '3600']}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'longshore/hello:v1', command: [sleep, '3600']}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: other}
---
apiVersion: v1
kind: Pod
metadata: {name: guest, namespace: other, labels: {app: guest}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'longshore/hello:v1', command: [sleep, '3600']}
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

/// What a program in a pod prints.
fn inside(kubectl: &Kubectl, pod: &[&str], command: &str) -> Result<String, String> {
    kubectl.try_run(&[&["exec"], pod, &["--", "sh", "-c", command]].concat())
}

fn fetch(kubectl: &Kubectl, pod: &[&str]) -> Result<String, String> {
    inside(kubectl, pod, "wget -T 2 -q -O - http://web.default.svc.cluster.local/")
}

#[track_caller]
fn opens(kubectl: &Kubectl, pod: &[&str]) {
    eventually(&format!("{pod:?} is answered"), Duration::from_secs(20), || fetch(kubectl, pod).map(drop));
}

#[track_caller]
fn closes(kubectl: &Kubectl, pod: &[&str]) {
    eventually(&format!("{pod:?} isn't answered"), Duration::from_secs(20), || match fetch(kubectl, pod) {
        Err(why) if why.contains("timed out") => Ok(()),
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
    kubectl.apply(&format!("{}{}", sample::deployment(2, "v1"), OTHERS));
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
        let ask = format!("wget -T 2 -q -O - http://{ip}:8080/");
        let refused = inside(&kubectl, &stranger, &ask).expect_err("nobody lets it in");
        assert!(refused.contains("timed out"), "{refused}");
        inside(&kubectl, &client, &ask).expect("it is let in");
    }

    // What goes out: names are found, and nobody else.
    kubectl.apply(EGRESS);
    closes(&kubectl, &client);
    let found = inside(&kubectl, &client, "nslookup web.default.svc.cluster.local").expect("names are allowed");
    assert!(found.contains("web.default.svc.cluster.local"), "{found}");
    let hello = r#"[{"op": "add", "path": "/spec/egress/-", "value": {"to": [{"podSelector": {"matchLabels": {"app": "hello"}}}]}}]"#;
    kubectl.run(&["patch", "netpol", "client", "--type", "json", "-p", hello]);
    opens(&kubectl, &client);

    kubectl.run(&["delete", "netpol", "--all"]);
    opens(&kubectl, &stranger);
}
