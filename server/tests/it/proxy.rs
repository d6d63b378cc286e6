//! HTTP to pods and services through the API, and what pods and hand-made objects try with it.

use crate::app::TestApp;
use crate::installation::{Answer, Installation};
use crate::pods::{self, ADDRESS};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The program in the pod: answers what it was asked, and tries what a program could.
async fn program(mut request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = |code: u16| Response::builder().status(code);
    let uri = request.uri().to_string();
    if request.headers().contains_key("upgrade") {
        let protocol = request.headers()["upgrade"].clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let answer = answer(101).header("connection", "upgrade").header("upgrade", protocol);
        return Ok(answer.header("set-cookie", "a=b").body(Full::default()).unwrap());
    }
    if let Some(place) = uri.strip_prefix("/sent-to?") {
        let answer = answer(302).header("location", place).header("set-cookie", "longshore_session=forged; Path=/");
        return Ok(answer.body(Full::default()).unwrap());
    }
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())));
    let (method, headers) = (request.method().to_string(), headers.collect::<serde_json::Map<_, _>>());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let told = json!({"method": method, "uri": uri, "headers": headers, "body": String::from_utf8_lossy(&body)});
    let answer = answer(418).header("set-cookie", "a=b").header("x-own", "kept").header("content-type", "text/html");
    Ok(answer.body(Full::from(told.to_string())).unwrap())
}

/// The agent: serves that program on port 8080 of the pod's address, and nothing else.
fn agent(mut request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let uri = request.uri().to_string();
    if !uri.starts_with("/proxy/default/p?port=8080&uid=") {
        let refused = Full::from(format!("{uri}: dial tcp: connect: connection refused"));
        return Response::builder().status(503).body(refused).unwrap();
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(program));
        let _ = server.with_upgrades().await;
    });
    let answer = Response::builder().status(101).header("connection", "upgrade");
    answer.header("upgrade", "port-raw.longshore.v1").body(Full::default()).unwrap()
}

fn base(here: &Installation, what: &str) -> String {
    format!("/clusters/{}/api/v1/namespaces/default/{what}/proxy", here.cluster())
}

async fn ask(here: &Installation, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("authorization", format!("Bearer {}", here.secrets.api_token));
    here.send(request.body(body.to_owned()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_asked_and_learns_nothing_of_who_asks() {
    let here = Installation::start().await;
    pods::running(&here, agent).await;
    let base = base(&here, "pods/p:8080");
    let secrets = [
        ("cookie", "longshore_session=s3cret"),
        ("x-longshore-csrf", "s3cret"),
        ("impersonate-user", "s3cret"),
        ("x-remote-user", "s3cret"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "s3cret"),
        ("x-own", "kept"),
    ];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        let answer = ask(&here, method, &format!("{base}/a%2Fb//c/?q=1&watch=true&r=%20"), &secrets, "said").await;
        assert_eq!(answer.status, 418, "{}", answer.text);
        let told = answer.json();
        assert_eq!(
            (&told["method"], &told["uri"], &told["body"]),
            (&json!(method), &json!("/a%2Fb//c/?q=1&watch=true&r=%20"), &json!("said"))
        );
        assert_eq!(told["headers"]["x-own"], "kept");
        assert_eq!(told["headers"]["x-forwarded-uri"], format!("{base}/a%2Fb//c/"));
        assert!(!answer.text.contains("s3cret") && !answer.text.contains(&here.secrets.api_token), "{}", answer.text);
        assert!(told["headers"].get("authorization").is_none());
        assert!(!answer.headers.contains_key("set-cookie"));
        assert_eq!(
            (&answer.headers["x-own"], &answer.headers["content-type"]),
            (&"kept".parse().unwrap(), &"text/html".parse().unwrap())
        );
        assert_eq!(answer.headers["content-security-policy"], "sandbox");
    }
    // The port of its only container, by number, name and default.
    for id in ["p", "p:web", "http:p:8080"] {
        let answer = ask(&here, "GET", &format!("{}/", self::base(&here, &format!("pods/{id}"))), &[], "").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["uri"]), (418, &json!("/")), "{id}");
    }
    let moved = ask(&here, "GET", &format!("{base}?q=1"), &[], "").await;
    assert_eq!((moved.status.as_u16(), &moved.headers["location"]), (301, &format!("{base}/?q=1").parse().unwrap()));
    let refused = ask(&here, "GET", &format!("{}/", self::base(&here, "pods/p:81")), &[], "").await.refusal();
    assert!(refused.0 == 503 && refused.1.starts_with("error trying to reach service: "), "{refused:?}");
    for (id, code) in [("ftp:p:1", 400), ("p:none", 400), ("p:0", 400), ("none", 404)] {
        let refused = ask(&here, "GET", &format!("{}/", self::base(&here, &format!("pods/{id}"))), &[], "").await;
        assert_eq!(refused.refusal().0, code, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_sends_nobody_elsewhere() {
    let here = Installation::start().await;
    pods::running(&here, agent).await;
    let base = base(&here, "pods/p:8080");
    let own = here.address.to_string();
    for (said, led) in [
        ("/login", "/login"),
        ("next", "/next"),
        (&format!("http://{ADDRESS}:8080/x?y"), "/x?y"),
        (&format!("https://{own}/x"), "/x"),
        ("/../../../../../secrets", "/secrets"),
        ("/%2e%2e/%2e%2e/secrets", "/secrets"),
    ] {
        let answer = ask(&here, "GET", &format!("{base}/sent-to?{said}"), &[], "").await;
        assert_eq!(answer.status, 302, "{said}: {}", answer.text);
        assert_eq!(answer.headers["location"], format!("{base}{led}"), "{said}");
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    for said in ["http://evil.example/", "//evil.example", "javascript:alert(1)"] {
        let answer = ask(&here, "GET", &format!("{base}/sent-to?{said}"), &[], "").await;
        assert_eq!(answer.refusal().0, 502, "{said}");
        assert!(!answer.headers.contains_key("location"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_passed_on() {
    let here = Installation::start().await;
    pods::running(&here, agent).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(here.connect().await)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(format!("{}/socket", base(&here, "pods/p:8080")))
        .header("host", here.address.to_string())
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("authorization", format!("Bearer {}", here.secrets.api_token));
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["upgrade"]), (101, &"websocket".parse().unwrap()));
    assert!(!answer.headers().contains_key("set-cookie"));
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

/// An EndpointSlice that somebody wrote by hand.
fn by_hand(service: &str, endpoint: Value) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "web", "port": 8080}], "endpoints": [endpoint]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_to_pods_and_to_nothing_else() {
    let here = Installation::start().await;
    let pod = pods::running(&here, agent).await;
    let reference = json!({"kind": "Pod", "namespace": "default", "name": "p", "uid": pod["metadata"]["uid"]});
    let ports = json!([{"name": "web", "port": 80, "targetPort": "web"}, {"name": "other", "port": 81}]);
    for (name, endpoint) in [
        ("good", json!({"addresses": [ADDRESS], "targetRef": reference})),
        ("elsewhere", json!({"addresses": ["198.51.100.7"]})),
        ("lan", json!({"addresses": ["192.168.1.1"], "targetRef": reference})),
        ("unready", json!({"addresses": [ADDRESS], "targetRef": reference, "conditions": {"ready": false}})),
        ("gone", json!({"addresses": [ADDRESS], "targetRef": {"kind": "Pod", "namespace": "default", "name": "gone"}})),
    ] {
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}});
        let made = here.api("POST", "/api/v1/namespaces/default/services", service).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let made = here.api("POST", path, by_hand(name, endpoint)).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    // A machine's metadata can't even be written.
    let metadata = by_hand("metadata", json!({"addresses": ["169.254.169.254"]}));
    let refused = here.api("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", metadata).await;
    assert_eq!(refused.refusal().0, 422);
    let get = async |service: &str| {
        ask(&here, "GET", &format!("{}/x", base(&here, &format!("services/{service}"))), &[], "").await
    };
    for id in ["good:80", "good:web", "http:good:web"] {
        let answer = get(id).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["uri"]), (418, &json!("/x")), "{id}");
    }
    let no_pod = |name| format!("no endpoint of service {name:?} is a pod of this cluster at its own address");
    for (id, code, message) in [
        ("elsewhere:80", 503, no_pod("elsewhere")),
        ("lan:web", 503, no_pod("lan")),
        ("gone:web", 503, no_pod("gone")),
        ("unready:web", 503, "no endpoints available for service \"unready\"".into()),
        ("good:other", 503, "no endpoints available for service \"good\"".into()),
        ("good", 503, "no endpoints available for service \"good\"".into()),
        ("good:82", 503, "no service port 82 found for service \"good\"".into()),
        ("none:80", 404, "services \"none\" not found".into()),
        ("a:b:c:d", 400, "invalid service request \"a:b:c:d\"".into()),
    ] {
        assert_eq!(get(id).await.refusal(), (code, message), "{id}");
    }
}

#[tokio::test]
async fn a_proxy_is_for_developers() {
    let app = TestApp::new().await;
    for resource in ["pods", "services"] {
        let path = format!("/api/v1/namespaces/default/{resource}/none/proxy/a/b/c");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let ask = async |who: &str| {
                app.as_(who).send(method, &path, &[], axum::body::Body::empty()).await.status.as_u16()
            };
            assert_eq!((ask("developer").await, ask("owner").await), (404, 404), "{method} {resource}");
            for who in ["viewer", "nobody", "node:n1", "serviceaccount:default"] {
                assert_eq!(ask(who).await, 403, "{method} {resource} {who}");
            }
        }
    }
}
