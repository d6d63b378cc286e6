//! Machines that join, prove themselves, and speak through their tunnels: over TLS, with a real WebSocket client.

use crate::installation::{Answer, Installation, Machine, now, trusting};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore_api::network::NETWORK_PATH;
use longshore_api::node::{
    CREDENTIAL_PATH, JOIN_PATH, NODE_ID_LABEL, PROOF_TOLERANCE_SECONDS, RAW_KUBERNETES_PATH, RAW_KUBERNETES_PROTOCOL,
    RELAY_PATH, RELAY_PROTOCOL, TUNNEL_PATH,
};
use longshore_server::apiserver::NodeProxy;
use longshore_server::gateway::Nodes;
use longshore_tunnel::Ended;
use longshore_tunnel::lasting;
use longshore_tunnel::relay::Relayed;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_and_sees_its_own_pods_only() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let tunnel = machine.tunnel().await;
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        let made = here.api("POST", "/api/v1/namespaces/default/pods", pod(name, node)).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let base = format!("/clusters/{}/api/v1", here.cluster());
    let pods = tunnel.get(&format!("{base}/pods?fieldSelector=spec.nodeName%3Dn1")).await.json();
    let names: Vec<_> = pods["items"].as_array().unwrap().iter().map(|p| p["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["mine"]);
    assert_eq!(tunnel.get(&format!("{base}/pods")).await.status, 403);
    assert_eq!(tunnel.get(&format!("{base}/namespaces/default/pods/other")).await.status, 403);
    assert_eq!(tunnel.get(&format!("{base}/nodes/n2")).await.status, 403);
    // Others' clusters, other rooms: nothing is there.
    for path in ["/clusters/c-other/version", "/clusters/", "/v1/session", "/node/v1/join", "/", "/join"] {
        assert_eq!(tunnel.get(path).await.refusal().0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_token_joins_and_a_name_belongs_to_one_machine() {
    let here = Installation::start().await;
    let first = here.join("n1").await;
    let body = |token: &str, name: &str, key: &str| json!({"token": token, "name": name, "publicKey": key});
    let key = "A".repeat(43);
    let (token, forged) = (here.token.as_str(), here.token.replace("lsj.c-", "lsj.c-x"));
    for (body, code) in [
        (body("lsj.a.b.c", "n2", &key), 401),
        (body(&forged, "n2", &key), 401),
        (body(token, "N 2", &key), 400),
        (body(token, "n2", "short"), 400),
        (body(token, "n1", &key), 409),
        (json!({"token": token}), 400),
        (json!("x".repeat(20_000)), 413),
    ] {
        let answer = here.post(JOIN_PATH, body.clone()).await;
        assert_eq!(answer.refusal().0, code, "{} for {body:.100}", answer.text);
    }
    let again = here.ask_to_join("n1", &first.key).await.json();
    assert_eq!(again["node"], first.joined.node.as_str(), "the same machine is the same node");
    assert!(first.joined.ca.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_counts_once_and_now_and_for_its_path() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let proof = machine.proof(CREDENTIAL_PATH, now());
    let renewed = here.send(machine.asking("POST", CREDENTIAL_PATH, &proof)).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    assert_ne!(renewed.json()["credential"], "");
    let again = here.send(machine.asking("POST", CREDENTIAL_PATH, &proof)).await;
    assert_eq!(again.refusal(), (401, "the proof was used before".into()));

    for off in [-PROOF_TOLERANCE_SECONDS - 60, PROOF_TOLERANCE_SECONDS + 60] {
        let skewed = machine.refused(&machine.proof(TUNNEL_PATH, now() + off)).await;
        assert_eq!(skewed.refusal(), (401, "the proof's time is too far off the server's clock".into()));
        assert!(skewed.headers["date"].to_str().unwrap().ends_with("GMT"), "the agent learns the time");
    }
    let elsewhere = machine.refused(&machine.proof(CREDENTIAL_PATH, now())).await;
    assert_eq!(elsewhere.refusal(), (401, "the proof does not hold".into()));
    assert_eq!(machine.refused("nonsense").await.refusal().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_or_copied_credential_opens_nothing() {
    let here = Installation::start().await;
    let mut machine = here.join("n1").await;
    let good = machine.joined.credential.clone();
    // A thief has the credential and no key.
    let mut thief = here.join("n2").await;
    thief.joined.credential = good.clone();
    assert_eq!(thief.refused(&thief.proof(TUNNEL_PATH, now())).await.refusal().0, 401);
    let bearer = Request::get(format!("/clusters/{}/api/v1/nodes/n1", here.cluster()));
    let bearer = bearer.header("authorization", format!("Bearer {good}")).body(String::new()).unwrap();
    assert_eq!(here.send(bearer).await.refusal().0, 401, "nor as a bearer token");

    let (head, _) = good.rsplit_once('.').unwrap();
    let expired = "eyJhbGciOiJub25lIn0.eyJjbHVzdGVyIjoiYy14In0.";
    for forged in [format!("{head}.{}", "A".repeat(86)), expired.into(), "x".into(), String::new()] {
        machine.joined.credential = forged;
        assert_eq!(machine.refused(&machine.proof(TUNNEL_PATH, now())).await.refusal().0, 401);
    }
    let without = here.send(Request::get(TUNNEL_PATH).body(String::new()).unwrap()).await;
    assert_eq!(without.refusal().0, 401);
    machine.joined.credential = good;
    let plain = here.send(machine.asking("GET", TUNNEL_PATH, &machine.proof(TUNNEL_PATH, now()))).await;
    assert_eq!(plain.refusal().0, 400, "a tunnel is a WebSocket");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_session_of_a_node_is_the_one_that_counts() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let first = machine.tunnel().await;
    assert_eq!(first.get(&format!("/clusters/{}/version", here.cluster())).await.status, 200);
    let second = machine.tunnel().await;
    assert_eq!(first.opener.ended().await, Ended::ClosedByPeer);
    assert_eq!(second.get(&format!("/clusters/{}/version", here.cluster())).await.status, 200);
    assert!(here.app.gateway.sessions().contact(here.cluster(), "n1").unwrap().connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_cut_off() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let tunnel = machine.tunnel().await;
    assert_eq!(tunnel.get(&format!("/clusters/{}/version", here.cluster())).await.status, 200);
    let node = &machine.joined.node;
    Nodes::revoke(&*here.app.accounts, here.cluster(), node).await.unwrap();
    here.app.gateway.sessions().revoke(here.cluster(), node);
    assert_eq!(tunnel.opener.ended().await, Ended::ClosedByPeer);
    assert_eq!(machine.refused(&machine.proof(TUNNEL_PATH, now())).await.refusal().0, 401);
}

fn own_node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {NODE_ID_LABEL: "n-forged"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_node_cuts_its_machine_off_and_frees_its_name() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let tunnel = machine.tunnel().await;
    let made = tunnel.post(&format!("/clusters/{}/api/v1/nodes", here.cluster()), own_node("n1")).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(
        made.json()["metadata"]["labels"][NODE_ID_LABEL],
        machine.joined.node.as_str(),
        "whatever it says itself"
    );
    assert_eq!(here.api("DELETE", "/api/v1/nodes/n1", json!(null)).await.status, 200);
    assert_eq!(tunnel.opener.ended().await, Ended::ClosedByPeer);
    assert_eq!(machine.refused(&machine.proof(TUNNEL_PATH, now())).await.refusal().0, 401);
    let again = here.ask_to_join("n1", &machine.key).await.refusal();
    assert!(again.0 == 401 && again.1.starts_with("this machine was removed from the cluster"), "{again:?}");
    assert_ne!(here.join("n1").await.joined.node, machine.joined.node, "another machine may have the name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_leaves_takes_its_node_along() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let tunnel = machine.tunnel().await;
    tunnel.post(&format!("/clusters/{}/api/v1/nodes", here.cluster()), own_node("n1")).await;
    let leaving = machine.asking("DELETE", CREDENTIAL_PATH, &machine.proof(CREDENTIAL_PATH, now()));
    assert_eq!(here.send(leaving).await.status, 204);
    assert_eq!(tunnel.opener.ended().await, Ended::ClosedByPeer);
    assert_eq!(here.api("GET", "/api/v1/nodes/n1", json!(null)).await.status, 404);
    assert_eq!(machine.refused(&machine.proof(TUNNEL_PATH, now())).await.refusal().0, 401);
    here.join("n1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_node_has_a_lease_that_nobody_writes() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let tunnel = machine.tunnel().await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(here.api("GET", &format!("{lease}/n1"), json!(null)).await.status, 404, "no node, no lease");
    let node = tunnel.post(&format!("/clusters/{}/api/v1/nodes", here.cluster()), own_node("n1")).await.json();
    let read = here.api("GET", &format!("{lease}/n1"), json!(null)).await.json();
    assert_eq!(read["spec"]["holderIdentity"], "n1");
    assert_eq!(read["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"]);
    let renewed: jiff::Timestamp = read["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(renewed).as_secs() < 20);
    let names = |list: &Value| -> Vec<Value> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].clone()).collect()
    };
    let list = here.api("GET", lease, json!(null)).await.json();
    assert_eq!((names(&list), &list["items"][0]["metadata"]["uid"]), (vec![json!("n1")], &read["metadata"]["uid"]));
    let all =
        here.api("GET", "/apis/coordination.k8s.io/v1/leases?fieldSelector=metadata.name%3Dn1", json!(null)).await;
    assert_eq!(names(&all.json()), ["n1"]);
    let others = here.api("GET", &format!("{lease}?labelSelector=a%3Db"), json!(null)).await;
    assert!(names(&others.json()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_reaches_the_agent_as_a_kubelet() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let mut tunnel = machine.tunnel().await;
    tokio::spawn(async move {
        while let Some(stream) = tunnel.incoming.next().await {
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                let text = format!("{} by the node", request.uri().path());
                Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(text))))
            });
            tokio::spawn(longshore_tunnel::http::serve(stream, service));
        }
        drop(tunnel.opener);
    });
    let request = Request::get("/containerLogs/default/p/c").body(axum::body::Body::empty()).unwrap();
    let response = here.app.gateway.request(here.cluster(), "n1", request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    assert_eq!(body, "/containerLogs/default/p/c by the node");

    // What it tells of itself is there for those who may ask; what runs commands is not.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    assert_eq!(here.api("POST", "/api/v1/nodes", node).await.status, 201);
    let links = here.api("GET", "/api/v1/nodes/n1/proxy/links", Value::Null).await;
    assert_eq!((links.status.as_u16(), links.text.as_str()), (200, "/links by the node"));
    for (method, path, code) in [
        ("GET", "/api/v1/nodes/n1/proxy/exec/default/p/c", 404),
        ("GET", "/api/v1/nodes/n1/proxy", 404),
        ("POST", "/api/v1/nodes/n1/proxy/links", 405),
        ("GET", "/api/v1/nodes/n9/proxy/links", 404),
    ] {
        assert_eq!(here.api(method, path, json!({})).await.refusal().0, code, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_their_api_server_through_the_node_which_sees_only_bytes() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let tunnel = machine.tunnel().await;
    let keys = here.app.accounts.cluster_keys(here.cluster()).await.unwrap();
    let plain = Request::get(RAW_KUBERNETES_PATH).header("host", "server").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(tunnel.open(plain).await.status(), 400);

    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    here.default_account().await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = here.api("POST", &format!("{account}/token"), request).await.json()["status"]["token"].clone();
    let token = token.as_str().unwrap().to_string();

    for protocol in ["http/1.1", "h2"] {
        let request = Request::get(RAW_KUBERNETES_PATH)
            .header("host", "server")
            .header("connection", "upgrade")
            .header("upgrade", RAW_KUBERNETES_PROTOCOL);
        let response = tunnel.open(request.body(Full::new(Bytes::new())).unwrap()).await;
        assert_eq!(response.status(), 101);
        let raw = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let connector = trusting(keys.authority().certificate_pem(), &[protocol]);
        let name = ServerName::try_from("kubernetes.default.svc").unwrap();
        let tls = connector.connect(name, raw).await.expect("the cluster's own certificate");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let get = |path: &str, token: Option<&str>| {
            let mut request = Request::get(format!("https://kubernetes.default.svc{path}"));
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if protocol != "h2" {
                request = request.header("host", "kubernetes.default.svc");
            }
            request.body(Full::new(Bytes::new())).unwrap()
        };
        let requests = [
            get("/version", None),
            get("/api/v1/pods", None),
            get("/api/v1/pods", Some(&token)),
            get("/v1/session", None),
        ];
        let mut answers = Vec::new();
        if protocol == "h2" {
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await;
            let (mut sender, connection) = shaken.unwrap();
            tokio::spawn(connection);
            for request in requests {
                answers.push(Answer::read(sender.send_request(request).await.unwrap()).await);
            }
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
            tokio::spawn(connection);
            for request in requests {
                sender.ready().await.unwrap();
                answers.push(Answer::read(sender.send_request(request).await.unwrap()).await);
            }
        }
        assert_eq!(answers[0].json()["minor"], "37", "{protocol}");
        let (code, message) = answers[1].refusal();
        assert!(
            code == 403 && message.contains("system:anonymous"),
            "the node's identity counts for nothing: {message}"
        );
        let (code, message) = answers[2].refusal();
        assert!(code == 403 && message.contains("system:serviceaccount:default:default"), "{message}");
        assert_ne!(answers[3].status, 200);
    }
}

/// Lines of the network map, one frame each.
struct Map {
    body: lasting::Answer,
    rest: Vec<u8>,
}

impl Map {
    async fn open(tunnel: &crate::installation::Connected) -> Self {
        let request = Request::get(NETWORK_PATH).header("host", "server").body(Full::new(Bytes::new())).unwrap();
        let response = lasting::ask(tunnel.opener.open().await.unwrap(), request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { body: response.into_body(), rest: Vec::new() }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let data = self.body.frame().await.expect("the map has no end").unwrap().into_data().unwrap();
            self.rest.extend_from_slice(&data);
        }
    }

    async fn until_synced(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                end if end == json!("synced") => return frames,
                frame => frames.push(frame),
            }
        }
    }
}

/// As agents ask for watches: raw once they run, plain where they are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_watch_is_raw_and_ends_with_its_reader() {
    let here = Installation::start().await;
    let machine = here.join("n1").await;
    let tunnel = machine.tunnel().await;
    let pods = format!("/clusters/{}/api/v1/pods?watch=true&resourceVersion=0", here.cluster());
    let ask = async |path: &str| {
        let request = Request::get(path).header("host", "server").body(Full::new(Bytes::new())).unwrap();
        lasting::ask(tunnel.opener.open().await.unwrap(), request).await.unwrap()
    };
    let refused = ask(&pods).await;
    assert_eq!(refused.status(), 403, "others' pods");
    let Ok(body) = refused.into_body().collect().await else { panic!("a refusal that ends") };
    assert_eq!(serde_json::from_slice::<Value>(&body.to_bytes()).unwrap()["kind"], "Status");

    let watch = ask(&format!("{pods}&fieldSelector=spec.nodeName%3Dn1")).await;
    assert_eq!(watch.status(), 200);
    assert_eq!(watch.headers()["content-type"], "application/json");
    let mut body = watch.into_body();
    assert!(matches!(body, lasting::Answer::Raw(_)));
    assert_eq!(here.api("POST", "/api/v1/namespaces/default/pods", pod("mine", "n1")).await.status, 201);
    let Some(Ok(event)) = body.frame().await else { panic!("an event") };
    let event: Value = serde_json::from_slice(&event.into_data().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("mine")));

    let cluster = here.app.store.cluster(here.cluster()).await.unwrap();
    assert_eq!(cluster.watchers(), 1);
    drop(body);
    while cluster.watchers() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_pushed_the_map_of_their_clusters_network() {
    let here = Installation::start().await;
    let (one, two) = (here.join("n1").await, here.join("n2").await);
    let (one, two) = (one.tunnel().await, two.tunnel().await);
    let (mut first, mut second) = (Map::open(&one).await, Map::open(&two).await);
    let whole = first.until_synced().await;
    assert_eq!(second.until_synced().await, whole, "all nodes are told the same");
    let ranges = &whole[0]["cluster"];
    let cluster = here.app.store.cluster(here.cluster()).await.expect("the cluster loads");
    let info = cluster.info();
    let wanted = json!({"podRange": "10.244.0.0/14", "serviceRange": "10.96.0.0/16",
        "podRangeV6": info.pod_range_v6, "serviceRangeV6": info.service_range_v6});
    assert_eq!(*ranges, wanted);
    assert!(info.pod_range_v6.as_ref().is_some_and(|range| range.starts_with("fd") && range.ends_with("::/48")));
    let answered = |name: &str| {
        let service = whole.iter().map(|f| &f["service"]).find(|s| s["name"] == name).unwrap();
        (service["addresses"][0].clone(), service["answeredByNode"].clone())
    };
    assert_eq!(answered("kubernetes"), (json!("10.96.0.1"), json!("api")));
    assert_eq!(answered("kube-dns"), (json!("10.96.0.10"), json!("dns")));

    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    assert_eq!(here.api("POST", "/api/v1/namespaces/default/services", service).await.status, 201);
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.244.0.9"], "nodeName": "n1"}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    assert_eq!(here.api("POST", slices, slice).await.status, 201);
    for map in [&mut first, &mut second] {
        assert_eq!(map.next().await["service"]["addresses"], json!(["10.96.0.77"]));
        let told = map.next().await;
        assert_eq!(
            told["endpoints"]["endpoints"],
            json!([{"address": "10.244.0.9", "ready": true, "serving": true, "node": "n1"}])
        );
    }
    assert_eq!(here.api("DELETE", &format!("{slices}/web-1"), json!(null)).await.status, 200);
    let removed = json!({"removed": {"endpoints": {"namespace": "default", "name": "web-1"}}});
    assert_eq!(first.next().await, removed);
    assert_eq!(second.next().await, removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_cluster_send_each_other_packets_through_the_relay() {
    let here = Installation::start().await;
    let (one, two) = (here.join("n1").await, here.join("n2").await);
    let early = one.refused_at(RELAY_PATH, RELAY_PROTOCOL, &one.proof(RELAY_PATH, now())).await;
    assert_eq!(early.refusal().0, 503, "only beside a tunnel");
    let tunnels = (one.tunnel().await, two.tunnel().await);
    let wrong = one.refused_at(RELAY_PATH, "other", &one.proof(RELAY_PATH, now())).await;
    assert_eq!(wrong.refusal(), (400, format!("the subprotocol must be {RELAY_PROTOCOL}")));
    let elsewhere = one.refused_at(RELAY_PATH, RELAY_PROTOCOL, &one.proof(TUNNEL_PATH, now())).await;
    assert_eq!(elsewhere.refusal().0, 401, "a proof for the tunnel is none for the relay");

    let (mut a, mut b) = (one.relay().await, two.relay().await);
    let packets = |machine: &Machine<'_>, bytes: &'static [u8]| Relayed {
        peer: machine.joined.node.clone(),
        segment: 4,
        bytes: Bytes::from_static(bytes),
    };
    // The other's line may be a moment younger than ours.
    while here.app.gateway.relays().traffic().carried == 0 {
        a.send(packets(&two, b"sealed").encode().unwrap()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(Relayed::decode(&b.next().await.unwrap().unwrap()), Some(packets(&one, b"sealed")));

    // Whoever is revoked is cut off here as well.
    here.app.accounts.revoke(here.cluster(), &two.joined.node).await.unwrap();
    here.app.gateway.sessions().revoke(here.cluster(), &two.joined.node);
    tunnels.1.opener.ended().await;
    while let Some(Ok(_)) = b.next().await {}
    let again = two.refused_at(RELAY_PATH, RELAY_PROTOCOL, &two.proof(RELAY_PATH, now())).await;
    assert_eq!(again.refusal().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_told_of_policies_and_of_the_name_server_as_a_pod() {
    let here = Installation::start().await;
    let tunnel = here.join("n1").await;
    let tunnel = tunnel.tunnel().await;
    let mut map = Map::open(&tunnel).await;
    map.until_synced().await;
    // As everybody writes it who allows names and nothing else.
    let to = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]);
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "names"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to, "ports": [{"port": 53, "protocol": "UDP"}]}]}});
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    assert_eq!(here.api("POST", policies, policy).await.status, 201);
    let peers = map.next().await;
    assert_eq!(peers["peers"]["addresses"], json!(["10.96.0.10"]));
    let told = map.next().await;
    let rule = json!({"peers": [{"pods": peers["peers"]["part"]["set"]}], "ports": [{"range": ["UDP", 53, 53]}]});
    assert_eq!(told["policy"]["egress"], json!([rule]));
    assert_eq!(here.api("DELETE", &format!("{policies}/names"), json!(null)).await.status, 200);
    let gone = [map.next().await, map.next().await].map(|frame| frame["removed"].clone());
    assert_eq!(gone[1], json!({"policy": {"namespace": "default", "name": "names"}}));
}
