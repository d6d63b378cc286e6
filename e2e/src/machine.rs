//! Another machine, as far as networks go: a network namespace that can connect out and that nobody can connect to, as
//! behind a NAT or a firewall.

use std::process::Command;

const OWN: &str = "203.0.113.2";

pub struct Machine {
    name: String,
    host: String,
}

/// Runs a command to its end.
#[track_caller]
fn done(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Machine {
    /// Makes the namespace and a cable to it. Needs root, `ip` and `nft`.
    pub fn start() -> Self {
        let id = std::process::id();
        let name = format!("longshore-e2e-{id}");
        let (near, far) = (format!("lse{id}"), format!("lsf{id}"));
        // A range that nobody routes: of those for documentation.
        let host = "203.0.113.1".to_string();
        done("ip", &["netns", "add", &name]);
        let machine = Self { name, host };
        let name = machine.name.as_str();
        done("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", name]);
        done("ip", &["address", "add", &format!("{}/30", machine.host), "dev", &near]);
        done("ip", &["link", "set", &near, "up"]);
        done("ip", &["-n", name, "link", "set", "lo", "up"]);
        done("ip", &["-n", name, "address", "add", &format!("{OWN}/30"), "dev", &far]);
        done("ip", &["-n", name, "link", "set", &far, "up"]);
        done("ip", &["-n", name, "route", "add", "default", "via", &machine.host]);
        let rules = format!(
            "add table inet closed; add chain inet closed input {{ type filter hook input priority 0; }}; \
             add rule inet closed input iifname \"{far}\" ct state new drop"
        );
        done("nsenter", &[&machine.network(), "nft", &rules]);
        machine
    }

    /// The namespace's name, for [`crate::Docker::start_in`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address.
    pub fn address(&self) -> &str {
        OWN
    }

    /// The address at which the machine sees this host.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn network(&self) -> String {
        format!("--net=/var/run/netns/{}", self.name)
    }

    /// A shell on that machine, to run `line`.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&self.network(), "sh", "-c", line]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}
