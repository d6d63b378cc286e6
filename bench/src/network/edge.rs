//! Requests to a pod from outside: through the server's edge and the tunnel, through the edge on the pod's own machine, and
//! through nginx there.

use super::answers::PORT;
use super::compared;
use super::stage::{HOST, Node, Stage, needed};
use crate::Result;
use crate::client::{Ask, Target};
use crate::figures::Figures;
use crate::load::pool;
use longshore_e2e::eventually;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where the node's own edge serves TLS.
const NODE_PORT: u16 = 9443;
const CLIENTS: usize = 64;
const REQUESTS: usize = 60_000;
const ROUNDS: usize = 3;

pub fn measure(stage: &Stage, figures: &mut Figures) -> Result<()> {
    needed(&["nginx"])?;
    let nginx = Nginx::start(&stage.nodes[0])?;
    let beside = SocketAddr::new(stage.nodes[0].site.address, NODE_PORT);
    let port = format!("longshore.dev/edge-https-port={NODE_PORT}");
    stage.kubectl.run(&["annotate", "node", "a", "longshore.dev/edge-http-port=0", &port]);
    stage.kubectl.run(&["label", "node", "a", "longshore.dev/edge=true"]);
    let mut figures_of = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (figures, address) in figures_of.iter_mut().zip([stage.edge, beside, nginx.address]) {
            figures.push(requests(&Target::host(address, HOST)?)?);
        }
    }
    let [server, node, nginx] = figures_of.map(super::median);
    let nginx = nginx?;
    compared(figures, "edge", server?, nginx);
    compared(figures, "edge-node", node?, nginx);
    Ok(())
}

/// A second.
fn requests(target: &Target) -> Result<f64> {
    let runtime = tokio::runtime::Handle::current();
    let timed = runtime.block_on(async {
        eventually_serves(target).await?;
        pool::requests(target, CLIENTS, REQUESTS, |_| Ask::get("/")).await
    })?;
    match timed.errors {
        0 => Ok(timed.per_second()),
        errors => Err(format!("{errors} of {REQUESTS} requests failed").into()),
    }
}

async fn eventually_serves(target: &Target) -> Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let asked = async { target.connect().await?.ask(Ask::get("/")).await };
        match asked.await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > Duration::from_secs(30) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// On the machine of the pod, with connections to it kept open.
struct Nginx {
    program: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    fn start(node: &Node) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_string()])?;
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem())?;
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem())?;
        let address = SocketAddr::new(node.site.address, 8443);
        let path = folder.path().display();
        let config = format!(
            "daemon off; pid {path}/pid; error_log {path}/error.log; worker_processes auto; user root;
             events {{ worker_connections 1024; }}
             http {{
               access_log {path}/access.log; keepalive_requests 1000000;
               upstream pod {{ server {}:{PORT}; keepalive 64; keepalive_requests 1000000; }}
               server {{
                 listen {address} ssl; ssl_certificate {path}/cert.pem; ssl_certificate_key {path}/key.pem;
                 location / {{ proxy_pass http://pod; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
               }}
             }}",
            node.ip
        );
        std::fs::write(folder.path().join("nginx.conf"), config)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", node.netns().display())).args(["nginx", "-p"]).arg(folder.path());
        let program = command.args(["-c", "nginx.conf"]).stdin(Stdio::null()).spawn()?;
        let new = Self { program, address, _folder: folder };
        eventually("nginx listens", Duration::from_secs(10), || {
            TcpStream::connect(address).map(drop).map_err(|e| e.to_string())
        });
        Ok(new)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it when it is asked, not when it is killed.
        let _ = Command::new("kill").arg(self.program.id().to_string()).status();
        let _ = self.program.wait();
    }
}
