//! `kubectl port-forward`, unchanged: to a pod, a Service and a Deployment, many connections, much at once, and a port that
//! nobody listens on.

use longshore_e2e::{Docker, Forward, Installation, eventually, http_get, sample};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Beside the sample's web server on 8080: what echoes on 7, and what answers with a megabyte once its client has said all on 9.
const OTHERS: &str = "
      - name: others
        image: longshore/hello:v1
        command: [sh, -c, 'nc -ll -p 7 -e cat & exec nc -ll -p 9 -e sh -c \"cat >/tmp/said; head -c 1048576 /dev/zero; busybox wc -c </tmp/said\"']
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: web, port: 80, targetPort: 8080}]
";

#[test]
fn kubectl_forwards_ports() {
    let installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let _agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.apply(&format!("{}{OTHERS}", sample::deployment(1, "v1").trim_end()));
    let pod = kubectl.wait_ready_pods("app=hello", 1).remove(0);
    let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
    let patience = Duration::from_secs(30);
    eventually("both others listen", patience, || {
        let ports = kubectl.run(&["exec", &name, "-c", "others", "--", "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]);
        if [":0007 ", ":0009 "].iter().all(|port| ports.contains(port)) { Ok(()) } else { Err(ports) }
    });

    for target in [format!("pod/{name}"), "deploy/hello".into()] {
        let forward = Forward::start(&kubectl, &target, &[":8080"]);
        let said = http_get(forward.port(8080)).expect("the pod answers");
        assert!(said.contains(&format!("hello v1 from {name}")), "{said}");
    }
    let service = Forward::start(&kubectl, "svc/hello", &[":80"]);
    assert!(http_get(service.port(8080)).expect("the pod answers").contains("hello v1"));

    // Several at once over kubectl's one connection, in and out of step.
    let forward = Forward::start(&kubectl, &name, &[":7", ":9", ":8080"]);
    let mut open: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(("127.0.0.1", forward.port(7))).expect("it is open")).collect();
    for (i, stream) in open.iter_mut().enumerate().rev() {
        stream.write_all(format!("connection {i}").as_bytes()).expect("it takes");
    }
    for (i, stream) in open.iter_mut().enumerate() {
        let (want, mut text) = (format!("connection {i}"), [0; 12]);
        stream.read_exact(&mut text).expect("it answers");
        assert_eq!(text, *want.as_bytes());
    }
    // A megabyte each way, and the end of what is said is no end of the connection.
    let mut bulk = TcpStream::connect(("127.0.0.1", forward.port(9))).expect("it is open");
    bulk.write_all(&vec![b'x'; 1 << 20]).expect("it takes");
    bulk.shutdown(Shutdown::Write).expect("it ends");
    let mut back = Vec::new();
    bulk.read_to_end(&mut back).expect("it answers");
    assert_eq!(back.len(), (1 << 20) + "1048576\n".len());
    assert!(back.ends_with(b"1048576\n"));
    // One that is broken off takes none of the others along.
    drop(open.remove(0));
    assert!(http_get(forward.port(8080)).expect("the pod answers").contains("hello v1"));
    open[3].write_all(b"still").expect("it takes");
    let mut text = [0; 5];
    open[3].read_exact(&mut text).expect("it answers");
    assert_eq!(&text, b"still");

    // By SPDY alone, as kubectl of before did.
    let older = Forward::start_with(&kubectl, &name, &[":8080"], &[("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")]);
    assert!(http_get(older.port(8080)).expect("the pod answers").contains("hello v1"));

    // kubectl says why, and ends; that is its own way.
    let nobody = Forward::start(&kubectl, &name, &[":81"]);
    let mut lost = TcpStream::connect(("127.0.0.1", nobody.port(81))).expect("it is open");
    let mut text = Vec::new();
    let _ = lost.read_to_end(&mut text);
    assert!(text.is_empty());
    let said = nobody.end();
    assert!(said.contains(&format!("error forwarding port 81 to pod {name}, uid ")), "{said}");
    assert!(said.contains("dial tcp 127.0.0.1:81: connect: connection refused"), "{said}");
    assert!(said.contains("lost connection to pod"), "{said}");
    open[0].write_all(b"still").expect("it takes");
    open[0].read_exact(&mut [0; 5]).expect("other clients go on");

    kubectl.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: waits}\nspec: {nodeSelector: {is: nowhere}, containers: [{name: c, image: i}]}",
    );
    let refused = kubectl.try_run(&["port-forward", "pod/waits", ":80"]).expect_err("it doesn't run");
    assert!(refused.contains("unable to forward port because pod is not running. Current status=Pending"), "{refused}");
}
