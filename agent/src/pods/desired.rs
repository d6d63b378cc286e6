//! The desired state on disk: what the server last wanted, so that a node goes on without it.
//!
//! Files are private (0600), written whole and renamed into place: a machine that loses power has the old or the new.

use k8s_openapi::api::core::v1::Pod;
use serde::{Serialize, de::DeserializeOwned};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `None` when it isn't there or isn't readable; a broken file is as good as none, the server knows better.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    serde_json::from_slice(&bytes)
        .map_err(|e| tracing::warn!(path = %path.display(), error = %e, "a kept file is not readable"))
        .ok()
}

pub fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_data()?;
    fs::rename(temporary, path)
}

/// Off the runtime's own threads, what takes long. `what`: as a log names it.
pub async fn keep(what: &'static str, write: impl FnOnce() -> io::Result<()> + Send + 'static) {
    if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
        tracing::warn!(%error, "{what} could not be kept on disk");
    }
}

pub fn pod_file(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("desired").join("pods").join(format!("{uid}.json"))
}

pub fn pods(data_dir: &Path) -> Vec<Pod> {
    let Ok(entries) = fs::read_dir(data_dir.join("desired").join("pods")) else { return Vec::new() };
    let files = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
    files.filter_map(|path| read(&path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn pods_are_kept_privately_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "uid": "u"}})).unwrap();
        write(&pod_file(dir.path(), "u"), &pod).unwrap();
        fs::write(pod_file(dir.path(), "broken"), "{").unwrap();
        assert_eq!(pods(dir.path()), vec![pod]);
        let mode = fs::metadata(pod_file(dir.path(), "u")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
