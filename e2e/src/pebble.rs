//! A real authority: Debian's `pebble`, which asks for proofs as Let's Encrypt does.

use crate::eventually;
use crate::installation::free_port;
use serde_json::json;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// pebble and its name server, ended with this.
pub struct Pebble {
    /// The address of its directory.
    pub directory: String,
    /// Where its name server answers, and where it is told what.
    pub dns: String,
    names: String,
    folder: tempfile::TempDir,
    programs: Vec<Child>,
}

impl Pebble {
    /// Looks for what proves a host at these ports of `address`, whatever the host.
    pub fn start(address: &str, http: u16, https: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("longshore-pebble-").tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).expect("a certificate");
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("cert.pem"), made.cert.pem()).expect("a file");
        fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        let [port, management, dns, names] = [(); 4].map(|()| free_port("127.0.0.1"));
        let at = |port: u16| format!("127.0.0.1:{port}");
        let config = json!({"listenAddress": at(port), "managementListenAddress": at(management), "ocspResponderURL": "",
            "certificate": path("cert.pem"), "privateKey": path("key.pem"), "httpPort": http, "tlsPort": https});
        fs::write(path("pebble.json"), json!({"pebble": config}).to_string()).expect("a file");
        let mut servers = Command::new("pebble-challtestsrv");
        for unused in ["-http01", "-https01", "-tlsalpn01", "-defaultIPv6"] {
            servers.args([unused, ""]);
        }
        servers.args(["-defaultIPv4", address, "-dns01", &at(dns), "-management", &at(names)]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-config", &path("pebble.json"), "-dnsserver", &at(dns)]).env("PEBBLE_VA_NOSLEEP", "1");
        // By itself it refuses one nonce in twenty at random, and three in a row end an order: seldom, but a test that fails.
        pebble.env("PEBBLE_WFE_NONCEREJECT", "0");
        let started = [servers, pebble].map(|mut program| {
            let missing = "the packages that `scripts/setup test` installs are needed: pebble";
            program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect(missing)
        });
        let directory = format!("https://localhost:{port}/dir");
        let new = Self { directory, dns: at(dns), names: at(names), folder, programs: started.into() };
        eventually("pebble listens", Duration::from_secs(30), || {
            [port, names].iter().try_for_each(|port| TcpStream::connect(at(*port)).map(drop)).map_err(|e| e.to_string())
        });
        new
    }

    /// Makes a TXT record.
    pub fn text(&self, record: &str, value: &str) {
        let body = json!({"host": format!("{record}."), "value": value});
        ureq::post(format!("http://{}/set-txt", self.names)).send_json(body).expect("the record is made");
    }

    /// What vouches for it, in PEM.
    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
