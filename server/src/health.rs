//! `/readyz` and `/metrics` of the replica, for those who run it.

use crate::edge::EdgeRoom;
use crate::gateway::Gateway;
use crate::metrics::{Kind, Page};
use crate::process::listener::Peer;
use crate::store::Store;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone)]
struct Replica {
    store: Store,
    gateway: Gateway,
    edge: Option<EdgeRoom>,
}

/// `/healthz` and `/livez` (the process answers), `/readyz` (it can serve: Postgres answers and the lease holds), and
/// `/metrics`, to this machine only: its numbers are about all tenants together.
pub fn router(store: Store, gateway: Gateway, edge: Option<EdgeRoom>) -> Router {
    LazyLock::force(&STARTED);
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Replica { store, gateway, edge })
}

/// Seconds since 1970.
static STARTED: LazyLock<u64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
});

async fn ready(State(replica): State<Replica>) -> Response {
    match replica.store.is_ready() {
        true => "ok".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the database can't be reached\n").into_response(),
    }
}

async fn metrics(State(replica): State<Replica>, request: Request) -> Response {
    let local = request.extensions().get::<Peer>().is_some_and(|peer| peer.address.ip().to_canonical().is_loopback());
    // A proxy on this machine speaks for others.
    let forwarded = ["forwarded", "x-forwarded-for", "via"].iter().any(|name| request.headers().contains_key(*name));
    if !local || forwarded {
        return (StatusCode::FORBIDDEN, "metrics are shown to this machine only\n").into_response();
    }
    replica.page().answer()
}

impl Replica {
    fn page(&self) -> Page {
        let clusters = self.store.loaded();
        let (objects, bytes) = clusters.iter().map(|c| c.size()).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        let watches: usize = clusters.iter().map(|c| c.watchers()).sum();
        let mut page = Page::default();
        page.family("longshore_build_info", Kind::Gauge, "This program.");
        page.sample("longshore_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge("longshore_ready", "Whether Postgres answers and the lease holds.", u8::from(self.store.is_ready()));
        page.gauge("longshore_loaded_clusters", "Clusters in memory.", clusters.len());
        page.gauge("longshore_objects", "Objects in memory.", objects);
        page.gauge("longshore_object_bytes", "Size of their JSON.", bytes);
        page.gauge("longshore_watches", "Open watches of clients.", watches);
        page.gauge(
            "longshore_connected_nodes",
            "Nodes with a tunnel to this replica.",
            self.gateway.sessions().connected(),
        );
        let relayed = self.gateway.relays().traffic();
        page.family(
            "longshore_relayed_bytes_total",
            Kind::Counter,
            "Sealed packets between nodes that went through here.",
        );
        page.sample("longshore_relayed_bytes_total", &[("outcome", "carried")], relayed.carried);
        page.sample("longshore_relayed_bytes_total", &[("outcome", "dropped")], relayed.dropped);
        if let Some(edge) = &self.edge {
            edge.metrics().iter().for_each(|family| tell(&mut page, family));
        }
        page.gauge("process_start_time_seconds", "When this process started, since 1970.", *STARTED);
        if let Some(usage) = Usage::read() {
            page.family("process_cpu_seconds_total", Kind::Counter, "User and system time.");
            page.sample("process_cpu_seconds_total", &[], usage.cpu_seconds);
            page.gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes);
            page.gauge("process_open_fds", "Open file descriptors.", usage.open_files);
        }
        page
    }
}

fn tell(page: &mut Page, family: &longshore_edge::Family) {
    let kind = match family.kind {
        longshore_edge::Kind::Counter => Kind::Counter,
        longshore_edge::Kind::Gauge => Kind::Gauge,
        longshore_edge::Kind::Histogram => Kind::Histogram,
    };
    page.family(family.name, kind, family.help);
    for sample in &family.samples {
        let labels: Vec<(&str, &str)> = sample.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        page.sample(&format!("{}{}", family.name, sample.suffix), &labels, sample.value);
    }
}

/// What the kernel says of this process.
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_files: usize,
}

impl Usage {
    /// None where `/proc` isn't there.
    fn read() -> Option<Self> {
        use nix::sys::time::TimeValLike;
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
        Some(Self {
            cpu_seconds: micros as f64 / 1e6,
            resident_bytes: pages * page as u64,
            open_files: std::fs::read_dir("/proc/self/fd").ok()?.count(),
        })
    }
}
