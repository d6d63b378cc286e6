//! Puts a set of files into a folder so that a reader sees all of the old set or all of the new one.
//!
//! As Kubernetes does it, and programs rely on the shape: the files lie in a folder named after the time, `..data` is a
//! link to it that is replaced by renaming, and what users see are links through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
}

/// Relative path to file.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings `dir` to `payload`; false when it was so already. `group`: the owner group of everything (`fsGroup`), which may
/// read all of it.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    let mode = |file: &File| (file.mode & 0o7777) | if group.is_some() { 0o440 } else { 0 };
    if old.is_some() && is_same(&data, payload, &mode) {
        return Ok(false);
    }
    let stamp = (0..100)
        .map(|n| format!("..{}.{n}", jiff::Zoned::now().strftime("%Y_%m_%d_%H_%M_%S.%N")))
        .find(|name| !dir.join(name).exists())
        .ok_or_else(|| io::Error::other("no free folder name"))?;
    let fresh = dir.join(&stamp);
    fs::DirBuilder::new().mode(0o755).create(&fresh)?;
    for (path, file) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        out.write_all(&file.content)?;
        // Set explicitly: the process's umask has no say here.
        out.set_permissions(fs::Permissions::from_mode(mode(file)))?;
        if let Some(group) = group {
            chown(&target, None, Some(group))?;
        }
    }
    let _ = fs::remove_file(dir.join(DATA_NEW));
    symlink(&stamp, dir.join(DATA_NEW))?;
    fs::rename(dir.join(DATA_NEW), &data)?;

    let wanted: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("..") {
            if name != DATA && name != stamp.as_str() && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        } else if !wanted.contains(&*name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(true)
}

/// No absolute paths, no way out, no name that could be taken for ours.
fn check(path: &str) -> io::Result<()> {
    let normal = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !normal || path.starts_with("..") || path.len() > 4096 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path in a volume: {path:?}")));
    }
    Ok(())
}

fn is_same(data: &Path, payload: &Payload, mode: &dyn Fn(&File) -> u32) -> bool {
    fn count(dir: &Path) -> usize {
        let Ok(entries) = fs::read_dir(dir) else { return 0 };
        entries.flatten().map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
    }
    payload.iter().all(|(path, file)| {
        let path = data.join(path);
        fs::read(&path).is_ok_and(|content| content == file.content)
            && fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o7777 == mode(file))
    }) && count(data) == payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(p, c)| ((*p).to_owned(), File { content: c.as_bytes().to_vec(), mode: 0o644 })).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| !n.starts_with("..2"));
        names.sort();
        names
    }

    #[test]
    fn files_appear_change_and_vanish_through_one_link() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(names(dir), ["..data", "a", "sub"]);
        let first = fs::read_link(dir.join("..data")).unwrap();

        assert!(!write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap(), "the same is no change");
        assert_eq!(fs::read_link(dir.join("..data")).unwrap(), first);

        assert!(write(dir, &payload(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert_eq!(names(dir), ["..data", "a", "c"]);
        assert!(!dir.join(first).exists(), "the old set is gone");
        assert!(write(dir, &payload(&[]), None).unwrap());
        assert_eq!(names(dir), ["..data"]);
    }

    #[test]
    fn a_group_may_read_what_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let group = nix::unistd::getgid().as_raw();
        let secret = Payload::from([("key".to_owned(), File { content: b"s".to_vec(), mode: 0o400 })]);
        assert!(write(dir.path(), &secret, Some(group)).unwrap());
        assert_eq!(fs::metadata(dir.path().join("key")).unwrap().permissions().mode() & 0o7777, 0o440);
        assert!(!write(dir.path(), &secret, Some(group)).unwrap());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data", "", "..2024/x"] {
            assert!(write(dir.path(), &payload(&[(path, "x")]), None).is_err(), "{path}");
        }
    }
}
