//! Pods and Services asked over HTTP through the API, by unchanged kubectl.

use longshore_e2e::{Docker, Forward, Installation, http_get, sample};

/// Beside the sample's web server on 8080 of all addresses: one on 8081 of the pod's own localhost, and services of both sorts.
const OTHERS: &str = "
      - name: own
        image: longshore/hello:v1
        command: [sh, -c, 'mkdir -p /tmp/www; echo own > /tmp/www/index.html; exec httpd -f -p 127.0.0.1:8081 -h /tmp/www']
        readinessProbe: {exec: {command: [wget, -q, -O, /dev/null, 'http://127.0.0.1:8081/']}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: hello}
  ports: [{name: front, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec:
  ports: [{name: front, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: elsewhere, labels: {kubernetes.io/service-name: elsewhere}}
addressType: IPv4
ports: [{name: front, port: 80}]
endpoints: [{addresses: [198.51.100.7]}]
";

#[test]
fn kubectl_asks_pods_and_services() {
    let installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let _agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.apply(&format!("{}{OTHERS}", sample::deployment(1, "v1").trim_end()));
    let pod = kubectl.wait_ready_pods("app=hello", 1).remove(0);
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let get = |what: &str, path: &str| {
        kubectl.try_run(&["get", "--raw", &format!("/api/v1/namespaces/default/{what}/proxy{path}")])
    };
    let hello = format!("hello v1 from {name}\n");
    for what in ["services/web:80", "services/http:web:front", &format!("pods/{name}"), &format!("pods/{name}:8080")] {
        assert_eq!(get(what, "/").as_deref(), Ok(hello.as_str()), "{what}");
    }
    assert_eq!(get("services/web:front", "/cgi-bin/hello").as_deref(), Ok(hello.as_str()));

    // What a pod keeps to itself is for who forwards a port of it, not for who asks at its address.
    let refused = get(&format!("pods/{name}:8081"), "/").expect_err("nobody listens at the pod's address");
    assert!(refused.contains("connection refused"), "{refused}");
    let forward = Forward::start(&kubectl, name, &[":8081"]);
    let text = http_get(forward.port(8081)).expect("it answers");
    assert!(text.ends_with("own\n"), "{text}");

    let refused = get("services/elsewhere:80", "/").expect_err("it is no pod");
    assert!(refused.contains("no endpoint of service \"elsewhere\" is a pod of this cluster"), "{refused}");
}
