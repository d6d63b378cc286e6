//! Which cluster serves which host, as Ingresses are told.

use crate::installation::Installation;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use http_body_util::Full;
use hyper::service::service_fn;
use longshore_api::edge::{Edge, Source};
use longshore_api::ids::ClusterId;
use longshore_api::network::Name;
use longshore_edge::acme::{Authority, Proof};
use longshore_edge::host::Host;
use longshore_server::edge::Settings;
use longshore_server::edge::hosts::Rules;
use longshore_server::edge::ports::PortRules;
use longshore_server::gateway::Edges;
use longshore_server::store::NewCluster;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";

async fn installation() -> Installation {
    with_authority(None).await
}

async fn with_authority(authority: Option<Authority>) -> Installation {
    let reserved = vec![Host::parse("longshore.example").expect("a host")];
    let rules = Rules { open: true, reserved, ..Rules::default() };
    let addresses = vec!["192.0.2.7".to_string()];
    let range = 20_000..=29_999;
    let ports = Some(PortRules { ip: [127, 0, 0, 1].into(), range, reserved: vec![20_000] });
    Installation::start_with_edge(Settings {
        http: None,
        https: None,
        rules,
        addresses,
        ports,
        proxies: Vec::new(),
        authority,
        contact: None,
        proof: Proof::default(),
    })
    .await
}

async fn make(here: &Installation, cluster: &ClusterId, name: &str, host: &str) {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
        "spec": {"rules": [{"host": host, "http": {"paths": paths}}]}});
    let made = here.api_of(cluster, "POST", INGRESSES, ingress).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

/// Reads `path` again at each change of the cluster until it is as wanted.
async fn until(here: &Installation, cluster: &ClusterId, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let log = here.app.store.cluster(cluster).await.expect("the cluster loads");
    loop {
        let seen = log.revision();
        let now = here.api_of(cluster, "GET", path, json!({})).await.json();
        if wanted(&now) {
            return now;
        }
        assert!(log.reached(seen.next(), Duration::from_secs(60)).await, "it stays {now}");
    }
}

async fn is_told_its_address(here: &Installation, cluster: &ClusterId, name: &str) {
    let told = |ingress: &Value| ingress["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.7";
    until(here, cluster, &format!("{INGRESSES}/{name}"), told).await;
}

async fn is_warned(here: &Installation, cluster: &ClusterId, reason: &str) -> String {
    let path = format!("/api/v1/namespaces/default/events?fieldSelector=reason%3D{reason}");
    let events = until(here, cluster, &path, |events| events["items"][0].is_object()).await;
    let event = &events["items"][0];
    assert_eq!((&event["type"], &event["source"]["component"]), (&json!("Warning"), &json!("longshore-edge")));
    event["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_host_is_served_by_whoever_asked_first_until_they_let_it_go() {
    let (here, [first, second]) = with_two_clusters().await;
    make(&here, &first, "web", "a.com").await;
    is_told_its_address(&here, &first, "web").await;
    make(&here, &second, "web", "a.com").await;
    assert_eq!(is_warned(&here, &second, "HostTaken").await, "host a.com: another cluster serves it");
    let ingress = here.api_of(&second, "GET", &format!("{INGRESSES}/web"), json!({})).await.json();
    assert_eq!(ingress["status"], json!({"loadBalancer": {}}), "it is served nowhere");
    make(&here, &second, "mine", "b.com").await;
    is_told_its_address(&here, &second, "mine").await;
    assert_eq!(here.api_of(&first, "DELETE", &format!("{INGRESSES}/web"), json!({})).await.status, 200);
    is_told_its_address(&here, &second, "web").await;
}

#[tokio::test]
async fn an_ingress_is_told_what_is_wrong_with_it() {
    let here = installation().await;
    let cluster = here.cluster();
    make(&here, cluster, "greedy", "longshore.example").await;
    assert_eq!(
        is_warned(&here, cluster, "HostNotAllowed").await,
        "host longshore.example: it is the dashboard's own name"
    );
    make(&here, cluster, "secret", "a.com").await;
    // From then on nobody else writes it.
    is_told_its_address(&here, cluster, "secret").await;
    let tls = json!({"spec": {"tls": [{"hosts": ["a.com"], "secretName": "gone"}]}});
    let path = format!("{INGRESSES}/secret");
    let old = here.api("GET", &path, json!({})).await.json();
    let mut new = old.clone();
    new["spec"]["tls"] = tls["spec"]["tls"].clone();
    assert_eq!(here.api("PUT", &path, new).await.status, 200);
    assert_eq!(is_warned(&here, cluster, "InvalidCertificate").await, "secret \"gone\" not found");
}

#[tokio::test]
async fn a_wildcard_that_http_cannot_prove_needs_a_secret() {
    let directory = "https://127.0.0.1:1/dir".to_string();
    let here = with_authority(Some(Authority { directory, roots: None })).await;
    let cluster = here.cluster();
    make(&here, cluster, "wild", "*.a.com").await;
    is_told_its_address(&here, cluster, "wild").await;
    let path = format!("{INGRESSES}/wild");
    let mut new = here.api("GET", &path, json!({})).await.json();
    new["spec"]["tls"] = json!([{"hosts": ["*.a.com"]}]);
    assert_eq!(here.api("PUT", &path, new).await.status, 200);
    let told = is_warned(&here, cluster, "InvalidCertificate").await;
    assert_eq!(told, "TLS host *.a.com needs a Secret: the authority proves such a host by DNS only");
}

/// What a node is told next; None at the end.
async fn told(lines: &mut BoxStream<'static, Bytes>) -> Option<Edge> {
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next()).await.expect("a line or the end");
    line.map(|line| serde_json::from_slice(&line).expect("a line"))
}

/// Gives node `n1` these labels alone.
async fn mark(here: &Installation, labels: Value) {
    loop {
        let mut node = here.api("GET", "/api/v1/nodes/n1", json!({})).await.json();
        node["metadata"]["labels"] = labels.clone();
        match here.api("PUT", "/api/v1/nodes/n1", node).await.status.as_u16() {
            200 => return,
            // It was just given its range.
            409 => {}
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_node_that_is_marked_is_told_what_to_serve() {
    let here = installation().await;
    let cluster = here.cluster();
    let log = here.app.store.cluster(cluster).await.expect("the cluster loads");
    let edges = here.app.edge.clone().expect("an edge");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    assert_eq!(here.api("POST", "/api/v1/nodes", node).await.status, 201);
    let refused = edges.follow(log.clone(), "n1").err().expect("it isn't marked");
    assert_eq!(refused.code, 403);
    assert_eq!(edges.follow(log.clone(), "n2").err().expect("it isn't there").code, 403);

    make(&here, cluster, "web", "a.com").await;
    is_told_its_address(&here, cluster, "web").await;
    mark(&here, json!({"longshore.dev/edge": "true"})).await;
    let mut lines = edges.follow(log.clone(), "n1").expect("it is marked");
    let first = told(&mut lines).await.expect("the whole");
    assert_eq!((&first.hosts[..], first.ingresses.len()), (&["a.com".to_string()][..], 1));
    assert_eq!(first.ingresses[0]["metadata"]["name"], "web");
    assert!(first.certificates.is_empty());

    // A Secret that an Ingress names comes with its key; others are nobody's business.
    let authority = rcgen::generate_simple_self_signed(vec!["a.com".to_string()]).expect("a certificate");
    let (chain, key) = (authority.cert.pem(), authority.signing_key.serialize_pem());
    for name in ["named", "other"] {
        let data = json!({"tls.crt": chain, "tls.key": key});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name}, "stringData": data});
        assert_eq!(here.api("POST", "/api/v1/namespaces/default/secrets", secret).await.status, 201);
    }
    let path = format!("{INGRESSES}/web");
    let mut new = here.api("GET", &path, json!({})).await.json();
    new["spec"]["tls"] = json!([{"hosts": ["a.com"], "secretName": "named"}]);
    assert_eq!(here.api("PUT", &path, new).await.status, 200);
    let second = told(&mut lines).await.expect("a change");
    let sources: Vec<_> = second.certificates.iter().map(|c| (c.source.clone(), c.key == key)).collect();
    assert_eq!(sources, [(Source::Secret(Name::new("default", "named")), true)]);

    // What the installation signs itself is signed once: nobody is told of it again and again.
    new = here.api("GET", &path, json!({})).await.json();
    new["spec"]["tls"] = json!([{"hosts": ["a.com"]}]);
    assert_eq!(here.api("PUT", &path, new).await.status, 200);
    let third = told(&mut lines).await.expect("a change");
    assert_eq!(third.certificates[0].source, Source::Automatic("a.com".into()));
    is_told_its_address(&here, cluster, "web").await;
    assert!(lines.next().now_or_never().is_none());

    // Without its mark it is told nothing more.
    mark(&here, json!({})).await;
    make(&here, cluster, "more", "b.com").await;
    assert_eq!(told(&mut lines).await, None);
}

/// Both of one organization.
async fn with_two_clusters() -> (Installation, [ClusterId; 2]) {
    let here = installation().await;
    let other = NewCluster::new(here.founded.organization.clone(), "other");
    let second = here.app.store.create_cluster(other).await.expect("another cluster");
    let first = here.cluster().clone();
    (here, [first, second])
}

const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn balance(here: &Installation, cluster: &ClusterId, name: &str, ports: Value) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "ports": ports, "selector": {"app": "none"}}});
    let made = here.api_of(cluster, "POST", SERVICES, service).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

/// A Service's ports, or those of its status.
fn ports(of: &[(u16, &str)]) -> Value {
    let ports = of.iter().map(|(port, protocol)| json!({"port": port, "protocol": protocol}));
    ports.collect()
}

/// One that nobody has at the moment.
fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    20_001 + free % 9_000
}

async fn is_told_its_ports(here: &Installation, cluster: &ClusterId, name: &str, ports: Value) {
    let wanted = json!([{"ip": "192.0.2.7", "ipMode": "Proxy", "ports": ports}]);
    let told = |service: &Value| service["status"]["loadBalancer"]["ingress"] == wanted;
    until(here, cluster, &format!("{SERVICES}/{name}"), told).await;
}

async fn is_balanced(here: &Installation, cluster: &ClusterId, name: &str, port: u16) {
    is_told_its_ports(here, cluster, name, ports(&[(port, "TCP")])).await;
    // Whoever connects is let in, and let go where nobody answers.
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the port is open");
}

#[tokio::test]
async fn a_port_is_one_services_until_it_lets_it_go() {
    let (here, [first, second]) = with_two_clusters().await;
    let port = free_port();
    let wanted = ports(&[(port, "TCP")]);
    balance(&here, &first, "db", wanted.clone()).await;
    is_balanced(&here, &first, "db", port).await;
    balance(&here, &first, "twin", wanted.clone()).await;
    let message = is_warned(&here, &first, "SyncLoadBalancerFailed").await;
    assert_eq!(message, format!("port {port}/TCP is served for Service default/db"));
    balance(&here, &second, "db", wanted).await;
    let message = is_warned(&here, &second, "SyncLoadBalancerFailed").await;
    assert_eq!(message, format!("port {port}/TCP is served for another cluster"));
    let low = |service: &str| format!("{SERVICES}/{service}");
    assert_eq!(here.api_of(&first, "DELETE", &low("db"), json!({})).await.status, 200);
    is_balanced(&here, &first, "twin", port).await;
    assert_eq!(here.api_of(&first, "DELETE", &low("twin"), json!({})).await.status, 200);
    let refused = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("the port is closed");
}

#[tokio::test]
async fn a_number_is_one_clusters_for_both_protocols() {
    let (here, [first, second]) = with_two_clusters().await;
    let port = free_port();
    let both = json!([{"name": "t", "port": port}, {"name": "u", "port": port, "protocol": "UDP"},
        {"name": "s", "port": port, "protocol": "SCTP"}]);
    balance(&here, &first, "dns", both).await;
    is_told_its_ports(&here, &first, "dns", ports(&[(port, "TCP"), (port, "UDP")])).await;
    let message = is_warned(&here, &first, "SyncLoadBalancerFailed").await;
    assert_eq!(message, format!("port {port}/SCTP: only TCP and UDP are served"));
    std::net::UdpSocket::bind(("127.0.0.1", port)).expect_err("the edge has it");
    balance(&here, &second, "dns", ports(&[(port, "UDP")])).await;
    let message = is_warned(&here, &second, "SyncLoadBalancerFailed").await;
    assert_eq!(message, format!("port {port}/UDP is served for another cluster"));
}

#[tokio::test]
async fn a_service_is_told_that_an_agent_is_too_old_for_datagrams() {
    let here = installation().await;
    let cluster = here.cluster();
    let mut tunnel = here.join("laptop").await.tunnel().await;
    // An agent from before.
    tokio::spawn(async move {
        while let Some(stream) = tunnel.incoming.next().await {
            let unknown = service_fn(|_| async {
                let mut answer = http::Response::new(Full::new(Bytes::from("404 page not found\n")));
                *answer.status_mut() = http::StatusCode::NOT_FOUND;
                Ok::<_, Infallible>(answer)
            });
            tokio::spawn(longshore_tunnel::http::serve(stream, unknown));
        }
    });
    let port = free_port();
    balance(&here, cluster, "dns", ports(&[(port, "UDP")])).await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "dns", "labels": {"kubernetes.io/service-name": "dns"}},
        "ports": [{"name": "", "port": 53, "protocol": "UDP"}],
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "laptop"}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    assert_eq!(here.api_of(cluster, "POST", slices, slice).await.status, 201);
    is_told_its_ports(&here, cluster, "dns", ports(&[(port, "UDP")])).await;
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let asking = async {
        loop {
            client.send_to(b"?", ("127.0.0.1", port)).await.expect("it is sent");
            tokio::task::yield_now().await;
        }
    };
    let message = tokio::select! {
        message = is_warned(&here, cluster, "SyncLoadBalancerFailed") => message,
        () = asking => unreachable!(),
    };
    assert_eq!(message, format!("port {port}/UDP: the agent of node \"laptop\" is too old"));
}
