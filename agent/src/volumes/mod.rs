//! Volumes: folders and files on the node that are mounted into a pod's containers.
//!
//! Layout of a pod's folder: `volumes/<name>/` for each volume, `etc/hosts` and `etc/resolv.conf` as all its containers
//! see them, `containers/<name>/<attempt>` for termination messages, `subpaths/<container>/<n>` for parts of volumes.

pub mod content;
mod etc;
mod place;
mod sub_path;
pub mod token;
pub mod writer;

use crate::node::context::Context;
use crate::pods::environment::{self, Facts};
use crate::pods::references::InNamespace;
use crate::pods::spec;
use crate::runtime::Mount;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Pod, Volume};
use longshore_api::quantity::Quantity;
use nix::mount::{MntFlags, MsFlags};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

pub use etc::{hostname, hosts, resolv_conf};

/// Brings all of a pod's volumes to what is wanted now; called before its first container and whenever something they
/// are made of has changed. `Err`: the message of a `FailedMount`. `Ok`: when to call again (tokens).
pub async fn sync(context: &Context, pod: &Pod, facts: &Facts, now: Timestamp) -> Result<Option<Timestamp>, String> {
    let (tokens, next) = token::fetch(context, pod, now).await?;
    let place = context.runtime.mounts().await;
    place::within(place.as_deref(), || bring(context, pod, facts, &tokens)).map_err(|e| e.to_string())??;
    Ok(next)
}

fn bring(context: &Context, pod: &Pod, facts: &Facts, tokens: &content::Tokens) -> Result<(), String> {
    let dir = context.pod_dir(spec::uid(pod));
    make_dir(&dir, 0o750).map_err(|e| e.to_string())?;
    let group = fs_group(pod);
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let failed =
            |e: &dyn std::fmt::Display| format!("MountVolume.SetUp failed for volume \"{}\" : {e}", volume.name);
        let at = dir.join("volumes").join(&volume.name);
        let lookup = InNamespace { references: &context.references, namespace: spec::namespace(pod) };
        match content::payload(pod, volume, facts, &lookup, tokens) {
            Some(payload) => {
                let payload = payload.map_err(|e| failed(&e))?;
                make_dir(&at, 0o755).and_then(|()| writer::write(&at, &payload, group)).map_err(|e| failed(&e))?;
            }
            None => prepare(volume, &at, group).map_err(|e| failed(&e))?,
        }
    }
    Ok(())
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|g| u32::try_from(g).ok())
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Volumes that aren't made of objects.
fn prepare(volume: &Volume, at: &Path, group: Option<u32>) -> Result<(), String> {
    if let Some(source) = &volume.empty_dir {
        if at.is_dir() {
            return Ok(());
        }
        let text = |e: io::Error| e.to_string();
        make_dir(at, 0o777).map_err(text)?;
        if source.medium.as_deref() == Some("Memory") {
            let limit = source
                .size_limit
                .as_ref()
                .and_then(|q| Quantity::parse(&q.0).ok())
                .map(|q| q.value())
                .filter(|&v| v > 0);
            let options = limit.map_or_else(|| "mode=0777".to_owned(), |l| format!("mode=0777,size={l}"));
            nix::mount::mount(
                Some("tmpfs"),
                at,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                Some(options.as_str()),
            )
            .map_err(|e| e.to_string())?;
        }
        if let Some(group) = group {
            chown(at, None, Some(group)).map_err(text)?;
            // New files inherit the group.
            fs::set_permissions(at, fs::Permissions::from_mode(0o2777)).map_err(text)?;
        }
        return Ok(());
    }
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    Err("this kind of volume isn't supported on this node".into())
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let found = fs::metadata(path).ok();
    let kind = source.type_.as_deref().unwrap_or_default();
    let fits = match (kind, &found) {
        ("", _) => {
            // Docker refuses to mount what isn't there, where containerd makes a folder.
            return if found.is_some() { Ok(()) } else { make_dir(path, 0o755).map_err(|e| e.to_string()) };
        }
        ("DirectoryOrCreate", None) => return make_dir(path, 0o755).map_err(|e| e.to_string()),
        ("FileOrCreate", None) => {
            return fs::File::create(path)
                .and_then(|f| f.set_permissions(fs::Permissions::from_mode(0o644)))
                .map_err(|e| e.to_string());
        }
        (_, None) => false,
        ("Directory" | "DirectoryOrCreate", Some(m)) => m.is_dir(),
        ("File" | "FileOrCreate", Some(m)) => m.is_file(),
        ("Socket", Some(m)) => m.file_type().is_socket(),
        ("CharDevice", Some(m)) => m.file_type().is_char_device(),
        ("BlockDevice", Some(m)) => m.file_type().is_block_device(),
        _ => false,
    };
    let what = match kind {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        _ => "a block device",
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {} is not {what}", source.path)) }
}

/// What is mounted into one container. `Err`: the message of a `CreateContainerConfigError`.
pub async fn mounts(
    context: &Context,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    env: &environment::Environment,
) -> Result<Vec<Mount>, String> {
    let place = context.runtime.mounts().await;
    place::within(place.as_deref(), || sources(context, pod, container, attempt, env)).map_err(|e| e.to_string())?
}

fn sources(
    context: &Context,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    env: &environment::Environment,
) -> Result<Vec<Mount>, String> {
    let dir = context.pod_dir(spec::uid(pod));
    let mut mounts = Vec::new();
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.iter().find(|v| v.name == mount.name).ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
        })?;
        let root = match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => dir.join("volumes").join(&mount.name),
        };
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => path.clone(),
            (_, Some(expression)) if !expression.is_empty() => environment::expand(expression, &env.values),
            _ => String::new(),
        };
        if mount.recursive_read_only.as_deref() == Some("Enabled") {
            return Err(format!(
                "failed to resolve recursive read-only mode: volume {:?} requested recursive read-only mount, but it is not supported by the runtime",
                mount.name
            ));
        }
        let source = match sub.is_empty() {
            true => root,
            false => {
                let at = dir.join("subpaths").join(&container.name).join(index.to_string());
                sub_path::bind(&root, &sub, &at)
                    .map_err(|e| format!("failed to prepare subPath for volumeMount {:?}: {e}", mount.name))?;
                at
            }
        };
        let read_only = mount.read_only == Some(true) || !(volume.empty_dir.is_some() || volume.host_path.is_some());
        mounts.push(Mount {
            source,
            target: mount.mount_path.clone(),
            read_only,
            propagation: mount.mount_propagation.clone(),
        });
    }
    let taken = |mounts: &[Mount], target: &str| mounts.iter().any(|m| m.target == target);
    for name in ["hosts", "resolv.conf"] {
        let target = format!("/etc/{name}");
        if !taken(&mounts, &target) {
            mounts.push(Mount { source: dir.join("etc").join(name), target, read_only: false, propagation: None });
        }
    }
    let target = termination_path(container);
    if !taken(&mounts, target) {
        let source = termination_file(context, pod, &container.name, attempt);
        make_file(&source, b"", 0o666).map_err(|e| e.to_string())?;
        mounts.push(Mount { source, target: target.to_owned(), read_only: false, propagation: None });
    }
    Ok(mounts)
}

fn termination_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log")
}

pub fn termination_file(context: &Context, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    context.pod_dir(spec::uid(pod)).join("containers").join(container).join(attempt.to_string())
}

/// Written in place, so that a file that is mounted already changes for its readers.
fn make_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Writes `/etc/hosts` and `/etc/resolv.conf`, once the pod's addresses are known; `api` is where the cluster's API is
/// where no name server says it.
pub fn write_etc(context: &Context, pod: &Pod, ips: &[IpAddr], api: Option<IpAddr>) -> io::Result<()> {
    let dir = context.pod_dir(spec::uid(pod)).join("etc");
    let host_file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    make_file(&dir.join("hosts"), hosts(pod, ips, api, &host_file("/etc/hosts")).as_bytes(), 0o644)?;
    let mut host = host_file("/etc/resolv.conf");
    // A resolver on the host's loopback can't be reached from a pod; systemd keeps the real list beside it.
    if host.lines().any(|l| l.trim() == "nameserver 127.0.0.53") {
        let real = host_file("/run/systemd/resolve/resolv.conf");
        if !real.is_empty() {
            host = real;
        }
    }
    let text = resolv_conf(pod, &context.network.dns_servers(spec::host_network(pod)), &host);
    make_file(&dir.join("resolv.conf"), text.as_bytes(), 0o644)
}

/// Unmounts and removes everything of a pod. What lies behind a hostPath stays.
pub async fn teardown(context: &Context, pod: &Pod) -> io::Result<()> {
    token::forget(context, pod);
    let (place, dir) = (context.runtime.mounts().await, context.pod_dir(spec::uid(pod)));
    place::within(place.as_deref(), || remove(&dir))?
}

/// Invariant: nothing is removed while something is mounted below, or it would be what others keep there that goes.
pub fn remove(dir: &Path) -> io::Result<()> {
    let dir = &match dir.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mounted: Vec<PathBuf> = fs::read_to_string("/proc/thread-self/mountinfo")?
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|at| at.starts_with(dir))
        .collect();
    for at in mounted.iter().rev() {
        nix::mount::umount2(at, MntFlags::MNT_DETACH).map_err(io::Error::from)?;
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A path as the kernel writes it into `mountinfo`: blanks and backslashes as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(r"/plain\9"), Path::new(r"/plain\9"));
    }

    #[test]
    fn host_paths_are_checked_for_their_type() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, kind: &str| HostPathVolumeSource {
            path: dir.path().join(name).to_string_lossy().into_owned(),
            type_: Some(kind.into()),
        };
        host_path(&of("made", "DirectoryOrCreate")).unwrap();
        host_path(&of("made", "Directory")).unwrap();
        host_path(&of("file", "FileOrCreate")).unwrap();
        assert!(host_path(&of("made", "File")).unwrap_err().ends_with("is not a file"));
        assert!(host_path(&of("none", "Socket")).unwrap_err().ends_with("is not a socket file"));
    }
}
