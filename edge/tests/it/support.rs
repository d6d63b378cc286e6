//! An edge, endpoints that say what they got, and clients.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use k8s_openapi::api::networking::v1::Ingress;
use longshore_api::ids::ClusterId;
use longshore_api::network::Name;
use longshore_edge::challenge::NoChallenges;
use longshore_edge::datagrams::answer;
use longshore_edge::ingress::compile;
use longshore_edge::model::{Backend, Port, Protocol, Routes};
use longshore_edge::services::{Behind, Target};
use longshore_edge::{Claims, Dialer, Dialing, Edge, Endpoint, Settings, Stream};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connects by TCP, and counts. Datagrams lead everywhere but to one address.
#[derive(Default)]
pub struct Tcp(pub AtomicUsize, OnceLock<SocketAddr>);

impl Tcp {
    pub fn refuse(&self, address: SocketAddr) {
        self.1.set(address).unwrap();
    }
}

impl Dialer for Tcp {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Dialing<'a> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(Box::new(TcpStream::connect(to.address).await?) as Box<dyn Stream>) })
    }

    fn dial_datagrams<'a>(&'a self, to: &'a Endpoint) -> Dialing<'a> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if self.1.get() == Some(&to.address) {
                return Err(Error::new(ErrorKind::Unsupported, "too old"));
            }
            let (near, far) = tokio::io::duplex(4096);
            let to = to.address;
            tokio::spawn(answer(far, move || {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(to)?;
                socket.set_nonblocking(true)?;
                tokio::net::UdpSocket::from_std(socket)
            }));
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }
}

pub struct TestEdge {
    pub edge: Edge,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub dialer: Arc<Tcp>,
    pub stop: watch::Sender<bool>,
    pub serving: Vec<tokio::task::JoinHandle<()>>,
}

pub fn cluster() -> ClusterId {
    ClusterId::new("c-1")
}

pub fn backend(service: &str) -> Backend {
    Backend { service: Name::new("a", service), port: Port::Number(80) }
}

/// One rule for each host and Service, for all paths.
pub fn ingress(rules: &[(&str, &str)], annotations: Value) -> Ingress {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(host, service)| {
            let backend = json!({"service": {"name": service, "port": {"number": 80}}});
            json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}})
        })
        .collect();
    let metadata = json!({"namespace": "a", "name": "i", "annotations": annotations});
    let spec = json!({"rules": rules, "tls": [{"secretName": "tls"}]});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

pub fn routes(rules: &[(&str, &str)], annotations: Value) -> Routes {
    let compiled = compile(&[ingress(rules, annotations)], &[]);
    assert_eq!(compiled.findings, []);
    compiled.routes
}

impl TestEdge {
    pub async fn start(settings: Settings) -> Self {
        let dialer = Arc::new(Tcp::default());
        let edge = Edge::start(settings, dialer.clone(), Arc::new(NoChallenges));
        let (stop, stopped) = watch::channel(false);
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (http, https) = (listen().await.unwrap(), listen().await.unwrap());
        let addresses = (http.local_addr().unwrap(), https.local_addr().unwrap());
        let (plain, secure, also) = (edge.clone(), edge.clone(), stopped.clone());
        let serving = vec![
            tokio::spawn(async move { plain.serve_http(http, stopped).await }),
            tokio::spawn(async move { secure.serve_https(https, also).await }),
        ];
        Self { edge, http: addresses.0, https: addresses.1, dialer, stop, serving }
    }

    /// Serves `a.com` by the Service `web` with these endpoints.
    pub async fn with(endpoints: &[SocketAddr], annotations: Value) -> Self {
        let test = Self::start(Settings::default()).await;
        test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web")], annotations));
        test.endpoints(endpoints);
        test
    }

    pub fn endpoints(&self, endpoints: &[SocketAddr]) {
        self.speak(endpoints, None);
    }

    /// As a Service says what its endpoints speak.
    pub fn speak(&self, endpoints: &[SocketAddr], protocol: Option<Protocol>) {
        let targets = endpoints.iter().map(|address| Target { address: *address, node: "n1".into() }).collect();
        self.edge.set_endpoints(&cluster(), &backend("web"), Behind { targets, protocol, ..Behind::default() });
    }

    /// A request of its own connection, in bytes; everything that is answered until the connection ends.
    pub async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn get(&self, host: &str, path: &str) -> (u16, String) {
        self.ask(host, path, "").await
    }

    /// `headers`: whole lines.
    pub async fn ask(&self, host: &str, path: &str, headers: &str) -> (u16, String) {
        let answer =
            self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")).await;
        let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
        (status, answer)
    }

    pub fn metric(&self, name: &str) -> f64 {
        let families = self.edge.metrics();
        families.iter().find(|f| f.name == name).unwrap().samples.iter().map(|s| s.value).sum()
    }
}

/// Serves HTTP/1.1 and HTTP/2 with this.
pub async fn endpoint<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Answers what it got: version, method, target, headers and body, as JSON.
pub async fn echo(name: &'static str) -> SocketAddr {
    endpoint(move |request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let mut headers = serde_json::Map::new();
        for key in parts.headers.keys() {
            let values: Vec<_> = parts.headers.get_all(key).iter().map(|v| v.to_str().unwrap()).collect();
            headers.insert(key.to_string(), values.join("|").into());
        }
        let got = json!({"by": name, "version": format!("{:?}", parts.version), "method": parts.method.as_str(),
            "uri": parts.uri.to_string(), "headers": headers, "body": String::from_utf8_lossy(&body)});
        Response::new(Full::from(got.to_string()))
    })
    .await
}

/// An endpoint that answers when it is let: who is inside counts up the first, and each permit of the second lets one out.
pub async fn held() -> (SocketAddr, Arc<Semaphore>, Arc<Semaphore>) {
    let (entered, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (inside, held) = (entered.clone(), gate.clone());
    let slow = endpoint(move |_| {
        let (inside, held) = (inside.clone(), held.clone());
        async move {
            inside.add_permits(1);
            let _ = held.acquire().await;
            Response::new(Full::from("done"))
        }
    });
    (slow.await, entered, gate)
}

/// What an echo answered.
pub fn got(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer:?}"))
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A message's head in HTTP/1.1, of a client that waits for the answer.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut head).await.unwrap();
    }
    String::from_utf8(head).unwrap()
}
