//! A node under test: the pods' manager and the kubelet's API over a Docker daemon of the test's own and an API in memory.

use crate::api::Api;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use longshore_agent::kubelet::Kubelet;
use longshore_agent::node::context::{Context, Machine};
use longshore_agent::node::events::Recorder;
use longshore_agent::pods::manager;
use longshore_agent::pods::network::{HostPort, Network, NetworkError};
use longshore_agent::pods::references::References;
use longshore_agent::runtime::docker::Docker as Runtime;
use longshore_agent::runtime::{self, Owner};
use longshore_e2e::Docker;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::task::AbortOnDropHandle;

pub const PATIENCE: Duration = Duration::from_secs(40);

/// What outlives an agent: the machine.
pub struct Machinery {
    pub docker: Docker,
    pub api: Api,
    folder: tempfile::TempDir,
}

impl Machinery {
    pub fn start() -> Self {
        Self::start_in(None)
    }

    /// With a daemon that has a network and mounts of its own.
    pub fn start_in(netns: Option<&str>) -> Self {
        let folder = tempfile::Builder::new().prefix("longshore-it").tempdir().unwrap();
        let docker = Docker::start_in(&folder.path().join("docker"), netns);
        docker.make_sample_image();
        Self { docker, api: Api::new(), folder }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// An agent at work; dropping it leaves the containers.
    pub fn agent(&self) -> Node {
        let owner = Owner { cluster: "c-test".into(), node: "n-test".into() };
        let runtime: Arc<dyn runtime::Runtime> = Arc::new(Runtime::new(&self.docker.host(), owner).unwrap());
        let client = self.api.client();
        let context = Arc::new(Context {
            name: "node".into(),
            events: Recorder::start(client.clone(), "node"),
            references: References::new(client.clone(), &self.data_dir()),
            client,
            runtime: runtime.clone(),
            network: Arc::new(Loopback::default()),
            data_dir: self.data_dir(),
            machine: parking_lot::RwLock::new(Machine {
                addresses: vec![IpAddr::from([127, 0, 0, 1])],
                cpu_milli: 2000,
                memory: 4 << 30,
            }),
            pods: Default::default(),
        });
        let manager = AbortOnDropHandle::new(tokio::spawn(manager::run(context.clone())));
        Node { kubelet: Kubelet::new(context), runtime, _manager: manager }
    }

    /// Binds a pod to the node; its uid is its name.
    pub fn pod(&self, name: &str, spec: Value) {
        self.pod_with(name, json!({}), spec);
    }

    pub fn pod_with(&self, name: &str, metadata: Value, mut spec: Value) {
        spec["nodeName"] = json!("node");
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
            "status": {"phase": "Pending"}});
        for (key, value) in [("name", name), ("uid", name), ("namespace", "default")] {
            pod["metadata"][key] = json!(value);
        }
        self.api.put("pods", pod);
    }

    /// Waits until the pod's object (null when it is gone) is as `is` wants it.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let deadline = Instant::now() + PATIENCE;
        async move {
            loop {
                let pod = self.api.get("pods", "default", name).unwrap_or(Value::Null);
                if is(&pod) {
                    return pod;
                }
                if Instant::now() > deadline {
                    panic!("{caller}: {name} is not {what}: {:#}\n{:#?}", pod["status"], self.api.events(name));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Waits until it was said of a pod, in words that begin so.
    #[track_caller]
    pub fn said(&self, pod: &str, reason: &str, start: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let deadline = Instant::now() + PATIENCE;
        async move {
            while !self.api.events(pod).iter().any(|(r, m)| r == reason && m.starts_with(start)) {
                let events = self.api.events(pod);
                assert!(Instant::now() < deadline, "{caller}: not said of {pod}: {reason} {start:?}; {events:#?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    #[track_caller]
    pub fn running(&self, name: &str) -> impl Future<Output = Value> {
        self.until(name, "Running and Ready", |pod| {
            pod["status"]["phase"] == "Running" && condition(pod, "Ready") == Some(true)
        })
    }

    #[track_caller]
    pub fn gone(&self, name: &str) -> impl Future<Output = Value> {
        self.until(name, "gone", Value::is_null)
    }

    /// Own containers of a pod, also dead ones: name, attempt, id.
    pub async fn containers(&self, node: &Node, pod: &str) -> Vec<(String, u32, String)> {
        let records = node.runtime.containers(Some(pod)).await.unwrap();
        records.into_iter().filter(|r| !r.name.is_empty()).map(|r| (r.name, r.attempt, r.id)).collect()
    }
}

pub fn condition(pod: &Value, kind: &str) -> Option<bool> {
    let all = pod["status"]["conditions"].as_array()?;
    all.iter().find(|c| c["type"] == kind).map(|c| c["status"] == "True")
}

/// A container that does something in a shell of the sample image.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "longshore/hello:v1", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script]})
}

/// Runs until it is told to end.
pub const WAIT: &str = "trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done";

pub struct Node {
    pub kubelet: Kubelet,
    pub runtime: Arc<dyn runtime::Runtime>,
    _manager: AbortOnDropHandle<()>,
}

impl Node {
    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.kubelet.handle(Request::get(path).body(()).unwrap()).await.unwrap();
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    /// Opens a session as the server does: a WebSocket over a stream of bytes.
    pub async fn open(&self, path: &str, protocol: &str) -> Session {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let kubelet = self.kubelet.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let kubelet = kubelet.clone();
                async move { kubelet.handle(request).await }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(theirs), service).with_upgrades().await;
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::get(path)
            .header("host", "node")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol)
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        Session { socket: WebSocketStream::from_raw_socket(io, Role::Client, None).await }
    }

    /// Runs a script in a container without input: output, errors, status.
    pub async fn exec(&self, pod: &str, container: &str, script: &str) -> Ended {
        let path = exec_path(pod, container, "output=1&error=1", &["sh", "-c", script]);
        self.open(&path, "v5.channel.k8s.io").await.end().await
    }

    /// What a script prints; it must succeed.
    #[track_caller]
    pub fn output(&self, pod: &str, container: &str, script: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let ended = self.exec(pod, container, script).await;
            assert_eq!(ended.status["status"], "Success", "{caller}: {script}: {ended:?}");
            ended.stdout.trim_end().to_owned()
        }
    }
}

pub fn exec_path(pod: &str, container: &str, streams: &str, command: &[&str]) -> String {
    let words: String = command
        .iter()
        .map(|word| {
            let word: String = form_urlencoded::byte_serialize(word.as_bytes()).collect();
            format!("&command={word}")
        })
        .collect();
    format!("/exec/default/{pod}/{container}?{streams}{words}")
}

pub struct Session {
    pub socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
}

#[derive(Debug, Default)]
pub struct Ended {
    pub stdout: String,
    pub stderr: String,
    pub status: Value,
}

impl Session {
    pub async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.socket.send(Message::Binary(message.into())).await.unwrap();
    }

    /// The next message: channel and bytes.
    pub async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            match tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the session says nothing")? {
                Ok(Message::Binary(bytes)) => return Some((bytes[0], bytes.slice(1..))),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads to the end of the session.
    pub async fn end(mut self) -> Ended {
        let mut ended = Ended::default();
        while let Some((channel, bytes)) = self.next().await {
            let text = String::from_utf8_lossy(&bytes);
            match channel {
                1 => ended.stdout += &text,
                2 => ended.stderr += &text,
                3 => ended.status = serde_json::from_slice(&bytes).unwrap(),
                other => panic!("a message on channel {other}"),
            }
        }
        ended
    }
}

/// A network that gives each pod an address on its own loopback; who connects to it goes into the pod's namespace.
#[derive(Default)]
struct Loopback(Mutex<BTreeMap<String, (Ipv4Addr, PathBuf)>>);

impl Network for Loopback {
    fn attach<'a>(
        &'a self,
        pod_uid: &'a str,
        netns: PathBuf,
        _: Vec<HostPort>,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        let mut all = self.0.lock();
        let next = Ipv4Addr::new(10, 77, 0, all.len() as u8 + 2);
        let entry = all.entry(pod_uid.to_owned()).or_insert((next, netns.clone()));
        entry.1.clone_from(&netns);
        let ip = entry.0;
        let done = std::process::Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(["ip", "addr", "replace", &format!("{ip}/32"), "dev", "lo"])
            .output();
        async move {
            match done {
                Ok(output) if output.status.success() => Ok(vec![ip.into()]),
                other => Err(NetworkError::Failed(format!("{other:?}"))),
            }
        }
        .boxed()
    }
    fn detach<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        self.0.lock().remove(pod_uid);
        async { Ok(()) }.boxed()
    }
    fn retain<'a>(&'a self, _: Vec<String>) -> BoxFuture<'a, Result<(), NetworkError>> {
        async { Ok(()) }.boxed()
    }
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        let netns = self.0.lock().values().find(|(ip, _)| *ip == address.ip()).map(|(_, netns)| netns.clone());
        async move {
            let netns = netns.ok_or(io::ErrorKind::HostUnreachable)?;
            // A thread of its own: it belongs to the other namespace from then on and ends.
            let connected = std::thread::spawn(move || -> io::Result<std::net::TcpStream> {
                nix::sched::setns(std::fs::File::open(netns)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            });
            TcpStream::from_std(connected.join().expect("a connection's thread")?)
        }
        .boxed()
    }
    fn set_ranges(&self, _: &[String]) {}
    fn not_ready(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        tokio::sync::watch::channel(None).1
    }
    fn dns_servers(&self, _: bool) -> Vec<IpAddr> {
        Vec::new()
    }
    fn api_from_host(&self) -> Option<IpAddr> {
        Some([127, 0, 0, 9].into())
    }
}

/// Whether a process of the host has exactly this command line.
pub fn process_runs(line: &str) -> bool {
    let wanted: Vec<u8> = line.split(' ').flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .any(|e| std::fs::read(e.path().join("cmdline")).is_ok_and(|found| found == wanted))
}

/// Waits for a condition that nobody announces.
#[track_caller]
pub fn eventually(what: &str, is: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !is() {
            assert!(Instant::now() < deadline, "{caller}: not in time: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
