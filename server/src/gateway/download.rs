//! `/join`, the script to paste, and `/download/…`, the agent that it fetches: of this server's own version, from its own
//! disk.
//!
//! The script is trusted because the line that fetches it pins the server's key; it pins the same key for what it fetches
//! itself. The agent's checksum then only guards against a broken transfer.

use super::http::refusal;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use longshore_api::Status;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::io::ReaderStream;

const SCRIPT: &str = include_str!("join.sh");
const AGENT: &str = "longshore-agent";

/// What a machine that joins is told and given.
pub struct Downloads {
    /// Where machines reach us: `https://host:port`.
    pub base_url: String,
    /// What curl pins: base64 of the SHA-256 of the server's public key info.
    pub pin: String,
    /// The folder with `longshore-agent-{os}-{arch}`; `longshore-agent` there is the one for machines like this.
    pub folder: PathBuf,
}

struct Shelf {
    downloads: Downloads,
    /// Checksums of files as they were.
    sums: Mutex<HashMap<PathBuf, (Shape, String)>>,
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq)]
struct Shape {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Shape {
    fn of(found: &Metadata) -> Self {
        let modified = (found.mtime(), found.mtime_nsec());
        Self { device: found.dev(), inode: found.ino(), len: found.len(), modified }
    }
}

/// `/join` and `/download/longshore-agent-{os}-{arch}`, with `.sha256` beside it. Open to everybody.
pub fn router(downloads: Downloads) -> Router {
    let shelf = Arc::new(Shelf { downloads, sums: Mutex::default() });
    Router::new().route("/join", get(script)).route("/download/{file}", get(download)).with_state(shelf)
}

async fn script(State(shelf): State<Arc<Shelf>>) -> Response {
    let Downloads { base_url, pin, .. } = &shelf.downloads;
    let text = SCRIPT.replace("@SERVER@", &quoted(base_url)).replace("@PIN@", &quoted(pin));
    ([(CONTENT_TYPE, "text/x-shellscript; charset=utf-8"), (CACHE_CONTROL, "no-store")], text).into_response()
}

/// As one word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn download(State(shelf): State<Arc<Shelf>>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let (name, sum_only) = match file.strip_suffix(".sha256") {
        Some(name) => (name.to_string(), true),
        None => (file, false),
    };
    let Some(platform) = Platform::of(&name) else { return refusal(Status::no_such_path()) };
    let opened = tokio::task::spawn_blocking(move || shelf.open(&platform)).await;
    let (file, len, sum) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            let why = format!(
                "this server was built without {name}: put it beside the server, or name its folder by --downloads"
            );
            return refusal(Status::failure(404, "NotFound", why));
        }
        Ok(Err(error)) => return refusal(Status::internal(format!("{name} can't be read: {error}"))),
        Err(error) => return refusal(Status::internal(error)),
    };
    if sum_only {
        let text = format!("{sum}  {name}\n");
        return ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-cache")], text).into_response();
    }
    let tag = format!("\"{sum}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|t| t.trim() == tag)) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    let body = Body::from_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 * 1024));
    let len = len.to_string();
    let content_type = "application/octet-stream".to_string();
    let caching = "no-cache".to_string();
    ([(CONTENT_TYPE, content_type), (CONTENT_LENGTH, len), (ETAG, tag), (CACHE_CONTROL, caching)], body).into_response()
}

/// For which machines an agent is.
#[derive(Debug, PartialEq)]
struct Platform {
    os: String,
    arch: String,
}

impl Platform {
    /// Of a file's name; none for any other name, so that none can lead elsewhere.
    fn of(name: &str) -> Option<Self> {
        let (os, arch) = name.strip_prefix(AGENT)?.strip_prefix('-')?.split_once('-')?;
        let plain =
            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        (plain(os) && plain(arch)).then(|| Self { os: os.into(), arch: arch.into() })
    }

    fn is_ours(&self) -> bool {
        self.os == std::env::consts::OS && self.arch == std::env::consts::ARCH
    }
}

impl Shelf {
    /// The agent for `platform`, at its beginning, with its length and checksum. Reads the whole file when it is new.
    fn open(&self, platform: &Platform) -> io::Result<(File, u64, String)> {
        let folder = &self.downloads.folder;
        let path = folder.join(format!("{AGENT}-{}-{}", platform.os, platform.arch));
        let (path, mut file) = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && platform.is_ours() => {
                let path = folder.join(AGENT);
                let file = File::open(&path)?;
                (path, file)
            }
            opened => (path, opened?),
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let shape = Shape::of(&found);
        let known = self.sums.lock().get(&path).filter(|(known, _)| *known == shape).map(|(_, sum)| sum.clone());
        let sum = match known {
            Some(sum) => sum,
            None => {
                let sum = checksum(&mut file)?;
                self.sums.lock().insert(path, (shape, sum.clone()));
                sum
            }
        };
        Ok((file, found.len(), sum))
    }
}

fn checksum(file: &mut File) -> io::Result<String> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            len => digest.update(&buffer[..len]),
        }
    }
    file.rewind()?;
    Ok(hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn get(router: &Router, path: &str, known: Option<&str>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        if let Some(tag) = known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    fn shelf(folder: &std::path::Path) -> Router {
        let (base_url, pin) = ("https://it's.example:7480".into(), "cGlu".into());
        router(Downloads { base_url, pin, folder: folder.into() })
    }

    #[tokio::test]
    async fn the_agent_comes_with_its_sum_and_is_not_sent_twice() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        std::fs::write(folder.path().join("longshore-agent-linux-riscv64"), &content).unwrap();
        let router = shelf(folder.path());
        let path = "/download/longshore-agent-linux-riscv64";
        let (status, headers, body) = get(&router, path, None).await;
        assert_eq!(
            (status, headers[CONTENT_LENGTH].to_str().unwrap(), body == content),
            (StatusCode::OK, "300000", true)
        );
        let sum = hex::encode(Sha256::digest(&content));
        let (_, _, text) = get(&router, &format!("{path}.sha256"), None).await;
        assert_eq!(String::from_utf8(text).unwrap(), format!("{sum}  longshore-agent-linux-riscv64\n"));
        let tag = headers[ETAG].to_str().unwrap();
        assert_eq!(get(&router, path, Some(tag)).await.0, StatusCode::NOT_MODIFIED);
        std::fs::write(folder.path().join("longshore-agent-linux-riscv64"), b"new").unwrap();
        assert_eq!(get(&router, path, Some(tag)).await.2, b"new");
    }

    #[tokio::test]
    async fn the_program_beside_the_server_is_for_machines_like_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("longshore-agent"), b"ours").unwrap();
        let router = shelf(folder.path());
        let ours = format!("/download/longshore-agent-{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        assert_eq!(get(&router, &ours, None).await.2, b"ours");
        let (status, _, body) = get(&router, "/download/longshore-agent-linux-mips", None).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(String::from_utf8(body).unwrap().contains("built without longshore-agent-linux-mips"));
    }

    #[tokio::test]
    async fn no_other_file_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), b"secret").unwrap();
        std::fs::create_dir(folder.path().join("longshore-agent-linux-dir")).unwrap();
        let router = shelf(folder.path());
        for path in [
            "secret",
            "longshore-agent-linux-dir",
            "longshore-agent-linux-..%2f..%2fsecret",
            "..%2fsecret",
            "longshore-agent-",
        ] {
            assert_eq!(get(&router, &format!("/download/{path}"), None).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn the_script_knows_its_server_and_its_pin() {
        let (status, _, body) = get(&shelf(std::path::Path::new("/nowhere")), "/join", None).await;
        let text = String::from_utf8(body).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(text.starts_with("#!/bin/sh\n"));
        assert!(text.contains(r"'https://it'\''s.example:7480'") && text.contains("'cGlu'"));
        assert!(!text.contains("@SERVER@") && !text.contains("@PIN@"));
    }
}
