//! The outer ring: real server, agent, Postgres, Docker, kubectl and browser, driven as a user would.
//!
//! Each test starts its own installation in a folder of its own and ends what it started. Outside processes are waited
//! for by condition ([`eventually`]), never by time.

pub mod browser;
pub mod curl;
pub mod docker;
pub mod forward;
pub mod http_proxy;
pub mod installation;
pub mod internet;
pub mod kubectl;
pub mod linearizable;
pub mod machine;
pub mod pebble;
pub mod replica;
pub mod sample;
mod wire;
pub mod writers;

pub use browser::Browser;
pub use curl::Curl;
pub use docker::Docker;
pub use forward::Forward;
pub use installation::{Agent, Installation};
pub use kubectl::Kubectl;
pub use machine::Machine;
pub use pebble::Pebble;
pub use replica::Replica;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a web server at a port of this machine says to `GET /`, headers included.
pub fn http_get(port: u16) -> Result<String, String> {
    let asked = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    asked().map_err(|error: std::io::Error| error.to_string())
}

/// Looks until `check` answers something; after `patience` fails with what it was waiting for and what was last seen.
#[track_caller]
pub fn eventually<T>(what: &str, patience: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match check() {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => panic!("not within {patience:?}: {what}; last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A program that was built beside this one.
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a program knows its own path");
    let folder = this.parent().expect("it lies in a folder");
    // Tests lie in a folder below that of programs.
    let folder = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run the tests with `make test` or `make e2e`", path.display());
    path
}

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the checkout").to_path_buf()
}
