//! How soon a hundred nodes know that a pod has become ready, or isn't any more: from the write of its status through the
//! Service's endpoints to the network map as each node reads it over its tunnel.

use super::Meter;
use crate::client::{Ask, Connection};
use crate::figures::Figures;
use crate::sides::Installation;
use crate::{Result, Settings};
use futures::{StreamExt, TryStreamExt};
use longshore_agent::connection::exchange::Exchange;
use longshore_agent::connection::identity::Identity;
use longshore_agent::connection::{Connector, Link, lines};
use longshore_api::network::{Endpoints, Frame, NETWORK_PATH};
use longshore_tunnel::{Config, Incoming, Side, Tunnel};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

const NODES: usize = 100;
const CHANGES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "/api/v1/namespaces/default";
const SERVICE: &str = "moving";

/// Whether the endpoint is ready, and when a node read so.
type Seen = (bool, Instant);

pub async fn measure(settings: &Settings, figures: &mut Figures) -> Result<()> {
    let here = Installation::start(&settings.data).await?;
    let (seen, mut seeing) = mpsc::unbounded_channel();
    let folder = tempfile::tempdir()?;
    let nodes = futures::stream::iter(0..NODES).map(|number| {
        let dir = folder.path().join(number.to_string());
        Node::start(&here, format!("reader-{number}"), dir, seen.clone())
    });
    let _nodes: Vec<Node> = nodes.buffer_unordered(16).try_collect().await?;
    let mut connection = here.target()?.connect().await?;
    make(&mut connection).await?;
    ready(&mut connection, true).await?;
    told(&mut seeing, true).await?;
    let meter = Meter::start(&here);
    let mut times = Vec::with_capacity(NODES * CHANGES);
    for change in 0..CHANGES {
        let wanted = change % 2 == 1;
        let begun = Instant::now();
        ready(&mut connection, wanted).await?;
        let at = told(&mut seeing, wanted).await?;
        times.extend(at.into_iter().map(|at| at.duration_since(begun).as_secs_f64() * 1e3));
    }
    times.sort_by(f64::total_cmp);
    let part = |of: usize| times[times.len() * of / 100];
    let mut measured = meter.stop();
    measured.detail = [("p50".to_string(), part(50)), ("most".to_string(), times[times.len() - 1])].into();
    figures.add("endpoint-change", part(99), &measured);
    here.stop();
    Ok(())
}

/// What a node is here: an identity, a tunnel, and who reads the map.
struct Node {
    _incoming: Incoming,
    _reader: AbortOnDropHandle<()>,
}

impl Node {
    async fn start(
        here: &Installation,
        name: String,
        dir: impl AsRef<Path>,
        seen: mpsc::UnboundedSender<Seen>,
    ) -> Result<Self> {
        let identity =
            Arc::new(Identity::load_or_make(dir.as_ref(), &name, &format!("https://{}", here.listen()), None)?);
        let token_file = Some(here.server_folder().join("join-token"));
        Connector { identity: identity.clone(), token_file }.join().await?;
        let carried = Exchange::new(identity).open().await?;
        let (opener, incoming) = Tunnel::start(carried.carrier, Side::Agent, Config::default());
        let link = Link::default();
        link.set(opener, carried.local);
        let reader = lines::follow(link, NETWORK_PATH, move |lines| {
            let now = Instant::now();
            for slice in lines.split(|b| *b == b'\n').filter_map(of_service) {
                let ready = slice.endpoints.iter().any(|endpoint| endpoint.ready);
                let _ = seen.send((ready, now));
            }
        });
        Ok(Self { _incoming: incoming, _reader: AbortOnDropHandle::new(tokio::spawn(reader)) })
    }
}

fn of_service(line: &[u8]) -> Option<Endpoints> {
    match serde_json::from_slice(line) {
        Ok(Frame::Endpoints(slice)) if slice.service == SERVICE => Some(slice),
        _ => None,
    }
}

/// Waits until each node has read it.
async fn told(seeing: &mut mpsc::UnboundedReceiver<Seen>, wanted: bool) -> Result<Vec<Instant>> {
    let mut times = Vec::with_capacity(NODES);
    let all = async {
        while times.len() < NODES {
            let (ready, at) = seeing.recv().await.ok_or("no node reads")?;
            if ready == wanted {
                times.push(at);
            }
        }
        Ok::<_, crate::Error>(())
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(done) => done.map(|()| times),
        Err(_) => Err(format!("{} of {NODES} nodes have read a change", times.len()).into()),
    }
}

/// A node that is nobody, a pod on it, and the pod's Service.
async fn make(connection: &mut Connection) -> Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ship"}});
    let spec = json!({"selector": {"app": SERVICE}, "ports": [{"port": 80}]});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE}, "spec": spec});
    let spec = json!({"nodeName": "ship", "containers": [{"name": "main", "image": "hollow"}]});
    let metadata = json!({"name": SERVICE, "labels": {"app": SERVICE}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    connection.ask(Ask::post("/api/v1/nodes", node.to_string())).await?;
    let alive = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Bench"}]}});
    connection.ask(Ask::merge_patch("/api/v1/nodes/ship/status", alive.to_string())).await?;
    for (path, body) in [("services", service), ("pods", pod)] {
        connection.ask(Ask::post(format!("{NAMESPACE}/{path}"), body.to_string())).await?;
    }
    Ok(())
}

async fn ready(connection: &mut Connection, ready: bool) -> Result<()> {
    let status = if ready { "True" } else { "False" };
    let ip = "10.1.2.3";
    let conditions = json!([{"type": "Ready", "status": status}]);
    let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions});
    let path = format!("{NAMESPACE}/pods/{SERVICE}/status");
    connection.ask(Ask::merge_patch(path, json!({"status": status}).to_string())).await?;
    Ok(())
}
