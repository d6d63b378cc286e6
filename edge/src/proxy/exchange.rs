//! One request and its answer, from its head to the answer's last byte: what is held for it, and what is told of it.

use super::Shared;
use super::counts::Counted;
use super::serve::Running;
use super::upstream::Busy;
use crate::logs::ACCESS;
use http::{HeaderValue, Uri};
use longshore_api::ids::ClusterId;
use longshore_api::network::Name;
use std::fmt;
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
    pub host: Arc<str>,
    pub uri: Uri,
    /// Its id.
    pub request: HeaderValue,
    pub cluster: Option<ClusterId>,
    pub source: Option<Arc<Name>>,
    pub status: u16,
    pub sent: u64,
    pub whole: bool,
    pub broken: Option<String>,
    pub busy: Option<Busy>,
    pub place: Option<Counted<Arc<str>>>,
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
            target: ACCESS,
            cluster = self.cluster.as_ref().map(ClusterId::as_str),
            ingress = self.source.as_deref().map(|name| display(Slashed(name))),
            endpoint = self.busy.as_ref().map(|busy| display(busy.0.endpoint.address)),
            client = %self.client,
            scheme = self.scheme,
            version = ?self.version,
            host = &*self.host,
            path = self.uri.path(),
            request = self.request.to_str().ok(),
            bytes = self.sent,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            broken = self.broken,
            "{} {}", self.method, self.status
        );
    }
}

/// As `kubectl` takes it: `default/web`.
struct Slashed<'a>(&'a Name);

impl fmt::Display for Slashed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.namespace, self.0.name)
    }
}
