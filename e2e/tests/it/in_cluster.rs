//! Programs inside pods speak to their cluster, and the world to them by ports of their host.

use longshore_e2e::{Docker, Installation, Kubectl, eventually, http_get};
use serde_json::Value;
use std::net::TcpListener;
use std::time::Duration;

/// A pod with the sample image, and this machine's kubectl in it.
fn pod(kubectl: &Kubectl, name: &str, spec: &str, container: &str) -> String {
    let program = kubectl.program();
    let tools = program.parent().expect("kubectl lies in a folder").display();
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  {spec}
  containers:
  - name: main
    image: longshore/hello:v1
    env: [{{name: HOME, value: /tmp}}]
    volumeMounts: [{{name: tools, mountPath: /tools, readOnly: true}}]
    {container}
  volumes: [{{name: tools, hostPath: {{path: \"{tools}\", type: Directory}}}}]
"
    )
}

/// What kubectl, unchanged and without any settings, says in a pod.
fn inside(kubectl: &Kubectl, pod: &str, arguments: &[&str]) -> Result<String, String> {
    kubectl.try_run(&[&["exec", pod, "--", "/tools/kubectl"], arguments].concat())
}

fn assert_it_knows_itself(kubectl: &Kubectl, pod: &str) {
    let said = inside(kubectl, pod, &["auth", "whoami", "-o", "json"]).expect("kubectl in a pod reaches its cluster");
    let said: Value = serde_json::from_str(&said).expect("kubectl prints JSON");
    let who = &said["status"]["userInfo"];
    assert_eq!(who["username"], "system:serviceaccount:default:default");
    assert_eq!(who["extra"]["authentication.kubernetes.io/pod-name"], serde_json::json!([pod]));
    let refused = inside(kubectl, pod, &["get", "pods"]).expect_err("a service account may nothing but itself");
    assert!(refused.contains("system:serviceaccount:default:default") && refused.contains("cannot list"), "{refused}");
}

#[test]
fn kubectl_in_a_pod_says_who_it_is() {
    let installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let mut agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.apply(&pod(&kubectl, "plain", "", ""));
    kubectl.apply(&pod(&kubectl, "hostly", "hostNetwork: true", "command: [sleep, '3600']"));
    kubectl.wait_ready_pods("app=plain", 1);
    kubectl.wait_ready_pods("app=hostly", 1);

    let service = kubectl.json(&["get", "service", "kubernetes"]);
    let address = service["spec"]["clusterIP"].as_str().expect("it has one");
    let host = kubectl.run(&["exec", "plain", "--", "sh", "-c", "echo $KUBERNETES_SERVICE_HOST"]);
    assert_eq!(host.trim(), address);
    for pod in ["plain", "hostly"] {
        assert_it_knows_itself(&kubectl, pod);
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        let by_name = format!(
            "/tools/kubectl --server https://kubernetes.default.svc --certificate-authority {token}/ca.crt \
             --token $(cat {token}/token) auth whoami"
        );
        let said = kubectl.run(&["exec", pod, "--", "sh", "-c", &by_name]);
        assert!(said.contains("system:serviceaccount:default:default"), "{said}");
    }

    // A pod goes on being answered after its agent's restart.
    agent.stop();
    agent.start();
    eventually("the pod reaches its cluster again", Duration::from_secs(30), || {
        inside(&kubectl, "plain", &["auth", "whoami"]).map(drop)
    });
}

#[test]
fn a_port_of_the_host_leads_to_a_pod() {
    let installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let _agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    let port = TcpListener::bind("0.0.0.0:0").and_then(|l| l.local_addr()).expect("a free port").port();
    kubectl.apply(&pod(&kubectl, "web", "", &format!("ports: [{{containerPort: 8080, hostPort: {port}}}]")));
    kubectl.wait_ready_pods("app=web", 1);
    let ask = || http_get(port);
    let text = eventually("the pod answers", Duration::from_secs(10), ask);
    assert!(text.contains("hello v1 from web"), "{text}");
    kubectl.run(&["delete", "pod", "web"]);
    eventually("the port is the host's again", Duration::from_secs(10), || match ask() {
        Ok(text) => Err(text),
        Err(_) => Ok(()),
    });
}
