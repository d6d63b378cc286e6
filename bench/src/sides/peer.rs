//! The peer: etcd, kube-apiserver, kube-scheduler and kube-controller-manager, started by `bench/peer-up`.

use crate::Result;
use crate::client::{Ask, Target};
use crate::machine;
use crate::processes::{Groups, is_running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Peer {
    _folder: TempDir,
    pub version: String,
    pub target: Target,
    pub processes: Groups,
}

impl Peer {
    pub async fn start(binaries: &Path, data: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("peer-").tempdir_in(data)?;
        let folder_path = folder.path().canonicalize()?;
        let mut command = Command::new("bench/peer-up");
        let started = command.arg(binaries).arg(&folder_path).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        let pids = std::fs::read_to_string(folder_path.join("pids")).unwrap_or_default();
        let processes = pids.lines().filter_map(|line| line.split_once(' '));
        let processes = processes.filter_map(|(name, pid)| Some((name.to_string(), vec![pid.parse().ok()?])));
        let address = std::fs::read_to_string(folder_path.join("address")).unwrap_or_default();
        let mut new = Self {
            _folder: folder,
            version: String::new(),
            target: Target::new(address.trim().parse()?, "", "bench")?,
            processes: Groups(processes.collect()),
        };
        if !started.success() {
            return Err(format!("bench/peer-up: {started}").into());
        }
        new.version = new.find_version(binaries).await?;
        Ok(new)
    }

    async fn find_version(&self, binaries: &Path) -> Result<String> {
        let answer = self.target.connect().await?.ask(Ask::get("/version")).await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let said = answer["gitVersion"].as_str().unwrap_or("of unknown version").to_string();
        // A build from a distribution's source package doesn't know its version; the folder of its sources does.
        let sources = std::fs::read_dir(binaries)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let sources = sources.filter(|name| name.starts_with("kubernetes-")).max();
        let kubernetes = sources.filter(|_| said.starts_with("v0.0.0")).unwrap_or(said);
        let etcd = machine::output("etcd", &["--version"]).unwrap_or_default();
        let etcd = etcd.lines().next().unwrap_or_default().replace("etcd Version:", "etcd");
        Ok(format!("kube-apiserver, kube-scheduler, kube-controller-manager {kubernetes}; {etcd}"))
    }
}

impl Drop for Peer {
    /// Last started, first ended: nobody logs that another one is gone.
    fn drop(&mut self) {
        for number in self.processes.0.iter().rev().flat_map(|(_, pids)| pids) {
            let pid = Pid::from_raw(*number as i32);
            let begun = Instant::now();
            let mut signal = Signal::SIGTERM;
            while is_running(*number) && begun.elapsed() < Duration::from_secs(20) {
                let _ = kill(pid, signal);
                if begun.elapsed() > Duration::from_secs(10) {
                    signal = Signal::SIGKILL;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}
