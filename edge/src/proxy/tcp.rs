//! Connections that aren't HTTP: bytes both ways between a client and an endpoint.

use super::dial::Endpoint;
use super::metrics::count;
use super::tunnel::pass;
use super::upstream::{Busy, Pool};
use super::{Edge, Shared};
use crate::services::Target;
use ipnet::IpNet;
use longshore_api::ids::ClusterId;
use parking_lot::RwLock;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, warn};

/// To connect to an endpoint.
const CONNECT: Duration = Duration::from_secs(5);

/// A port that leads to the endpoints of one backend. Cheap to clone.
#[derive(Clone)]
pub struct Forward {
    shared: Arc<Shared>,
    cluster: ClusterId,
    /// From where clients may come; empty: from everywhere.
    sources: Arc<[IpNet]>,
    pool: Arc<RwLock<Arc<Pool>>>,
}

impl Edge {
    /// A port of a cluster's, which leads nowhere yet.
    pub fn forward(&self, cluster: &ClusterId, sources: Vec<IpNet>) -> Forward {
        let (shared, cluster) = (self.shared.clone(), cluster.clone());
        Forward { shared, cluster, sources: sources.into(), pool: Arc::default() }
    }
}

impl Forward {
    /// All live endpoints. Connections that stand go on.
    pub fn set_endpoints(&self, targets: impl IntoIterator<Item = Target>) {
        let endpoint =
            |target: Target| Endpoint { cluster: self.cluster.clone(), node: target.node, address: target.address };
        let mut pool = self.pool.write();
        *pool = Arc::new(pool.replace(targets.into_iter().map(endpoint)));
    }

    /// Serves until `stop` turns true, or its sender is gone; what stands then is ended.
    pub async fn serve(&self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = async {
                let place = self.shared.places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: waiting is all that helps.
                    warn!(%error, "the edge can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let settings = &self.shared.settings;
            let comes = self.sources.is_empty() || self.sources.iter().any(|range| range.contains(&address.ip()));
            let counted = self.shared.addresses.take(address.ip(), settings.connections_per_address);
            let Some(counted) = counted.filter(|_| comes) else {
                count(&self.shared.metrics.refused);
                continue;
            };
            let (this, mut stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let _held = (place, counted);
                count(&this.shared.metrics.connections);
                tokio::select! {
                    carried = this.carry(stream) => {
                        if let Err(error) = carried {
                            debug!(%error, client = %address, "a forwarded connection broke");
                        }
                    }
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                this.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    async fn carry(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let pool = self.pool.read().clone();
        let mut tried = Vec::new();
        while tried.len() < self.shared.settings.tries {
            let Some(upstream) = pool.pick(&tried) else { break };
            let dialing = self.shared.dialer.dial(&upstream.endpoint);
            match tokio::time::timeout(CONNECT, dialing).await {
                Ok(Ok(endpoint)) => {
                    upstream.worked();
                    let _busy = Busy::new(upstream);
                    return pass(client, endpoint, self.shared.settings.tunnel_idle).await.map(drop);
                }
                Ok(Err(error)) => debug!(%error, endpoint = %upstream.endpoint.address, "an endpoint can't be reached"),
                Err(_) => debug!(endpoint = %upstream.endpoint.address, "an endpoint can't be reached in time"),
            }
            count(&self.shared.metrics.connects_failed);
            upstream.failed();
            tried.push(upstream);
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "no endpoint answers"))
    }
}
