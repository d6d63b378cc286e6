//! IPv6 beside IPv4 between two machines: addresses, a dual-stack Service and its name, over the mesh; a Service with one family
//! stays as it was.

use longshore_e2e::{Docker, Installation, Kubectl, Machine, eventually};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn pod(name: &str, node: &str, policy: &str) -> String {
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
    command: [sh, -c, 'exec busybox nc -ll -p 9000 -e busybox hostname']
    env: [{{name: IPS, valueFrom: {{fieldRef: {{fieldPath: status.podIPs}}}}}}]
    readinessProbe: {{tcpSocket: {{port: 9000}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ipFamilyPolicy: {policy}
  selector: {{app: {name}}}
  ports: [{{port: 90, targetPort: 9000}}]
"
    )
}

/// What `from` is told by whoever answers at an address or a name.
fn told(kubectl: &Kubectl, from: &str, host: &str, port: u16) -> Result<String, String> {
    kubectl.shell(&[from], &format!("nc -w 5 {host} {port} < /dev/null"))
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.map(|one| if field.is_empty() { one } else { &one[field] }).map(|t| t.as_str().expect("text").into()).collect()
}

#[test]
fn pods_on_machines_apart_reach_each_other_by_ipv6() {
    let machine = Machine::start();
    let installation = Installation::start_on(machine.host());
    let here = Docker::start(&installation.folder().join("docker"));
    let there = Docker::start_in(&installation.folder().join("docker-there"), Some(machine.name()));
    here.make_sample_image();
    there.make_sample_image();
    let _office = installation.start_agent("office", &here);
    let _laptop = installation.start_agent_on(&machine, "laptop", &there);
    let kubectl = installation.kubectl();
    let pods = [pod("near", "office", "SingleStack"), pod("far", "laptop", "PreferDualStack")].concat();
    kubectl.apply(&pods);
    let near = kubectl.wait_ready_pods("app=near", 1).remove(0);
    let far = kubectl.wait_ready_pods("app=far", 1).remove(0);
    let addresses = |pod: &Value| {
        let ips = texts(&pod["status"]["podIPs"], "ip");
        assert!(ips.len() == 2 && ips[0] == pod["status"]["podIP"] && ips[1].starts_with("fd"), "{ips:?}");
        ips
    };
    let (near_ips, far_ips) = (addresses(&near), addresses(&far));
    for (name, node) in [("near", "office"), ("far", "laptop")] {
        let node = kubectl.json(&["get", "node", node]);
        let slices = texts(&node["spec"]["podCIDRs"], "");
        assert!(slices.len() == 2 && slices[0] == node["spec"]["podCIDR"], "{slices:?}");
        let ips = if name == "near" { &near_ips } else { &far_ips };
        assert_eq!(kubectl.shell(&[name], "echo $IPS").expect("a shell").trim(), ips.join(","));
        let hosts = kubectl.shell(&[name], "cat /etc/hosts").expect("a shell");
        assert!(ips.iter().all(|ip| hosts.contains(ip.as_str())), "{hosts}");
    }

    let service = kubectl.json(&["get", "service", "far"]);
    let (both, families) = (texts(&service["spec"]["clusterIPs"], ""), texts(&service["spec"]["ipFamilies"], ""));
    assert_eq!(families, ["IPv4", "IPv6"]);
    let answered = |from: &str, host: &str, port: u16, name: &str| {
        eventually(&format!("{from} reaches {host}"), PATIENCE, || {
            let said = told(&kubectl, from, host, port)?;
            (said.trim() == name).then_some(()).ok_or(said)
        });
    };
    for ip in &far_ips {
        answered("near", ip, 9000, "far");
    }
    for ip in &near_ips {
        answered("far", ip, 9000, "near");
    }
    for host in both.iter().map(String::as_str).chain(["far", "far.default.svc.cluster.local"]) {
        answered("near", host, 90, "far");
    }
    let asked = |name: &str| kubectl.shell(&["near"], &format!("nslookup -type=aaaa {name}.default.svc.cluster.local"));
    let found = asked("far").expect("a name");
    assert!(found.contains(&both[1]), "{found}");
    let slices = kubectl.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=far"]);
    let mut types = slices["items"].as_array().expect("slices").iter().map(|s| &s["addressType"]).collect::<Vec<_>>();
    types.sort_by_key(|kind| kind.to_string());
    assert_eq!(types, ["IPv4", "IPv6"]);

    // One family, as before.
    let single = kubectl.json(&["get", "service", "near"]);
    assert_eq!(texts(&single["spec"]["ipFamilies"], ""), ["IPv4"]);
    answered("far", "near", 90, "near");
    let none = asked("near").unwrap_or_else(|said| said);
    assert!(!none.contains("NXDOMAIN") && !none.contains("fd"), "the name is there, without such an address: {none}");

    // It may have the second one later, and let it go.
    kubectl.run(&["patch", "service", "near", "-p", r#"{"spec": {"ipFamilyPolicy": "RequireDualStack"}}"#]);
    let second = texts(&kubectl.json(&["get", "service", "near"])["spec"]["clusterIPs"], "").remove(1);
    answered("far", &second, 90, "near");
    kubectl.run(&["patch", "service", "near", "-p", r#"{"spec": {"ipFamilyPolicy": "SingleStack"}}"#]);
    assert_eq!(texts(&kubectl.json(&["get", "service", "near"])["spec"]["clusterIPs"], "").len(), 1);
    eventually("it is let go", PATIENCE, || match told(&kubectl, "far", &second, 90) {
        Ok(said) if !said.is_empty() => Err(said),
        _ => Ok(()),
    });
}
