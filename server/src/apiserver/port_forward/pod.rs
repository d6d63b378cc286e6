//! The pod whose ports are forwarded, and one connection to one of them.

use super::super::api::{Api, Context};
use super::super::node_proxy::NodeProxy;
use super::super::streams::{accepted, node, node_request};
use super::PIECE;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use longshore_api::node::RAW_PORT_PROTOCOL;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

/// What a connection may take until it stands.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pod that runs on a node.
#[derive(Clone)]
pub struct Pod {
    nodes: Arc<dyn NodeProxy>,
    cluster: ClusterId,
    node: String,
    namespace: String,
    name: String,
    uid: String,
}

impl Pod {
    /// Refused in Kubernetes's words where it runs nowhere.
    pub async fn find(api: &Api, cx: &Context, namespace: &str, name: &str) -> Result<Self, Status> {
        let pod = api.pod(cx, namespace, name).await?;
        let node =
            node(&pod).ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if phase != "Running" {
            let message = format!("unable to forward port because pod is not running. Current status={phase}");
            return Err(Status::bad_request(message));
        }
        Ok(Self {
            nodes: api.nodes.clone(),
            cluster: cx.cluster.id().clone(),
            node,
            namespace: namespace.into(),
            name: name.into(),
            uid: pod["metadata"]["uid"].as_str().unwrap_or_default().into(),
        })
    }

    /// Connects to a port on the pod's own localhost. Err is the sentence for the client.
    pub async fn connect(&self, port: u16) -> Result<TokioIo<Upgraded>, String> {
        let connected = match tokio::time::timeout(PATIENCE, self.open(port)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(status)) => status.message,
            Err(_) => "the node did not answer in time".into(),
        };
        Err(format!("error forwarding port {port} to pod {}, uid {}: {connected}", self.name, self.uid))
    }

    async fn open(&self, port: u16) -> Result<TokioIo<Upgraded>, Status> {
        let port = port.to_string();
        let query = [("port", port.as_str()), ("uid", &self.uid)];
        let path = format!("/portForward/{}/{}", self.namespace, self.name);
        let mut request = node_request(&path, query.into_iter())?;
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static(RAW_PORT_PROTOCOL));
        let mut response = self.nodes.request(&self.cluster, &self.node, request).await?;
        let upgrade = response.extensions_mut().remove::<OnUpgrade>();
        accepted(response, StatusCode::SWITCHING_PROTOCOLS).await?;
        let upgrade = upgrade.ok_or_else(|| Status::internal("the node's connection was not upgraded"))?;
        upgrade.await.map(TokioIo::new).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Passes on what the client says until it ends, and then its end. A pod that reads no more has said so; what it still
/// writes is wanted.
pub async fn to_pod(client: impl AsyncRead + Unpin, mut pod: impl AsyncWrite + Unpin) {
    let mut client = BufReader::with_capacity(PIECE, client);
    if tokio::io::copy_buf(&mut client, &mut pod).await.is_ok() {
        let _ = pod.shutdown().await;
    }
}

/// Passes on what the pod says until it ends. Err: the connection was cut, or nobody listens.
pub async fn from_pod<T>(
    pod: impl AsyncRead + Unpin,
    say: &mpsc::Sender<T>,
    message: impl Fn(Bytes) -> T,
) -> io::Result<()> {
    let mut pieces = ReaderStream::with_capacity(pod, PIECE);
    while let Some(piece) = pieces.next().await {
        say.send(message(piece?)).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
    Ok(())
}
