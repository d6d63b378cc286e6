//! Ours: `longshore-server dev` in a folder of its own with its private Postgres, and hollow agents.

use super::{beside, end};
use crate::Result;
use crate::client::Target;
use crate::processes::{Groups, children, name};
use serde::Deserialize;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server that is not ready by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The part of `admin.json` that is used here.
#[derive(Deserialize)]
struct Admin {
    token: String,
    cluster_url: String,
}

pub struct Installation {
    folder: TempDir,
    listen: SocketAddr,
    server: Child,
    pub version: String,
    /// From the program's start until it served.
    pub started_in: Duration,
}

impl Installation {
    /// A fresh installation on a free port, ready.
    pub async fn start(data: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("longshore-").tempdir_in(data)?;
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (server, started_in) = launch(folder.path(), listen).await?;
        let said = beside("longshore-server")?.arg("--version").output()?;
        let version = String::from_utf8_lossy(&said.stdout).trim().to_string();
        Ok(Self { folder, listen, server, version, started_in })
    }

    /// A clean stop and a start on the same data.
    pub async fn restart(mut self) -> Result<Self> {
        end(&mut self.server);
        (self.server, self.started_in) = launch(self.folder.path(), self.listen).await?;
        Ok(self)
    }

    pub fn server_pid(&self) -> u32 {
        self.server.id()
    }

    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The owner's API token.
    pub fn token(&self) -> Result<String> {
        Ok(self.admin()?.token)
    }

    fn admin(&self) -> Result<Admin> {
        Ok(serde_json::from_slice(&fs::read(self.server_folder().join("admin.json"))?)?)
    }

    pub fn server_folder(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// Cluster `default` as its owner.
    pub fn target(&self) -> Result<Target> {
        let admin = self.admin()?;
        let path = admin.cluster_url.find("/clusters/").map(|at| &admin.cluster_url[at..]);
        Target::new(self.listen, path.ok_or("admin.json names no cluster")?, &admin.token)
    }

    /// The server, and the Postgres it has started.
    pub fn processes(&self) -> Groups {
        let server = self.server.id();
        let postgres = children(server).into_iter().filter(|pid| name(*pid).starts_with("postgres")).collect();
        Groups(vec![("server".into(), vec![server]), ("postgres".into(), postgres)])
    }

    /// `nodes` hollow nodes in one process, of cluster `default`.
    pub fn hollow_agent(&self, nodes: usize) -> Result<Agent> {
        self.agent(nodes, "--token-file", &self.server_folder().join("join-token"))
    }

    /// The same, each of the cluster of its own token: `hollow-0`… in `tokens`.
    pub fn hollow_agent_of_many(&self, tokens: &Path, nodes: usize) -> Result<Agent> {
        self.agent(nodes, "--tokens", tokens)
    }

    fn agent(&self, nodes: usize, how: &str, token: &Path) -> Result<Agent> {
        let folder = self.folder.path().join("agent");
        let log = File::create(self.folder.path().join("agent.log"))?;
        let child = beside("longshore-agent")?
            .args(["run", "--runtime", "hollow", "--name", "hollow", "--nodes", &nodes.to_string()])
            .args(["--server", &format!("https://{}", self.listen)])
            .arg(how)
            .arg(token)
            .arg("--data-dir")
            .arg(folder)
            .env("LONGSHORE_LOG", "warn")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Agent(child))
    }

    pub fn stop(mut self) {
        end(&mut self.server);
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // After `stop` this finds it gone.
        end(&mut self.server);
    }
}

async fn launch(folder: &Path, listen: SocketAddr) -> Result<(Child, Duration)> {
    let log = File::options().create(true).append(true).open(folder.join("server.log"))?;
    let begun = Instant::now();
    let mut child = beside("longshore-server")?
        .args(["dev", "--listen", &listen.to_string(), "--data-dir"])
        .arg(folder.join("server"))
        .env("LONGSHORE_LOG", "warn")
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let pid = child.id().to_string();
    loop {
        // A file that an earlier run left names another process.
        if fs::read_to_string(folder.join("server/ready")).is_ok_and(|text| text.trim() == pid) {
            return Ok((child, begun.elapsed()));
        }
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
            return Err(format!("the server ended: {status}\n{log}").into());
        }
        if begun.elapsed() > PATIENCE {
            end(&mut child);
            return Err(format!("the server was not ready within {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A running agent; ended when it is dropped.
pub struct Agent(Child);

impl Agent {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}
