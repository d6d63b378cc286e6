//! Pod to pod over the mesh, beside Debian's wireguard-go and a plain veth, in one run (root, `iperf3`, `wireguard-go`,
//! `wireguard-tools`, `ping`): TCP throughput, latency, memory. Each node is a process of its own.
//!
//! `cargo run --release -p longshore-mesh --example throughput [SECONDS [ROUNDS]]`. Other programs with wireguard-go's
//! command line are measured as well when they stand in `OTHERS`, separated by `;`, without the interface's name.

#![allow(clippy::print_stdout, reason = "its purpose")]

use longshore_api::ids::NodeId;
use longshore_e2e::internet::{Netns, cable, run};
use longshore_mesh::{Config, Mesh, PeerInfo, PrivateKey, Relay, Tun};
use longshore_tunnel::relay::Relayed;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

const MTU: u16 = 1420;
type Failure = Box<dyn std::error::Error>;
/// Measures for so many seconds.
type Row = Box<dyn Fn(u32) -> Result<Figures, Failure>>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["node", number, host, cluster] => node(number.parse()?, host, cluster),
        ["relayed", a, b] => relayed(a, b),
        [] => compare(5, 2),
        [seconds] => compare(seconds.parse()?, 2),
        [seconds, rounds] => compare(seconds.parse()?, rounds.parse()?),
        _ => Err("SECONDS ROUNDS".into()),
    }
}

/// Two hosts and a pod's namespace on each.
struct Pair {
    hosts: [Netns; 2],
    pods: [Netns; 2],
}

impl Pair {
    fn new() -> Self {
        let pair = Self { hosts: [Netns::new("a"), Netns::new("b")], pods: [Netns::new("pa"), Netns::new("pb")] };
        cable(&pair.hosts[0], "eth0", &pair.hosts[1], "eth0");
        for (number, host) in (1..).zip(&pair.hosts) {
            host.ip(&format!("addr add 10.99.0.{number}/24 dev eth0"));
        }
        pair
    }
}

#[derive(Default, Clone, Copy)]
struct Figures {
    gigabits: f64,
    /// There and back: without and with pauses in between.
    milliseconds: [f64; 2],
    /// Of both nodes together.
    megabytes: f64,
}

fn compare(seconds: u32, rounds: u32) -> Result<(), Failure> {
    let mut rows: Vec<(String, Row)> = vec![
        ("veth".into(), Box::new(veth)),
        ("mesh, direct".into(), Box::new(direct)),
        ("mesh, relayed".into(), Box::new(in_process)),
        ("wireguard-go".into(), Box::new(|seconds| wireguard(&["wireguard-go", "-f"], seconds))),
    ];
    for other in std::env::var("OTHERS").iter().flat_map(|others| others.split(';')) {
        let words: Vec<_> = other.split(' ').map(str::to_owned).collect();
        let name = other.rsplit('/').next().unwrap_or(other).to_owned();
        let words = move |seconds| wireguard(&words.iter().map(String::as_str).collect::<Vec<_>>(), seconds);
        rows.push((name, Box::new(words)));
    }
    let mut best = vec![Figures::default(); rows.len()];
    for round in 1..=rounds {
        for ((name, measure), best) in rows.iter().zip(&mut best) {
            let figures = measure(seconds)?;
            println!(
                "{round} {name:14} {:6.2} Gb/s  {:.3} ms there and back, {:.3} after pauses  {:.0} MB",
                figures.gigabits, figures.milliseconds[0], figures.milliseconds[1], figures.megabytes
            );
            if figures.gigabits > best.gigabits {
                *best = figures;
            }
        }
    }
    let [veth, direct, relayed, wireguard] = [best[0], best[1], best[2], best[3]];
    println!("direct / wireguard-go: {:.2}", direct.gigabits / wireguard.gigabits);
    println!("relayed / wireguard-go: {:.2}", relayed.gigabits / wireguard.gigabits);
    println!("direct / veth: {:.2}", direct.gigabits / veth.gigabits);
    let added = |index: usize| (direct.milliseconds[index] - veth.milliseconds[index]) / 2.0;
    println!("added latency, one way: {:.3} ms, {:.3} after pauses", added(0), added(1));
    Ok(())
}

/// From namespace to namespace, to this address.
fn measure(from: &Netns, to: &Netns, address: &str, seconds: u32) -> Result<Figures, Failure> {
    let milliseconds = ping(from, address)?;
    let mut server = Command::new("ip")
        .args(["netns", "exec", &to.name, "iperf3", "-s", "-1", "--forceflush"])
        .stdout(Stdio::piped())
        .spawn()?;
    // Its first words say that it listens.
    let mut words = BufReader::new(server.stdout.take().ok_or("no output")?).lines();
    while !words.next().ok_or("the iperf3 server ended")??.contains("listening") {}
    let time = seconds.to_string();
    let output =
        Command::new("ip").args(["netns", "exec", &from.name, "iperf3", "-J", "-c", address, "-t", &time]).output()?;
    server.wait()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().ok_or_else(|| report["error"].to_string())?;
    Ok(Figures { gigabits: bits / 1e9, milliseconds, megabytes: 0.0 })
}

/// Medians of round trips, in milliseconds: one at a time without a pause, and each after a pause of 10 ms, in which
/// processors go to sleep.
fn ping(from: &Netns, address: &str) -> Result<[f64; 2], Failure> {
    let ping = |pace: &[&str]| -> Result<f64, Failure> {
        let command = [&["netns", "exec", &from.name, "ping"], pace, &[address]].concat();
        let output = String::from_utf8(Command::new("ip").args(command).output()?.stdout)?;
        let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
        let mut times: Vec<_> = output.lines().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        Ok(*times.get(times.len() / 2).ok_or(output)?)
    };
    // The first ones make a connection.
    ping(&["-i", "0.01", "-c", "150"])?;
    Ok([ping(&["-A", "-c", "1000"])?, ping(&["-i", "0.01", "-c", "200"])?])
}

fn resident(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

fn veth(seconds: u32) -> Result<Figures, Failure> {
    let pair = Pair::new();
    measure(&pair.hosts[0], &pair.hosts[1], "10.99.0.2", seconds)
}

/// `program`: its words before the interface's name.
fn wireguard(program: &[&str], seconds: u32) -> Result<Figures, Failure> {
    let pair = Pair::new();
    let dir = std::env::temp_dir().join(format!("longshore-mesh-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let keys = [1u8, 2].map(|number| PrivateKey::from_bytes([number; 32]));
    let mut children = Vec::new();
    for (index, host) in pair.hosts.iter().enumerate() {
        let name = format!("lsw{}{}", std::process::id() % 10_000, ["a", "b"][index]);
        let command = [&["netns", "exec", &host.name], program, &[&name]].concat();
        let child = Command::new("ip").args(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        children.push(child);
        let answers = ["netns", "exec", &host.name, "wg", "show", &name];
        while !Command::new("ip").args(answers).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let key = dir.join(index.to_string());
        std::fs::write(
            &key,
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, keys[index].to_bytes()),
        )?;
        let peer = keys[1 - index].public().to_string();
        let endpoint = format!("10.99.0.{}:51820", 2 - index);
        let key = key.to_string_lossy();
        let set = [
            "wg",
            "set",
            &name,
            "private-key",
            &key,
            "listen-port",
            "51820",
            "peer",
            &peer,
            "allowed-ips",
            "10.1.0.0/16",
        ];
        host.exec(&[&set[..], &["endpoint", &endpoint]].concat());
        host.ip(&format!("addr add 10.1.{}.2/16 dev {name}\nlink set {name} mtu {MTU} up", index + 1));
    }
    let mut figures = measure(&pair.hosts[0], &pair.hosts[1], "10.1.2.2", seconds)?;
    // `ip netns exec` becomes the program.
    figures.megabytes = children.iter().map(resident).sum();
    end(children)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(figures)
}

fn end(children: Vec<Child>) -> Result<(), Failure> {
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn started(arguments: &[&str]) -> Result<Child, Failure> {
    let mut child = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
    let mut words = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    words.next().ok_or("the node ended")??;
    Ok(child)
}

fn direct(seconds: u32) -> Result<Figures, Failure> {
    let pair = Pair::new();
    let node =
        |index: usize| started(&["node", &(index + 1).to_string(), &pair.hosts[index].name, &pair.pods[index].name]);
    let children = vec![node(0)?, node(1)?];
    let mut figures = measure(&pair.pods[0], &pair.pods[1], "10.1.2.2", seconds)?;
    figures.megabytes = children.iter().map(resident).sum();
    end(children)?;
    Ok(figures)
}

/// Both nodes in one process, with nothing but memory between them: what relaying costs the mesh itself.
fn in_process(seconds: u32) -> Result<Figures, Failure> {
    let pair = Pair::new();
    let child = started(&["relayed", &pair.pods[0].name, &pair.pods[1].name])?;
    let mut figures = measure(&pair.pods[0], &pair.pods[1], "10.1.2.2", seconds)?;
    figures.megabytes = resident(&child);
    end(vec![child])?;
    Ok(figures)
}

fn name_of(number: u8) -> NodeId {
    NodeId::new(format!("n-{number}"))
}

/// Node 1 or 2 of a pair that knows each other.
fn mesh(number: u8, host: Option<&str>, cluster: &str, relay: Relay) -> Result<Mesh, Failure> {
    let netns = |name: &str| File::open(format!("/run/netns/{name}"));
    let tun = Tun::create(netns(cluster)?.as_fd(), "mesh")?;
    let lines = format!(
        "addr add 10.1.{number}.2/32 dev lo\nlink set lo up\nlink set mesh mtu {MTU} up\nroute add 10.1.0.0/16 dev mesh src 10.1.{number}.2"
    );
    run("ip", &["-n", cluster, "-batch", "-"], &lines);
    let v4 = match host {
        Some(host) => {
            let file = netns(host)?;
            let bound = std::thread::scope(|scope| {
                let bind = scope.spawn(|| {
                    nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?;
                    std::net::UdpSocket::bind("0.0.0.0:4000")
                });
                bind.join()
            });
            Some(bound.map_err(|_| "the thread failed")??)
        }
        None => None,
    };
    let slices = vec![format!("10.1.{number}.0/24").parse()?];
    let mesh =
        Mesh::start(Config { tun, mtu: MTU, v4, v6: None, key: PrivateKey::from_bytes([number; 32]), slices, relay })?;
    let other = 3 - number;
    let info = PeerInfo {
        keys: vec![PrivateKey::from_bytes([other; 32]).public()],
        slices: vec![format!("10.1.{other}.0/24").parse()?],
        candidates: vec![format!("10.99.0.{other}:4000").parse()?],
        relayed: std::env::var("CUT").map_or(longshore_mesh::LARGEST_RELAYED, |_| 0),
        expires: SystemTime::now() + Duration::from_secs(3600),
    };
    mesh.set_peers([(name_of(other), info)].into());
    Ok(mesh)
}

fn forever(start: impl AsyncFnOnce() -> Result<Vec<Mesh>, Failure>) -> Result<(), Failure> {
    let workers = std::env::var("WORKERS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let _meshes = start().await?;
        println!("ready");
        std::future::pending().await
    })
}

fn node(number: u8, host: &str, cluster: &str) -> Result<(), Failure> {
    forever(async || {
        // A relay that carries nothing: they must meet by themselves.
        let (outgoing, mut nowhere) = mpsc::channel::<Relayed>(16);
        let (kept, incoming) = mpsc::channel(1);
        tokio::spawn(async move {
            let _kept = kept;
            while nowhere.recv().await.is_some() {}
        });
        Ok(vec![mesh(number, Some(host), cluster, Relay { outgoing, incoming })?])
    })
}

fn relayed(a: &str, b: &str) -> Result<(), Failure> {
    forever(async || {
        let ends = [(); 2].map(|()| (mpsc::channel::<Relayed>(256), mpsc::channel::<Relayed>(256)));
        let [((a_out, mut a_sent), (a_deliver, a_in)), ((b_out, mut b_sent), (b_deliver, b_in))] = ends;
        tokio::spawn(async move {
            while let Some(Relayed { segment, bytes, .. }) = a_sent.recv().await {
                let _ = b_deliver.try_send(Relayed { peer: name_of(1), segment, bytes });
            }
        });
        tokio::spawn(async move {
            while let Some(Relayed { segment, bytes, .. }) = b_sent.recv().await {
                let _ = a_deliver.try_send(Relayed { peer: name_of(2), segment, bytes });
            }
        });
        let a = mesh(1, None, a, Relay { outgoing: a_out, incoming: a_in })?;
        let b = mesh(2, None, b, Relay { outgoing: b_out, incoming: b_in })?;
        Ok(vec![a, b])
    })
}
