//! Service addresses in real namespaces: maps pushed as the server pushes them, connections made as pods make them.

use crate::machine::{HOST, Machine, Place, call, endpoint, nft, push, run, serve};
use longshore_agent::network::PodNetwork;
use longshore_agent::pods::network::Network;
use longshore_api::network::{
    Endpoint, EndpointPort, Endpoints, Frame, Key, Name, Node, Protocol, Service, ServicePort,
};
use nlink::netlink::namespace::Netns;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

const SLICE: &str = "10.244.3.0/24";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);

/// A node with pods `a`, `b` and `c`, each of which answers by its name at TCP and UDP port 8080.
struct Fixture {
    machine: Machine,
    agent: Arc<PodNetwork>,
    pods: Vec<(Place, IpAddr)>,
    _keeping: AbortOnDropHandle<()>,
}

impl Fixture {
    async fn new() -> Self {
        let machine = Machine::new().await;
        let agent = machine.agent("c-a", SLICE);
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            let (place, ip) = machine.pod(&agent, name).await;
            answer_by_name(&place.netns, name);
            pods.push((place, ip));
        }
        let keeping = AbortOnDropHandle::new(tokio::spawn(agent.clone().keep()));
        let this = Self { machine, agent, pods, _keeping: keeping };
        this.push(&[Frame::Node(Node { name: "n1".into(), pod_range: SLICE.into(), ..Node::default() })]);
        this
    }

    fn push(&self, frames: &[Frame]) {
        push(&self.agent, frames);
    }

    fn pod(&self, name: &str) -> &Netns {
        &self.pods[usize::from(name.as_bytes()[0] - b'a')].0.netns
    }

    fn ip(&self, name: &str) -> IpAddr {
        self.pods[usize::from(name.as_bytes()[0] - b'a')].1
    }

    /// The Service's endpoints, by their pods' names.
    fn endpoints(&self, names: &[&str]) -> Frame {
        slice(names.iter().map(|name| endpoint(self.ip(name), "n1")).collect())
    }

    /// Who answers at the Service's address, over many connections.
    async fn answering(&self, from: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for _ in 0..30 {
            names.insert(who(self.pod(from), VIP, 80).await.unwrap_or_else(|e| format!("{:?}", e.kind())));
        }
        names
    }

    /// Waits until those and nobody else answer.
    async fn until_answering(&self, from: &str, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
        while self.answering(from).await != wanted {
            tokio::task::yield_now().await;
        }
    }
}

fn service() -> Service {
    let port = |name: &str, protocol, node_port| ServicePort {
        name: name.into(),
        protocol,
        port: 80,
        node_port,
        app_protocol: String::new(),
    };
    Service {
        namespace: "ns".into(),
        name: "web".into(),
        addresses: vec![VIP.into()],
        ports: vec![port("tcp", Protocol::Tcp, Some(30080)), port("udp", Protocol::Udp, None)],
        ..Service::default()
    }
}

fn slice(endpoints: Vec<Endpoint>) -> Frame {
    let port = |name: &str, protocol| EndpointPort { name: name.into(), protocol, port: 8080 };
    Frame::Endpoints(Endpoints {
        namespace: "ns".into(),
        name: "web-1".into(),
        service: "web".into(),
        ports: vec![port("tcp", Protocol::Tcp), port("udp", Protocol::Udp)],
        endpoints,
    })
}

fn answer_by_name(netns: &Netns, name: &'static str) {
    let listener = netns.run(|| std::net::TcpListener::bind(("0.0.0.0", 8080))).unwrap().unwrap();
    let udp = netns.run(|| std::net::UdpSocket::bind(("0.0.0.0", 8080))).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let (listener, udp) = (TcpListener::from_std(listener).unwrap(), UdpSocket::from_std(udp).unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, from)) = listener.accept().await {
            tokio::spawn(async move {
                client.write_all(format!("{name} {}\n", from.ip()).as_bytes()).await?;
                let (mut reader, mut writer) = client.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = udp.recv_from(&mut buffer).await {
            let _ = udp.send_to(name.as_bytes(), from).await;
        }
    });
}

async fn talk(netns: &Netns, to: impl Into<IpAddr>, port: u16) -> io::Result<(TcpStream, String)> {
    let socket = netns.run(TcpSocket::new_v4).unwrap()?;
    let stream = tokio::time::timeout(Duration::from_secs(2), socket.connect(SocketAddr::new(to.into(), port)));
    let mut stream = stream.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok((stream, String::from_utf8(line).unwrap())),
            byte => line.push(byte),
        }
    }
}

/// The name of who answers.
async fn who(netns: &Netns, to: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    Ok(talk(netns, to, port).await?.1.split(' ').next().unwrap_or_default().to_owned())
}

async fn who_by_udp(socket: &UdpSocket) -> io::Result<String> {
    socket.send_to(b"?", (VIP, 80)).await?;
    let mut buffer = [0; 100];
    let received = tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut buffer)).await;
    let length = received.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

async fn udp(netns: &Netns) -> UdpSocket {
    let socket = netns.run(|| std::net::UdpSocket::bind(("0.0.0.0", 0))).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    socket.connect((VIP, 80)).await.unwrap();
    socket
}

#[tokio::test]
async fn a_service_spreads_over_its_endpoints_and_follows_them() {
    let here = Fixture::new().await;
    here.push(&[Frame::Service(service()), here.endpoints(&["b"])]);
    here.until_answering("a", &["b"]).await;
    let (mut stream, said) = talk(here.pod("a"), VIP, 80).await.unwrap();
    assert_eq!(said, format!("b {}", here.ip("a")), "the endpoint sees who calls");
    here.push(&[here.endpoints(&["b", "c"])]);
    here.until_answering("a", &["b", "c"]).await;
    here.push(&[here.endpoints(&["c"])]);
    here.until_answering("a", &["c"]).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x', "a connection to an endpoint that ends is drained");

    // Without endpoints, and at a port that it hasn't, it refuses at once; gone, too.
    here.push(&[here.endpoints(&[])]);
    here.until_answering("a", &["ConnectionRefused"]).await;
    assert_eq!(who(here.pod("a"), VIP, 81).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    here.push(&[here.endpoints(&["b"])]);
    here.until_answering("a", &["b"]).await;
    here.push(&[Frame::Removed(Key::Service(Name::new("ns", "web")))]);
    here.until_answering("a", &["ConnectionRefused"]).await;
}

#[tokio::test]
async fn pods_reach_themselves_and_the_node_reaches_services() {
    let here = Fixture::new().await;
    here.push(&[Frame::Service(service()), here.endpoints(&["a"])]);
    here.until_answering("a", &["a"]).await;
    let said = talk(here.pod("a"), VIP, 80).await.unwrap().1;
    assert_eq!(said, "a 10.244.3.1", "it comes back by way of the node");
    let mut probe = here.agent.connect(SocketAddr::new(VIP.into(), 80)).await.unwrap();
    assert_eq!(probe.read_u8().await.unwrap(), b'a');
    let refused = here.agent.connect(SocketAddr::new(VIP.into(), 99)).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn udp_senders_are_sent_anew_when_their_endpoint_goes() {
    let here = Fixture::new().await;
    here.push(&[Frame::Service(service()), here.endpoints(&["b"])]);
    here.until_answering("a", &["b"]).await;
    let socket = udp(here.pod("a")).await;
    assert_eq!(who_by_udp(&socket).await.unwrap(), "b");
    here.push(&[here.endpoints(&["c"])]);
    while who_by_udp(&socket).await.ok().as_deref() != Some("c") {
        tokio::task::yield_now().await;
    }
    here.push(&[here.endpoints(&[])]);
    while who_by_udp(&socket).await.map_err(|e| e.kind()) != Err(io::ErrorKind::ConnectionRefused) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_while_that_is_there() {
    let here = Fixture::new().await;
    let sticky = Service { affinity_seconds: Some(60), ..service() };
    here.push(&[Frame::Service(sticky), here.endpoints(&["a", "b", "c"])]);
    while who(here.pod("a"), VIP, 80).await.is_err() {
        tokio::task::yield_now().await;
    }
    let first = here.answering("a").await;
    assert_eq!(first.len(), 1, "{first:?}");
    let first = first.into_iter().next().unwrap();
    let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != first).collect();
    here.push(&[here.endpoints(&others)]);
    let mut now = here.answering("a").await;
    while now.contains(&first) {
        now = here.answering("a").await;
    }
    assert_eq!(now.len(), 1, "sent anew, once: {now:?}");
    here.push(&[here.endpoints(&["a", "b", "c"])]);
    assert_eq!(here.answering("a").await, now, "and it stays there when the first is back");
}

#[tokio::test]
async fn ports_of_nodes_lead_to_services() {
    let here = Fixture::new().await;
    here.push(&[Frame::Service(service()), here.endpoints(&["b"])]);
    while who(&here.machine.world, HOST, 30080).await.is_err() {
        tokio::task::yield_now().await;
    }
    let said = talk(&here.machine.world, HOST, 30080).await.unwrap().1;
    assert_eq!(said, "b 192.0.2.1", "the endpoint sees who calls from outside");
    for address in [HOST, Ipv4Addr::LOCALHOST] {
        assert_eq!(who(&here.machine.host, address, 30080).await.unwrap(), "b", "by the host's {address}");
    }
    assert_eq!(who(here.pod("a"), HOST, 30080).await.unwrap(), "b", "from a pod");

    // Only what is on this node answers the outside; pods and the host are answered from everywhere.
    let remote = endpoint("10.244.9.9".parse().unwrap(), "n2");
    let local = Service { external_local: true, ..service() };
    here.push(&[Frame::Service(local), slice(vec![remote.clone(), endpoint(here.ip("c"), "n1")])]);
    for _ in 0..2 {
        while who(&here.machine.world, HOST, 30080).await.ok().as_deref() != Some("c") {
            tokio::task::yield_now().await;
        }
    }
    for _ in 0..20 {
        assert_eq!(who(&here.machine.world, HOST, 30080).await.unwrap(), "c");
    }
    here.push(&[slice(vec![remote])]);
    while who(&here.machine.world, HOST, 30080).await.map_err(|e| e.kind()) != Err(io::ErrorKind::TimedOut) {
        tokio::task::yield_now().await;
    }
    here.push(&[slice(vec![])]);
    while who(&here.machine.world, HOST, 30080).await.map_err(|e| e.kind()) != Err(io::ErrorKind::ConnectionRefused) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_agent_started_again_goes_on_and_what_others_break_is_mended() {
    let mut here = Fixture::new().await;
    here.push(&[Frame::Service(service()), here.endpoints(&["b"])]);
    here.until_answering("a", &["b"]).await;
    let inside = Netns::from_path(here.machine.dir.path().join("c-a/network/netns")).unwrap();
    let before = nft(&inside, &["list", "ruleset"]);
    assert!(!before.contains("numgen random mod 2"), "a chain for each number of endpoints that there was: {before}");
    here._keeping.abort();
    let again = here.machine.agent_started_again("c-a");
    here._keeping = AbortOnDropHandle::new(tokio::spawn(again.clone().keep()));
    here.agent = again;
    here.push(&[Frame::Service(service()), here.endpoints(&["c"])]);
    here.until_answering("a", &["c"]).await;
    nft(&inside, &["flush", "ruleset"]);
    here.push(&[here.endpoints(&["b", "c"])]);
    here.until_answering("a", &["b", "c"]).await;
    here.agent.teardown().await.unwrap();
    assert_eq!(nft(&here.machine.host, &["list", "ruleset"]), "");
}

#[tokio::test]
async fn nobody_sends_from_anothers_address() {
    let here = Fixture::new().await;
    serve(here.pod("b"), Ipv4Addr::UNSPECIFIED, 7000);
    call(here.pod("a"), here.ip("b"), 7000).await.unwrap();
    run(here.pod("a"), "ip", &["addr", "add", "10.244.3.77/32", "dev", "eth0"]);
    let socket = here.pod("a").run(TcpSocket::new_v4).unwrap().unwrap();
    socket.bind("10.244.3.77:0".parse().unwrap()).unwrap();
    let connected = tokio::time::timeout(Duration::from_secs(1), socket.connect((here.ip("b"), 7000).into())).await;
    assert!(connected.is_err(), "nothing of it arrives");
    // Nor do packets to pods that aren't there find a way out.
    let nobody = call(here.pod("a"), "10.244.3.200".parse::<IpAddr>().unwrap(), 80).await.unwrap_err();
    assert_eq!(nobody.kind(), io::ErrorKind::HostUnreachable);
}

/// The median of what connections take, one after the other.
async fn connecting(from: &Netns, to: SocketAddr) -> Duration {
    let mut taken = Vec::new();
    for _ in 0..2000 {
        let socket = from.run(TcpSocket::new_v4).unwrap().unwrap();
        let begun = std::time::Instant::now();
        let stream = socket.connect(to).await.unwrap();
        taken.push(begun.elapsed());
        stream.set_zero_linger().unwrap();
    }
    taken.sort();
    taken[taken.len() / 2]
}

#[tokio::test]
#[ignore = "a measurement, for a quiet machine: run it alone"]
async fn what_a_connection_costs() {
    let here = Fixture::new().await;
    here.push(&[Frame::Service(service()), here.endpoints(&["b"])]);
    here.until_answering("a", &["b"]).await;
    let (direct, by_service) = (SocketAddr::new(here.ip("b"), 8080), SocketAddr::new(VIP.into(), 80));
    for count in [10u32, 10_000] {
        let frames = (0..count).flat_map(|n| {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 4, 0)) + n);
            let name = format!("s{n}");
            let service = Service { name: name.clone(), addresses: vec![address.into()], ..service() };
            let Frame::Endpoints(slice) = here.endpoints(&["b", "c"]) else { unreachable!() };
            let ports = service.ports.iter().map(|p| ServicePort { node_port: None, ..p.clone() }).collect();
            let slice = Endpoints { name: format!("{name}-1"), service: name, ..slice };
            [Frame::Service(Service { ports, ..service }), Frame::Endpoints(slice)]
        });
        let last = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 4, 0)) + count - 1);
        let begun = std::time::Instant::now();
        here.push(&frames.collect::<Vec<_>>());
        while who(here.pod("a"), last, 80).await.is_err() {
            tokio::task::yield_now().await;
        }
        let loaded = begun.elapsed();
        let mut changes = Vec::new();
        for names in [["b"], ["c"]].iter().cycle().take(20) {
            let begun = std::time::Instant::now();
            here.push(&[here.endpoints(names)]);
            while who(here.pod("a"), VIP, 80).await.ok().as_deref() != Some(names[0]) {
                tokio::task::yield_now().await;
            }
            changes.push(begun.elapsed());
        }
        changes.sort();
        let (plain, translated) =
            (connecting(here.pod("a"), direct).await, connecting(here.pod("a"), by_service).await);
        eprintln!(
            "{count} services: loaded in {loaded:?}, a change acts after {:?} (worst {:?}), a connection takes {plain:?}, by a service {translated:?}",
            changes[10], changes[19]
        );
        assert!(translated < plain * 2, "{translated:?} against {plain:?}");
    }
}
