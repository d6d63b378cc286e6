//! An app on a machine that nobody can connect to is reached by its domain, over TLS.

use longshore_e2e::installation::free_port;
use longshore_e2e::{Browser, Docker, Installation, Kubectl, Machine, Pebble, eventually, sample};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const HOST: &str = "web.apps.example";

pub const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: hello}
  ports: [{name: front, port: 80, targetPort: http}]
";

pub fn ingress(name: &str, host: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}}}
spec:
  tls: [{{hosts: [{host}]}}]
  rules:
  - host: {host}
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{name: front}}}}}}}}]}}
"
    )
}

/// A Service whose endpoint is the machine itself.
pub fn evil(address: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: evil}}
spec: {{ports: [{{port: 80, targetPort: 9090}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: evil, labels: {{kubernetes.io/service-name: evil}}}}
addressType: IPv4
ports: [{{port: 9090}}]
endpoints: [{{addresses: [{address}], nodeName: laptop}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: evil, annotations: {{nginx.ingress.kubernetes.io/ssl-redirect: 'false'}}}}
spec:
  rules:
  - host: {HOST}
    http: {{paths: [{{path: /evil, pathType: Prefix, backend: {{service: {{name: evil, port: {{number: 80}}}}}}}}]}}
"
    )
}

/// Where an edge listens, and what its clients trust.
#[derive(Clone)]
pub struct Edge {
    pub ip: String,
    pub http: u16,
    pub https: u16,
    pub ca: String,
}

impl Edge {
    /// Asks for `url` with a name that leads to the edge: status and body.
    pub fn get(&self, url: &str) -> Result<(u16, String), String> {
        let at = |port: u16| format!("{HOST}:{port}:{}", self.ip);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "10", "--cacert", &self.ca, "-w", "\n%{http_code}"]);
        curl.args(["--resolve", &at(self.http), "--resolve", &at(self.https), url]);
        let output = curl.output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let (body, status) = said.rsplit_once('\n').ok_or("no status")?;
        Ok((status.parse().map_err(|_| status.to_string())?, body.to_string()))
    }

    pub fn secure(&self) -> String {
        format!("https://{HOST}:{}/", self.https)
    }

    #[track_caller]
    pub fn answers(&self, status: u16) -> String {
        eventually(&format!("{} answers {status}", self.secure()), PATIENCE, || match self.get(&self.secure())? {
            (said, body) if said == status => Ok(body),
            other => Err(format!("{other:?}")),
        })
    }
}

/// Whose certificate is shown there for the host, and its number. pebble's root is new with each start and can't be trusted
/// beforehand.
pub fn shown(at: &str) -> String {
    let ask = format!(
        "openssl s_client -connect {at} -servername {HOST} </dev/null 2>/dev/null | openssl x509 -noout -issuer -serial"
    );
    let said = Command::new("sh").args(["-c", &ask]).output().expect("openssl is installed");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// Sends back what comes, and to which port it does.
const ECHO: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 5353))
while True:
    d, a = s.recvfrom(65535)
    s.sendto(d + b' ' + str(a[1]).encode(), a)
";

fn warned(kubectl: &Kubectl, reason: &str) -> String {
    eventually(&format!("there is an event {reason}"), PATIENCE, || {
        let events = kubectl.json(&["get", "events", "--field-selector", &format!("reason={reason}")]);
        let message = events["items"][0]["message"].as_str().map(String::from);
        message.ok_or_else(|| events.to_string())
    })
}

#[test]
fn an_app_behind_nat_is_reached_by_its_domain() {
    let laptop = Machine::start();
    let (http, https) = (free_port(laptop.host()), free_port(laptop.host()));
    let at = |port: u16| format!("{}:{port}", laptop.host());
    let tcp = free_port(laptop.host());
    let range = format!("{tcp}-{tcp}");
    let mut arguments = vec!["--edge-domain", "apps.example", "--edge-ports", &range];
    let (at_http, at_https) = (at(http), at(https));
    arguments.extend(["--edge-http", &at_http, "--edge-https", &at_https]);
    let mut installation = Installation::start_with(laptop.host(), &arguments);
    let docker = Docker::start_in(&installation.folder().join("docker"), Some(laptop.name()));
    docker.make_sample_image();
    let _agent = installation.start_agent_on(&laptop, "laptop", &docker);
    let kubectl = installation.kubectl();
    let ca = installation.server_folder().join("ca.crt").display().to_string();
    let edge = Edge { ip: laptop.host().into(), http, https, ca };

    kubectl.apply(&[&sample::deployment(2, "v1"), SERVICE, &ingress("web", HOST)].concat());
    kubectl.wait_ready_pods("app=hello", 2);
    assert!(edge.answers(200).contains("v1"));
    let (status, _) = edge.get(&format!("http://{HOST}:{http}/")).expect("plain HTTP is answered");
    assert_eq!(status, 308, "it is sent to TLS");
    let row = kubectl.run(&["get", "ingress", "web", "--no-headers"]);
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..5], ["web", "longshore", HOST, laptop.host(), "80,"], "{row}");

    // A Service of its own is found at a port, without HTTP's help.
    kubectl.run(&[
        "expose",
        "deployment",
        "hello",
        "--name=tcp",
        "--type=LoadBalancer",
        "--target-port=8080",
        "--port",
        &tcp.to_string(),
    ]);
    let direct = format!("http://{}/", at(tcp));
    eventually("the port answers", PATIENCE, || match edge.get(&direct)? {
        (200, body) if body.contains("v1") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let row = kubectl.run(&["get", "service", "tcp", "--no-headers"]);
    assert!(row.contains("LoadBalancer") && row.contains(laptop.host()), "{row}");

    // At the same port by UDP, which is a Service's too.
    let pod = kubectl.pods("app=hello").remove(0)["metadata"]["name"].as_str().expect("a name").to_string();
    let mut echo = Command::new("nsenter");
    echo.arg(format!("--net={}", docker.netns_of(&pod).display())).args(["python3", "-c", ECHO]);
    let mut echo = echo.spawn().expect("python is installed");
    kubectl.run(&["label", "pod", &pod, "udp=echo"]);
    let ports = format!("[{{protocol: UDP, port: {tcp}, targetPort: 5353}}]");
    kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: udp}},
          spec: {{type: LoadBalancer, selector: {{udp: echo}}, ports: {ports}}}}}"
    ));
    let client = UdpSocket::bind((laptop.host(), 0)).expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(1))).expect("a length");
    client.connect((laptop.host(), tcp)).expect("an address");
    let ask = |question: &str| {
        let mut answer = [0; 64];
        client.send(question.as_bytes()).map_err(|error| error.to_string())?;
        let length = client.recv(&mut answer).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let first = eventually("a datagram is answered", PATIENCE, || ask("one"));
    let (_, from) = first.split_once(' ').expect("to whom");
    assert_eq!(ask("two"), Ok(format!("two {from}")), "it is one flow");
    let told = kubectl.json(&["get", "service", "udp"])["status"]["loadBalancer"]["ingress"][0]["ports"].clone();
    assert_eq!(told, serde_json::json!([{"port": tcp, "protocol": "UDP"}]));
    assert!(matches!(edge.get(&direct), Ok((200, _))), "TCP goes on");
    echo.kill().and_then(|()| echo.wait()).expect("it is ours");

    // Addresses that somebody wrote down by hand lead nowhere, though something listens there.
    let mut victim = laptop.shell(&format!("exec python3 -m http.server --bind {} 9090", laptop.address()));
    let mut victim = victim.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python is installed");
    let asked = format!("curl -sf -o /dev/null http://{}:9090/", laptop.address());
    eventually("it listens", PATIENCE, || {
        let said = laptop.shell(&asked).status().map_err(|e| e.to_string())?;
        said.success().then_some(()).ok_or_else(|| said.to_string())
    });
    kubectl.apply(&evil(laptop.address()));
    let url = format!("http://{HOST}:{http}/evil");
    eventually("nobody is reached", PATIENCE, || match edge.get(&url)? {
        (502, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    victim.kill().and_then(|()| victim.wait()).expect("it is ours");

    // As a person sees it.
    let browser = Browser::open_resolving_to(laptop.host());
    browser.go(&edge.secure());
    browser.wait_text("body", "v1");

    // While it rolls out, nobody is turned away.
    let rolled = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (edge, rolled) = (edge.clone(), rolled.clone());
        move || {
            let mut seen = Vec::new();
            while !rolled.load(Ordering::Relaxed) {
                seen.push(edge.get(&edge.secure()));
            }
            seen
        }
    });
    docker.run(&["tag", "longshore/hello:v1", "longshore/hello:v2"]);
    kubectl.run(&["set", "image", "deployment/hello", "hello=longshore/hello:v2"]);
    kubectl.run(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    rolled.store(true, Ordering::Relaxed);
    let seen = asking.join().expect("it asked");
    let failed: Vec<_> = seen.iter().filter(|answer| !matches!(answer, Ok((200, _)))).collect();
    assert!(seen.len() > 3 && failed.is_empty(), "{} of {}: {failed:?}", failed.len(), seen.len());

    // Without a pod there is nobody to answer.
    kubectl.run(&["scale", "deployment", "hello", "--replicas", "0"]);
    edge.answers(503);
    kubectl.run(&["scale", "deployment", "hello", "--replicas", "1"]);
    edge.answers(200);

    // The server comes back.
    installation.kill_server();
    edge.get(&edge.secure()).expect_err("nobody is there");
    installation.start_server();
    edge.answers(200);

    // The dashboard's own name is nobody's; and without its Ingress a name is unknown.
    kubectl.apply(&ingress("greedy", "localhost"));
    assert_eq!(warned(&kubectl, "HostNotAllowed"), "host localhost: it is the dashboard's own name");
    assert_eq!(kubectl.json(&["get", "ingress", "greedy"])["status"], serde_json::json!({"loadBalancer": {}}));
    kubectl.run(&["delete", "ingress", "web"]);
    eventually("the name is unknown", PATIENCE, || match edge.get(&format!("http://{HOST}:{http}/"))? {
        (404, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_host_is_proven_and_gets_its_certificate_by_itself() {
    let ip = "127.0.0.1";
    let (http, https) = (free_port(ip), free_port(ip));
    let pebble = Pebble::start(ip, http, https);
    let at = |port: u16| format!("{ip}:{port}");
    let roots = pebble.roots().display().to_string();
    let mut arguments = vec!["--edge-http".to_string(), at(http), "--edge-https".to_string(), at(https)];
    arguments.extend(["--edge-acme".to_string(), pebble.directory.clone(), "--edge-acme-roots".to_string(), roots]);
    arguments.extend(["--edge-open=false".to_string(), "--edge-resolver".to_string(), pebble.dns.clone()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut installation = Installation::start_with(ip, &arguments);
    let kubectl = installation.kubectl();
    kubectl.apply(&[SERVICE, &ingress("web", HOST)].concat());
    let wanted = warned(&kubectl, "HostUnproven");
    let (record, value) = wanted.rsplit_once(" TXT ").expect("the record");
    let record = record.rsplit_once(' ').expect("its name").1;
    assert_eq!(record, format!("_longshore.{HOST}"));
    pebble.text(record, value.trim_matches('"'));
    let shown = || shown(&at(https));
    let patience = Duration::from_secs(60);
    let first = eventually("the authority's certificate is shown", patience, || {
        let said = shown();
        if said.contains("Pebble") { Ok(said) } else { Err(said) }
    });
    // It is kept: another start orders nothing.
    installation.kill_server();
    installation.start_server();
    kubectl.run(&["get", "ingress"]);
    eventually("the same certificate is shown", patience, || {
        let said = shown();
        if said == first { Ok(()) } else { Err(said) }
    });
}
