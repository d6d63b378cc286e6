//! Machines all over a small internet, behind NATs of every kind: one network, one set of Services and names.

use longshore_e2e::internet::{Internet, Nat, PROXY, SERVER, Site};
use longshore_e2e::{Agent, Docker, Installation, Kubectl, eventually};
use serde_json::Value;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// How often a long absence of the server is looked at.
const LOOKED_AT: Duration = Duration::from_secs(3);

/// How long the server is away: no longer than it takes to see that it is, unless `LONGSHORE_ABSENCE` has other seconds.
fn absence() -> Duration {
    let told = std::env::var("LONGSHORE_ABSENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(told.unwrap_or_default())
}

/// By name, the kind of its site and the milliseconds to it.
const MACHINES: [(&str, Nat, u64); 6] = [
    ("cloud", Nat::None, 0),
    ("home", Nat::FullCone, 10),
    ("office", Nat::PortRestricted, 5),
    ("phone", Nat::Symmetric, 60),
    ("hotel", Nat::UdpBlocked, 30),
    ("bank", Nat::ProxyOnly, 5),
];

/// Who meets directly, both of them knowing it: everybody whom UDP reaches, but for a symmetric NAT and one that lets in only
/// who was written to, port and all.
fn direct(a: Nat, b: Nat) -> bool {
    let closed = |nat| matches!(nat, Nat::UdpBlocked | Nat::ProxyOnly);
    let pair = [a, b];
    let hopeless = pair.contains(&Nat::Symmetric) && pair.contains(&Nat::PortRestricted);
    !closed(a) && !closed(b) && !hopeless
}

/// A pod of its own for each machine, and one Service for all of them.
fn pods() -> String {
    let pod = |(name, ..): &(&str, Nat, u64)| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: everywhere, machine: {name}}}}}
spec:
  nodeName: {name}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: longshore/hello:v1
    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{machine: {name}}}
  ports: [{{port: 80, targetPort: 8080}}]
"
        )
    };
    MACHINES.iter().map(pod).collect()
}

struct Machine {
    name: &'static str,
    nat: Nat,
    away: u64,
    // In the order in which they end.
    _agent: Agent,
    _docker: Docker,
    site: Site,
}

fn links(kubectl: &Kubectl, node: &str) -> Result<Vec<Value>, String> {
    let said = kubectl.try_run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/links")])?;
    let all: Value = serde_json::from_str(&said).map_err(|e| format!("{said}: {e}"))?;
    all["links"].as_array().cloned().ok_or_else(|| "no links".to_string())
}

fn answers(kubectl: &Kubectl, from: &str, url: &str, name: &str) {
    eventually(&format!("{from} reaches {url}"), PATIENCE, || {
        let said = kubectl.shell(&[from], &format!("busybox timeout 10 wget -q -O - {url}"))?;
        (said == format!("hello v1 from {name}\n")).then_some(()).ok_or(said)
    });
}

#[test]
fn machines_behind_every_kind_of_nat_are_one_network() {
    let mut internet = Internet::around_this_machine();
    let mut installation = Installation::start_on(SERVER);
    let kubectl = installation.kubectl();
    let machines = MACHINES.map(|(name, nat, away)| {
        let site = internet.site_away(nat, Duration::from_millis(away));
        let docker = Docker::start_in(&installation.folder().join(format!("docker-{name}")), Some(&site.host.name));
        docker.make_sample_image();
        let proxy = format!("http://{PROXY}");
        let environment: &[(&str, &str)] = if nat == Nat::ProxyOnly { &[("HTTPS_PROXY", &proxy)] } else { &[] };
        let agent = installation.start_agent_in(Some(&site.host.name), environment, name, &docker);
        Machine { name, nat, away, _agent: agent, _docker: docker, site }
    });
    kubectl.apply(&pods());
    let ready = kubectl.wait_ready_pods("app=everywhere", MACHINES.len());
    let address = |name: &str| {
        let pod = ready.iter().find(|pod| pod["metadata"]["name"] == name).expect("a pod of each");
        pod["status"]["podIP"].as_str().expect("an address").to_owned()
    };

    // By address and by name.
    let everybody_reaches_everybody = || {
        for from in &machines {
            for to in &machines {
                let url = if from.name < to.name {
                    format!("http://{}:8080/", address(to.name))
                } else {
                    format!("http://{}.default.svc/", to.name)
                };
                answers(&kubectl, from.name, &url, to.name);
            }
        }
    };
    everybody_reaches_everybody();
    let expected = |kubectl: &Kubectl| {
        for from in &machines {
            let links = links(kubectl, from.name)?;
            for to in machines.iter().filter(|to| to.name != from.name) {
                let link = links
                    .iter()
                    .find(|link| link["node"] == to.name)
                    .ok_or(format!("{}: no {}", from.name, to.name))?;
                let there_and_back = Duration::from_millis(2 * (from.away + to.away));
                let measured = link["roundTripMicroseconds"].as_u64().map(Duration::from_micros);
                let is_direct = link["direct"].is_string();
                if is_direct != direct(from.nat, to.nat) || (is_direct && measured < Some(there_and_back)) {
                    return Err(format!("from {} to {}: {link}", from.name, to.name));
                }
            }
        }
        Ok(())
    };
    eventually("links are direct where they can be", PATIENCE, || expected(&kubectl));

    // A machine that loses packets, and then comes under another address: what is open goes on.
    let office = &machines[2];
    internet.lose(&office.site, 5);
    answers(&kubectl, "home", &format!("http://{}:8080/", address("office")), "office");
    internet.stop_losing(&office.site);
    internet.move_to(&office.site, "203.0.113.99");
    answers(&kubectl, "home", &format!("http://{}:8080/", address("office")), "office");
    eventually("links are direct again", PATIENCE, || expected(&kubectl));

    // The server goes away and comes back: what is direct has gone on, what is relayed returns by itself.
    installation.stop_server();
    let docker = &machines[1]._docker;
    let client = docker.pod_containers().into_iter().find(|(_, name)| name == "main").expect("it runs").0;
    let until = Instant::now() + absence();
    loop {
        let said = docker.run(&["exec", &client, "wget", "-q", "-O", "-", "http://cloud/"]);
        assert_eq!(said, "hello v1 from cloud");
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(LOOKED_AT);
    }
    installation.start_server();
    everybody_reaches_everybody();
    eventually("links are as before", PATIENCE, || expected(&kubectl));
}
