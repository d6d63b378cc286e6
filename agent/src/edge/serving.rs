//! What an edge serves on this node: as the server told it last, with endpoints by the network map.

use super::dialer::Inside;
use crate::connection::{Link, lines};
use crate::network::map::{Known, Map};
use crate::pods::desired;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use longshore_api::edge::{self as told, CHALLENGE_PATH, Ports, TLS_CHALLENGE_PATH};
use longshore_api::ids::ClusterId;
use longshore_api::network::Protocol;
use longshore_edge::challenge::{Answering, Challenges};
use longshore_edge::host::Host;
use longshore_edge::ingress::compile;
use longshore_edge::model::{Backend, CertificateSource};
use longshore_edge::services::{self, Behind};
use longshore_edge::tls::Certificate;
use longshore_edge::{Claims, Edge, Settings};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Of what an authority is to find.
const LONGEST_CHALLENGE: usize = 16 * 1024;

pub struct Serving {
    edge: Edge,
    cluster: ClusterId,
    map: Arc<Known>,
    kept: PathBuf,
    now: Mutex<Now>,
}

/// What was set last.
#[derive(Default)]
struct Now {
    backends: BTreeSet<Backend>,
    certificates: BTreeSet<CertificateSource>,
}

impl Serving {
    /// Serves what is `kept` there.
    pub fn start(cluster: ClusterId, map: Arc<Known>, inside: Inside, link: Link, kept: PathBuf, ports: Ports) -> Self {
        let settings = Settings { https_port: ports.https, ..Settings::default() };
        let edge = Edge::start(settings, Arc::new(inside), Arc::new(OfServer(link)));
        let serving = Self { edge, cluster, map, kept, now: Mutex::default() };
        if let Some(told) = desired::read::<told::Edge>(&serving.kept) {
            serving.set(told);
        }
        serving
    }

    /// Until the other end of `stop` is gone.
    pub async fn listen(&self, listener: TcpListener, tls: bool, stop: watch::Receiver<bool>) {
        match tls {
            true => self.edge.serve_https(listener, stop).await,
            false => self.edge.serve_http(listener, stop).await,
        }
    }

    /// Lines of the server's stream: the last one counts.
    pub fn take(&self, lines: &[u8]) {
        let Some(line) = lines.split(|b| *b == b'\n').rfind(|line| !line.is_empty()) else { return };
        match serde_json::from_slice::<told::Edge>(line) {
            Ok(told) => {
                if let Err(error) = desired::write(&self.kept, &told) {
                    tracing::warn!(%error, "what this edge serves could not be kept on disk");
                }
                self.set(told);
            }
            Err(error) => tracing::warn!(%error, "what this edge is to serve is not understood"),
        }
    }

    fn set(&self, told: told::Edge) {
        let (ingresses, classes) = (read::<Ingress>(told.ingresses), read::<IngressClass>(told.classes));
        let hosts: BTreeSet<Host> = told.hosts.iter().filter_map(|host| Host::parse(host)).collect();
        let routes = compile(&ingresses, &classes).routes.granted(&hosts);
        let mut certificates = BTreeSet::new();
        for certificate in told.certificates {
            let source = certificate.source;
            match Certificate::from_pem(certificate.chain.as_bytes(), certificate.key.as_bytes()) {
                Ok(usable) => {
                    self.edge.set_certificate(&self.cluster, source.clone(), Some(usable));
                    certificates.insert(source);
                }
                // Its Ingress is told by the server.
                Err(error) => tracing::debug!(%error, ?source, "a certificate can't be used"),
            }
        }
        let mut now = self.now.lock();
        for gone in now.certificates.difference(&certificates) {
            self.edge.set_certificate(&self.cluster, gone.clone(), None);
        }
        let backends = routes.backends().into_iter().cloned().collect();
        self.edge.set_routes(&self.cluster, Claims::of(&hosts), routes);
        *now = Now { backends, certificates };
        self.set_endpoints(&now);
    }

    fn set_endpoints(&self, now: &Now) {
        for backend in &now.backends {
            let behind = self.map.read(|map| behind(map, backend));
            self.edge.set_endpoints(&self.cluster, backend, behind);
        }
    }

    /// Never returns while there is a map.
    pub async fn follow_endpoints(&self) {
        let mut changes = self.map.changes();
        loop {
            self.set_endpoints(&self.now.lock());
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn behind(map: &Map, backend: &Backend) -> Behind {
    let Some(service) = map.services.get(&backend.service) else { return Behind::default() };
    services::behind(service, map.slices(&backend.service), &backend.port, Protocol::Tcp).unwrap_or_default()
}

fn read<T: DeserializeOwned>(objects: Vec<Value>) -> Vec<T> {
    let read = objects.into_iter().map(serde_json::from_value);
    read.filter_map(|object| object.map_err(|error| tracing::warn!(%error, "an object can't be read")).ok()).collect()
}

/// Open challenges lie with the server.
struct OfServer(Link);

impl OfServer {
    async fn ask(&self, path: String) -> Option<String> {
        let response = lines::get(&self.0.opener()?, &path).await.ok()?;
        let body = Limited::new(response.into_body(), LONGEST_CHALLENGE).collect().await.ok()?;
        String::from_utf8(body.to_bytes().into()).ok()
    }
}

impl Challenges for OfServer {
    fn http<'a>(&'a self, host: &'a str, token: &'a str) -> Answering<'a, String> {
        Box::pin(self.ask(format!("{CHALLENGE_PATH}{host}/{token}")))
    }

    fn tls<'a>(&'a self, host: &'a str) -> Answering<'a, Certificate> {
        Box::pin(async move {
            // The client says it, and it becomes a path.
            let Some(Host::Exact(host)) = Host::parse(host) else { return None };
            let text = self.ask(format!("{TLS_CHALLENGE_PATH}{host}")).await?;
            let shown: told::Certificate = serde_json::from_str(&text).ok()?;
            Certificate::of_challenge(shown.chain.as_bytes(), shown.key.as_bytes()).ok()
        })
    }
}
