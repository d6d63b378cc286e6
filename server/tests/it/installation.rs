//! A whole replica on a port of loopback, with a database of its own, and machines that join it:
//! `let here = Installation::start().await; let node = here.join("n1").await; node.tunnel().await`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use futures::{SinkExt, StreamExt, future};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming as Body;
use hyper_util::rt::TokioIo;
use longshore_api::ids::ClusterId;
use longshore_api::node::{
    JOIN_PATH, Joined, PROOF_HEADER, Proof, RELAY_PATH, RELAY_PROTOCOL, TUNNEL_PATH, TUNNEL_PROTOCOL,
};
use longshore_server::accounts::founding::{Founded, FounderSecrets};
use longshore_server::app::{App, AppSettings};
use longshore_server::edge;
use longshore_server::process::listener::Listener;
use longshore_server::store::testing::{Database, database};
use longshore_server::store::{Key, MasterKey};
use longshore_tunnel::{Config, Incoming, Messages, Opener, Side, Tunnel};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

pub const EMAIL: &str = "founder@example.com";

pub struct Installation {
    pub app: App,
    pub founded: Founded,
    pub secrets: FounderSecrets,
    /// The founder's join token.
    pub token: String,
    pub address: SocketAddr,
    pub database: Database,
    _stop: watch::Sender<bool>,
}

/// An answer, read whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the answer comes whole").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Self { status: parts.status, headers: parts.headers, text }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text))
    }

    /// Status code and message of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(body["kind"], "Status", "{}", self.text);
        (self.status.as_u16(), body["message"].as_str().unwrap_or_default().to_string())
    }
}

/// A TLS client that trusts one authority.
pub fn trusting(ca: &str, protocols: &[&str]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("TLS").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

impl Installation {
    pub async fn start() -> Self {
        Self::start_whole(PathBuf::from("/nowhere"), None).await
    }

    /// The same with agents to download.
    pub async fn start_with(downloads: PathBuf) -> Self {
        Self::start_whole(downloads, None).await
    }

    /// The same with an edge that listens nowhere.
    pub async fn start_with_edge(edge: edge::Settings) -> Self {
        Self::start_whole(PathBuf::from("/nowhere"), Some(edge)).await
    }

    async fn start_whole(downloads: PathBuf, edge: Option<edge::Settings>) -> Self {
        let database = database().await;
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = tcp.local_addr().expect("an address");
        let (_, master) = MasterKey::random();
        let settings = AppSettings {
            pool: database.pool.clone(),
            master: Arc::new(master),
            base_url: format!("https://{address}"),
            downloads: Some(downloads),
            alone: true,
            edge,
        };
        let (app, _) = App::open(settings).await.expect("the rooms open");
        let secrets = FounderSecrets::random();
        let founded = app.accounts.found(EMAIL, &secrets).await.expect("founded");
        let token = app.accounts.keep_founder_tokens(&founded, &secrets).await.expect("tokens").to_string();
        let tls = app.accounts.server_config(&["127.0.0.1".into()]).expect("a certificate").into();
        let listener = Listener { tcp, tls, trusted_proxies: Vec::new(), router: app.router() };
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(listener.serve(stopping));
        Self { app, founded, secrets, token, address, database, _stop: stop }
    }

    pub fn cluster(&self) -> &ClusterId {
        &self.founded.cluster
    }

    /// Waits for the service account that controllers make in a new namespace.
    pub async fn default_account(&self) {
        let cluster = self.app.store.cluster(self.cluster()).await.expect("the cluster loads");
        let key = Key { resource: "serviceaccounts".into(), namespace: "default".into(), name: "default".into() };
        loop {
            let seen = cluster.revision();
            if cluster.get_stale(&key).expect("it is loaded").is_some() {
                return;
            }
            let came = cluster.reached(seen.next(), Duration::from_secs(60)).await;
            assert!(came, "nothing makes the service account");
        }
    }

    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.expect("the port is open");
        let connector = trusting(self.app.accounts.authority().certificate_pem(), &["http/1.1"]);
        let name = ServerName::from(self.address.ip());
        connector.connect(name, tcp).await.expect("the certificate holds")
    }

    pub async fn send(&self, request: Request<String>) -> Answer {
        Answer::read(self.answer(request).await).await
    }

    /// The status alone, where what follows is no body.
    pub async fn head(&self, request: Request<String>) -> u16 {
        self.answer(request).await.status().as_u16()
    }

    pub async fn answer(&self, request: Request<String>) -> Response<Body> {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
        tokio::spawn(connection);
        let mut request = request.map(|body| Full::new(Bytes::from(body)));
        request.headers_mut().insert("host", self.address.to_string().parse().expect("a header"));
        sender.send_request(request).await.expect("an answer")
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(body.to_string()).expect("a request")).await
    }

    /// As the founder, by API token.
    pub async fn api(&self, method: &str, path: &str, body: Value) -> Answer {
        self.api_of(self.cluster(), method, path, body).await
    }

    /// The same of another cluster.
    pub async fn api_of(&self, cluster: &ClusterId, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(format!("/clusters/{cluster}{path}"));
        let request = request.header("authorization", format!("Bearer {}", self.secrets.api_token));
        let request = request.header("content-type", "application/json");
        self.send(request.body(body.to_string()).expect("a request")).await
    }

    pub async fn ask_to_join(&self, name: &str, key: &SigningKey) -> Answer {
        let public_key = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        let join = json!({"token": self.token, "name": name, "publicKey": public_key, "agentVersion": "0.0.0"});
        self.post(JOIN_PATH, join).await
    }

    pub async fn join(&self, name: &str) -> Machine<'_> {
        let key = SigningKey::from_bytes(&rand::random());
        let answer = self.ask_to_join(name, &key).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        Machine { here: self, key, joined: serde_json::from_value(answer.json()).expect("what joining gives") }
    }
}

/// A machine that has joined.
pub struct Machine<'a> {
    pub here: &'a Installation,
    pub key: SigningKey,
    pub joined: Joined,
}

/// An agent's end of an open tunnel.
pub struct Connected {
    pub opener: Opener,
    pub incoming: Incoming,
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Machine<'_> {
    pub fn proof(&self, path: &str, time: i64) -> String {
        let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
        let message = Proof::message(path, &self.joined.credential, time, &nonce);
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()).to_bytes());
        Proof { time, nonce, signature }.to_string()
    }

    pub fn asking(&self, method: &str, path: &str, proof: &str) -> Request<String> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {}", self.joined.credential));
        request.header(PROOF_HEADER, proof).body(String::new()).expect("a request")
    }

    /// Asks for the tunnel and expects to be refused.
    pub async fn refused(&self, proof: &str) -> Answer {
        self.refused_at(TUNNEL_PATH, TUNNEL_PROTOCOL, proof).await
    }

    pub async fn refused_at(&self, path: &str, protocol: &str, proof: &str) -> Answer {
        let mut request = self.asking("GET", path, proof);
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocol),
        ] {
            request.headers_mut().insert(name, value.parse().expect("a header"));
        }
        self.here.send(request).await
    }

    pub async fn tunnel(&self) -> Connected {
        let (opener, incoming) =
            Tunnel::start(self.messages(TUNNEL_PATH, TUNNEL_PROTOCOL).await, Side::Agent, Config::default());
        Connected { opener, incoming }
    }

    /// The line of relayed packets.
    pub async fn relay(&self) -> impl Messages {
        self.messages(RELAY_PATH, RELAY_PROTOCOL).await
    }

    async fn messages(&self, path: &str, protocol: &'static str) -> impl Messages + use<> {
        let url = format!("wss://{}{path}", self.here.address);
        let request = Request::get(url)
            .header("host", self.here.address.to_string())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
            .header("sec-websocket-protocol", protocol)
            .header("authorization", format!("Bearer {}", self.joined.credential))
            .header(PROOF_HEADER, self.proof(path, now()));
        let request = request.body(()).expect("a request");
        let opened = tokio_tungstenite::client_async(request, self.here.connect().await).await;
        let (socket, response) = opened.expect("the WebSocket opens");
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        socket
            .sink_map_err(io::Error::other)
            .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Message::Binary(bytes))))
            .take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_)))))
            .filter_map(|message| {
                future::ready(match message {
                    Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                    Ok(_) => None,
                    Err(error) => Some(Err(io::Error::other(error))),
                })
            })
    }
}

impl Connected {
    /// A request of the node's own, through the tunnel.
    pub async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header("host", "server").body(Full::new(Bytes::new())).expect("a request");
        Answer::read(self.open(request).await).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let request = Request::post(path).header("host", "server").header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
        Answer::read(self.open(request).await).await
    }

    pub async fn open(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let stream = self.opener.open().await.expect("a stream");
        longshore_tunnel::http::send(stream, request).await.expect("an answer")
    }
}
