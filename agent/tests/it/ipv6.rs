//! IPv6 beside IPv4 in real namespaces: pods, Services, policies, and who is kept out.

use crate::machine::{HOST, Machine, Place, call, endpoint, nft, push, ranges, run, serve};
use longshore_agent::network::PodNetwork;
use longshore_agent::pods::network::{HostPort, Identity, Network, Protocol as PortProtocol};
use longshore_api::network::{Cluster, EndpointPort, Endpoints, Frame, Node, Protocol, Service, ServicePort};
use longshore_api::network_policy::{Part, Peer, Peers, Policy, Rule};
use nlink::netlink::namespace::Netns;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpSocket;
use tokio_util::task::AbortOnDropHandle;

const BOTH: &str = "10.244.3.0/24,fd44:1:2:3::/64";
const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const HOST_V6: &str = "2001:db8::2";
const WORLD_V6: &str = "2001:db8::1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A machine whose network card has IPv6, too.
async fn machine() -> Machine {
    let machine = Machine::new().await;
    for (netns, address) in [(&machine.host, HOST_V6), (&machine.world, WORLD_V6)] {
        run(netns, "ip", &["address", "add", &format!("{address}/64"), "dev", "eth0", "nodad"]);
    }
    run(&machine.host, "ip", &["route", "add", "default", "via", WORLD_V6]);
    machine
}

fn agent(machine: &Machine, cluster: &str, slices: &str) -> Arc<PodNetwork> {
    let agent = machine.agent(cluster, slices);
    let both = Cluster { pod_range_v6: "fd44:1:2::/48".into(), service_range_v6: "fd55::/112".into(), ..ranges() };
    push(&agent, &[Frame::Cluster(both)]);
    agent
}

/// A pod and its IPv6 address.
async fn pod(machine: &Machine, agent: &PodNetwork, uid: &str) -> (Place, IpAddr) {
    let sandbox = machine.sandbox(uid);
    let ips = Network::attach(agent, uid, sandbox.path.clone(), vec![]).await.unwrap();
    assert!(ips.len() == 2 && ips[0].is_ipv4() && ips[1].is_ipv6(), "{ips:?}");
    (sandbox, ips[1])
}

#[tokio::test]
async fn pods_have_an_address_of_each_family() {
    let machine = machine().await;
    let agent = agent(&machine, "c-a", BOTH);
    let ((a, a_ip), (b, b_ip)) = (pod(&machine, &agent, "a").await, pod(&machine, &agent, "b").await);
    assert_eq!((a_ip, b_ip), (ip("fd44:1:2:3::2"), ip("fd44:1:2:3::3")));
    serve(&b.netns, ANY, 8080);
    assert_eq!(call(&a.netns, b_ip, 8080).await.unwrap().1, a_ip, "no translation between pods");
    assert_eq!(call(&a.netns, ip("10.244.3.3"), 8080).await.unwrap().1, ip("::ffff:10.244.3.2"));
    call(&b.netns, Ipv6Addr::LOCALHOST, 8080).await.expect("a pod has a loopback interface");
    call(&machine.host, b_ip, 8080).await.expect("the host has a route to its pods");
    agent.connect(SocketAddr::new(b_ip, 8080)).await.expect("probes come from inside");
    let nobody = call(&a.netns, ip("fd44:1:2:3::99"), 80).await.unwrap_err();
    assert_ne!(nobody.kind(), io::ErrorKind::TimedOut, "said at once: {nobody}");

    // Nothing that neighbours announce is believed.
    for (netns, device) in [(&a.netns, "eth0"), (&machine.host, "eth0")] {
        let accepts = netns.sysctl().get(&format!("net.ipv6.conf.{device}.accept_ra")).unwrap();
        let wanted = if device == "eth0" && std::ptr::eq(netns, &a.netns) { "0" } else { "2" };
        assert_eq!(accepts.trim(), wanted, "the host goes on learning its way out");
    }
    // As it was, whoever asks again and after a restart.
    drop(agent);
    let again = machine.agent_started_again("c-a");
    let ips = Network::attach(&*again, "b", b.path.clone(), vec![]).await.unwrap();
    assert_eq!(ips, [ip("10.244.3.3"), b_ip]);
    call(&a.netns, b_ip, 8080).await.unwrap();
}

#[tokio::test]
async fn what_pods_send_out_leaves_under_the_hosts_address() {
    let machine = machine().await;
    let agent = agent(&machine, "c-a", BOTH);
    let (a, a_ip) = pod(&machine, &agent, "a").await;
    serve(&machine.world, ANY, 80);
    assert_eq!(call(&a.netns, ip(WORLD_V6), 80).await.unwrap().1, ip(HOST_V6));
    // Nobody beyond the host comes in, even with a route.
    serve(&a.netns, ANY, 8080);
    run(&machine.world, "ip", &["route", "add", "fd44:1:2:3::/64", "via", HOST_V6]);
    assert!(call(&machine.world, a_ip, 8080).await.is_err());
}

/// Connects from an address that a pod gave itself.
async fn call_as(netns: &Netns, own: &str, to: IpAddr, port: u16) -> io::Result<()> {
    run(netns, "ip", &["address", "replace", &format!("{own}/128"), "dev", "eth0", "nodad"]);
    let socket = netns.run(TcpSocket::new_v6).unwrap()?;
    socket.bind(SocketAddr::new(ip(own), 0))?;
    let connecting = socket.connect(SocketAddr::new(to, port));
    tokio::time::timeout(std::time::Duration::from_secs(1), connecting).await.map_err(io::Error::other)??;
    Ok(())
}

#[tokio::test]
async fn a_pod_sends_under_its_own_address_alone() {
    let machine = machine().await;
    let agent = agent(&machine, "c-a", BOTH);
    let ((a, _), (b, b_ip)) = (pod(&machine, &agent, "a").await, pod(&machine, &agent, "b").await);
    serve(&b.netns, ANY, 8080);
    serve(&machine.world, ANY, 80);
    call(&a.netns, b_ip, 8080).await.unwrap();
    let inside = Netns::from_path(machine.dir.path().join("c-a/network/netns")).unwrap();
    // Another pod's, one of nobody, one of the world's; the answer has a way back to the first.
    pod(&machine, &agent, "c").await;
    for stranger in ["fd44:1:2:3::4", "fd44:1:2:3::77", "2001:db8:9::9"] {
        assert!(call_as(&a.netns, stranger, b_ip, 8080).await.is_err(), "{stranger}");
        assert!(call_as(&a.netns, stranger, ip(WORLD_V6), 80).await.is_err(), "{stranger}");
    }
    let seen = run(&inside, "cat", &["/proc/net/nf_conntrack"]);
    assert!(!seen.contains("0077"), "it was dropped before anything was made of it: {seen}");
}

#[tokio::test]
async fn two_clusters_share_a_host_and_not_each_others_pods() {
    let machine = machine().await;
    let one = agent(&machine, "c-a", BOTH);
    let two = agent(&machine, "c-b", "10.244.4.0/24,fd44:1:2:4::/64");
    let ((a, a_ip), (b, _)) = (pod(&machine, &one, "a").await, pod(&machine, &two, "b").await);
    serve(&a.netns, ANY, 8080);
    serve(&machine.host, ANY, 22);
    call(&machine.host, a_ip, 8080).await.unwrap();
    assert!(call(&b.netns, a_ip, 8080).await.is_err(), "another cluster's pod");
    call(&b.netns, ip(HOST_V6), 22).await.expect("a pod reaches its host, as by IPv4");
    serve(&machine.host, Ipv6Addr::LOCALHOST, 7000);
    assert!(call(&b.netns, Ipv6Addr::LOCALHOST, 7000).await.is_err());
    let before = nft(&machine.host, &["list", "tables"]);
    two.teardown().await.unwrap();
    let left = nft(&machine.host, &["list", "tables"]);
    assert_eq!(left.lines().count() * 2, before.lines().count(), "{left}");
    call(&machine.host, a_ip, 8080).await.expect("the neighbour is as it was");
}

#[tokio::test]
async fn a_host_without_it_has_ipv4_alone() {
    let machine = Machine::new().await;
    machine.host.sysctl().set("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
    let agent = agent(&machine, "c-a", BOTH);
    let sandbox = machine.sandbox("a");
    let ips = Network::attach(&*agent, "a", sandbox.path.clone(), vec![]).await.unwrap();
    assert_eq!(ips, [ip("10.244.3.2")]);
    assert!(!nft(&machine.host, &["list", "tables"]).contains("ip6"));
}

#[tokio::test]
async fn a_host_that_has_it_with_nobody_stays_as_it_is() {
    let machine = Machine::new().await;
    let agent = agent(&machine, "c-a", BOTH);
    let ((a, a_ip), (b, b_ip)) = (pod(&machine, &agent, "a").await, pod(&machine, &agent, "b").await);
    serve(&b.netns, ANY, 8080);
    assert_eq!(call(&a.netns, b_ip, 8080).await.unwrap().1, a_ip);
    call(&machine.host, b_ip, 8080).await.unwrap();
    let forwards = || machine.host.sysctl().get("net.ipv6.conf.all.forwarding").unwrap();
    assert_eq!(forwards().trim(), "0");
    run(&machine.host, "ip", &["address", "add", &format!("{HOST_V6}/64"), "dev", "eth0", "nodad"]);
    pod(&machine, &agent, "c").await;
    assert_eq!(forwards().trim(), "1");
}

fn service(addresses: &[&str]) -> Frame {
    Frame::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
            app_protocol: String::new(),
        }],
        ..Service::default()
    })
}

fn slice(name: &str, addresses: &[IpAddr]) -> Frame {
    Frame::Endpoints(Endpoints {
        namespace: "ns".into(),
        name: name.into(),
        service: "web".into(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: addresses.iter().map(|address| endpoint(*address, "n1")).collect(),
    })
}

async fn until(netns: &Netns, to: IpAddr, port: u16, answered: bool) -> Option<IpAddr> {
    loop {
        match call(netns, to, port).await {
            Ok((_, seen)) if answered => return Some(seen),
            Err(_) if !answered => return None,
            _ => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_ports_of_the_host_lead_to_pods() {
    let machine = machine().await;
    let agent = agent(&machine, "c-a", BOTH);
    let _keeping = AbortOnDropHandle::new(tokio::spawn(agent.clone().keep()));
    let ((a, a_ip), (b, b_ip)) = (pod(&machine, &agent, "a").await, pod(&machine, &agent, "b").await);
    serve(&b.netns, ANY, 8080);
    push(&agent, &[Frame::Node(Node { name: "n1".into(), ..Node::default() })]);
    push(&agent, &[service(&["10.96.0.7", "fd55::7"]), slice("v4", &[ip("10.244.3.3")]), slice("v6", &[b_ip])]);
    assert_eq!(until(&a.netns, ip("fd55::7"), 80, true).await, Some(a_ip));
    assert_eq!(until(&a.netns, ip("10.96.0.7"), 80, true).await, Some(ip("::ffff:10.244.3.2")));
    assert_eq!(until(&b.netns, ip("fd55::7"), 80, true).await, Some(ip("fd44:1:2:3::1")), "itself");
    let refused = call(&a.netns, ip("fd55::7"), 81).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // Node ports, from beyond and from the host itself.
    for (from, to) in [(&machine.world, HOST_V6), (&machine.host, HOST_V6)] {
        until(from, ip(to), 30080, true).await;
    }
    until(&machine.world, HOST.into(), 30080, true).await;

    // With one family, the other one's port is nobody's.
    push(&agent, &[service(&["10.96.0.7"])]);
    until(&a.netns, ip("fd55::7"), 80, false).await;
    until(&machine.world, ip(HOST_V6), 30080, false).await;
    until(&machine.world, HOST.into(), 30080, true).await;

    let asked = HostPort { protocol: PortProtocol::Tcp, host_ip: None, host_port: 9090, pod_port: 8080 };
    Network::attach(&*agent, "b", b.path.clone(), vec![asked]).await.unwrap();
    assert_eq!(call(&machine.world, ip(HOST_V6), 9090).await.unwrap().1, ip(WORLD_V6), "the pod sees who it is");
    call(&machine.world, HOST, 9090).await.unwrap();
    call(&a.netns, ip(HOST_V6), 9090).await.expect("another pod of the cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_stay_with_their_endpoint() {
    let machine = machine().await;
    let agent = agent(&machine, "c-a", BOTH);
    let _keeping = AbortOnDropHandle::new(tokio::spawn(agent.clone().keep()));
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        pods.push(pod(&machine, &agent, name).await);
    }
    // Each answers at a port of its own, too, so that it can be told who did.
    let Frame::Service(service) = service(&["fd55::7"]) else { return };
    push(
        &agent,
        &[Frame::Service(Service { affinity_seconds: Some(60), ..service }), slice("v6", &[pods[1].1, pods[2].1])],
    );
    let counted: Vec<_> = pods[1..].iter().map(|(place, _)| counting(&place.netns)).collect();
    until(&pods[0].0.netns, ip("fd55::7"), 80, true).await;
    for _ in 0..20 {
        call(&pods[0].0.netns, ip("fd55::7"), 80).await.unwrap();
    }
    let counts: Vec<usize> = counted.iter().map(|count| count.load(std::sync::atomic::Ordering::SeqCst)).collect();
    assert!(counts.contains(&0) && counts.iter().sum::<usize>() >= 21, "{counts:?}");
}

/// A server that counts its clients.
fn counting(netns: &Netns) -> Arc<std::sync::atomic::AtomicUsize> {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = netns.run(|| std::net::TcpListener::bind((ANY, 8080))).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (listener, counted) = (tokio::net::TcpListener::from_std(listener).unwrap(), count.clone());
    tokio::spawn(async move {
        while let Ok((mut client, from)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client, format!("{}\n", from.ip()).as_bytes()).await;
        }
    });
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_for_both_addresses() {
    let machine = machine().await;
    let agent = agent(&machine, "c-a", BOTH);
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        let identity = Identity { namespace: "ns".into(), labels: [("app".to_owned(), name.to_owned())].into() };
        agent.describe(name, identity).await;
        pods.push(pod(&machine, &agent, name).await);
        serve(&pods.last().unwrap().0.netns, ANY, 80);
    }
    let _keeping = AbortOnDropHandle::new(tokio::spawn(agent.clone().keep()));
    serve(&machine.world, ANY, 80);
    let [(a, a_ip), (b, b_ip), (c, _)] = &pods[..] else { return };
    let selector = || serde_json::from_value(serde_json::json!({"matchLabels": {"app": "b"}})).unwrap();
    let policy = |ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>| {
        let (namespace, name) = ("ns".into(), "p".into());
        Frame::Policy(Policy { namespace, name, selector: selector(), ingress, egress })
    };
    let of = |peer: Peer| vec![Rule { peers: Some(vec![peer]), ports: None }];
    let peers = [ip("10.244.3.2"), *a_ip].map(|address| {
        Frame::Peers(Peers { part: Part::new("s", address), addresses: vec![address], ports: Vec::new() })
    });
    push(&agent, &peers);
    push(&agent, &[policy(Some(of(Peer::Pods("s".into()))), None)]);
    for (to, v4) in [(*b_ip, false), (ip("10.244.3.3"), true)] {
        until(&c.netns, to, 80, false).await;
        until(&a.netns, to, 80, true).await;
        assert_eq!(v4, to.is_ipv4());
    }
    until(&b.netns, *b_ip, 80, true).await;
    call(&machine.host, *b_ip, 80).await.expect("a pod's own node reaches it always");
    // A block, with an exception.
    let block = |range: &str, except: &[&str]| Peer::Block {
        range: range.into(),
        except: except.iter().map(ToString::to_string).collect(),
    };
    push(&agent, &[policy(Some(of(block("fd44::/16", &["fd44:1:2:3::2/128"]))), None)]);
    until(&c.netns, *b_ip, 80, true).await;
    until(&a.netns, *b_ip, 80, false).await;
    until(&a.netns, ip("10.244.3.3"), 80, false).await;
    // Out: nothing but one address; neighbours at the cable are found all the same.
    push(&agent, &[policy(None, Some(of(block("2001:db8::/64", &[]))))]);
    until(&b.netns, ip(WORLD_V6), 80, true).await;
    until(&b.netns, *a_ip, 80, false).await;
    run(&b.netns, "ip", &["neighbour", "flush", "all"]);
    until(&b.netns, ip(WORLD_V6), 80, true).await;
}
