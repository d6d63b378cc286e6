//! This node as an edge of its cluster: where its Node is marked so, Ingresses are served at its own ports, and requests go
//! through the cluster's network straight to their pods.
//!
//! What it serves is pushed by the server ([`longshore_api::edge`]) and kept on disk, so that it serves on while the server is
//! away, and after a restart. Endpoints are the network map's. Who may be reached is judged here again: nothing but
//! addresses of pods, whatever an endpoint says.

mod dialer;
mod opening;
mod serving;

use crate::connection::{Link, lines};
use crate::network::{PodNetwork, map};
use crate::node::events::Recorder;
use dialer::Inside;
use longshore_api::edge::{EDGE_PATH, Ports};
use longshore_api::ids::ClusterId;
use serving::Serving;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Serves whenever the map says that this node does, and tells its Node of ports that it can't have. Never returns.
pub async fn keep(network: Arc<PodNetwork>, link: Link, events: Recorder, cluster: ClusterId, kept: PathBuf) {
    let mut changes = network.map().changes();
    loop {
        changes.mark_unchanged();
        let Some(ports) = marked(&network) else {
            // What was kept holds keys: they go with the mark. An agent that was never told anything keeps what it has.
            if network.map().read(map::Map::is_known) && kept.exists() {
                let _ = std::fs::remove_file(&kept);
            }
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        tracing::info!(http = ports.http, https = ports.https, "this node is an edge of its cluster");
        let unmarked = async {
            while marked(&network) == Some(ports) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = serve(network.clone(), link.clone(), &events, cluster.clone(), kept.clone(), ports) => {}
            () = unmarked => tracing::info!("this node is no edge any more, or at other ports"),
        }
    }
}

fn marked(network: &PodNetwork) -> Option<Ports> {
    network.map().read(|map| map.nodes.get(network.node())?.edge)
}

/// Never returns.
async fn serve(
    network: Arc<PodNetwork>,
    link: Link,
    events: &Recorder,
    cluster: ClusterId,
    kept: PathBuf,
    ports: Ports,
) {
    let serving =
        Arc::new(Serving::start(cluster, network.map().clone(), Inside(network.clone()), link.clone(), kept, ports));
    // Its sender goes with this future, and what serves ends with it.
    let (_stop, stopped) = watch::channel(false);
    let tell = |warning: bool, reason: &str, message: String| {
        let heard = link.is_up();
        if heard {
            events.node(network.node(), warning, reason, message);
        }
        heard
    };
    let listening = async |port: u16, tls: bool| {
        if port == 0 {
            return std::future::pending().await;
        }
        let listener = opening::open(port, || network.listen_on_host(port), tell).await;
        serving.listen(listener, tls, stopped.clone()).await;
    };
    let told = serving.clone();
    let following = lines::follow(link.clone(), EDGE_PATH, move |lines| told.take(lines));
    tokio::join!(listening(ports.http, false), listening(ports.https, true), following, serving.follow_endpoints());
}
