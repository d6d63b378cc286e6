//! The process around the rooms: its commands, the port it listens on, the Postgres it may keep, the files `dev` writes.

pub mod dev;
pub mod files;
pub mod listener;
pub mod names;
pub mod postgres;
pub mod serving;

/// As many open files as the system lets us have: every node and client is one, and the usual soft limit is 1,024.
pub fn more_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
