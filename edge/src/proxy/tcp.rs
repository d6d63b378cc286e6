//! Ports that aren't HTTP's, and their connections: bytes both ways between a client and an endpoint.

use super::metrics::count;
use super::serve::{Admitted, arrival};
use super::tunnel::pass;
use super::upstream::{Busy, Pool};
use super::{Edge, Shared};
use crate::services::Behind;
use ipnet::IpNet;
use longshore_api::ids::ClusterId;
use parking_lot::RwLock;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::debug;

/// To connect to an endpoint.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// A port that leads to the endpoints of one backend. Cheap to clone.
#[derive(Clone)]
pub struct Forward {
    pub(super) shared: Arc<Shared>,
    cluster: ClusterId,
    /// From where clients may come; empty: from everywhere.
    sources: Arc<[IpNet]>,
    pub(super) pool: Arc<RwLock<Arc<Pool>>>,
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
    pub fn set_endpoints(&self, behind: Behind) {
        let mut pool = self.pool.write();
        *pool = Arc::new(pool.replace(&self.cluster, behind));
    }

    pub(super) fn may_come(&self, client: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|range| range.contains(&client))
    }

    /// Serves connections until `stop` turns true, or its sender is gone; what stands then is ended.
    pub async fn serve(&self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        while let Some(arrived) = arrival(&self.shared, &listener, &mut stop).await {
            let (this, mut stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let carried = async {
                    let admitted = arrived.admit(&this.shared, |ip| this.may_come(ip)).await;
                    let Some(Admitted { stream, address, held: _held }) = admitted else { return };
                    if let Err(error) = this.carry(stream, address.ip()).await {
                        debug!(%error, client = %address, "a forwarded connection broke");
                    }
                };
                tokio::select! {
                    () = carried => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
        }
    }

    async fn carry(&self, client: TcpStream, from: IpAddr) -> io::Result<()> {
        let pool = self.pool.read().clone();
        let mut tried = Vec::new();
        while tried.len() < self.shared.settings.tries {
            let Some(upstream) = pool.pick(&tried, from) else { break };
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
