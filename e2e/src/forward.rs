//! `kubectl port-forward` at work.

use crate::{Kubectl, eventually};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A running `kubectl port-forward`; dropping it ends it.
pub struct Forward {
    child: Child,
    /// What it prints and complains.
    log: tempfile::NamedTempFile,
    /// Local ports by the pod's.
    ports: BTreeMap<u16, u16>,
}

impl Forward {
    /// Starts it and waits until it listens on all of `ports` (`:8080`: some local port for the target's 8080).
    #[track_caller]
    pub fn start(kubectl: &Kubectl, target: &str, ports: &[&str]) -> Self {
        Self::start_with(kubectl, target, ports, &[])
    }

    /// The same with variables in its environment.
    #[track_caller]
    pub fn start_with(kubectl: &Kubectl, target: &str, ports: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let out = File::options().append(true).open(log.path()).expect("a file");
        let mut command = kubectl.command(&[&["port-forward", "--address", "127.0.0.1", target], ports].concat());
        let again = out.try_clone().expect("a file");
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(out).stderr(again);
        let child = command.spawn().expect("kubectl starts: scripts/kubectl fetches it");
        let mut forward = Self { child, log, ports: BTreeMap::new() };
        let found = eventually("kubectl forwards ports", Duration::from_secs(30), || {
            let said = forward.said();
            let lines = said.lines().filter_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"));
            let found: BTreeMap<u16, u16> = lines
                .filter_map(|line| line.split_once(" -> "))
                .filter_map(|(local, remote)| Some((remote.parse().ok()?, local.parse().ok()?)))
                .collect();
            if found.len() == ports.len() { Ok(found) } else { Err(said) }
        });
        forward.ports = found;
        forward
    }

    /// The local port that leads to a port of the pod.
    #[track_caller]
    pub fn port(&self, of_pod: u16) -> u16 {
        *self.ports.get(&of_pod).unwrap_or_else(|| panic!("{of_pod} is not forwarded: {:?}", self.ports))
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Waits until it ends by itself; what it said.
    #[track_caller]
    pub fn end(mut self) -> String {
        eventually("kubectl ends", Duration::from_secs(30), || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            _ => Err(self.said()),
        });
        self.said()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
