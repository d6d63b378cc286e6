//! A part of a volume, mounted where the runtime finds it.
//!
//! Containers write into volumes, links too, and may change them between a look and a mount. So a path is resolved by
//! the kernel below the volume's root and nowhere else, and what was resolved is held open and mounted from there: the
//! runtime gets a path of ours that nobody in a container can change.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{Mode, mkdirat};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Mounts `sub` of the volume at `root` to `at`, made as a folder where it isn't there. Done again it mounts anew.
pub fn bind(root: &Path, sub: &str, at: &Path) -> Result<(), String> {
    let found = open(root, sub)?;
    let held = path_of(&found);
    mount(&held, at).map_err(|e| format!("\"{sub}\": {e}"))
}

fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn mount(held: &Path, at: &Path) -> io::Result<()> {
    // Of the last attempt; its container, if it still runs, keeps its own view.
    match nix::mount::umount2(at, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let parent = at.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let is_dir = fs::metadata(held)?.is_dir();
    if at.is_dir() != is_dir {
        let _ = fs::remove_dir(at);
        let _ = fs::remove_file(at);
    }
    match is_dir {
        true => fs::create_dir_all(at)?,
        false => drop(fs::OpenOptions::new().create(true).append(true).open(at)?),
    }
    nix::mount::mount(Some(held), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Holds what `sub` names below `root`. Links may lead elsewhere in the volume, never out of it.
fn open(root: &Path, sub: &str) -> Result<OwnedFd, String> {
    let parts: Vec<&str> = sub.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if sub.starts_with('/') || parts.contains(&"..") {
        return Err(format!("subPath \"{sub}\" must be a relative path without '..'"));
    }
    let failed = |e: Errno| match e {
        Errno::EXDEV | Errno::ELOOP => format!("subPath \"{sub}\" leads out of its volume"),
        other => format!("subPath \"{sub}\": {other}"),
    };
    let text = |e: io::Error| format!("subPath \"{sub}\": {e}");
    let top = fs::File::open(root).map_err(text)?;
    let mode = top.metadata().map_err(text)?.permissions();
    let beneath = |path: &str| {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&top, if path.is_empty() { "." } else { path }, how)
    };
    match beneath(&parts.join("/")) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(failed),
    }
    for depth in 1..=parts.len() {
        if !matches!(beneath(&parts[..depth].join("/")), Err(Errno::ENOENT)) {
            continue;
        }
        let parent = beneath(&parts[..depth - 1].join("/")).map_err(failed)?;
        match mkdirat(parent.as_fd(), parts[depth - 1], Mode::from_bits_truncate(0o700)) {
            Ok(()) => {
                let made = beneath(&parts[..depth].join("/")).map_err(failed)?;
                // As the volume itself; explicitly, since the umask has no say here.
                fs::set_permissions(path_of(&made), fs::Permissions::from_mode(mode.mode() & 0o7777)).map_err(text)?;
            }
            // A link that leads nowhere, or somebody was quicker.
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    beneath(&parts.join("/")).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn sub_paths_stay_inside_their_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("volume");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o2777)).unwrap();
        symlink("/etc", root.join("out")).unwrap();
        symlink("../..", root.join("up")).unwrap();
        symlink("a", root.join("inside")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        let real = |sub: &str| fs::read_link(path_of(&open(&root, sub).unwrap())).unwrap();
        assert_eq!(real("a/b"), root.join("a/b"));
        assert_eq!(real("inside/b"), root.join("a/b"));
        assert_eq!(real("./a//b/"), root.join("a/b"));
        assert_eq!(fs::metadata(root.join("a/b")).unwrap().permissions().mode() & 0o7777, 0o2777);
        for sub in ["../x", "/etc", "out", "out/passwd", "up", "up/x", "a/../../x", "out/made", "dangling"] {
            assert!(open(&root, sub).is_err(), "{sub}");
        }
        assert!(!Path::new("/etc/made").exists());
    }
}
