//! One request and its answer, from its head to the answer's last byte: what is held for it, and what is told of it.

use super::Shared;
use super::counts::Counted;
use super::serve::Running;
use super::upstream::Busy;
use longshore_api::ids::ClusterId;
use longshore_api::network::Name;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tracing::info;

/// Dropped at the end of the answer, whole or not: then it is counted and logged. The query isn't logged, nor any header: they
/// may hold secrets.
pub struct Exchange {
    pub shared: Arc<Shared>,
    pub begun: Instant,
    pub client: IpAddr,
    pub scheme: &'static str,
    pub version: http::Version,
    pub method: http::Method,
    pub host: String,
    pub path: String,
    pub request: String,
    pub cluster: Option<ClusterId>,
    pub source: Option<Name>,
    pub status: u16,
    pub sent: u64,
    pub whole: bool,
    pub broken: Option<String>,
    pub busy: Option<Busy>,
    pub place: Option<Counted<String>>,
    /// Among the requests of its client, where these are limited.
    pub share: Option<Counted<IpAddr>>,
    /// On its connection, which isn't idle meanwhile.
    pub _running: Running,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        if let Some(cluster) = &self.cluster {
            self.shared.metrics.request(cluster, self.status, took);
        }
        info!(
            target: "longshore_edge::access",
            cluster = self.cluster.as_ref().map(ClusterId::as_str),
            ingress = self.source.as_ref().map(|name| format!("{}/{}", name.namespace, name.name)),
            endpoint = self.busy.as_ref().map(|busy| busy.0.endpoint.address.to_string()),
            client = %self.client,
            scheme = self.scheme,
            version = ?self.version,
            host = self.host,
            path = self.path,
            request = self.request,
            bytes = self.sent,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            broken = self.broken,
            "{} {}", self.method, self.status
        );
    }
}
