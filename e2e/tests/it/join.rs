//! The line to paste, on a machine that nobody can connect to.

use longshore_e2e::{Docker, Installation, Machine, eventually, sample};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What the line started, with all its children; ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pasted_line_makes_a_machine_behind_a_nat_a_node() {
    let machine = Machine::start();
    let installation = Installation::start_on(machine.host());
    let docker = Docker::start_in(&installation.folder().join("docker"), Some(machine.name()));
    docker.make_sample_image();

    // As the page asks for it.
    let mut api = installation.curl();
    let (base, cluster) =
        api.base.rsplit_once("/clusters/").map(|(b, c)| (b.to_string(), c.to_string())).expect("a URL");
    api.base = base;
    let answer = api.send("POST", &format!("/v1/clusters/{cluster}/join-tokens"), "application/json", Some(b"{}"));
    let line = answer.json()["command"].as_str().unwrap_or_else(|| panic!("no line: {answer:?}")).to_string();

    let data = installation.folder().join("second");
    let options = format!("--foreground --name second --docker-host {} --data-dir {}", docker.host(), data.display());
    let log = File::create(installation.folder().join("second.log")).expect("a log");
    let mut shell = machine.shell(&format!("{line} {options}"));
    shell.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).process_group(0);
    let running = Running(shell.spawn().expect("nsenter starts"));

    let kubectl = installation.kubectl();
    kubectl.wait_node_ready("second");
    kubectl.apply(&sample::deployment(2, "v1"));
    let pods = kubectl.wait_ready_pods("app=hello", 2);
    assert!(pods.iter().all(|pod| pod["spec"]["nodeName"] == "second"));
    // Everything comes back through the one connection that the machine made.
    let name = pods[0]["metadata"]["name"].as_str().expect("a name");
    assert_eq!(kubectl.run(&["exec", name, "--", "sh", "-c", "echo $((6*7))"]).trim(), "42");
    assert!(kubectl.run(&["logs", name]).contains("hello v1"));

    // The agent goes and its pods stay; it leaves, and nothing stays.
    drop(running);
    assert_eq!(docker.pod_containers().len(), 2);
    let program = data.join("longshore-agent");
    let leave = format!("{} leave --data-dir {}", program.display(), data.display());
    let left = machine.shell(&leave).output().expect("the agent leaves");
    assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
    assert!(docker.pod_containers().is_empty());
    eventually("the node is gone", Duration::from_secs(20), || {
        let nodes = kubectl.try_run(&["get", "nodes", "-o", "name"])?;
        if nodes.trim().is_empty() { Ok(()) } else { Err(nodes) }
    });
}
