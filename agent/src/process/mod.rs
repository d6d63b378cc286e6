//! The program: its commands, and what a process has that a node doesn't (arguments, signals, a lock on its folder).

mod folder;
pub mod leave;
pub mod member;
pub mod run;

pub use leave::Leave;
pub use run::Run;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Where an agent keeps its state unless told otherwise.
const DATA_DIR: &str = "/var/lib/longshore/agent";

/// The kubelet's part on one machine: joins a cluster and runs its pods as Docker containers.
#[derive(Parser, Debug)]
#[command(name = "longshore-agent", version, about)]
pub struct Command {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Subcommand, Debug)]
pub enum Action {
    /// Join the cluster of the token (the first time) and run its pods until SIGTERM; containers go on after that.
    Run(Run),
    /// Drain this node, take its containers and networks away, give up its name and forget its identity.
    Leave(Leave),
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} is in use by another agent")]
    InUse(PathBuf),
    #[error("{0} holds no node")]
    NoNode(PathBuf),
    #[error(transparent)]
    Identity(#[from] crate::connection::identity::IdentityError),
    #[error(transparent)]
    Dial(#[from] crate::connection::dial::DialError),
    #[error("{0:?} is no node name: {1}")]
    Name(String, String),
    #[error("{0:?} is no label: {1}")]
    Label(String, String),
    #[error("a node that has not joined needs --token-file")]
    NoToken,
    #[error(transparent)]
    Runtime(#[from] crate::runtime::RuntimeError),
    #[error(transparent)]
    Network(#[from] crate::network::Error),
    #[error(transparent)]
    Exchange(#[from] crate::connection::exchange::ExchangeError),
}

impl Command {
    pub async fn execute(self) -> Result<(), ProcessError> {
        match self.action {
            Action::Run(run) => run.execute().await,
            Action::Leave(leave) => leave.execute().await,
        }
    }
}

/// Waits for SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
