//! The name server of a node, in real namespaces.

use crate::machine::{Machine, Place, WORLD, endpoint, push};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use longshore_agent::network::PodNetwork;
use longshore_agent::network::dns::Server;
use longshore_agent::pods::network::Network;
use longshore_api::name_servers::NameServers;
use longshore_api::network::{Answer, EndpointPort, Endpoints, Frame, Key, Protocol, Service, ServicePort};
use nlink::netlink::namespace::Netns;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

struct Fixture {
    machine: Machine,
    agent: Arc<PodNetwork>,
    pod: Place,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Fixture {
    async fn new(resolvers: &str) -> Self {
        let machine = Machine::new().await;
        let agent = machine.agent("c-a", "10.244.3.0/24");
        let (pod, _) = machine.pod(&agent, "a").await;
        let resolv_conf = machine.dir.path().join("resolv.conf");
        std::fs::write(&resolv_conf, resolvers).unwrap();
        let names = Server::new(agent.map().clone(), resolv_conf);
        let tasks = vec![tokio::spawn(agent.clone().keep()), tokio::spawn(names.serve(agent.clone()))];
        let kube_dns = Service { answered_by_node: Some(Answer::Dns), ..service("kube-system", "kube-dns", &[DNS]) };
        push(&agent, &[Frame::Service(kube_dns)]);
        let this = Self { machine, agent, pod, _tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect() };
        while this.ask("kubernetes.default.svc.cluster.local.", RecordType::A).await.is_none() {
            tokio::task::yield_now().await;
        }
        this
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Option<Message> {
        by_udp(&self.pod.netns, DNS.into(), name, kind).await
    }
}

fn service(namespace: &str, name: &str, addresses: &[Ipv4Addr]) -> Service {
    let port = ServicePort {
        name: "dns".into(),
        protocol: Protocol::Udp,
        port: 53,
        node_port: None,
        app_protocol: String::new(),
    };
    Service {
        namespace: namespace.into(),
        name: name.into(),
        addresses: addresses.iter().map(|ip| (*ip).into()).collect(),
        ports: vec![port],
        ..Service::default()
    }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// None: nobody answers yet.
async fn by_udp(netns: &Netns, server: IpAddr, name: &str, kind: RecordType) -> Option<Message> {
    let socket = netns.run(|| std::net::UdpSocket::bind(("0.0.0.0", 0))).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    socket.connect((server, 53)).await.unwrap();
    socket.send(&question(name, kind)).await.ok()?;
    let mut buffer = vec![0; 65_535];
    let length = timeout(Duration::from_secs(8), socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

async fn by_tcp(netns: &Netns, name: &str, kind: RecordType) -> Message {
    let socket = netns.run(TcpSocket::new_v4).unwrap().unwrap();
    let mut stream = socket.connect((DNS, 53).into()).await.unwrap();
    let question = question(name, kind);
    stream.write_u16(question.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let mut all: Vec<_> = message.answers.iter().filter_map(|r| r.data.ip_addr()).collect();
    all.sort();
    all
}

/// As [`name_server`], in the agent's own namespace.
async fn fake_resolver(at: SocketAddr) -> Arc<AtomicUsize> {
    name_server(&Netns::current().unwrap(), at, "there.example.", [192, 0, 2, 99])
}

/// Answers `ip` for `name`, that nothing is for others; counts what it is asked.
fn name_server(netns: &Netns, at: SocketAddr, name: &'static str, ip: [u8; 4]) -> Arc<AtomicUsize> {
    let socket = netns.run(|| std::net::UdpSocket::bind(at)).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
            answer.metadata.recursion_available = true;
            let query = question.queries[0].clone();
            if query.name().to_ascii().eq_ignore_ascii_case(name) {
                answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A(ip.into()))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            answer.add_query(query);
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    asked
}

#[tokio::test]
async fn the_clusters_names_are_answered_to_pods_and_to_the_host() {
    let here = Fixture::new("").await;
    let vip = Ipv4Addr::new(10, 96, 0, 7);
    push(&here.agent, &[Frame::Service(service("ns", "web", &[vip]))]);
    let found = here.ask("web.ns.svc.cluster.local.", RecordType::A).await.unwrap();
    assert_eq!(addresses(&found), [IpAddr::from(vip)]);
    assert!(found.metadata.authoritative && found.metadata.recursion_available);
    let missing = here.ask("nobody.ns.svc.cluster.local.", RecordType::A).await.unwrap();
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities.len(), 1, "until when it may be taken for missing");
    let from_host = here.agent.dns_servers(true)[0];
    let told = by_udp(&here.machine.host, from_host, "web.ns.svc.cluster.local.", RecordType::A).await.unwrap();
    assert_eq!(addresses(&told), [IpAddr::from(vip)], "a pod in the host's network");
    assert_eq!(here.agent.dns_servers(false), [IpAddr::from(DNS)]);
    // Nobody else is there to be asked.
    let foreign = here.ask("there.example.", RecordType::A).await.unwrap();
    assert_eq!(foreign.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_is_too_long_for_a_packet_comes_whole_over_tcp() {
    let here = Fixture::new("").await;
    let slice = Endpoints {
        namespace: "ns".into(),
        name: "db-1".into(),
        service: "db".into(),
        ports: vec![EndpointPort { name: "sql".into(), protocol: Protocol::Tcp, port: 1 }],
        endpoints: (1..=100).map(|n| endpoint([10, 244, 7, n].into(), "n2")).collect(),
    };
    push(&here.agent, &[Frame::Service(service("ns", "db", &[])), Frame::Endpoints(slice)]);
    let cut = here.ask("db.ns.svc.cluster.local.", RecordType::A).await.unwrap();
    assert!(cut.metadata.truncation && addresses(&cut).len() < 100);
    let whole = by_tcp(&here.pod.netns, "db.ns.svc.cluster.local.", RecordType::A).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole).len(), 100);
}

#[tokio::test]
async fn other_names_are_asked_of_the_hosts_resolvers_once() {
    let asked = fake_resolver("127.0.53.7:53".parse().unwrap()).await;
    let here = Fixture::new("nameserver 127.0.53.7\nsearch corp\noptions ndots:2\n").await;
    for _ in 0..3 {
        let found = here.ask("there.example.", RecordType::A).await.unwrap();
        assert_eq!(addresses(&found), [IpAddr::from([192, 0, 2, 99])]);
        assert!(!found.metadata.authoritative);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "then from the cache");
    let missing = here.ask("nowhere.example.", RecordType::A).await.unwrap();
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "names come whole, and nothing is added");
    let alias = Service { external_name: "there.example".into(), ..service("ns", "out", &[]) };
    push(&here.agent, &[Frame::Service(alias)]);
    let found = here.ask("out.ns.svc.cluster.local.", RecordType::A).await.unwrap();
    assert_eq!(found.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(addresses(&found), [IpAddr::from([192, 0, 2, 99])]);
}

fn chosen(stubs: &[(&str, &str)], upstreams: &[&str]) -> Frame {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    Frame::NameServers(NameServers {
        stubs: stubs.iter().map(|(domain, server)| ((*domain).to_owned(), vec![at(server)])).collect(),
        upstreams: upstreams.iter().map(|server| at(server)).collect(),
    })
}

#[tokio::test]
async fn chosen_domains_are_asked_of_their_servers_in_pods_by_address_and_by_service() {
    let hosts = fake_resolver("127.0.53.9:53".parse().unwrap()).await;
    let here = Fixture::new("nameserver 127.0.53.9\n").await;
    let (dns, ip) = here.machine.pod(&here.agent, "dns").await;
    let asked = name_server(&dns.netns, SocketAddr::new(ip, 5353), "www.acme.local.", [192, 0, 2, 7]);
    push(&here.agent, &[chosen(&[("acme.local", &format!("{ip}:5353"))], &[])]);
    for _ in 0..2 {
        let found = here.ask("www.acme.local.", RecordType::A).await.unwrap();
        assert_eq!(addresses(&found), [IpAddr::from([192, 0, 2, 7])]);
    }
    assert_eq!((asked.load(Ordering::SeqCst), hosts.load(Ordering::SeqCst)), (1, 0), "then from the cache");
    let other = here.ask("there.example.", RecordType::A).await.unwrap();
    assert_eq!(addresses(&other), [IpAddr::from([192, 0, 2, 99])], "other names are the host's resolvers'");

    // The server is known by its Service, and what is longer wins.
    let slice = Endpoints {
        namespace: "ns".into(),
        name: "dns-1".into(),
        service: "dns".into(),
        ports: vec![EndpointPort { name: "dns".into(), protocol: Protocol::Udp, port: 5353 }],
        endpoints: vec![endpoint(ip, "n1")],
    };
    let vip = Ipv4Addr::new(10, 96, 0, 53);
    let both = chosen(&[("local", "10.96.0.99:53"), ("acme.local", &format!("{vip}:53"))], &[]);
    push(&here.agent, &[Frame::Service(service("ns", "dns", &[vip])), Frame::Endpoints(slice), both]);
    // Until the Service is in the kernel its address refuses.
    while addresses(&here.ask("www.acme.local.", RecordType::A).await.unwrap()).is_empty() {}
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let own = here.ask("nobody.ns.svc.cluster.local.", RecordType::A).await.unwrap();
    assert!(own.metadata.authoritative, "the cluster's own domain stays its own");

    push(&here.agent, &[Frame::Removed(Key::NameServers)]);
    let gone = here.ask("www.acme.local.", RecordType::A).await.unwrap();
    assert_eq!((gone.metadata.response_code, asked.load(Ordering::SeqCst)), (ResponseCode::NXDomain, 2));
}

/// Who chooses a name server must reach nothing that a pod wouldn't.
#[tokio::test]
async fn chosen_servers_are_asked_as_a_pod_asks_and_never_from_the_host() {
    let here = Fixture::new("").await;
    let (host, world) = (&here.machine.host, &here.machine.world);
    let secret = |netns: &Netns, at: &str| name_server(netns, at.parse().unwrap(), "www.acme.local.", [192, 0, 2, 8]);
    // One that only the host itself has, one of the agent's own namespace, another cluster's, one that anybody reaches.
    let loopback = secret(host, "127.0.0.1:53");
    let agents = secret(&Netns::current().unwrap(), "127.0.53.10:53");
    let other = here.machine.agent("c-b", "10.245.0.0/24");
    let _other = AbortOnDropHandle::new(tokio::spawn(other.clone().keep()));
    let (stranger, at) = here.machine.pod(&other, "stranger").await;
    let strangers = secret(&stranger.netns, &format!("{at}:53"));
    let public = secret(world, &format!("{WORLD}:53"));
    for server in ["127.0.0.1:53", "127.0.53.10:53", &format!("{at}:53")] {
        push(&here.agent, &[chosen(&[("acme.local", server)], &[])]);
        let told = here.ask("www.acme.local.", RecordType::A).await;
        assert!(told.is_none_or(|told| told.metadata.response_code == ResponseCode::ServFail), "{server}");
    }
    for counter in [&loopback, &agents, &strangers] {
        assert_eq!(counter.load(Ordering::SeqCst), 0);
    }
    // Our own address would be asked without end.
    push(&here.agent, &[chosen(&[], &[&format!("{DNS}:53")])]);
    let told = here.ask("www.acme.local.", RecordType::A).await.unwrap();
    assert_eq!(told.metadata.response_code, ResponseCode::ServFail);

    push(&here.agent, &[chosen(&[], &[&format!("{WORLD}:53")])]);
    let told = here.ask("www.acme.local.", RecordType::A).await.unwrap();
    assert_eq!(addresses(&told), [IpAddr::from([192, 0, 2, 8])], "by the way that pods take");
    assert_eq!(public.load(Ordering::SeqCst), 1);
}
