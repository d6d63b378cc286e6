//! Two machines, an agent on each, and a pod on each that answers HTTP.

use super::answers::PORT;
use crate::Result;
use crate::client::Target;
use longshore_e2e::installation::free_port;
use longshore_e2e::internet::{Internet, Nat, SERVER, Site, within};
use longshore_e2e::{Agent, Docker, Installation, Kubectl};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub const HOST: &str = "web.apps.example";

pub struct Node {
    // In the order in which they end.
    pub agent: Agent,
    _docker: Docker,
    pub site: Site,
    /// Its pod's network namespace and address.
    pub pod: PathBuf,
    pub ip: IpAddr,
}

impl Node {
    /// Does something inside its pod.
    pub fn within_pod<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(within(File::open(&self.pod)?, what))
    }

    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.site.host.name))
    }
}

pub struct Stage {
    pub nodes: [Node; 2],
    pub kubectl: Kubectl,
    pub installation: Installation,
    pub internet: Internet,
    /// Where the edge serves TLS.
    pub edge: SocketAddr,
    /// Of a pod beside the first node's.
    client: PathBuf,
}

fn objects(node: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {node}, labels: {{app: {node}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: longshore/hello:v1
    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {node}}}
spec:
  selector: {{app: {node}}}
  ports: [{{port: 80, targetPort: {PORT}}}]
"
    )
}

const CLIENT: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  nodeName: a
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'longshore/hello:v1', command: [sleep, '36000']}
";

const INGRESS: &str = "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  tls: [{hosts: [web.apps.example]}]
  rules:
  - host: web.apps.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}
";

impl Stage {
    pub fn start() -> Result<Self> {
        let mut internet = Internet::around_this_machine();
        let https = format!("{SERVER}:{}", free_port(SERVER));
        let installation = Installation::start_with(SERVER, &["--edge-https", &https, "--edge-domain", "apps.example"]);
        let kubectl = installation.kubectl();
        let begun = ["a", "b"].map(|name| {
            let site = internet.site(Nat::None);
            let docker = Docker::start_in(&installation.folder().join(name), Some(&site.host.name));
            docker.make_sample_image();
            let agent = installation.start_agent_in(Some(&site.host.name), &[], name, &docker);
            (name, agent, docker, site)
        });
        kubectl.apply(&[&objects("a"), &objects("b"), INGRESS, CLIENT].concat());
        kubectl.wait_ready_pods("app=client", 1);
        let client = begun[0].2.netns_of("client");
        let nodes = begun.map(|(name, agent, docker, site)| {
            let pod = kubectl.wait_ready_pods(&format!("app={name}"), 1).remove(0);
            let ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok()).expect("a pod has an address");
            let pod = docker.netns_of(name);
            Node { agent, _docker: docker, site, pod, ip }
        });
        let edge = https.parse().expect("it was made from an address");
        super::answers::start(&nodes[0])?;
        Ok(Self { nodes, kubectl, installation, internet, edge, client })
    }

    /// Does something inside a pod beside the first node's.
    pub fn within_client<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(within(File::open(&self.client)?, what))
    }

    /// Cluster `default` as its owner.
    pub fn target(&self) -> Result<Target> {
        let admin = self.installation.admin();
        let rest = admin.cluster_url.strip_prefix("https://").ok_or("no address in admin.json")?;
        let (address, path) = rest.split_once('/').ok_or("no cluster in admin.json")?;
        Target::new(address.parse()?, &format!("/{path}"), &admin.token)
    }

    /// The address of a Service.
    pub fn service(&self, namespace: &str, name: &str) -> Result<IpAddr> {
        let service = self.kubectl.json(&["get", "service", "-n", namespace, name]);
        Ok(service["spec"]["clusterIP"].as_str().ok_or("a Service has an address")?.parse()?)
    }
}

/// Programs that a figure needs.
pub fn needed(programs: &[&str]) -> Result<()> {
    let folders = std::env::var("PATH").unwrap_or_default();
    let there = |program: &str| folders.split(':').any(|folder| Path::new(folder).join(program).is_file());
    match programs.iter().find(|program| !there(program)) {
        Some(missing) => Err(format!("{missing} is not installed").into()),
        None => Ok(()),
    }
}
