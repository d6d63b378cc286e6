//! The running edge: what it serves is set from outside, at any time; what it dials is what it was given.

mod answer;
mod body;
mod counts;
pub mod dial;
mod exchange;
mod forward;
mod handle;
mod headers;
mod limits;
pub mod metrics;
mod proxied;
mod serve;
mod target;
pub mod tcp;
mod tunnel;
pub mod udp;
mod upstream;
mod websocket;

use crate::challenge::Challenges;
use crate::host::Host;
use crate::model::{Backend, CertificateSource, Routes};
use crate::services::Behind;
use crate::table::{Claims, Entry, Table};
use crate::tls::Certificate;
use counts::Counts;
use dial::Dialer;
use governor::clock::MonotonicClock;
use ipnet::IpNet;
use limits::Limits;
use longshore_api::ids::ClusterId;
use metrics::{Family, Metrics};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use upstream::Pool;

/// What an edge is like, from its start on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Hosts that no route is ever for: the dashboard's own.
    pub reserved: Vec<Host>,
    /// Proxies before this edge, which are believed about who the client is.
    pub trusted: Vec<IpNet>,
    /// Proxies that say by the PROXY protocol who the client is; they must.
    pub proxies: Vec<IpNet>,
    /// The port that clients reach with `https`, for redirects.
    pub https_port: u16,
    /// Connections of clients at once, and those of one address.
    pub connections: usize,
    pub connections_per_address: usize,
    /// Requests of one host at once.
    pub requests_per_host: usize,
    /// Header fields of a request, and their bytes (HTTP/1.1 counts its request line, too).
    pub headers: usize,
    pub header_bytes: usize,
    /// No request's body is larger, whatever a route allows.
    pub body_limit: u64,
    /// For a TLS handshake, and for the head of a request, from the connection's or the last answer's end on.
    pub head: Duration,
    /// A connection with nothing to do is ended after this, a tunnel (WebSocket) through which nothing passes after the other.
    pub idle: Duration,
    pub tunnel_idle: Duration,
    /// Connections to an endpoint that wait for a request, and for how long.
    pub upstream_kept: usize,
    pub upstream_idle: Duration,
    /// Endpoints that are tried before a request is given up.
    pub tries: usize,
    /// For what is being answered when the edge stops, and for a tunnel whose endpoint is gone.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reserved: Vec::new(),
            trusted: Vec::new(),
            proxies: Vec::new(),
            https_port: 443,
            connections: 10_000,
            connections_per_address: 1_000,
            requests_per_host: 2_000,
            headers: 100,
            header_bytes: 32 << 10,
            body_limit: u64::MAX,
            head: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            tunnel_idle: Duration::from_secs(600),
            upstream_kept: 64,
            upstream_idle: Duration::from_secs(30),
            tries: 3,
            drain: Duration::from_secs(10),
        }
    }
}

/// An edge. What it serves ends when all of these are dropped.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
    _sweeper: Arc<Sweeper>,
}

pub(crate) struct Shared {
    settings: Settings,
    dialer: Arc<dyn Dialer>,
    challenges: Arc<dyn Challenges>,
    entries: Mutex<BTreeMap<ClusterId, Entry>>,
    table: RwLock<Arc<Table>>,
    pools: RwLock<HashMap<ClusterId, HashMap<Backend, Arc<Pool>>>>,
    certificates: RwLock<HashMap<ClusterId, HashMap<CertificateSource, Certificate>>>,
    metrics: Metrics,
    places: Arc<Semaphore>,
    addresses: Counts<IpAddr>,
    hosts: Counts<Arc<str>>,
    limits: Limits,
    tls: Arc<ServerConfig>,
}

struct Sweeper(AbortHandle);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How often kept connections and limits of clients are looked at.
const SWEEP: Duration = Duration::from_secs(5);

impl Edge {
    /// Starts on the current runtime, serving nothing.
    pub fn start(settings: Settings, dialer: Arc<dyn Dialer>, challenges: Arc<dyn Challenges>) -> Self {
        let shared = Arc::new_cyclic(|shared| Shared {
            places: Arc::new(Semaphore::new(settings.connections)),
            settings,
            dialer,
            challenges,
            entries: Mutex::default(),
            table: RwLock::default(),
            pools: RwLock::default(),
            certificates: RwLock::default(),
            metrics: Metrics::default(),
            addresses: Counts::new(),
            hosts: Counts::new(),
            limits: Limits::new(MonotonicClock),
            tls: serve::tls_config(shared.clone()),
        });
        let weak = Arc::downgrade(&shared);
        let sweeper = tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(shared) = weak.upgrade() else { break };
                shared.sweep();
            }
        });
        Self { shared, _sweeper: Arc::new(Sweeper(sweeper.abort_handle())) }
    }

    /// A cluster's routes from now on. Requests that are on their way end as they began.
    pub fn set_routes(&self, cluster: &ClusterId, claims: Claims, routes: Routes) {
        let backends: std::collections::HashSet<Backend> = routes.backends().into_iter().cloned().collect();
        if let Some(pools) = self.shared.pools.write().get_mut(cluster) {
            pools.retain(|backend, pool| {
                let named = backends.contains(backend);
                if !named {
                    pool.end();
                }
                named
            });
        }
        self.shared.limits.set(cluster, &routes);
        let entry = Entry { cluster: cluster.clone(), claims: Arc::new(claims), routes: Arc::new(routes) };
        let mut entries = self.shared.entries.lock();
        entries.insert(cluster.clone(), entry);
        self.shared.rebuild(&entries);
    }

    /// The cluster is served no more.
    pub fn remove(&self, cluster: &ClusterId) {
        let mut entries = self.shared.entries.lock();
        entries.remove(cluster);
        self.shared.rebuild(&entries);
        drop(entries);
        for pool in self.shared.pools.write().remove(cluster).into_iter().flatten() {
            pool.1.end();
        }
        self.shared.certificates.write().remove(cluster);
        self.shared.limits.forget(cluster);
        self.shared.metrics.forget(cluster);
    }

    /// All live endpoints of a backend that the cluster's routes name. Those that were there before keep their connections; the
    /// others get no new request, and lose their tunnels once they are gone.
    pub fn set_endpoints(&self, cluster: &ClusterId, backend: &Backend, behind: Behind) {
        let mut pools = self.shared.pools.write();
        let of_cluster = pools.entry(cluster.clone()).or_default();
        let pool = of_cluster.get(backend).cloned().unwrap_or_default();
        of_cluster.insert(backend.clone(), Arc::new(pool.replace(cluster, behind)));
    }

    /// A Secret's certificate, or one that an authority gave; None: it is gone.
    pub fn set_certificate(&self, cluster: &ClusterId, source: CertificateSource, certificate: Option<Certificate>) {
        let mut certificates = self.shared.certificates.write();
        let of_cluster = certificates.entry(cluster.clone()).or_default();
        match certificate {
            Some(certificate) => of_cluster.insert(source, certificate),
            None => of_cluster.remove(&source),
        };
    }

    pub fn metrics(&self) -> Vec<Family> {
        self.shared.metrics.families()
    }

    /// Serves plain HTTP until `stop` turns true.
    pub async fn serve_http(&self, listener: tokio::net::TcpListener, stop: watch::Receiver<bool>) {
        serve::serve(self.shared.clone(), listener, false, stop).await;
    }

    /// Serves HTTP over TLS until `stop` turns true.
    pub async fn serve_https(&self, listener: tokio::net::TcpListener, stop: watch::Receiver<bool>) {
        serve::serve(self.shared.clone(), listener, true, stop).await;
    }
}

impl Shared {
    fn rebuild(&self, entries: &BTreeMap<ClusterId, Entry>) {
        let table = Table::new(entries.values().cloned().collect(), &self.settings.reserved);
        *self.table.write() = Arc::new(table);
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    fn pool(&self, cluster: &ClusterId, backend: &Backend) -> Option<Arc<Pool>> {
        self.pools.read().get(cluster)?.get(backend).cloned()
    }

    /// The certificate for a server name, if its cluster names one and it is there.
    fn certificate(&self, host: &str) -> Option<Certificate> {
        let table = self.table();
        let (cluster, source) = table.certificate(host)?;
        self.certificates.read().get(cluster)?.get(source).cloned()
    }

    fn sweep(&self) {
        let pools: Vec<Arc<Pool>> = self.pools.read().values().flat_map(|pools| pools.values().cloned()).collect();
        for upstream in pools.iter().flat_map(|pool| pool.upstreams()) {
            upstream.sweep(self.settings.upstream_idle);
        }
        self.limits.sweep();
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.settings.trusted.iter().any(|range| range.contains(&address))
    }
}
