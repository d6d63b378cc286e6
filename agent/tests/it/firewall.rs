//! The pods' network beside a Docker that guards its host: it drops what is forwarded, as it does by default.

use crate::machine::{Machine, WORLD, call, run, serve};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

/// A daemon in the pretended host's network, with its iptables rules and its own bridge.
struct Guard(Child);

impl Guard {
    async fn start(machine: &Machine) -> Self {
        let at = |name: &str| machine.dir.path().join("docker").join(name).display().to_string();
        std::fs::create_dir_all(at("")).unwrap();
        let socket = format!("unix://{}", at("docker.sock"));
        let _ = std::fs::remove_file(at("pid"));
        let spawn = || {
            Command::new("dockerd")
                .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
                .args(["--host", &socket, "--bip", "172.31.200.1/24", "--iptables=true", "--log-level=error"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let guard = Self(machine.host.run(spawn).unwrap().expect("dockerd starts: install docker.io"));
        let answers =
            || Command::new("docker").args(["--host", &socket, "version"]).stderr(Stdio::null()).output().unwrap();
        while !answers().status.success() {
            tokio::task::yield_now().await;
        }
        guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_docker_that_drops_forwarded_packets_lets_ours_pass() {
    let machine = Machine::new().await;
    serve(&machine.world, Ipv4Addr::UNSPECIFIED, 80);
    let rules = || run(&machine.host, "iptables", &["-S"]);
    // Where it finds forwarding on, Docker leaves the policy alone.
    machine.host.sysctl().set("net.ipv4.ip_forward", "0").unwrap();
    let guard = Guard::start(&machine).await;
    let before = rules();
    assert!(before.contains("-P FORWARD DROP") && before.contains("-A FORWARD -j DOCKER-USER"), "{before}");
    let agent = machine.agent("c-a", "10.244.3.0/24");
    let (pod, _) = machine.pod(&agent, "a").await;
    call(&pod.netns, WORLD, 80).await.unwrap();
    machine.pod(&agent, "b").await;
    assert_eq!(rules().matches("-A DOCKER-USER -i ls-").count(), 1);

    drop(guard);
    let guard = Guard::start(&machine).await;
    call(&pod.netns, WORLD, 80).await.expect("Docker started again");
    agent.teardown().await.unwrap();
    let mut lines = [before, rules()].map(|text| text.lines().map(String::from).collect::<Vec<_>>());
    lines.iter_mut().for_each(|lines| lines.sort());
    assert_eq!(lines[0], lines[1]);
    drop(guard);
}
