//! TCP and round trips from pod to pod: directly, over the server, and what the same wire gives wireguard-go and nobody.

use super::stage::{Node, Stage, needed};
use super::{compared, median};
use crate::Result;
use crate::figures::{Figures, Measured};
use futures::{SinkExt, StreamExt};
use longshore_e2e::eventually;
use longshore_e2e::internet::SERVER;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{client, server};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const SECONDS: &str = "5";
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 5201;
/// What a good line carries.
const LINE: &str = "1gbit";

pub fn measure(stage: &Stage, figures: &mut Figures) -> Result<()> {
    needed(&["iperf3", "ping"])?;
    let [a, b] = &stage.nodes;
    until(stage, true);
    let plain = (a.netns(), b.netns(), b.site.address);
    let ours = (a.pod.clone(), b.pod.clone(), b.ip);
    let added = (0..ROUNDS).map(|_| Ok((ping(&ours.0, ours.2)? - ping(&plain.0, plain.2)?) / 2.0));
    let added = median(added.collect::<Result<_>>()?)?;
    figures.add("mesh-latency", added, &Measured::default());
    let wireguard = needed(&["wireguard-go", "wg"]).map(|()| WireGuard::start(a, b));
    let mut direct = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        direct[0].push(throughput(&ours.0, &ours.1, ours.2)?);
        if let Ok(wireguard) = &wireguard {
            direct[1].push(throughput(&plain.0, &plain.1, wireguard.as_ref().map_err(ToString::to_string)?.far)?);
        }
        direct[2].push(throughput(&plain.0, &plain.1, plain.2)?);
    }
    drop(wireguard);
    let [ours_direct, other, veth] = direct;
    println!("  a plain veth carries {:.2} Gb/s", median(veth)?);
    compared(figures, "mesh-throughput", median(ours_direct)?, median(other).unwrap_or(f64::NAN));

    stage.internet.cut_udp(&a.site, true);
    until(stage, false);
    let mut relayed = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        relayed[0].push(throughput(&ours.0, &ours.1, ours.2)?);
        relayed[1].push(websocket(a)?);
        relayed[2].push(passed_on(a, b)?);
    }
    // The two cores here are those of machine, server and machine at once. What a line leaves of the difference:
    let mut narrow = [Vec::new(), Vec::new()];
    stage.internet.narrow(&a.site, Some(LINE));
    for _ in 0..ROUNDS {
        narrow[0].push(throughput(&ours.0, &ours.1, ours.2)?);
        narrow[1].push(websocket(a)?);
    }
    stage.internet.narrow(&a.site, None);
    let [over_line, websocket_over_line] = narrow.map(median);
    compared(figures, "mesh-relay-line", over_line?, websocket_over_line?);
    stage.internet.cut_udp(&a.site, false);
    let [ours, one, two] = relayed;
    let ours = median(ours)?;
    compared(figures, "mesh-relay", ours, median(one)?);
    compared(figures, "mesh-relay-passed", ours, median(two)?);
    Ok(())
}

/// Waits until both nodes say so of their link.
fn until(stage: &Stage, direct: bool) {
    for node in ["a", "b"] {
        eventually("the path is as wanted", PATIENCE, || {
            let [a, b] = &stage.nodes;
            // A link is made by what passes.
            ping(&a.pod, b.ip).map_err(|e| e.to_string())?;
            let said = stage.kubectl.try_run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/links")])?;
            let links: Value = serde_json::from_str(&said).map_err(|e| e.to_string())?;
            (links["links"][0]["direct"].is_string() == direct).then_some(()).ok_or(said)
        });
    }
}

fn inside(netns: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg(program).stdin(Stdio::null());
    command
}

/// Gigabits a second.
fn throughput(from: &Path, to: &Path, address: IpAddr) -> Result<f64> {
    let mut server = inside(to, "iperf3").args(["-s", "-1"]).stdout(Stdio::null()).spawn()?;
    let report = eventually("iperf3 measures", Duration::from_secs(20), || {
        let client = inside(from, "iperf3").args(["-J", "-c", &address.to_string(), "-t", SECONDS]).output();
        let report: Value =
            serde_json::from_slice(&client.map_err(|e| e.to_string())?.stdout).map_err(|e| e.to_string())?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        bits.ok_or_else(|| report["error"].to_string())
    });
    server.wait()?;
    Ok(report / 1e9)
}

/// The median round trip in milliseconds, one after the other.
fn ping(from: &Path, address: IpAddr) -> Result<f64> {
    let output = inside(from, "ping").args(["-A", "-c", "300", "-W", "2", &address.to_string()]).output()?;
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    median(String::from_utf8(output.stdout)?.lines().filter_map(time).collect())
}

/// Debian's wireguard-go between the two machines.
struct WireGuard {
    programs: Vec<Child>,
    far: IpAddr,
}

impl WireGuard {
    fn start(a: &Node, b: &Node) -> Result<Self> {
        let mut new = Self { programs: Vec::new(), far: IpAddr::from([10, 255, 0, 2]) };
        let keys = [key()?, key()?];
        for (index, node) in [a, b].into_iter().enumerate() {
            let netns = node.netns();
            let name = format!("lsw{index}");
            let mut program = inside(&netns, "wireguard-go");
            program.args(["-f", &name]).stdout(Stdio::null()).stderr(Stdio::null());
            new.programs.push(program.spawn()?);
            eventually("wireguard-go answers", Duration::from_secs(10), || {
                let said = inside(&netns, "wg").args(["show", &name]).output().map_err(|e| e.to_string())?;
                said.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&said.stderr).into_owned())
            });
            let file = tempfile::NamedTempFile::new()?;
            std::fs::write(file.path(), &keys[index].0)?;
            let other = [b, a][index].site.address;
            let set = format!(
                "wg set {name} private-key {} listen-port 51820 peer {} allowed-ips 10.255.0.0/24 endpoint {other}:51820 \
                 && ip addr add 10.255.0.{}/24 dev {name} && ip link set {name} mtu 1420 up",
                file.path().display(),
                keys[1 - index].1,
                index + 1
            );
            let done = inside(&netns, "sh").args(["-c", &set]).output()?;
            if !done.status.success() {
                return Err(String::from_utf8_lossy(&done.stderr).into());
            }
        }
        Ok(new)
    }
}

/// A private key and its public one.
fn key() -> Result<(String, String)> {
    let made = Command::new("sh").args(["-c", "k=$(wg genkey); echo $k; echo $k | wg pubkey"]).output()?;
    let said = String::from_utf8(made.stdout)?;
    let (private, public) = said.trim().split_once('\n').ok_or("wg makes no key")?;
    Ok((private.into(), public.into()))
}

impl Drop for WireGuard {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// What a machine sends the server through one WebSocket inside TLS, in gigabits a second.
fn websocket(from: &Node) -> Result<f64> {
    let (address, listener, config) = listen()?;
    let received = std::thread::spawn(move || alone(async { count(accept(&listener()?, config).await?).await }));
    longshore_e2e::internet::within(std::fs::File::open(from.netns())?, || alone(send(address)))?;
    received.join().map_err(|_| "the receiver failed")?
}

/// The same, passed on by the server to another machine through that one's WebSocket: as little as a relay can do.
fn passed_on(from: &Node, to: &Node) -> Result<f64> {
    let (address, listener, config) = listen()?;
    let passing = std::thread::spawn(move || {
        alone(async {
            let listener = listener()?;
            let mut to = accept(&listener, config.clone()).await?;
            let mut from = accept(&listener, config).await?;
            while let Some(Ok(message @ Message::Binary(_))) = from.next().await {
                to.send(message).await?;
            }
            Ok(to.close(None).await?)
        })
    });
    let netns = std::fs::File::open(to.netns())?;
    let (connected, begin) = std::sync::mpsc::channel();
    let receiving = std::thread::spawn(move || {
        longshore_e2e::internet::within(netns, || {
            alone(async {
                let socket = connect(address).await?;
                connected.send(())?;
                count(socket).await
            })
        })
    });
    begin.recv()?;
    longshore_e2e::internet::within(std::fs::File::open(from.netns())?, || alone(send(address)))?;
    passing.join().map_err(|_| "the relay failed")??;
    receiving.join().map_err(|_| "the receiver failed")?
}

type Listening = Box<dyn FnOnce() -> Result<TcpListener> + Send>;

/// Where the server's machine listens, how the runtime there takes it over, and with which certificate.
fn listen() -> Result<(SocketAddr, Listening, Arc<rustls::ServerConfig>)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let listener = std::net::TcpListener::bind((SERVER, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((address, Box::new(move || Ok(TcpListener::from_std(listener)?)), Arc::new(config)))
}

fn alone<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(what)
}

async fn accept(
    listener: &TcpListener,
    config: Arc<rustls::ServerConfig>,
) -> Result<WebSocketStream<server::TlsStream<TcpStream>>> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(tokio_tungstenite::accept_async(tokio_rustls::TlsAcceptor::from(config).accept(stream).await?).await?)
}

async fn connect(to: SocketAddr) -> Result<WebSocketStream<client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let stream = crate::client::connector(&[])?.connect("localhost".try_into()?, stream).await?;
    Ok(tokio_tungstenite::client_async(format!("wss://localhost:{PORT}/"), stream).await?.0)
}

/// Gigabits a second, from the first message on.
async fn count<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) -> Result<f64> {
    let (mut begun, mut bytes) = (None, 0_u64);
    while let Some(Ok(Message::Binary(data))) = socket.next().await {
        begun.get_or_insert_with(Instant::now);
        bytes += data.len() as u64;
    }
    let begun: Instant = begun.ok_or("nothing arrived")?;
    Ok(bytes as f64 * 8.0 / 1e9 / begun.elapsed().as_secs_f64())
}

async fn send(to: SocketAddr) -> Result<()> {
    let mut socket = connect(to).await?;
    let piece = bytes::Bytes::from(vec![7; 64 << 10]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        socket.send(Message::Binary(piece.clone())).await?;
    }
    socket.close(None).await?;
    Ok(())
}
