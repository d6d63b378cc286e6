//! Who may speak, under which keys, and until when.

use crate::node::{Hub, MTU, Node, introduce, until};
use crate::tcp::{self, Flow};
use longshore_e2e::internet::{Internet, Nat, Netns};
use longshore_mesh::PrivateKey;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const SOON: Duration = Duration::from_secs(10);

/// Two nodes that know each other, with nothing but the relay between them.
fn relayed() -> ([Node; 2], Arc<Hub>) {
    let hub = Arc::new(Hub::default());
    let nodes = [Node::start(1, None, &hub), Node::start(2, None, &hub)];
    introduce(&[&nodes[0], &nodes[1]]);
    (nodes, hub)
}

/// A pod's socket for datagrams, which doesn't wait.
fn datagrams(netns: &Netns, address: &str) -> UdpSocket {
    let socket = netns.udp(address);
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Whether `word` arrives at `to` when it is sent again and again.
async fn arrives(from: &UdpSocket, to: &UdpSocket, word: &[u8], at_most: Duration) -> bool {
    let (begin, mut buffer) = (std::time::Instant::now(), [0; 2048]);
    while begin.elapsed() < at_most {
        let _ = from.send_to(word, to.local_addr().unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
        while let Ok(length) = to.recv(&mut buffer) {
            if buffer[..length] == *word {
                return true;
            }
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_is_cut_off_at_once() {
    let ([a, b], _hub) = relayed();
    let flow = Flow::start(&a, &b).await;
    until("bytes flow", SOON, || flow.received() > 100_000).await;
    b.mesh.set_peers([].into());
    assert!(b.mesh.links().is_empty());
    // What had been opened before may still be read.
    let (near, far) = (datagrams(&a.cluster, "10.1.1.2:0"), datagrams(&b.cluster, "10.1.2.2:0"));
    assert!(!arrives(&near, &far, b"still there?", Duration::from_millis(500)).await);
    // Back in the map, it is served again, on the same connection.
    introduce(&[&a, &b]);
    let before = flow.received();
    until("bytes flow again", SOON, || flow.received() > before + 100_000).await;
    flow.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_runs_out_cuts_off() {
    let ([a, b], _hub) = relayed();
    tcp::echo(&a, &b).await;
    let mut info = a.info();
    info.expires = SystemTime::now() + Duration::from_millis(1500);
    b.mesh.set_peers([(a.id.clone(), info)].into());
    assert!(b.link(&a).is_some());
    until("it is cut off", SOON, || b.link(&a).is_none()).await;
    let (near, far) = (datagrams(&a.cluster, "10.1.1.2:0"), datagrams(&b.cluster, "10.1.2.2:0"));
    assert!(!arrives(&near, &far, b"still there?", Duration::from_millis(500)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_sends_only_from_behind_itself_and_to_behind_us() {
    let ([a, b], _hub) = relayed();
    a.cluster.ip("addr add 10.1.7.7/32 dev lo");
    b.cluster.ip("addr add 10.1.9.9/32 dev lo");
    let honest = datagrams(&a.cluster, "10.1.1.2:0");
    let far = datagrams(&b.cluster, "10.1.2.2:0");
    assert!(arrives(&honest, &far, b"honest", SOON).await);
    // Someone else's address as the source.
    let spoofing = datagrams(&a.cluster, "10.1.7.7:0");
    assert!(!arrives(&spoofing, &far, b"spoofed", Duration::from_millis(400)).await);
    // An address that isn't the receiver's, although the sender's map says so.
    let mut info = b.info();
    info.slices = vec!["10.1.0.0/20".parse().unwrap()];
    a.mesh.set_peers([(b.id.clone(), info)].into());
    assert!(arrives(&honest, &far, b"still honest", SOON).await);
    let elsewhere = datagrams(&b.cluster, "10.1.9.9:0");
    assert!(!arrives(&honest, &elsewhere, b"stray", Duration::from_millis(400)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_sends_of_ipv6_only_from_behind_itself_and_to_behind_us_as_well() {
    let ([a, b], _hub) = relayed();
    a.cluster.ip("addr add fd00:7::7/128 dev lo");
    b.cluster.ip("addr add fd00:9::9/128 dev lo");
    let honest = datagrams(&a.cluster, "[fd00:1::2]:0");
    let far = datagrams(&b.cluster, "[fd00:2::2]:0");
    assert!(arrives(&honest, &far, b"honest", SOON).await);
    assert!(arrives(&honest, &far, &[7; 1300], SOON).await, "as large as the device carries");
    let flow = Flow::start_to(&a, &b, "fd00:2::2".parse().unwrap()).await;
    until("bytes flow", SOON, || flow.received() > 1_000_000).await;
    flow.finish().await;
    let spoofing = datagrams(&a.cluster, "[fd00:7::7]:0");
    assert!(!arrives(&spoofing, &far, b"spoofed", Duration::from_millis(400)).await);
    let mut info = b.info();
    info.slices = vec!["fd00::/12".parse().unwrap()];
    a.mesh.set_peers([(b.id.clone(), info)].into());
    assert!(arrives(&honest, &far, b"still honest", SOON).await);
    let elsewhere = datagrams(&b.cluster, "[fd00:9::9]:0");
    assert!(!arrives(&honest, &elsewhere, b"stray", Duration::from_millis(400)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_changes_under_a_connection_and_the_old_one_ends() {
    let ([a, b], _hub) = relayed();
    let flow = Flow::start(&a, &b).await;
    until("bytes flow", SOON, || flow.received() > 100_000).await;
    let new = PrivateKey::generate();
    a.mesh.rotate(new.clone());
    // The other doesn't know it yet: it goes on under the old one.
    let before = flow.received();
    until("bytes flow under the old key", SOON, || flow.received() > before + 500_000).await;
    let mut info = a.info();
    info.keys = vec![new.public(), a.key.public()];
    b.mesh.set_peers([(a.id.clone(), info.clone())].into());
    let young = |node: &Node, other: &Node| {
        node.link(other).and_then(|l| l.last_handshake).is_some_and(|t| t < Duration::from_secs(2))
    };
    until("there is a new session", SOON, || young(&a, &b) && young(&b, &a)).await;
    // From now on only the new one counts, and nothing breaks.
    info.keys = vec![new.public()];
    b.mesh.set_peers([(a.id.clone(), info)].into());
    let before = flow.received();
    until("bytes flow under the new key", SOON, || flow.received() > before + 500_000).await;
    flow.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_forgot_everything_is_served_again_at_once() {
    let ([a, mut b], hub) = relayed();
    let flow = Flow::start(&a, &b).await;
    until("bytes flow", SOON, || flow.received() > 100_000).await;
    b.restart(&hub);
    introduce(&[&a, &b]);
    let before = flow.received();
    // WireGuard alone would need 15 s: the sender believes in its session.
    let healed = until("bytes flow again", SOON, || flow.received() > before + 500_000).await;
    assert!(healed < Duration::from_secs(8), "{healed:?}");
    flow.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_sees_no_payload() {
    let ([a, b], hub) = relayed();
    let (near, far) = (datagrams(&a.cluster, "10.1.1.2:0"), datagrams(&b.cluster, "10.1.2.2:0"));
    let secret = b"the very secret that nobody else may read";
    assert!(arrives(&near, &far, secret, SOON).await);
    let seen = hub.seen.lock().unwrap();
    assert!(seen.len() > secret.len() && !seen.windows(secret.len()).any(|window| window == secret));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_path_is_measured_and_used() {
    let mut internet = Internet::with_server();
    let hub = Arc::new(Hub::default());
    let sites = [internet.site(Nat::PortRestricted), internet.site(Nat::None)];
    // A hop in the middle that takes 1400 bytes and says nothing about what it drops.
    let router = sites[0].router.as_ref().unwrap();
    router.ip("link set eth0 mtu 1400");
    router.nft("table ip silent {\nchain output { type filter hook output priority 0; meta l4proto icmp drop; }\n}");
    let [a, b] = [Node::at(&sites[0], 1, &hub), Node::at(&sites[1], 2, &hub)];
    introduce(&[&a, &b]);
    tcp::echo(&a, &b).await;
    until("both are direct", SOON, || a.direct(&b).is_some() && b.direct(&a).is_some()).await;
    // 1372 of UDP payload, without the 32 that sealing adds.
    assert_eq!(a.link(&b).unwrap().mtu, 1340);
    let flow = Flow::start(&a, &b).await;
    until("bytes flow", SOON, || flow.received() > 2_000_000).await;
    flow.finish().await;
    // What may not be cut and doesn't fit takes the other way.
    let (near, far) = (datagrams(&a.cluster, "10.1.1.2:0"), datagrams(&b.cluster, "10.1.2.2:0"));
    assert!(arrives(&near, &far, &[7; MTU as usize - 28], SOON).await);
}
