//! What is malformed, huge, wrong, forged or slow gets a clear error, and nothing else suffers.

use longshore_e2e::curl::Answer;
use longshore_e2e::{Curl, Installation, eventually};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// An error is a `Status` that says what was wrong.
#[track_caller]
fn refused(answer: &Answer, code: u16, words: &str) {
    let status = answer.json();
    assert_eq!(answer.status, code, "{answer:?}");
    assert_eq!(status["kind"], "Status", "{answer:?}");
    assert_eq!(status["code"], u64::from(code), "{answer:?}");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains(words), "{message:?} does not say {words:?}");
}

fn nested(open: &[u8], close: &[u8], depth: usize) -> Vec<u8> {
    let mut body = open.repeat(depth);
    body.extend(close.repeat(depth));
    body
}

#[test]
fn bad_requests_get_clear_errors_and_nothing_is_lost() {
    let installation = Installation::start();
    let kubectl = installation.kubectl();
    let curl = installation.curl();
    kubectl.run(&["create", "configmap", "before", "--from-literal=a=b"]);
    let before = installation.server_memory() / 1024;
    let post = |path: &str, kind: &str, body: &[u8]| curl.send("POST", path, kind, Some(body));

    // Malformed, in all three encodings.
    for (kind, body) in [
        ("application/json", &b"{\"kind\":\"ConfigMap\""[..]),
        ("application/json", b"\xff\xfe\x00"),
        ("application/json", b""),
        ("application/yaml", b"kind: [ConfigMap"),
        ("application/yaml", b"a: &a [*a, *a]"),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\x0a\xff\xff\xff\xff\x0f"),
        ("application/vnd.kubernetes.protobuf", b"no envelope"),
    ] {
        let answer = post(CONFIG_MAPS, kind, body);
        refused(&answer, 400, "");
    }
    // Deeply nested.
    for (kind, body) in [
        ("application/json", nested(b"[", b"]", 200_000)),
        ("application/json", nested(b"{\"a\":", b"}", 200_000)),
        ("application/yaml", nested(b"[", b"]", 200_000)),
    ] {
        let answer = post(CONFIG_MAPS, kind, &body);
        assert!(matches!(answer.status, 400 | 413), "{answer:?}");
        assert_eq!(answer.json()["kind"], "Status", "{answer:?}");
    }
    // An alias bomb: some hundred bytes that would become gigabytes.
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        let previous = format!("*a{},", n - 1).repeat(10);
        bomb += &format!("a{n}: &a{n} [{previous}]\n");
    }
    let answer = post(CONFIG_MAPS, "application/yaml", bomb.as_bytes());
    assert!(matches!(answer.status, 400 | 413), "{answer:?}");
    // Huge.
    for kind in ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"] {
        let answer = post(CONFIG_MAPS, kind, &vec![b' '; 8 << 20]);
        refused(&answer, 413, "");
    }
    // Wrong types, unknown fields, what validation refuses.
    let deployment = |replicas: &str, more: &str| {
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d"}},"spec":{{"replicas":{replicas},
            "selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},
            "spec":{{{more}"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
        )
    };
    let json = "application/json";
    refused(&post(DEPLOYMENTS, json, deployment("\"three\"", "").as_bytes()), 400, "replicas");
    refused(&post(DEPLOYMENTS, json, deployment("-1", "").as_bytes()), 422, "spec.replicas: Invalid value: -1");
    let unknown = deployment("1", "\"bogus\":1,");
    let strict = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    refused(&post(&strict, json, unknown.as_bytes()), 400, "unknown field \"spec.template.spec.bogus\"");
    // Selectors, content types, paths, methods.
    refused(&curl.get(&format!("{CONFIG_MAPS}?labelSelector=a%20in%20(")), 400, "");
    refused(&curl.get(&format!("{CONFIG_MAPS}?fieldSelector=data.a%3Db")), 400, "is not a known field selector");
    refused(&curl.get(&format!("{CONFIG_MAPS}?limit=x")), 400, "");
    refused(&curl.get(&format!("{CONFIG_MAPS}?resourceVersion=x")), 400, "");
    refused(&curl.get(&format!("{CONFIG_MAPS}?continue=forged")), 400, "continue");
    refused(&post(CONFIG_MAPS, "text/csv", b"a,b"), 415, "");
    refused(&curl.get("/api/v1/namespaces/default/nothings"), 404, "could not find the requested resource");
    refused(&curl.send("PATCH", &format!("{CONFIG_MAPS}/before"), "application/json", Some(b"{}")), 415, "");
    refused(&curl.send("PUT", CONFIG_MAPS, json, Some(b"{}")), 405, "");

    assert_eq!(kubectl.run(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"]), "b");
    let left = kubectl.run(&["get", "configmaps,deployments", "-o", "name"]);
    assert_eq!(left.trim(), "configmap/before\nconfigmap/kube-root-ca.crt", "nothing of all that was stored");
    assert!(!installation.log_of("server.log").contains("panicked"));
    let after = installation.server_memory() / 1024;
    assert!(after < before + 200, "memory grew from {before} to {after} MiB");
}

#[test]
fn tokens_that_are_no_good_open_nothing() {
    let installation = Installation::start();
    let other = Installation::start();
    let curl = installation.curl();
    let kubectl = installation.kubectl();
    let with = |token: &str| Curl { token: token.to_string(), ..curl.clone() };
    let path = "/api/v1/namespaces/default/secrets";
    assert_eq!(curl.get(path).status, 200);

    refused(&with("").get(path), 401, "Unauthorized");
    refused(&with("nonsense").get(path), 401, "Unauthorized");
    refused(&with(&other.admin().token).get(path), 401, "Unauthorized");
    // A service account's token: its own, one with a changed claim, one of another installation.
    let token = kubectl.run(&["create", "token", "default"]).trim().to_string();
    refused(&with(&token).get(path), 403, "system:serviceaccount:default:default");
    let [head, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("no JWT: {token}") };
    let changed = if claims.ends_with('A') { "B" } else { "A" };
    let forged = format!("{head}.{}{changed}.{signature}", &claims[..claims.len() - 1]);
    refused(&with(&forged).get(path), 401, "Unauthorized");
    // {"alg":"none"}
    refused(&with(&format!("eyJhbGciOiJub25lIn0.{claims}.")).get(path), 401, "Unauthorized");
    let foreign = other.kubectl().run(&["create", "token", "default"]).trim().to_string();
    refused(&with(&foreign).get(path), 401, "Unauthorized");
    // Bound to its account: gone with it.
    kubectl.run(&["create", "serviceaccount", "bot"]);
    let bot = kubectl.run(&["create", "token", "bot"]).trim().to_string();
    refused(&with(&bot).get(path), 403, "system:serviceaccount:default:bot");
    kubectl.run(&["delete", "serviceaccount", "bot"]);
    refused(&with(&bot).get(path), 401, "Unauthorized");
    // A cluster that isn't there, or is somebody else's, is the same to a stranger.
    let base = curl.base.rsplit_once('/').expect("…/clusters/ID").0;
    let nowhere = Curl { base: format!("{base}/c-nowhere"), ..curl.clone() };
    let answer = nowhere.get(path);
    assert!(matches!(answer.status, 401 | 404), "{answer:?}");
}

#[test]
fn slow_and_half_closed_connections_hold_up_nobody() {
    let installation = Installation::start();
    let admin = installation.admin();
    let address = admin.url.trim_start_matches("http://").trim_end_matches('/').to_string();
    let before = installation.server_memory() / 1024;
    // A hundred that begin a request and never end it, a hundred that say nothing, a hundred that begin a TLS record.
    let mut slow = Vec::new();
    for start in [&b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "[..], b"", b"\x16\x03\x01\x40\x00"] {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(&address).expect("the port accepts");
            stream.write_all(start).expect("written");
            slow.push(stream);
        }
    }
    // Closed for writing after the request: answered or ended, never left hanging.
    let mut half = TcpStream::connect(&address).expect("the port accepts");
    half.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .expect("written");
    half.shutdown(Shutdown::Write).expect("half-closed");
    half.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut text = String::new();
    half.read_to_string(&mut text).expect("an answer or an end");
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 200"), "{text}");

    installation.kubectl().run(&["create", "configmap", "meanwhile", "--from-literal=a=b"]);
    let after = installation.server_memory() / 1024;
    assert!(after < before + 100, "memory grew from {before} to {after} MiB");
    // Each is ended by the server in the end, those that never speak included.
    for stream in &mut slow {
        let _ = stream.set_nonblocking(true);
    }
    let mut open = slow;
    eventually("the server ends connections that never ask", Duration::from_secs(60), || {
        open.retain_mut(|stream| !matches!(stream.read(&mut [0; 512]), Ok(0)) && stream.peer_addr().is_ok());
        if open.is_empty() { Ok(()) } else { Err(format!("{} are open", open.len())) }
    });
}
