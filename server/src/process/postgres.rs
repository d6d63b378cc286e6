//! A private Postgres for `dev`: made from the installed binaries, reached only through a socket in a private folder.
//!
//! It must come back from anything: a server that was killed leaves its Postgres running (stopped first at the next
//! start, so that we are its parent again), a Postgres that was killed is started again while the server runs. Postgres
//! refuses to run as root, so root hands it to the user `postgres`, with the one capability that lets it pass through
//! folders which only root may enter.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};
use sqlx::postgres::PgConnectOptions;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

/// Debian's oldest Postgres that we support.
const OLDEST: u32 = 15;
/// The longest path that a Unix socket's address holds is 107 bytes; Postgres adds `/.s.PGSQL.5432.lock`.
const LONGEST_SOCKET_FOLDER: usize = 107 - 20;
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "shared_buffers=32MB",
    "max_connections=60",
    "max_wal_size=1GB",
    "wal_compression=on",
    "autovacuum_naptime=20s",
    "log_min_messages=warning",
    "logging_collector=off",
];

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "no Postgres {OLDEST} or newer found: install it (Debian, Ubuntu: apt-get install postgresql) or give --database-url"
    )]
    NotInstalled,
    #[error("Postgres can't run as root, and there is no user `postgres` to run it as")]
    NoUser,
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{program} failed: {output}")]
    Failed { program: &'static str, output: String },
    #[error("Postgres did not come up within {0:?}; see {1}")]
    TooSlow(Duration, PathBuf),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
    move |source| PostgresError::Io { what: what.into(), source }
}

/// A running private Postgres. Dropping it leaves the process; [`Postgres::stop`] ends it.
pub struct Postgres {
    socket: PathBuf,
    stop: watch::Sender<bool>,
    stopped: oneshot::Receiver<()>,
}

#[derive(Clone)]
struct Home {
    bin: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    owner: Option<User>,
}

impl Postgres {
    /// Makes the database in `dir` at first, starts it, and keeps it running until `stop`.
    pub async fn start(dir: &Path) -> Result<Self, PostgresError> {
        let home = Home::prepare(dir)?;
        home.initialize().await?;
        home.stop_left_behind().await?;
        let child = home.launch().await?;
        let (stop, stopping) = watch::channel(false);
        let (ended, stopped) = oneshot::channel();
        let socket = home.socket.clone();
        tokio::spawn(async move {
            home.supervise(child, stopping).await;
            let _ = ended.send(());
        });
        Ok(Self { socket, stop, stopped })
    }

    /// How to reach it.
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().socket(&self.socket).username("longshore").database("longshore")
    }

    /// A clean stop: sessions are ended, everything is on disk when this returns.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.stopped.await;
    }
}

impl Home {
    fn prepare(dir: &Path) -> Result<Self, PostgresError> {
        let bin = find_binaries().ok_or(PostgresError::NotInstalled)?;
        let owner = match nix::unistd::geteuid().is_root() {
            true => Some(User::from_name("postgres").ok().flatten().ok_or(PostgresError::NoUser)?),
            false => None,
        };
        let root = dir.join("postgres");
        let short = root.as_os_str().len() <= LONGEST_SOCKET_FOLDER;
        let socket = if short { root.clone() } else { short_socket_folder(&root) };
        for folder in [&root, &socket] {
            private_folder(folder, owner.as_ref())?;
        }
        Ok(Self { bin, data: root.join("data"), socket, log: root.join("log"), owner })
    }

    /// `program` with `arguments`, as the user that Postgres runs as.
    fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        let Some(owner) = &self.owner else { return Command::new(path) };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", owner.uid))
            .arg(format!("--regid={}", owner.gid))
            .args(["--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"])
            .arg(path);
        command
    }

    async fn initialize(&self) -> Result<(), PostgresError> {
        if self.data.join("PG_VERSION").exists() && self.data.join("longshore-initialized").exists() {
            return Ok(());
        }
        // What an interrupted first start left is no database yet.
        if self.data.exists() {
            fs::remove_dir_all(&self.data).map_err(io_error(format!("removing {}", self.data.display())))?;
        }
        let mut initdb = self.command("initdb");
        initdb
            .arg("-D")
            .arg(&self.data)
            .args(["--username=longshore", "--auth=trust", "--encoding=UTF8", "--locale=C", "--data-checksums", "-N"])
            .current_dir("/");
        run("initdb", initdb).await?;
        let mut single = self.command("postgres");
        single.args(["--single", "-D"]).arg(&self.data).arg("postgres").current_dir("/");
        let sql = "CREATE DATABASE longshore";
        run_with_input("postgres --single", single, sql).await?;
        fs::write(self.data.join("longshore-initialized"), "").map_err(io_error("marking the database as made"))
    }

    fn left_behind(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        // A process id may have been given to someone else since: only one that runs on this very folder is ours.
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = self.data.as_os_str().as_encoded_bytes();
        line.split(|b| *b == 0).any(|argument| argument == ours).then(|| Pid::from_raw(pid))
    }

    async fn stop_left_behind(&self) -> Result<(), PostgresError> {
        let Some(pid) = self.left_behind() else { return Ok(()) };
        info!(%pid, "stopping the Postgres that an earlier server left");
        stop_process(pid, Duration::from_secs(30)).await;
        Ok(())
    }

    async fn launch(&self) -> Result<Child, PostgresError> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(io_error(format!("opening {}", self.log.display())))?;
        let again = log.try_clone().map_err(io_error("opening the log twice"))?;
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(&self.data).arg("-k").arg(&self.socket);
        for setting in SETTINGS {
            postgres.args(["-c", setting]);
        }
        // Its own process group: a Ctrl-C in the terminal reaches only us, and we stop it in our order.
        postgres.stdin(Stdio::null()).stdout(log).stderr(again).process_group(0).current_dir("/");
        let child = postgres.spawn().map_err(io_error("starting postgres"))?;
        self.wait_until_ready(child).await
    }

    async fn wait_until_ready(&self, mut child: Child) -> Result<Child, PostgresError> {
        // Long, since after a crash it replays its log first.
        let patience = Duration::from_secs(120);
        let options =
            PgConnectOptions::new_without_pgpass().socket(&self.socket).username("longshore").database("longshore");
        let ready = async {
            loop {
                if let Ok(Some(status)) = child.try_wait() {
                    let output = format!("{status}; see {}", self.log.display());
                    return Err(PostgresError::Failed { program: "postgres", output });
                }
                if let Ok(connection) = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await {
                    let _ = sqlx::Connection::close(connection).await;
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(patience, ready).await {
            Ok(result) => result.map(|()| child),
            Err(_) => Err(PostgresError::TooSlow(patience, self.log.clone())),
        }
    }

    async fn supervise(&self, mut child: Child, mut stopping: watch::Receiver<bool>) {
        let mut pause = Duration::from_millis(100);
        loop {
            tokio::select! {
                () = turned_true(&mut stopping) => {
                    if let Some(pid) = child.id() {
                        stop_process(Pid::from_raw(pid as i32), Duration::from_secs(60)).await;
                    }
                    let _ = child.wait().await;
                    return;
                }
                status = child.wait() => warn!(?status, "Postgres ended; starting it again"),
            }
            child = loop {
                // Its children outlive a killed postmaster for a moment, and a new one refuses to start before they end.
                tokio::time::sleep(pause).await;
                match self.launch().await {
                    Ok(child) => break child,
                    Err(error) => error!(%error, "Postgres does not start"),
                }
                pause = (pause * 2).min(Duration::from_secs(5));
                if *stopping.borrow() {
                    return;
                }
            };
            pause = Duration::from_millis(100);
        }
    }
}

async fn turned_true(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|stop| *stop).await;
}

/// A fast shutdown (SIGINT), or an immediate one when that takes too long. Returns when the process is gone.
async fn stop_process(pid: Pid, patience: Duration) {
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
        if kill(pid, signal).is_err() {
            return;
        }
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            // A zombie of ours is gone too: its parent task reaps it.
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn run(program: &'static str, command: Command) -> Result<(), PostgresError> {
    run_with_input(program, command, "").await
}

async fn run_with_input(program: &'static str, mut command: Command, input: &str) -> Result<(), PostgresError> {
    use tokio::io::AsyncWriteExt;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_error(format!("starting {program}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(io_error(format!("writing to {program}")))?;
    }
    let output = child.wait_with_output().await.map_err(io_error(format!("waiting for {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(PostgresError::Failed { program, output: text })
}

fn private_folder(folder: &Path, owner: Option<&User>) -> Result<(), PostgresError> {
    let what = || format!("making {}", folder.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error(what()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(io_error(what()))?;
    if let Some(owner) = owner {
        chown(folder, Some(owner.uid), Some(owner.gid)).map_err(io::Error::from).map_err(io_error(what()))?;
    }
    Ok(())
}

/// For a data folder with a long path: a folder of its own for the socket, named by a hash of the path.
fn short_socket_folder(root: &Path) -> PathBuf {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("longshore-{}", hex::encode(&hash[..8])))
}

/// The newest Postgres that is installed: `pg_config`'s, or one of Debian's versions side by side.
fn find_binaries() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|e| e.path().join("bin")).collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.extend(
        ["/usr/pgsql-18/bin", "/usr/pgsql-17/bin", "/usr/pgsql-16/bin", "/usr/local/pgsql/bin"].map(PathBuf::from),
    );
    for folder in folders {
        if !folder.join("initdb").is_file() {
            continue;
        }
        let Ok(output) = std::process::Command::new(folder.join("postgres")).arg("--version").output() else {
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout).to_string();
        let major = text.split_whitespace().nth(2).and_then(|v| v.split('.').next()).and_then(|v| v.parse().ok());
        found.extend(major.filter(|m| *m >= OLDEST).map(|m| (m, folder)));
    }
    found.into_iter().max_by_key(|(major, _)| *major).map(|(_, folder)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Connection, Executor, PgConnection};

    async fn connect(options: &PgConnectOptions) -> PgConnection {
        for _ in 0..500 {
            if let Ok(connection) = PgConnection::connect_with(options).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("Postgres did not come back within 10 s");
    }

    #[tokio::test]
    async fn comes_back_when_it_is_killed_and_keeps_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(dir.path()).await.unwrap();
        let options = postgres.options();
        let mut connection = connect(&options).await;
        connection.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").await.unwrap();

        let pid = fs::read_to_string(dir.path().join("postgres/data/postmaster.pid")).unwrap();
        kill(Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()), Signal::SIGKILL).unwrap();
        while connection.ping().await.is_ok() {
            tokio::task::yield_now().await;
        }
        let mut connection = connect(&options).await;
        let (n,): (i32,) = sqlx::query_as("SELECT n FROM t").fetch_one(&mut connection).await.unwrap();
        assert_eq!(n, 7);

        // A server that is killed leaves its Postgres: the next start takes the folder over.
        std::mem::forget(postgres);
        let again = Postgres::start(dir.path()).await.unwrap();
        let mut connection = connect(&again.options()).await;
        let (n,): (i32,) = sqlx::query_as("SELECT n FROM t").fetch_one(&mut connection).await.unwrap();
        assert_eq!(n, 7);
        again.stop().await;
        assert!(!dir.path().join("postgres/data/postmaster.pid").exists());
    }
}
