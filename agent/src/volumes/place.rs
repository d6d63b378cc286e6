//! Where volumes are mounted: among the mounts that the container runtime sees.
//!
//! An agent in a container of its own has other mounts than the host, and what it mounts there no daemon would find; a
//! `hostPath` is a path of the host in any case. So all work on volumes is done from inside the runtime's mount
//! namespace, by a thread that belongs to it from then on and ends with its work.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Does `work` in the mount namespace at `place` (a path below /proc), or right here where there is no other. Paths in it
/// must be absolute.
pub fn within<T: Send>(place: Option<&Path>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(other) = place.and_then(another) else { return Ok(work()) };
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            // A thread that shares its root and folder with others may not move.
            unshare(CloneFlags::CLONE_FS)?;
            setns(other, CloneFlags::CLONE_NEWNS)?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("the work on volumes was given up")))
    })
}

/// The namespace, if it may be looked at and is not this process's own.
fn another(place: &Path) -> Option<File> {
    let found = File::open(place).ok()?;
    let own = fs::metadata("/proc/thread-self/ns/mnt").ok()?;
    (found.metadata().ok()?.ino() != own.ino()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn work_is_done_here_or_there() {
        let here = fs::read_link("/proc/self/ns/mnt").unwrap();
        let look = || fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        assert_eq!(within(None, look).unwrap(), here);
        assert_eq!(within(Some(Path::new("/proc/self/ns/mnt")), look).unwrap(), here);
        assert_eq!(within(Some(Path::new("/proc/none")), look).unwrap(), here);
        // Needs root, as the agent does.
        let mut other =
            Command::new("unshare").args(["-m", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let place = format!("/proc/{}/ns/mnt", other.id());
        while fs::read_link(&place).unwrap() == here {
            std::thread::yield_now();
        }
        let there = fs::read_link(&place).unwrap();
        assert_eq!(within(Some(Path::new(&place)), look).unwrap(), there);
        assert_eq!(look(), here, "only its own thread has moved");
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}
