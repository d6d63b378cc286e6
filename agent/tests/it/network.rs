//! The pods' network in real namespaces.

use crate::machine::{
    HOST, Machine, Place, WORLD, call, call_when_there, echo, greeting, mounted_below, netlink, nft, run, serve,
};
use longshore_agent::network::{self, Answered};
use longshore_agent::pods::network::{HostPort, Network, NetworkError, Protocol};
use nlink::netlink::namespace::Netns;
use nlink::netlink::route::Ipv4Route;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use tokio::net::{TcpSocket, TcpStream};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const SLICE: &str = "10.244.3.0/24";

fn api(address: SocketAddrV4) -> Answered {
    Answered { api: Some(address), dns: None }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn pods_reach_each_other_and_the_host_reaches_them() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    assert!(agent.not_ready().borrow().is_some(), "nothing is made yet");
    let (a, a_ip) = machine.pod(&agent, "a").await;
    let (b, b_ip) = machine.pod(&agent, "b").await;
    assert_eq!((a_ip, b_ip), (ip("10.244.3.2"), ip("10.244.3.3")));
    assert_eq!(*agent.not_ready().borrow(), None);
    serve(&b.netns, ANY, 8080);
    let (mut stream, seen) = call(&a.netns, b_ip, 8080).await.unwrap();
    assert_eq!(seen, a_ip, "no translation between pods");
    assert_eq!(echo(&mut stream, "hello").await.unwrap(), "hello");
    call(&b.netns, ip("127.0.0.1"), 8080).await.expect("a pod has a loopback interface");
    call(&machine.host, b_ip, 8080).await.expect("the host has a route to its pods");
    let probe = agent.connect(SocketAddr::new(b_ip, 8080)).await.unwrap();
    assert_eq!(greeting(probe).await.unwrap().1, ip("10.244.3.1"), "probes come from the node's own address");
}

#[tokio::test]
async fn what_pods_send_out_leaves_under_the_hosts_address() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let (pod, _) = machine.pod(&agent, "a").await;
    serve(&machine.world, ANY, 80);
    serve(&machine.host, ANY, 22);
    assert_eq!(call(&pod.netns, WORLD, 80).await.unwrap().1, IpAddr::from(HOST));
    call(&pod.netns, HOST, 22).await.expect("a pod reaches its host");
}

#[tokio::test]
async fn a_host_that_drops_forwarded_packets_lets_ours_pass() {
    let machine = Machine::new().await;
    run(&machine.host, "iptables", &["-P", "FORWARD", "DROP"]);
    let before = run(&machine.host, "iptables", &["-S"]);
    let agent = machine.agent("c-a", SLICE);
    let (pod, _) = machine.pod(&agent, "a").await;
    serve(&machine.world, ANY, 80);
    call(&pod.netns, WORLD, 80).await.unwrap();
    machine.pod(&agent, "b").await;
    let rules = run(&machine.host, "iptables", &["-S", "FORWARD"]);
    assert_eq!(rules.matches("-j ACCEPT").count(), 2, "once, however often it was looked at: {rules}");
    run(&machine.host, "iptables", &["-F", "FORWARD"]);
    machine.pod(&agent, "c").await;
    call(&pod.netns, WORLD, 80).await.expect("mended");
    agent.teardown().await.unwrap();
    assert_eq!(run(&machine.host, "iptables", &["-S"]), before);
}

#[tokio::test]
async fn two_clusters_with_one_range_share_a_host_and_not_each_others_pods() {
    let machine = Machine::new().await;
    let (one, two) = (machine.agent("c-a", SLICE), machine.agent("c-b", SLICE));
    let (a, a_ip) = machine.pod(&one, "a").await;
    let (a2, a2_ip) = machine.pod(&one, "a2").await;
    let (b, b_ip) = machine.pod(&two, "b").await;
    assert_eq!(a_ip, b_ip);
    serve(&machine.world, ANY, 80);
    serve(&a.netns, ANY, 8080);
    for pod in [&a, &b] {
        assert_eq!(call(&pod.netns, WORLD, 80).await.unwrap().1, IpAddr::from(HOST));
    }
    assert_eq!(call(&a2.netns, a_ip, 8080).await.unwrap().1, a2_ip);
    serve(&a2.netns, ANY, 9090);
    call(&machine.host, a2_ip, 9090).await.expect("the first cluster has the host's route");
    assert!(call(&b.netns, a2_ip, 9090).await.is_err(), "another cluster's pod");
    serve(&b.netns, ANY, 7070);
    two.connect(SocketAddr::new(b_ip, 7070)).await.expect("the node reaches its pods from inside all the same");

    // The same range in other clusters isn't the only way: a neighbour's route is none of ours either.
    let third = machine.agent("c-c", "10.244.9.0/24");
    let (c, _) = machine.pod(&third, "c").await;
    assert!(call(&c.netns, a2_ip, 9090).await.is_err(), "another cluster's pod behind the host's route");
}

#[tokio::test]
async fn machines_beyond_the_host_dont_reach_pods_through_it() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let (pod, pod_ip) = machine.pod(&agent, "a").await;
    serve(&pod.netns, ANY, 8080);
    call(&machine.host, pod_ip, 8080).await.unwrap();
    let world = netlink(&machine.world);
    world.add_route(Ipv4Route::new(Ipv4Addr::new(10, 244, 3, 0), 24).gateway(HOST)).await.unwrap();
    assert!(call(&machine.world, pod_ip, 8080).await.is_err());
}

#[tokio::test]
async fn an_agent_started_again_finds_everything_as_it_was() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let (a, a_ip) = machine.pod(&agent, "a").await;
    let (b, b_ip) = machine.pod(&agent, "b").await;
    serve(&b.netns, ANY, 8080);
    serve(&machine.world, ANY, 80);
    let mut between = call(&a.netns, b_ip, 8080).await.unwrap().0;
    let mut out = call(&a.netns, WORLD, 80).await.unwrap().0;
    let before = machine.seen().await;
    drop(agent);
    assert_eq!(echo(&mut between, "without an agent").await.unwrap(), "without an agent");

    let agent = machine.agent_started_again("c-a");
    for (place, address) in [(&a, a_ip), (&b, b_ip)] {
        let uid = if address == a_ip { "a" } else { "b" };
        for _ in 0..2 {
            assert_eq!(Network::attach(&*agent, uid, place.path.clone(), vec![]).await.unwrap(), [address]);
        }
    }
    assert_eq!(machine.seen().await, before);
    assert_eq!(echo(&mut between, "still").await.unwrap(), "still");
    assert_eq!(echo(&mut out, "here").await.unwrap(), "here");
    let (_, c_ip) = machine.pod(&agent, "c").await;
    assert!(![a_ip, b_ip].contains(&c_ip));
}

#[tokio::test]
async fn a_sandbox_made_anew_has_its_pods_address() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let (_old, a_ip) = machine.pod(&agent, "a").await;
    let (b, _) = machine.pod(&agent, "b").await;
    let anew = machine.sandbox("anew");
    assert_eq!(Network::attach(&*agent, "a", anew.path.clone(), vec![]).await.unwrap(), [a_ip]);
    serve(&anew.netns, ANY, 8080);
    call(&b.netns, a_ip, 8080).await.unwrap();
}

#[tokio::test]
async fn pods_that_are_gone_leave_nothing() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", "10.244.3.0/29");
    let cables = async || {
        let links = netlink(&Netns::from_path(machine.dir.path().join("c-a/network/netns")).unwrap());
        links.get_links().await.unwrap().iter().filter(|l| l.name_or("").starts_with("pod-")).count()
    };
    for uid in ["a", "b", "c", "d", "e"] {
        machine.pod(&agent, uid).await;
    }
    let full = Network::attach(&*agent, "f", machine.sandbox("f").path, vec![]).await.unwrap_err();
    assert!(matches!(&full, NetworkError::Failed(why) if why.contains("no address is free")), "{full}");
    assert_eq!(cables().await, 5);
    agent.retain(vec!["a".into(), "b".into()]).await.unwrap();
    assert_eq!(cables().await, 2);
    for _ in 0..2 {
        Network::detach(&*agent, "a").await.unwrap();
    }
    assert_eq!(cables().await, 1);
    for uid in ["g", "h", "i", "j"] {
        machine.pod(&agent, uid).await;
    }
}

#[tokio::test]
async fn what_someone_takes_away_comes_back() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let (a, a_ip) = machine.pod(&agent, "a").await;
    let whole = machine.seen().await;
    serve(&machine.world, ANY, 80);
    nft(&machine.host, &["flush", "ruleset"]);
    let host = netlink(&machine.host);
    let uplink = host.get_links().await.unwrap().into_iter().find(|l| l.name_or("").starts_with("ls-")).unwrap();
    host.del_link(uplink.ifindex()).await.unwrap();
    netlink(&a.netns).del_link("eth0").await.unwrap();
    assert!(call(&a.netns, WORLD, 80).await.is_err());
    assert_eq!(Network::attach(&*agent, "a", a.path.clone(), vec![]).await.unwrap(), [a_ip]);
    call(&a.netns, WORLD, 80).await.unwrap();
    assert_eq!(machine.seen().await, whole);
}

#[tokio::test]
async fn ranges_of_others_stay_theirs() {
    let machine = Machine::new().await;
    let host = netlink(&machine.host);
    host.add_route(Ipv4Route::new(Ipv4Addr::new(10, 244, 0, 0), 16).gateway(WORLD)).await.unwrap();
    serve(&machine.world, ANY, 80);
    let world = netlink(&machine.world);
    world.add_address_by_name("eth0", ip("10.244.3.2"), 32).await.unwrap();
    let agent = machine.agent("c-a", SLICE);
    let (pod, pod_ip) = machine.pod(&agent, "a").await;
    assert_eq!(pod_ip, ip("10.244.3.2"));
    assert_eq!(call(&machine.host, pod_ip, 80).await.unwrap().1, IpAddr::from(HOST), "the other one still");
    assert_eq!(call(&pod.netns, WORLD, 80).await.unwrap().1, IpAddr::from(HOST));
}

#[tokio::test]
async fn a_namespace_that_is_the_hosts_own_is_refused() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let before = machine.seen().await;
    for path in [machine.dir.path().join("host"), "/proc/self/ns/net".into()] {
        let refused = Network::attach(&*agent, "a", path, vec![]).await.unwrap_err();
        assert_eq!(refused, NetworkError::Failed("the pod's network namespace is gone".into()));
    }
    assert!(machine.seen().await.starts_with(before.lines().next().unwrap()));
}

#[tokio::test]
async fn without_a_slice_pods_wait() {
    let machine = Machine::new().await;
    let agent = machine.agent_started_again("c-a");
    let waits = Network::attach(&*agent, "a", machine.sandbox("a").path, vec![]).await.unwrap_err();
    assert!(matches!(waits, NetworkError::NotReady(_)));
    agent.set_ranges(&["fd00::/64".into()]);
    assert_eq!(agent.not_ready().borrow().as_deref().unwrap(), "the node's pod range \"fd00::/64\" is of no use");
}

#[tokio::test]
async fn leaving_leaves_nothing() {
    let machine = Machine::new().await;
    let neighbour = machine.agent("c-b", "10.244.9.0/24");
    let (other, _) = machine.pod(&neighbour, "b").await;
    let before = machine.seen().await;
    let agent = machine.agent("c-a", SLICE);
    machine.pod(&agent, "a").await;
    assert_ne!(machine.seen().await, before);
    for _ in 0..2 {
        agent.teardown().await.unwrap();
    }
    assert_eq!(machine.seen().await, before);
    assert!(!machine.dir.path().join("c-a/network").exists());
    assert!(mounted_below(&machine.dir.path().join("c-a")).is_empty());
    serve(&machine.world, ANY, 80);
    call(&other.netns, WORLD, 80).await.expect("the neighbour is as it was");
}

#[tokio::test]
async fn kubernetes_is_answered_at_its_own_address_and_for_the_host() {
    let machine = Machine::new().await;
    let service: SocketAddrV4 = "10.96.0.1:443".parse().unwrap();
    let agents = [machine.agent("c-a", SLICE), machine.agent("c-b", SLICE)];
    for (number, agent) in agents.iter().enumerate() {
        assert_eq!(agent.api_from_host(), None);
        let server = Ipv4Addr::new(127, 0, 0, 10 + u8::try_from(number).unwrap());
        serve(&machine.host, server, 6443);
        let host = Arc::new(machine.host.try_clone().unwrap());
        let dial = move || {
            let host = host.clone();
            async move { host.run(TcpSocket::new_v4).unwrap()?.connect((server, 6443).into()).await }
        };
        let agent = agent.clone();
        tokio::spawn(agent.clone().keep());
        tokio::spawn(async move { network::kubernetes::serve(agent, dial).await });
    }
    let mut pods = Vec::new();
    for (agent, uid) in agents.iter().zip(["a", "b"]) {
        agent.answer(api(service));
        pods.push(machine.pod(agent, uid).await.0);
    }
    for (pod, agent) in pods.iter().zip(&agents) {
        let (mut stream, _) = call_when_there(&pod.netns, *service.ip(), 443).await;
        assert_eq!(echo(&mut stream, "raw").await.unwrap(), "raw");
        let from_host = agent.api_from_host().unwrap();
        assert_eq!(echo(&mut call_when_there(&machine.host, from_host, 443).await.0, "host").await.unwrap(), "host");
        assert!(call(&machine.world, from_host, 443).await.is_err());
    }
    assert_ne!(agents[0].api_from_host(), agents[1].api_from_host());

    agents[0].answer(api("10.96.7.7:6443".parse().unwrap()));
    call_when_there(&pods[0].netns, ip("10.96.7.7"), 6443).await;
    call_when_there(&pods[1].netns, ip("10.96.0.1"), 443).await;

    // An agent started again answers it before it has heard of its server.
    let again = machine.agent_started_again("c-b");
    Network::attach(&*again, "b", pods[1].path.clone(), vec![]).await.unwrap();
    assert!(again.api_from_host().is_some());
}

#[tokio::test]
async fn a_connection_to_an_api_that_is_away_breaks() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    agent.answer(api("10.96.0.1:443".parse().unwrap()));
    let (pod, _) = machine.pod(&agent, "a").await;
    let serving = agent.clone();
    let dial = || async { Err::<TcpStream, _>(io::ErrorKind::NotConnected.into()) };
    tokio::spawn(async move { network::kubernetes::serve(serving, dial).await });
    loop {
        // Refused until it is answered, then reset: never an end that could be taken for an answer.
        let why = call(&pod.netns, ip("10.96.0.1"), 443).await.unwrap_err().kind();
        match why {
            io::ErrorKind::ConnectionReset => break,
            other => assert_eq!(other, io::ErrorKind::ConnectionRefused),
        }
    }
}

#[tokio::test]
async fn ports_of_the_host_lead_to_pods() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    // A neighbour on the same ports of another address.
    let other = machine.agent("c-b", SLICE);
    agent.answer(api("10.96.0.1:443".parse().unwrap()));
    let ports = |list: &[(Option<Ipv4Addr>, u16, u16)]| -> Vec<HostPort> {
        let all = list.iter().copied();
        all.map(|(host_ip, host_port, pod_port)| HostPort { protocol: Protocol::Tcp, host_ip, host_port, pod_port })
            .collect()
    };
    let second = Ipv4Addr::new(192, 0, 2, 3);
    netlink(&machine.host).add_address_by_name("eth0", second.into(), 24).await.unwrap();
    let (a, b, x) = (machine.sandbox("a"), machine.sandbox("b"), machine.sandbox("x"));
    let attach = async |agent: &network::PodNetwork, uid: &str, at: &Place, list: &[_]| {
        Network::attach(agent, uid, at.path.clone(), ports(list)).await.unwrap()[0]
    };
    let asked = [(None, 8080, 80), (Some(HOST), 9090, 90)];
    let a_ip = attach(&agent, "a", &a, &asked).await;
    attach(&agent, "b", &b, &[]).await;
    attach(&other, "x", &x, &[(Some(second), 9090, 90)]).await;
    for (place, port) in [(&a, 80), (&a, 90), (&x, 90)] {
        serve(&place.netns, ANY, port);
    }

    assert_eq!(call(&machine.world, HOST, 8080).await.unwrap().1, IpAddr::from(WORLD), "the pod sees who it is");
    call(&machine.world, second, 8080).await.unwrap();
    for address in [HOST, second, Ipv4Addr::LOCALHOST] {
        call(&machine.host, address, 8080).await.unwrap_or_else(|e| panic!("from the host by {address}: {e}"));
    }
    call(&b.netns, HOST, 8080).await.expect("another pod of the cluster");
    call(&a.netns, HOST, 8080).await.expect("the pod itself");
    call(&x.netns, HOST, 8080).await.expect("another cluster's pod, as anybody");
    call(&machine.world, HOST, 9090).await.unwrap();
    call(&machine.world, second, 9090).await.expect("the neighbour's");
    assert!(call(&machine.world, HOST, 80).await.is_err());
    assert!(call(&b.netns, a_ip, 8080).await.is_err(), "a port of the host is none of the pod");

    let before = machine.seen().await;
    let again = machine.agent_started_again("c-a");
    Network::attach(&*again, "b", b.path.clone(), vec![]).await.unwrap();
    assert_eq!(machine.seen().await, before, "kept over a restart");
    Network::detach(&*again, "a").await.unwrap();
    assert!(call(&machine.world, HOST, 8080).await.is_err());
    call(&machine.world, second, 9090).await.expect("the neighbour's still");
}

#[tokio::test]
async fn pods_dont_reach_what_listens_on_the_hosts_loopback() {
    let machine = Machine::new().await;
    let agent = machine.agent("c-a", SLICE);
    let (pod, _) = machine.pod(&agent, "a").await;
    serve(&machine.host, Ipv4Addr::LOCALHOST, 7000);
    serve(&machine.host, HOST, 7001);
    call(&pod.netns, HOST, 7001).await.unwrap();
    // As a pod with the right to set routes would try it.
    pod.netns.sysctl().set("net.ipv4.conf.all.route_localnet", "1").unwrap();
    for own in ["127.0.0.0/8", "127.0.0.1"] {
        run(&pod.netns, "ip", &["route", "del", "local", own, "dev", "lo", "table", "local"]);
    }
    run(&pod.netns, "ip", &["route", "add", "127.0.0.1", "via", "10.244.3.1"]);
    assert!(call(&pod.netns, Ipv4Addr::LOCALHOST, 7000).await.is_err());
}

#[tokio::test]
async fn a_connection_to_oneself_goes_nowhere_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = Netns::current().unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(longshore_agent::network::connect_own(&here, address), listener.accept());
    assert_eq!(connected.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    for elsewhere in ["198.51.100.7:80", "169.254.169.254:80"] {
        let refused = longshore_agent::network::connect_own(&here, elsewhere.parse().unwrap()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrNotAvailable, "{elsewhere}");
    }
}
