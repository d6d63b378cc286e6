//! Who is measured: our server, the peer, the null server. Each is started fresh, and ended by the process ids it has.

mod longshore;
mod null;
mod peer;

pub use longshore::Installation;

use crate::client::Target;
use crate::processes::Groups;
use crate::{Result, Settings};
use std::any::Any;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Longshore,
    Peer,
    Null,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Longshore => "longshore",
            Self::Peer => "peer",
            Self::Null => "null",
        }
    }
}

/// A side that runs; dropping it ends it.
pub struct Side {
    pub kind: Kind,
    pub version: String,
    pub target: Target,
    pub processes: Groups,
    _running: Box<dyn Any + Send>,
}

impl Side {
    pub async fn start(kind: Kind, settings: &Settings) -> Result<Self> {
        Ok(match kind {
            Kind::Longshore => {
                let new = Installation::start(&settings.data).await?;
                let (version, target, processes) = (new.version.clone(), new.target()?, new.processes());
                Self { kind, version, target, processes, _running: Box::new(new) }
            }
            Kind::Peer => {
                let folder = settings.peer_dir.as_ref().ok_or("no PEER_DIR")?;
                let new = peer::Peer::start(folder, &settings.data).await?;
                let (version, target, processes) = (new.version.clone(), new.target.clone(), new.processes.clone());
                Self { kind, version, target, processes, _running: Box::new(new) }
            }
            Kind::Null => {
                let new = null::Null::start()?;
                let (version, target) = ("canned answers over TLS".into(), new.target.clone());
                Self { kind, version, target, processes: new.processes(), _running: Box::new(new) }
            }
        })
    }
}

/// Thousands of connections on both ends need as many open files as the system lets us have.
pub fn more_files() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// A program built beside this one.
fn beside(program: &str) -> Result<Command> {
    let path = std::env::current_exe()?.with_file_name(program);
    if !path.is_file() {
        return Err(format!("{} is not built: make build", path.display()).into());
    }
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    Ok(command)
}

/// SIGTERM and wait; SIGKILL after a minute.
fn end(child: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}
