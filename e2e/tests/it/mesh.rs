//! Pods on different machines, one of which nobody can connect to: addresses, services and names work across; the path is
//! direct where it can be and over the server where it can't, and connections live through the change.

use longshore_e2e::{Browser, Docker, Installation, Kubectl, Machine, eventually, http_get};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn pod(name: &str, node: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: longshore/hello:v1
    command: [sh, -c, '/hello & exec busybox nc -ll -p 9000 -e cat']
    ports: [{{name: http, containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{name: front, port: 80, targetPort: http}}, {{name: echo, port: 9000}}]
"
    )
}

fn fetch(kubectl: &Kubectl, from: &str, url: &str) -> Result<String, String> {
    kubectl.shell(&[from], &format!("wget -q -O - {url}"))
}

/// How `node` reaches `other`.
fn link(kubectl: &Kubectl, node: &str, other: &str) -> Result<Value, String> {
    let said = kubectl.try_run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/links")])?;
    let all: Value = serde_json::from_str(&said).map_err(|e| format!("{said}: {e}"))?;
    let links = all["links"].as_array().ok_or("no links")?;
    links.iter().find(|link| link["node"] == other).cloned().ok_or_else(|| format!("no link to {other}: {said}"))
}

pub fn until_direct(kubectl: &Kubectl, direct: bool) {
    for (node, other) in [("office", "laptop"), ("laptop", "office")] {
        let what = format!("{node} reaches {other} {}", if direct { "directly" } else { "over the server" });
        eventually(&what, PATIENCE, || {
            let link = link(kubectl, node, other)?;
            (link["direct"].is_string() == direct).then_some(()).ok_or_else(|| link.to_string())
        });
    }
}

/// A connection from a pod, held open by kubectl's exec of a client in it.
struct Connection {
    client: Child,
    into: ChildStdin,
    out: BufReader<ChildStdout>,
}

impl Connection {
    fn open(kubectl: &Kubectl, from: &str, host: &str) -> Self {
        let mut command = kubectl.command(&["exec", "-i", from, "--", "nc", host, "9000"]);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let (into, out) = (client.stdin.take().expect("piped"), client.stdout.take().expect("piped"));
        Self { client, into, out: BufReader::new(out) }
    }

    /// Waits for as long as it takes: the test's own limit is the end.
    #[track_caller]
    fn echoes(&mut self, word: &str) {
        writeln!(self.into, "{word}").expect("kubectl takes it");
        let mut line = String::new();
        self.out.read_line(&mut line).expect("kubectl gives it");
        assert_eq!(line.trim(), word);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
fn pods_on_machines_apart_reach_each_other_by_whatever_path_there_is() {
    let machine = Machine::start();
    let mut installation = Installation::start_on(machine.host());
    let here = Docker::start(&installation.folder().join("docker"));
    let there = Docker::start_in(&installation.folder().join("docker-there"), Some(machine.name()));
    here.make_sample_image();
    there.make_sample_image();
    let _office = installation.start_agent("office", &here);
    let _laptop = installation.start_agent_on(&machine, "laptop", &there);
    let kubectl = installation.kubectl();
    kubectl.apply(&format!("{}{}", pod("near", "office"), pod("far", "laptop")));
    let near = kubectl.wait_ready_pods("app=near", 1).remove(0);
    let far = kubectl.wait_ready_pods("app=far", 1).remove(0);
    let ip = |pod: &Value| pod["status"]["podIP"].as_str().expect("an address").to_owned();

    for (from, url, name) in [
        ("near", format!("http://{}:8080/", ip(&far)), "far"),
        ("far", format!("http://{}:8080/", ip(&near)), "near"),
        ("near", "http://far/".into(), "far"),
        ("far", "http://near.default.svc.cluster.local/".into(), "near"),
    ] {
        eventually(&format!("{from} reaches {url}"), PATIENCE, || {
            let said = fetch(&kubectl, from, &url)?;
            (said == format!("hello v1 from {name}\n")).then_some(()).ok_or(said)
        });
    }
    // A port of this node leads to a pod of the other.
    let service = kubectl.json(&["get", "service", "far"]);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let said = http_get(port.expect("a port of the node")).expect("the pod answers");
    assert!(said.contains("hello v1 from far"), "{said}");

    // Nobody can connect to the laptop, and yet the path becomes direct, as both ends begin at once.
    let mut held = Connection::open(&kubectl, "near", "far");
    held.echoes("first");
    until_direct(&kubectl, true);
    held.echoes("directly");
    let browser = Browser::open();
    let admin = installation.admin();
    let cluster = admin.cluster_url.rsplit('/').next().expect("an id");
    browser.go(&admin.url);
    browser.fill("input[name=email]", &admin.email);
    browser.fill("input[name=password]", &admin.password);
    browser.press("[data-testid=sign-in]");
    browser.wait("the page is live", "document.querySelector('.live-dot.live')");
    browser.go(&format!("{}c/{cluster}/nodes/-/office", admin.url));
    browser.wait_text("[data-testid=links]", "laptop");
    browser.wait_text("[data-testid=links]", "Direct");
    let cut = "nft 'add table inet cut; add chain inet cut in { type filter hook input priority -10; }; \
               add rule inet cut in meta l4proto udp drop; add chain inet cut out { type filter hook output priority -10; }; \
               add rule inet cut out meta l4proto udp drop'";
    let shell = |line: &str| assert!(machine.shell(line).status().expect("a shell").success(), "{line}");
    shell(cut);
    held.echoes("over the server");
    browser.wait_text("[data-testid=links]", "Over the server");
    until_direct(&kubectl, false);
    held.echoes("still the same connection");
    shell("nft delete table inet cut");
    until_direct(&kubectl, true);
    held.echoes("directly again");

    // Without the server what is direct goes on, names as well.
    let client = here.pod_containers().into_iter().find(|(_, name)| name == "main").expect("it runs").0;
    installation.stop_server();
    let said = here.run(&["exec", &client, "wget", "-q", "-O", "-", "http://far/"]);
    assert_eq!(said, "hello v1 from far");
    installation.start_server();
    eventually("all is as before", PATIENCE, || {
        let said = fetch(&kubectl, "near", "http://far/")?;
        (said == "hello v1 from far\n").then_some(()).ok_or(said)
    });
    until_direct(&kubectl, true);

    // Who isn't a node any more is no peer.
    kubectl.run(&["delete", "node", "laptop"]);
    eventually("the laptop is cut off", PATIENCE, || match link(&kubectl, "office", "laptop") {
        Err(none) if none.starts_with("no link") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
