//! Replicas: `longshore-server serve`, several on one Postgres, each with a line to it that can be cut.

use crate::installation::{Installation, free_port};
use crate::{eventually, program};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Where Postgres listens in the folder of its socket.
const SOCKET: &str = ".s.PGSQL.5432";

/// A replica. Dropping it kills it.
pub struct Replica {
    child: Child,
    listen: String,
    line: Arc<Line>,
}

impl Replica {
    /// Starts one on the Postgres of an installation whose own server was killed, and waits until it is ready.
    pub fn start(installation: &Installation, name: &str) -> Self {
        let (server, folder) = (installation.server_folder(), installation.folder().join(name));
        std::fs::create_dir(&folder).expect("a folder");
        let line = Line::lay(&folder, server.join("postgres").join(SOCKET));
        let listen = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let log = File::create(installation.folder().join(format!("{name}.log"))).expect("a log");
        let child = Command::new(program("longshore-server"))
            .args(["serve", "--listen", &listen, "--database-url"])
            .arg(format!("postgres://longshore@localhost/longshore?host={}", folder.display()))
            .arg("--master-key-file")
            .arg(server.join("master-key"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the replica starts");
        let replica = Self { child, listen, line };
        let ready = format!("http://{}/readyz", replica.listen);
        eventually("the replica is ready", Duration::from_secs(60), || {
            ureq::get(&ready)
                .call()
                .map(drop)
                .map_err(|error| format!("{error}\n{}", installation.log_of(&format!("{name}.log"))))
        });
        replica
    }

    /// The same URL at this replica, without TLS.
    pub fn url(&self, url: &str) -> String {
        let path = url.splitn(4, '/').nth(3).expect("a path");
        format!("http://{}/{path}", self.listen)
    }

    /// Between it and Postgres nothing gets through, or everything again: late, but not lost.
    pub fn cut_off(&self, cut: bool) {
        *self.line.cut.lock().expect("no panic") = cut;
        self.line.changed.notify_all();
    }

    /// It stands still, or goes on as if nothing had happened.
    pub fn stand_still(&self, still: bool) {
        let signal = if still { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "the replica is ours");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Whoever waits on the line ends.
        self.cut_off(false);
    }
}

/// Carries bytes from sockets of its own to those of Postgres.
struct Line {
    cut: Mutex<bool>,
    changed: Condvar,
}

impl Line {
    fn lay(folder: &Path, to: PathBuf) -> Arc<Self> {
        let line = Arc::new(Self { cut: Mutex::new(false), changed: Condvar::new() });
        let listener = UnixListener::bind(folder.join(SOCKET)).expect("a socket");
        let laid = line.clone();
        std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                line.wait();
                let Ok(there) = UnixStream::connect(&to) else { continue };
                let ways = (here.try_clone().expect("it can be done"), there.try_clone().expect("it can be done"));
                for (from, to) in [(here, there), (ways.1, ways.0)] {
                    let line = line.clone();
                    std::thread::spawn(move || line.carry(from, to));
                }
            }
        });
        laid
    }

    /// Until it is whole.
    fn wait(&self) {
        let cut = self.cut.lock().expect("no panic");
        drop(self.changed.wait_while(cut, |cut| *cut).expect("no panic"));
    }

    fn carry(&self, mut from: UnixStream, mut to: UnixStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.wait();
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    }
}
