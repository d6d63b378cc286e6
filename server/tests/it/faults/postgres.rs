//! A Postgres of the test's own, to be filled, starved and replaced.

use super::wire::Target;
use longshore_server::process::postgres::Postgres;
use longshore_server::process::serving::migrate;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Private {
    postgres: Postgres,
    dir: tempfile::TempDir,
    /// A file system of its own.
    mounted: bool,
}

#[track_caller]
fn done(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

impl Private {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), false).await
    }

    /// On a file system of so many megabytes. Mounting it needs root.
    pub async fn start_on(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let options = format!("size={megabytes}m,mode=755");
        done("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", text(dir.path())]);
        Self::start_in(dir, true).await
    }

    async fn start_in(dir: tempfile::TempDir, mounted: bool) -> Self {
        let postgres = Postgres::start(dir.path()).await.expect("Postgres starts");
        migrate(&postgres.options()).await.expect("the migrations apply");
        Self { postgres, dir, mounted }
    }

    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().username("longshore").database("longshore")
    }

    pub fn target(&self) -> Target {
        let folder = self.postgres.options().get_socket().expect("it is reached by a socket").clone();
        Target::Socket(folder.join(".s.PGSQL.5432"))
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    /// Takes nearly all that is left of the file system.
    pub fn fill(&self) {
        let free = nix::sys::statvfs::statvfs(self.dir.path()).expect("the file system answers");
        let bytes = free.blocks_available() * free.fragment_size();
        let file = fs::File::create(self.filler()).expect("a file");
        nix::fcntl::fallocate(
            &file,
            nix::fcntl::FallocateFlags::empty(),
            0,
            i64::try_from(bytes).expect("few bytes") - (2 << 20),
        )
        .expect("there was room");
    }

    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it was made");
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("postgres/data")
    }

    fn copy(&self) -> PathBuf {
        self.dir.path().join("copy")
    }

    /// Stops, leaves a copy of everything, and goes on.
    pub async fn copied(self) -> Self {
        let (data, copy) = (self.data(), self.copy());
        self.postgres.stop().await;
        done("cp", &["-a", text(&data), text(&copy)]);
        Self::start_in(self.dir, self.mounted).await
    }

    /// Goes on from the copy; what came since is gone.
    pub async fn replaced_by_copy(self) -> Self {
        let (data, copy) = (self.data(), self.copy());
        self.postgres.stop().await;
        fs::remove_dir_all(&data).expect("the old one goes");
        fs::rename(&copy, &data).expect("the copy takes its place");
        Self::start_in(self.dir, self.mounted).await
    }

    pub async fn stop(self) {
        self.postgres.stop().await;
        if self.mounted {
            done("umount", &["-l", text(self.dir.path())]);
        }
    }
}

/// Someone who takes every connection that becomes free.
pub struct Greedy {
    stop: watch::Sender<bool>,
    taking: JoinHandle<()>,
}

/// Returns once none is left.
pub async fn exhausted(postgres: &Private) -> Greedy {
    let options = postgres.postgres.options();
    let (stop, mut stopping) = watch::channel(false);
    let (full, mut filled) = watch::channel(false);
    let taking = tokio::spawn(async move {
        let mut held = Vec::new();
        while !*stopping.borrow() {
            match PgConnection::connect_with(&options).await {
                Ok(connection) => held.push(connection),
                Err(_) => {
                    full.send_replace(true);
                    let pause = std::time::Duration::from_millis(1);
                    let _ = tokio::time::timeout(pause, stopping.wait_for(|stop| *stop)).await;
                }
            }
        }
        for connection in held {
            let _ = connection.close().await;
        }
    });
    filled.wait_for(|full| *full).await.expect("it goes on");
    Greedy { stop, taking }
}

impl Greedy {
    pub async fn end(self) {
        self.stop.send_replace(true);
        self.taking.await.expect("it ends");
    }
}
