//! Network policies in real namespaces: maps pushed as the server pushes them, connections made as programs make them.

use crate::machine::{HOST, Machine, Place, WORLD, call, netlink, nft, push, run, serve};
use longshore_agent::network::{Answered, PodNetwork, dns};
use longshore_agent::pods::network::{HostPort, Identity, Network, Protocol as PortProtocol};
use longshore_api::network::{Answer, Frame, Key, Name, Protocol, Service, ServicePort};
use longshore_api::network_policy::{Part, Peer, Peers, Policy, Port, Rule};
use nlink::netlink::namespace::Netns;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

const SLICE: &str = "10.244.3.0/24";
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Who isn't answered within it isn't let through; who is answers much sooner.
const SILENCE: Duration = Duration::from_millis(700);

/// A node with pods `a`, `b` and `c` in namespace `ns`, labelled by their names; each answers at TCP 80, 81 and 90 and at
/// UDP 80.
struct Fixture {
    machine: Machine,
    agent: Arc<PodNetwork>,
    pods: Vec<(Place, IpAddr)>,
    _keeping: AbortOnDropHandle<()>,
}

fn identity(namespace: &str, app: &str) -> Identity {
    Identity { namespace: namespace.into(), labels: [("app".to_owned(), app.to_owned())].into() }
}

impl Fixture {
    async fn new() -> Self {
        let machine = Machine::new().await;
        let agent = machine.agent("c-a", SLICE);
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            agent.describe(name, identity("ns", name)).await;
            let (place, ip) = machine.pod(&agent, name).await;
            [80, 81, 90].into_iter().for_each(|port| serve(&place.netns, ANY, port));
            serve_udp(&place.netns, 80);
            pods.push((place, ip));
        }
        let keeping = AbortOnDropHandle::new(tokio::spawn(agent.clone().keep()));
        Self { machine, agent, pods, _keeping: keeping }
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

    fn inside(&self) -> Netns {
        Netns::from_path(self.machine.dir.path().join("c-a/network/netns")).unwrap()
    }

    /// The set `id`, of these pods.
    fn peers(&self, id: &str, names: &[&str]) -> Frame {
        peers(id, &names.iter().map(|name| self.ip(name)).collect::<Vec<_>>())
    }

    async fn reaches(&self, from: &str, to: &str, port: u16) -> bool {
        reaches(self.pod(from), SocketAddr::new(self.ip(to), port)).await
    }

    /// Waits until what is asked is as wanted: a change of the map acts at once, but not in no time.
    async fn until(&self, wanted: bool, from: &str, to: &str, port: u16) {
        while self.reaches(from, to, port).await != wanted {
            tokio::task::yield_now().await;
        }
    }
}

fn peers(id: &str, addresses: &[IpAddr]) -> Frame {
    Frame::Peers(Peers {
        part: Part::new(id, Ipv4Addr::new(10, 244, 3, 0).into()),
        addresses: addresses.to_vec(),
        ports: Vec::new(),
    })
}

fn policy(name: &str, selects: &str) -> Policy {
    let selector = match selects {
        "" => serde_json::from_str("{}"),
        app => serde_json::from_value(serde_json::json!({"matchLabels": {"app": app}})),
    };
    Policy { namespace: "ns".into(), name: name.into(), selector: selector.unwrap(), ..Policy::default() }
}

fn ingress(name: &str, selects: &str, rules: Vec<Rule>) -> Frame {
    Frame::Policy(Policy { ingress: Some(rules), ..policy(name, selects) })
}

fn egress(name: &str, selects: &str, rules: Vec<Rule>) -> Frame {
    Frame::Policy(Policy { egress: Some(rules), ..policy(name, selects) })
}

fn rule(peers: Option<Vec<Peer>>, ports: Option<Vec<Port>>) -> Rule {
    Rule { peers, ports }
}

fn set(id: &str) -> Peer {
    Peer::Pods(id.into())
}

fn block(range: &str, except: &[&str]) -> Peer {
    Peer::Block { range: range.into(), except: except.iter().map(ToString::to_string).collect() }
}

fn tcp(first: u16, last: u16) -> Port {
    Port::Range(Protocol::Tcp, first, last)
}

fn removed(name: &str) -> Frame {
    Frame::Removed(Key::Policy(Name::new("ns", name)))
}

fn serve_udp(netns: &Netns, port: u16) {
    let socket = netns.run(|| std::net::UdpSocket::bind((ANY, port))).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
}

/// Silence is a no; being refused is an answer of somebody that the test didn't mean.
async fn reaches(from: &Netns, to: SocketAddr) -> bool {
    let socket = from.run(TcpSocket::new_v4).unwrap().unwrap();
    let connected = tokio::time::timeout(SILENCE, async {
        let mut stream = socket.connect(to).await?;
        stream.read_u8().await
    });
    match connected.await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => panic!("{to} refuses"),
        Ok(answered) => answered.is_ok(),
        Err(_) => false,
    }
}

async fn reaches_by_udp(from: &Netns, to: SocketAddr) -> bool {
    let socket = from.run(|| std::net::UdpSocket::bind((ANY, 0))).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    socket.send_to(b"?", to).await.unwrap();
    let mut buffer = [0; 8];
    matches!(tokio::time::timeout(SILENCE, socket.recv(&mut buffer)).await, Ok(Ok(1)))
}

#[tokio::test]
async fn whom_nobody_isolates_is_open_and_who_is_isolated_is_open_to_peers_alone() {
    let here = Fixture::new().await;
    assert!(here.reaches("a", "b", 80).await);
    assert!(!nft(&here.inside(), &["list", "ruleset"]).contains("policies"), "no table without a policy");

    here.push(&[ingress("deny", "b", vec![])]);
    here.until(false, "a", "b", 80).await;
    assert!(!reaches_by_udp(here.pod("a"), SocketAddr::new(here.ip("b"), 80)).await);
    assert!(here.reaches("b", "a", 80).await, "answers to an isolated pod come back");
    assert!(here.reaches("b", "b", 80).await && here.reaches("a", "c", 80).await);
    assert!(reaches(&here.machine.host, SocketAddr::new(here.ip("b"), 80)).await, "its node reaches it");
    here.agent.connect(SocketAddr::new(here.ip("b"), 80)).await.expect("and so do its probes");

    // Policies add up; peers come and go.
    here.push(&[here.peers("s1", &["a"]), ingress("some", "b", vec![rule(Some(vec![set("s1")]), None)])]);
    here.until(true, "a", "b", 80).await;
    assert!(reaches_by_udp(here.pod("a"), SocketAddr::new(here.ip("b"), 80)).await);
    assert!(!here.reaches("c", "b", 80).await);
    here.push(&[here.peers("s1", &["c"])]);
    here.until(true, "c", "b", 80).await;
    assert!(!here.reaches("a", "b", 80).await, "at the same moment");

    here.push(&[removed("some")]);
    here.until(false, "c", "b", 80).await;
    here.push(&[removed("deny")]);
    here.until(true, "a", "b", 80).await;
    while nft(&here.inside(), &["list", "tables"]).contains("policies") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_goes_out_is_judged_too_and_both_ends_must_allow() {
    let here = Fixture::new().await;
    serve(&here.machine.world, ANY, 80);
    let world = SocketAddr::new(WORLD.into(), 80);
    here.push(&[
        here.peers("s1", &["b"]),
        egress("out", "a", vec![rule(Some(vec![set("s1")]), Some(vec![tcp(80, 80)]))]),
    ]);
    here.until(false, "a", "c", 80).await;
    assert!(here.reaches("a", "b", 80).await && !here.reaches("a", "b", 81).await);
    assert!(!reaches(here.pod("a"), world).await);
    assert!(
        reaches(here.pod("b"), world).await && here.reaches("b", "a", 80).await && here.reaches("a", "a", 90).await
    );
    here.push(&[ingress("in", "b", vec![])]);
    here.until(false, "a", "b", 80).await;
    here.push(&[removed("in"), egress("out", "a", vec![rule(Some(vec![block("192.0.2.0/24", &[])]), None)])]);
    while !reaches(here.pod("a"), world).await {
        tokio::task::yield_now().await;
    }
    assert!(!here.reaches("a", "b", 80).await);
}

#[tokio::test]
async fn ports_are_numbers_ranges_names_and_whole_protocols() {
    let here = Fixture::new().await;
    let udp = async |to: &str| reaches_by_udp(here.pod("a"), SocketAddr::new(here.ip(to), 80)).await;
    here.push(&[ingress("ports", "b", vec![rule(None, Some(vec![tcp(80, 81)]))])]);
    here.until(false, "a", "b", 90).await;
    assert!(here.reaches("a", "b", 80).await && here.reaches("a", "b", 81).await && !udp("b").await);
    here.push(&[ingress("ports", "b", vec![rule(None, Some(vec![Port::Any(Protocol::Udp)]))])]);
    here.until(false, "a", "b", 80).await;
    assert!(udp("b").await);

    // A name is another port on each pod; with several peers and ports, each of one with each of the other.
    let named = |ports: &[(&str, u16)]| {
        let ports = ports.iter().map(|(name, port)| SocketAddr::new(here.ip(name), *port)).collect();
        let part = Part::new("web", here.ip("a"));
        Frame::Peers(Peers { part, addresses: vec![], ports })
    };
    let by_name = Port::Named(Protocol::Tcp, "web".into());
    here.push(&[
        named(&[("b", 80), ("c", 90)]),
        removed("ports"),
        egress("named", "a", vec![rule(None, Some(vec![by_name.clone()]))]),
    ]);
    here.until(true, "a", "c", 90).await;
    here.until(true, "a", "b", 80).await;
    assert!(!here.reaches("a", "b", 90).await && !here.reaches("a", "c", 80).await);
    let many = rule(Some(vec![set("s1"), block("192.0.2.0/24", &[])]), Some(vec![by_name, tcp(81, 81)]));
    here.push(&[here.peers("s1", &["c"]), egress("named", "a", vec![many])]);
    here.until(false, "a", "b", 80).await;
    assert!(here.reaches("a", "c", 90).await && here.reaches("a", "c", 81).await && !here.reaches("a", "c", 80).await);
}

#[tokio::test]
async fn blocks_have_exceptions_and_the_outside_is_who_it_is() {
    let here = Fixture::new().await;
    let ports = vec![HostPort { protocol: PortProtocol::Tcp, host_ip: None, host_port: 8080, pod_port: 80 }];
    Network::attach(&*here.agent, "b", here.pods[1].0.path.clone(), ports).await.unwrap();
    let outside = SocketAddr::new(HOST.into(), 8080);
    assert!(reaches(&here.machine.world, outside).await);
    let (a, c) = (here.ip("a"), here.ip("c"));
    let except = format!("{c}/32");
    let inner = block("10.0.0.0/8", &["10.9.0.0/16", &except]);
    here.push(&[ingress("blocks", "b", vec![rule(Some(vec![inner, block("::/0", &[])]), None)])]);
    here.until(false, "c", "b", 80).await;
    assert!(here.reaches("a", "b", 80).await, "{a}");
    assert!(!reaches(&here.machine.world, outside).await);
    here.push(&[ingress("blocks", "b", vec![rule(Some(vec![block("0.0.0.0/0", &["10.0.0.0/8"])]), None)])]);
    here.until(false, "a", "b", 80).await;
    assert!(reaches(&here.machine.world, outside).await);
    here.push(&[ingress("blocks", "b", vec![rule(Some(vec![block("::/0", &[])]), None)])]);
    while reaches(&here.machine.world, outside).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_pod_is_isolated_before_it_can_be_reached_and_as_its_labels_say() {
    let here = Fixture::new().await;
    here.push(&[ingress("all", "d", vec![]), egress("all-out", "d", vec![])]);
    here.agent.describe("d", identity("ns", "d")).await;
    let (d, ip) = here.machine.pod(&here.agent, "d").await;
    serve(&d.netns, ANY, 80);
    let there = SocketAddr::new(ip, 80);
    assert!(!reaches(here.pod("a"), there).await, "from its first moment");
    assert!(!reaches(&d.netns, SocketAddr::new(here.ip("a"), 80)).await);

    here.agent.describe("d", identity("ns", "free")).await;
    while !reaches(here.pod("a"), there).await {
        tokio::task::yield_now().await;
    }
    here.agent.describe("d", identity("ns", "d")).await;
    while reaches(here.pod("a"), there).await {
        tokio::task::yield_now().await;
    }
    // Another namespace's policy is none of it.
    here.agent.describe("d", identity("other", "d")).await;
    while !reaches(here.pod("a"), there).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_allowed_goes_on_and_an_agent_started_again_finds_it_all() {
    let mut here = Fixture::new().await;
    let (mut stream, _) = call(here.pod("a"), here.ip("b"), 80).await.unwrap();
    here.push(&[
        here.peers("s1", &["c"]),
        ingress("in", "b", vec![rule(Some(vec![set("s1"), block("192.0.2.0/24", &[])]), None)]),
    ]);
    here.until(false, "a", "b", 80).await;
    assert_eq!(crate::machine::echo(&mut stream, "still").await.unwrap(), "still");
    let before = nft(&here.inside(), &["list", "table", "ip", "policies"]);

    here._keeping.abort();
    assert!(!here.reaches("a", "b", 80).await && here.reaches("c", "b", 80).await, "without an agent");
    let again = here.machine.agent_started_again("c-a");
    push(
        &again,
        &[
            here.peers("s1", &["c"]),
            ingress("in", "b", vec![rule(Some(vec![set("s1"), block("192.0.2.0/24", &[])]), None)]),
        ],
    );
    here.agent = again.clone();
    Network::attach(&*again, "a", here.pods[0].0.path.clone(), vec![]).await.unwrap();
    assert_eq!(nft(&here.inside(), &["list", "table", "ip", "policies"]), before, "nothing had to be changed");
    here._keeping = AbortOnDropHandle::new(tokio::spawn(again.keep()));
    here.push(&[here.peers("s1", &["a"])]);
    here.until(true, "a", "b", 80).await;
    assert!(!here.reaches("c", "b", 80).await);
}

#[tokio::test]
async fn many_policies_and_large_sets_are_set_in_parts() {
    let here = Fixture::new().await;
    let mut frames = Vec::new();
    for n in 0..300u32 {
        let part = |of: u8| {
            let addresses = (1..=20u8).map(|last| IpAddr::from([10, 244, of, last])).collect();
            Frame::Peers(Peers { part: Part::new(format!("s{n}"), [10, 244, of, 0].into()), addresses, ports: vec![] })
        };
        frames.extend([part(200), part(201)]);
        let ports = (0..4).map(|port| tcp(1000 + port, 2000 + u16::try_from(n).unwrap())).collect();
        let peers = vec![set(&format!("s{n}")), block(&format!("172.{}.{}.0/24", n / 200 + 16, n % 200), &[])];
        frames.push(ingress(&format!("p{n}"), "b", vec![rule(Some(peers), Some(ports))]));
    }
    frames.extend([here.peers("own", &["a"]), ingress("own", "b", vec![rule(Some(vec![set("own")]), None)])]);
    here.push(&frames);
    here.until(false, "c", "b", 80).await;
    assert!(here.reaches("a", "b", 80).await);
    let gone: Vec<Frame> = (0..300).map(|n| removed(&format!("p{n}"))).collect();
    here.push(&gone);
    while nft(&here.inside(), &["list", "sets"]).matches("set a").count() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(here.reaches("a", "b", 80).await && !here.reaches("c", "b", 80).await);
}

#[tokio::test]
async fn services_that_the_node_answers_are_asked_as_policies_allow() {
    let here = Fixture::new().await;
    let address = Ipv4Addr::new(10, 96, 0, 10);
    let port = |name: &str, protocol| ServicePort {
        name: name.into(),
        protocol,
        port: 53,
        node_port: None,
        app_protocol: String::new(),
    };
    let service = Service {
        namespace: "kube-system".into(),
        name: "kube-dns".into(),
        addresses: vec![address.into()],
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
        answered_by_node: Some(Answer::Dns),
        ..Service::default()
    };
    here.push(&[Frame::Service(service)]);
    here.agent.answer(Answered { api: None, dns: Some(std::net::SocketAddrV4::new(address, 53)) });
    let server = dns::Server::new(here.agent.map().clone(), here.machine.dir.path().join("none"));
    let _serving = AbortOnDropHandle::new(tokio::spawn(server.serve(here.agent.clone())));
    let asks = async |from: &Netns| {
        let socket = from.run(|| std::net::UdpSocket::bind((ANY, 0))).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = UdpSocket::from_std(socket).unwrap();
        // A question for kube-dns.kube-system.svc.cluster.local, type A.
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["kube-dns", "kube-system", "svc", "cluster", "local", ""] {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.as_bytes());
        }
        question.extend([0, 1, 0, 1]);
        socket.send_to(&question, (address, 53)).await.unwrap();
        let mut buffer = [0; 512];
        matches!(tokio::time::timeout(SILENCE, socket.recv(&mut buffer)).await, Ok(Ok(length)) if length > question.len())
    };
    while !asks(here.pod("a")).await {
        tokio::task::yield_now().await;
    }
    here.push(&[egress("closed", "a", vec![])]);
    while asks(here.pod("a")).await {
        tokio::task::yield_now().await;
    }
    assert!(asks(here.pod("b")).await);
    assert!(!reaches(here.pod("a"), SocketAddr::new(address.into(), 53)).await);
    // The set of `k8s-app: kube-dns` in `kube-system` has the Service's address.
    let dns = rule(Some(vec![set("dns")]), Some(vec![Port::Range(Protocol::Udp, 53, 53)]));
    let part = Part::new("dns", address.into());
    let peers = Frame::Peers(Peers { part, addresses: vec![address.into()], ports: vec![] });
    here.push(&[peers, egress("names", "a", vec![dns])]);
    while !asks(here.pod("a")).await {
        tokio::task::yield_now().await;
    }
    assert!(!here.reaches("a", "b", 80).await);
}

#[tokio::test]
async fn nobody_gets_around_a_policy_by_the_host_or_another_address() {
    let here = Fixture::new().await;
    let ports = vec![HostPort { protocol: PortProtocol::Tcp, host_ip: None, host_port: 8080, pod_port: 80 }];
    Network::attach(&*here.agent, "b", here.pods[1].0.path.clone(), ports).await.unwrap();
    let by_host = SocketAddr::new(HOST.into(), 8080);
    let neighbour = here.machine.agent("c-b", "10.244.9.0/24");
    let (stranger, _) = here.machine.pod(&neighbour, "x").await;
    assert!(reaches(here.pod("a"), by_host).await && reaches(&stranger.netns, by_host).await);
    here.push(&[here.peers("s1", &["c"]), ingress("in", "b", vec![rule(Some(vec![set("s1")]), None)])]);
    here.until(false, "a", "b", 80).await;
    assert!(reaches(&here.machine.host, SocketAddr::new(here.ip("b"), 80)).await, "the host itself");
    assert!(!reaches(here.pod("a"), by_host).await, "a pod by way of the host");
    assert!(!reaches(&stranger.netns, by_host).await, "a pod of another cluster");
    assert!(!reaches(&here.machine.world, by_host).await);

    // From the address of a peer.
    let IpAddr::V4(peer) = here.ip("c") else { panic!() };
    netlink(here.pod("a")).add_address_by_name("eth0", peer.into(), 32).await.unwrap();
    let socket = here.pod("a").run(TcpSocket::new_v4).unwrap().unwrap();
    socket.bind((peer, 0).into()).unwrap();
    assert!(tokio::time::timeout(SILENCE, socket.connect((here.ip("b"), 80).into())).await.is_err());
}

#[tokio::test]
async fn pods_reach_no_end_of_a_cable_and_no_service_of_the_machine() {
    let here = Fixture::new().await;
    // What a cloud tells its machines, at an address that only the machine itself has a way to.
    let told = Ipv4Addr::new(169, 254, 169, 254);
    netlink(&here.machine.host).add_address_by_name("lo", told.into(), 32).await.unwrap();
    serve(&here.machine.host, told, 80);
    here.push(&[egress("out", "a", vec![rule(Some(vec![block("0.0.0.0/0", &["169.254.0.0/16"])]), None)])]);
    serve(&here.machine.host, HOST, 7000);
    while reaches(here.pod("a"), SocketAddr::new(told.into(), 80)).await {
        tokio::task::yield_now().await;
    }
    assert!(reaches(here.pod("a"), SocketAddr::new(HOST.into(), 7000)).await);
    run(here.pod("a"), "ip", &["route", "add", "169.254.169.254", "dev", "eth0"]);
    assert!(tokio::time::timeout(SILENCE, call(here.pod("a"), told, 80)).await.map_or(true, |c| c.is_err()));
}
