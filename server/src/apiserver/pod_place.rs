//! A pod where it runs, and raw connections to its ports through the tunnel of its node.

use super::api::{Api, Context};
use super::node_proxy::NodeProxy;
use super::streams::{host, raw};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What a connection may take until it stands.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cheap to clone.
#[derive(Clone)]
pub struct PodPlace {
    nodes: Arc<dyn NodeProxy>,
    cluster: ClusterId,
    node: String,
    namespace: String,
    pub name: String,
    pub uid: String,
}

impl PodPlace {
    /// Err, in Kubernetes's words: it is not on a node.
    pub fn of(api: &Api, cx: &Context, pod: &Value) -> Result<Self, Status> {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            nodes: api.nodes.clone(),
            cluster: cx.cluster.id().clone(),
            node: host(pod, &text("name"))?,
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
        })
    }

    /// Any pod, on whatever `nodes` are.
    #[cfg(test)]
    pub fn on(nodes: Arc<dyn NodeProxy>) -> Self {
        let (cluster, node, namespace) = (ClusterId::new("c-1"), "n1".into(), "default".into());
        Self { nodes, cluster, node, namespace, name: "p".into(), uid: "u".into() }
    }

    /// A connection to a port on the pod's own localhost.
    pub async fn inside(&self, port: u16) -> Result<TokioIo<Upgraded>, Status> {
        self.connect("portForward", port, false).await
    }

    /// A connection to a port at the pod's address. `tls`: inside TLS, which its node ends.
    pub async fn reach(&self, port: u16, tls: bool) -> Result<TokioIo<Upgraded>, Status> {
        self.connect("proxy", port, tls).await
    }

    async fn connect(&self, way: &str, port: u16, tls: bool) -> Result<TokioIo<Upgraded>, Status> {
        let late = |_| Err(Status::unavailable("the node did not answer in time"));
        tokio::time::timeout(PATIENCE, self.open(way, port, tls)).await.unwrap_or_else(late)
    }

    async fn open(&self, way: &str, port: u16, tls: bool) -> Result<TokioIo<Upgraded>, Status> {
        let port = port.to_string();
        let query = [("port", port.as_str()), ("uid", &self.uid)].into_iter().chain(tls.then_some(("tls", "true")));
        let path = format!("/{way}/{}/{}", self.namespace, self.name);
        raw(&*self.nodes, &self.cluster, &self.node, &path, query).await
    }
}
