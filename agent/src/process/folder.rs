//! The agent's data folder: private, used by one agent at a time, and knowing how it was run.

use super::ProcessError;
use crate::pods::desired;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Held as long as the agent runs; the kernel lets go of it however the agent ends.
pub struct Folder {
    pub path: PathBuf,
    _lock: Flock<File>,
}

/// What `leave` has to know of the last `run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub runtime: RuntimeKind,
    pub docker_host: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeKind {
    #[default]
    Docker,
    /// Pretended containers, for scale tests.
    Hollow,
}

impl Folder {
    /// Makes it where it isn't there.
    pub fn open(path: &Path) -> Result<Self, ProcessError> {
        let failed = |at: &Path| {
            let path = at.to_owned();
            move |source| ProcessError::File { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))?;
        let path = path.canonicalize().map_err(failed(path))?;
        let lock = path.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = file.map_err(failed(&lock))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err(_) => Err(ProcessError::InUse(path)),
        }
    }

    fn settings_file(&self) -> PathBuf {
        self.path.join("settings.json")
    }

    pub fn settings(&self) -> Option<Settings> {
        desired::read(&self.settings_file())
    }

    pub fn keep(&self, settings: &Settings) -> Result<(), ProcessError> {
        let path = self.settings_file();
        desired::write(&path, settings).map_err(|source| ProcessError::File { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/agent");
        let first = Folder::open(&path).unwrap();
        assert!(matches!(Folder::open(&path), Err(ProcessError::InUse(_))));
        let settings = Settings { runtime: RuntimeKind::Docker, docker_host: "unix:///d".into() };
        first.keep(&settings).unwrap();
        drop(first);
        assert_eq!(Folder::open(&path).unwrap().settings(), Some(settings));
    }
}
