//! A pretended machine: a network namespace as the host, and another as the world beyond its network card.

use longshore_agent::network::PodNetwork;
use longshore_agent::pods::network::Network;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::network::{Cluster, Endpoint, Frame};
use nlink::netlink::link::VethLink;
use nlink::netlink::namespace::{self, Netns};
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Route};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub struct Machine {
    pub host: Netns,
    /// Knows no way to any address but the host's own.
    pub world: Netns,
    pub dir: TempDir,
}

pub struct Place {
    pub path: PathBuf,
    pub netns: Netns,
}

impl Drop for Machine {
    fn drop(&mut self) {
        for mounted in mounted_below(self.dir.path()) {
            let _ = namespace::delete_path(mounted);
        }
    }
}

pub fn mounted_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let paths = mounts.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
    paths.filter(|p| p.starts_with(dir)).collect()
}

impl Machine {
    pub async fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = dir.path().join(name);
            namespace::create_path(&path).unwrap();
            Netns::from_path(&path).unwrap()
        };
        let (host, world) = (place("host"), place("world"));
        let (near, far) = (netlink(&host), netlink(&world));
        near.add_link(VethLink::new("eth0", "eth0").peer_netns_fd(&world)).await.unwrap();
        for (end, address) in [(&near, HOST), (&far, WORLD)] {
            end.add_address_by_name("eth0", address.into(), 24).await.unwrap();
            end.set_link_up("eth0").await.unwrap();
            end.set_link_up("lo").await.unwrap();
        }
        near.add_route(Ipv4Route::default_route().gateway(WORLD)).await.unwrap();
        Self { host, world, dir }
    }

    /// The agent of `cluster` on this machine, its slice known, or both, separated by a comma.
    pub fn agent(&self, cluster: &str, slice: &str) -> Arc<PodNetwork> {
        let agent = self.agent_started_again(cluster);
        agent.set_ranges(&slice.split(',').map(String::from).collect::<Vec<_>>());
        agent
    }

    /// As it knows itself from its data folder.
    pub fn agent_started_again(&self, cluster: &str) -> Arc<PodNetwork> {
        let data = self.dir.path().join(cluster);
        let host = self.host.try_clone().unwrap();
        let agent = PodNetwork::on(host, &ClusterId::new(cluster), &NodeId::new("n-1"), "n1", &data);
        tell(&agent, &[Frame::Cluster(ranges()), Frame::Synced]);
        agent
    }

    /// What a pause container holds open.
    pub fn sandbox(&self, name: &str) -> Place {
        let path = self.dir.path().join("sandboxes").join(name);
        namespace::create_path(&path).unwrap();
        Place { netns: Netns::from_path(&path).unwrap(), path }
    }

    pub async fn pod(&self, agent: &PodNetwork, uid: &str) -> (Place, IpAddr) {
        let sandbox = self.sandbox(uid);
        let ips = Network::attach(agent, uid, sandbox.path.clone(), vec![]).await.unwrap();
        (sandbox, ips[0])
    }

    /// All that can be seen on the host: interfaces, addresses, routes, rules.
    pub async fn seen(&self) -> String {
        let rules = nft(&self.host, &["list", "ruleset"]);
        let netlink = netlink(&self.host);
        let mut lines = Vec::new();
        for link in netlink.get_links().await.unwrap() {
            lines.push(format!("link {:?}", link.name()));
        }
        for address in netlink.get_addresses().await.unwrap().iter().filter(|a| a.is_ipv4()) {
            lines.push(format!("address {:?}", address.local()));
        }
        for route in netlink.get_routes().await.unwrap().iter().filter(|r| r.is_ipv4()) {
            lines.push(format!("route {} via {:?}", route.destination_str(), route.gateway()));
        }
        format!("{}\n{rules}", lines.join("\n"))
    }
}

pub fn ranges() -> Cluster {
    Cluster { pod_range: "10.244.0.0/16".into(), service_range: "10.96.0.0/16".into(), ..Cluster::default() }
}

/// As a new stream from the server does.
pub fn tell(agent: &PodNetwork, frames: &[Frame]) {
    agent.map().take(b"");
    push(agent, frames);
}

/// As a stream goes on.
pub fn push(agent: &PodNetwork, frames: &[Frame]) {
    let lines = frames.iter().flat_map(|f| [serde_json::to_vec(f).unwrap(), b"\n".to_vec()].concat());
    agent.map().take(&lines.collect::<Vec<u8>>());
}

/// A ready one.
pub fn endpoint(address: IpAddr, node: &str) -> Endpoint {
    Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        hostname: String::new(),
        node: node.into(),
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    }
}

pub fn netlink(netns: &Netns) -> Connection<Route> {
    Connection::<Route>::new_in(netns).unwrap()
}

pub fn nft(netns: &Netns, args: &[&str]) -> String {
    run(netns, "nft", args)
}

pub fn run(netns: &Netns, program: &str, args: &[&str]) -> String {
    let output = netns.run(|| std::process::Command::new(program).args(args).output()).unwrap().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that tells each client the address it comes from, and then repeats what it says.
pub fn serve(netns: &Netns, at: impl Into<IpAddr>, port: u16) {
    let at = at.into();
    let listener = netns.run(|| std::net::TcpListener::bind((at, port))).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, from)) = listener.accept().await {
            tokio::spawn(async move {
                client.write_all(format!("{}\n", from.ip()).as_bytes()).await?;
                let (mut reader, mut writer) = client.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
}

/// Connects from `netns` and answers the connection and who the server says we are. Two seconds count as no way.
pub async fn call(netns: &Netns, ip: impl Into<IpAddr>, port: u16) -> io::Result<(TcpStream, IpAddr)> {
    let address = SocketAddr::new(ip.into(), port);
    let new = if address.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
    let socket = netns.run(new).unwrap()?;
    let stream = tokio::time::timeout(Duration::from_secs(2), socket.connect(address));
    greeting(stream.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??).await
}

/// Tries until someone answers.
pub async fn call_when_there(netns: &Netns, ip: impl Into<IpAddr> + Copy, port: u16) -> (TcpStream, IpAddr) {
    loop {
        match call(netns, ip, port).await {
            Ok(answered) => return answered,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

pub async fn greeting(mut stream: TcpStream) -> io::Result<(TcpStream, IpAddr)> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let ip = String::from_utf8_lossy(&line).parse().map_err(io::Error::other)?;
    Ok((stream, ip))
}

pub async fn echo(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await?;
    Ok(String::from_utf8_lossy(&back).into_owned())
}
