//! One installation: `longshore-server dev` in a folder of its own, and agents.

use crate::{Curl, Docker, Kubectl, Machine, eventually, program};
use serde::Deserialize;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `admin.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Admin {
    pub url: String,
    pub email: String,
    pub password: String,
    pub token: String,
    pub cluster_url: String,
}

pub struct Installation {
    folder: tempfile::TempDir,
    listen: String,
    /// What the server is told beside where it listens.
    arguments: Vec<String>,
    server: Option<Child>,
}

impl Installation {
    /// Starts a server on a free port of loopback and waits until it is ready.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1")
    }

    /// The same on another address of this machine.
    pub fn start_on(ip: &str) -> Self {
        Self::start_with(ip, &[])
    }

    /// The same with more arguments.
    pub fn start_with(ip: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("longshore-e2e-").tempdir().expect("a folder");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut new = Self { folder, listen: format!("{ip}:{}", free_port(ip)), arguments, server: None };
        new.start_server();
        new
    }

    /// Where `dev` keeps its state and files.
    pub fn server_folder(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn start_server(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("server.log")).expect("a log");
        let again = log.try_clone().expect("a log");
        let mut child = Command::new(program("longshore-server"))
            .arg("dev")
            .arg("--data-dir")
            .arg(self.server_folder())
            .args(["--listen", &self.listen])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn()
            .expect("the server starts");
        let pid = child.id().to_string();
        eventually("the server is ready", Duration::from_secs(60), || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the server ended: {status}\n{}", self.log_of("server.log"));
            }
            // A file that a killed server left names another process.
            let ready = fs::read_to_string(self.server_folder().join("ready")).unwrap_or_default();
            if ready.trim() == pid { Ok(()) } else { Err(format!("ready holds {ready:?}")) }
        });
        self.server = Some(child);
    }

    /// The end of a log, for messages.
    pub fn log_of(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// SIGKILL, as a crash.
    pub fn kill_server(&mut self) {
        if let Some(mut child) = self.server.take() {
            child.kill().expect("the server is ours");
            let _ = child.wait();
        }
    }

    /// SIGTERM; how it ended.
    pub fn stop_server(&mut self) {
        if let Some(mut child) = self.server.take() {
            terminate(&mut child);
        }
    }

    pub fn admin(&self) -> Admin {
        let text = fs::read_to_string(self.server_folder().join("admin.json")).expect("admin.json");
        serde_json::from_str(&text).expect("admin.json is JSON")
    }

    /// Raw requests to cluster `default` as its owner.
    pub fn curl(&self) -> Curl {
        let admin = self.admin();
        let ca = self.server_folder().join("ca.crt").display().to_string();
        Curl { base: admin.cluster_url, token: admin.token, ca }
    }

    /// The running server's process id.
    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    /// The server's resident memory, in kB.
    pub fn server_memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.server_pid())).expect("the server lives");
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// The process id of the server's private Postgres, as its own file says it.
    pub fn postgres_pid(&self) -> Option<String> {
        let text = fs::read_to_string(self.server_folder().join("postgres/data/postmaster.pid")).ok()?;
        text.lines().next().map(String::from)
    }

    /// SIGKILL to Postgres, as a crash; which process it was.
    pub fn kill_postgres(&self) -> String {
        let patience = Duration::from_secs(90);
        let victim = eventually("Postgres runs", patience, || self.postgres_pid().ok_or("no pid".to_string()));
        let killed = Command::new("kill").args(["-9", &victim]).status().expect("kill runs");
        assert!(killed.success(), "no process {victim}");
        victim
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.server_folder().join("kubeconfig"))
    }

    /// Starts an agent of cluster `default` that uses `docker`, and waits until its node is Ready.
    pub fn start_agent(&self, name: &str, docker: &Docker) -> Agent {
        self.start_agent_in(None, &[], name, docker)
    }

    /// On another machine, where `docker` runs as well.
    pub fn start_agent_on(&self, machine: &Machine, name: &str, docker: &Docker) -> Agent {
        self.start_agent_in(Some(machine.name()), &[], name, docker)
    }

    /// In a network namespace, with these variables in its environment.
    pub fn start_agent_in(
        &self,
        netns: Option<&str>,
        environment: &[(&str, &str)],
        name: &str,
        docker: &Docker,
    ) -> Agent {
        let mut agent = Agent {
            name: name.into(),
            folder: self.folder.path().join(format!("agent-{name}")),
            log: self.folder.path().join(format!("agent-{name}.log")),
            server: format!("https://{}", self.listen),
            token: self.server_folder().join("join-token"),
            docker: docker.host(),
            netns: netns.map(|name| format!("/var/run/netns/{name}")),
            environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            child: None,
        };
        agent.start();
        self.kubectl().wait_node_ready(name);
        agent
    }
}

/// A port of an address that nobody listens on at the moment.
pub fn free_port(ip: &str) -> u16 {
    TcpListener::bind((ip, 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
            for name in logs.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.ends_with(".log")) {
                eprintln!("--- {name}\n{}", self.log_of(&name));
            }
        }
        if self.server.is_none() {
            // It was killed and its Postgres goes on: a clean start and stop ends that one too.
            self.start_server();
        }
        self.stop_server();
    }
}

/// A running agent. Dropping it takes its pods, containers and networks away (`longshore-agent leave`).
pub struct Agent {
    name: String,
    folder: PathBuf,
    log: PathBuf,
    server: String,
    token: PathBuf,
    docker: String,
    /// Of the machine that it runs on, where that isn't this one.
    netns: Option<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Agent {
    fn command(&self) -> Command {
        let agent = program("longshore-agent");
        match &self.netns {
            None => Command::new(agent),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={netns}")).arg(agent);
                command
            }
        }
    }

    /// The running agent's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the agent runs").id()
    }

    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let again = log.try_clone().expect("a log");
        let child = self
            .command()
            .args(["run", "--server", &self.server, "--name", &self.name, "--docker-host", &self.docker])
            .arg("--token-file")
            .arg(&self.token)
            .arg("--data-dir")
            .arg(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn()
            .expect("the agent starts");
        self.child = Some(child);
    }

    /// What a pod at `address` (IP:PORT) answers to the node. Asked from inside the cluster's network: the host's own route
    /// to it may be another cluster's, of whoever has one running on this machine.
    pub fn http_get(&self, address: &str) -> Result<String, String> {
        let netns = format!("--net={}", self.folder.join("network/netns").display());
        let output = Command::new("nsenter")
            .args([&netns, "curl", "-sS", "--max-time", "5", &format!("http://{address}/")])
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// SIGKILL, as a crash: containers go on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the agent is ours");
            let _ = child.wait();
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            terminate(&mut child);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
        let left = self.command().args(["leave", "--data-dir"]).arg(&self.folder).stdin(Stdio::null()).output();
        if let Ok(output) = left
            && !output.status.success()
        {
            eprintln!("agent leave: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// SIGTERM and wait; SIGKILL when it takes longer than half a minute.
fn terminate(child: &mut Child) {
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    for _ in 0..600 {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
}
