//! Certificates from a real authority: Debian's `pebble`, which fetches challenges from the edge.

use crate::support::*;
use longshore_e2e::Pebble;
use longshore_edge::acme::*;
use longshore_edge::challenge::{Answering, Challenges};
use longshore_edge::tls::Certificate;
use longshore_edge::{Claims, Edge, Settings};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const HOST: &str = "shop.example.org";

/// Everything in memory, for one replica or several.
#[derive(Default)]
struct Memory {
    account: Mutex<Option<String>>,
    certificates: Mutex<BTreeMap<String, Issued>>,
    challenges: Mutex<BTreeMap<String, Challenge>>,
    opened: Mutex<usize>,
}

impl Store for Memory {
    fn account(&self) -> Answering<'_, String> {
        Box::pin(async { self.account.lock().unwrap().clone() })
    }
    fn save_account<'a>(&'a self, credentials: &'a str) -> Storing<'a> {
        *self.account.lock().unwrap() = Some(credentials.into());
        Box::pin(async { Ok(()) })
    }
    fn certificate<'a>(&'a self, host: &'a str) -> Answering<'a, Issued> {
        Box::pin(async move { self.certificates.lock().unwrap().get(host).cloned() })
    }
    fn save_certificate<'a>(&'a self, host: &'a str, issued: &'a Issued) -> Storing<'a> {
        self.certificates.lock().unwrap().insert(host.into(), issued.clone());
        Box::pin(async { Ok(()) })
    }
    fn open<'a>(&'a self, host: &'a str, challenge: &'a Challenge) -> Storing<'a> {
        *self.opened.lock().unwrap() += 1;
        self.challenges.lock().unwrap().insert(host.into(), challenge.clone());
        Box::pin(async { Ok(()) })
    }
    fn close<'a>(&'a self, host: &'a str) -> Storing<'a> {
        self.challenges.lock().unwrap().remove(host);
        Box::pin(async { Ok(()) })
    }
}

struct FromMemory(Arc<Memory>);

impl Challenges for FromMemory {
    fn http<'a>(&'a self, host: &'a str, wanted: &'a str) -> Answering<'a, String> {
        Box::pin(async move {
            match self.0.challenges.lock().unwrap().get(host) {
                Some(Challenge::Http { token, text }) if token == wanted => Some(text.clone()),
                _ => None,
            }
        })
    }
    fn tls<'a>(&'a self, host: &'a str) -> Answering<'a, Certificate> {
        Box::pin(async move {
            match self.0.challenges.lock().unwrap().get(host) {
                Some(Challenge::Tls(shown)) => {
                    Certificate::of_challenge(shown.chain.as_bytes(), shown.key.as_bytes()).ok()
                }
                _ => None,
            }
        })
    }
}

async fn free_port() -> u16 {
    nobody().await.port()
}

async fn issuer_of(pebble: &Pebble, store: &Arc<Memory>, proof: Proof) -> Issuer {
    let authority = Authority { directory: pebble.directory.clone(), roots: Some(pebble.roots()) };
    Issuer::start(&authority, &[], store.clone(), proof).await.unwrap()
}

async fn edge(store: &Arc<Memory>) -> (Edge, SocketAddr, SocketAddr, watch::Sender<bool>) {
    let edge = Edge::start(Settings::default(), Arc::new(Tcp::default()), Arc::new(FromMemory(store.clone())));
    let (stop, stopped) = watch::channel(false);
    let (http, https) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addresses = (http.local_addr().unwrap(), https.local_addr().unwrap());
    let (plain, secure, also) = (edge.clone(), edge.clone(), stopped.clone());
    tokio::spawn(async move { plain.serve_http(http, stopped).await });
    tokio::spawn(async move { secure.serve_https(https, also).await });
    (edge, addresses.0, addresses.1, stop)
}

/// What the edge shows for the host.
async fn shown(https: SocketAddr) -> Option<CertificateDer<'static>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let seen = Arc::new(Mutex::new(None));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Seen(seen.clone()))).with_no_client_auth();
    let stream = TcpStream::connect(https).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let _ = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    seen.lock().unwrap().take()
}

/// Notes the certificate and goes no further.
#[derive(Debug)]
struct Seen(Arc<Mutex<Option<CertificateDer<'static>>>>);

impl rustls::client::danger::ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(shown.clone().into_owned());
        Err(rustls::Error::General("seen".into()))
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("seen".into()))
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("seen".into()))
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn issued_by(proof: Proof) {
    let store = Arc::new(Memory::default());
    // The challenge is answered by one replica, ordered by another.
    let (_answering, http, https, _stop) = edge(&store).await;
    let authority = Pebble::start("127.0.0.1", http.port(), https.port());
    let issuer = issuer_of(&authority, &store, proof.clone()).await;
    let issued = issuer.issue(HOST).await.unwrap();
    Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).unwrap();
    let (begin, end) = issued.validity().unwrap();
    assert!(begin < jiff::Timestamp::now() && jiff::Timestamp::now() < end);
    assert_eq!(store.certificates.lock().unwrap()[HOST], issued);
    assert_eq!((*store.opened.lock().unwrap(), store.challenges.lock().unwrap().len()), (1, 0));
    // The account is kept: another start is the same one, and what it proved counts.
    let account = store.account.lock().unwrap().clone();
    issuer_of(&authority, &store, proof).await.issue(HOST).await.unwrap();
    assert_eq!(*store.account.lock().unwrap(), account);
}

#[tokio::test]
async fn a_certificate_is_issued_for_what_http_proves() {
    issued_by(Proof::Http).await;
}

#[tokio::test]
async fn a_certificate_is_issued_for_what_tls_proves() {
    issued_by(Proof::TlsAlpn).await;
}

/// What stands for the operator's program: it makes records in the authority's own name server.
async fn dns_program(pebble: Arc<Pebble>, asked: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/acme/", listener.local_addr().unwrap());
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let (pebble, asked) = (pebble.clone(), asked.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body: serde_json::Value =
                serde_json::from_slice(&http_body_util::BodyExt::collect(body).await.unwrap().to_bytes()).unwrap();
            let (name, value) =
                (body["fqdn"].as_str().unwrap().to_string(), body["value"].as_str().unwrap().to_string());
            let known = parts.headers.get("authorization").is_some_and(|given| given == "Bearer secret");
            asked.lock().unwrap().push(format!("{} {name}", parts.uri.path()));
            if known && parts.uri.path() == "/acme/present" {
                let record = name.trim_end_matches('.').to_string();
                tokio::task::spawn_blocking(move || pebble.text(&record, &value)).await.unwrap();
            }
            let status = if known { 200 } else { 403 };
            let answer = http::Response::builder().status(status).body("who are you?".to_string()).unwrap();
            Ok::<_, std::convert::Infallible>(answer)
        }
    };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(answer.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    url
}

#[tokio::test]
async fn a_wildcard_is_issued_for_what_a_record_proves() {
    let store = Arc::new(Memory::default());
    // Nobody answers at any port: names alone prove.
    let authority = Arc::new(Pebble::start("127.0.0.1", free_port().await, free_port().await));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let url = dns_program(authority.clone(), asked.clone()).await;
    let proof = |authorization| Proof::Dns(Arc::new(webhook::Webhook::new(&url, Some(authorization)).unwrap()));
    let issuer = issuer_of(&authority, &store, proof("Bearer secret")).await;
    let host = "*.shop.example.org";
    let issued = issuer.issue(host).await.unwrap();
    Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).unwrap();
    assert_eq!(store.certificates.lock().unwrap()[host], issued);
    let both = ["/acme/present", "/acme/cleanup"].map(|path| format!("{path} _acme-challenge.shop.example.org."));
    assert_eq!(*asked.lock().unwrap(), both);
    assert_eq!(*store.opened.lock().unwrap(), 0, "nothing that an edge answers");

    // What the program doesn't do is said in its own words, and nothing is left of it.
    let stranger = issuer_of(&authority, &store, proof("Bearer wrong")).await;
    let Err(Error::Webhook(error)) = stranger.issue("other.example.org").await else { panic!("issued") };
    let told = error.to_string();
    assert!(told.contains("403") && told.contains("who are you?") && !told.contains("Bearer"), "{told}");
    assert_eq!(asked.lock().unwrap().last().unwrap(), "/acme/cleanup _acme-challenge.other.example.org.");
}

#[tokio::test]
async fn an_authority_that_finds_no_answer_says_so() {
    let store = Arc::new(Memory::default());
    // It looks where nobody listens.
    let authority = Pebble::start("127.0.0.1", free_port().await, free_port().await);
    let issuer = issuer_of(&authority, &store, Proof::Http).await;
    let Err(Error::Refused { host, why }) = issuer.issue(HOST).await else { panic!("issued") };
    assert_eq!(host, HOST);
    assert!(why.contains("connection") || why.contains("refused"), "{why}");
    assert!(store.challenges.lock().unwrap().is_empty() && store.certificates.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_host_is_kept_in_certificates() {
    let store = Arc::new(Memory::default());
    let (edge, http, https, _stop) = edge(&store).await;
    let tls = json!({"longshore.dev/acme": "true"});
    edge.set_routes(&cluster(), Claims::All, routes(&[(HOST, "web")], tls));
    assert_eq!(shown(https).await, None);
    let authority = Pebble::start("127.0.0.1", http.port(), https.port());
    let issuer = Arc::new(issuer_of(&authority, &store, Proof::Http).await);
    let (hosts, wanted) = watch::channel(BTreeSet::from([HOST.to_string()]));
    let (keeper, keeping) = (issuer.clone(), edge.clone());
    let task = tokio::spawn(async move { keep(&keeper, &keeping, &cluster(), wanted, Pace::default()).await });
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let first = loop {
        assert!(std::time::Instant::now() < deadline, "no certificate came");
        if let Some(first) = shown(https).await {
            break first;
        }
    };
    let kept = store.certificates.lock().unwrap()[HOST].clone();
    assert_eq!(CertificateDer::from_pem_slice(kept.chain.as_bytes()).unwrap(), first);
    // A host that is wanted no more loses its certificate; wanted again, it has the one that was kept.
    hosts.send(BTreeSet::new()).unwrap();
    while shown(https).await.is_some() {
        assert!(std::time::Instant::now() < deadline);
    }
    hosts.send(BTreeSet::from([HOST.to_string()])).unwrap();
    while shown(https).await.as_ref() != Some(&first) {
        assert!(std::time::Instant::now() < deadline);
    }
    drop(hosts);
    task.await.unwrap();
}
