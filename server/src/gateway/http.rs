//! `/node/v1/…` from outside: joining, renewing, leaving, the WebSocket that becomes a tunnel, and the one of the relay beside
//! it. Whoever is refused is refused before the upgrade, by a `Status`.

use super::proof::{self, Seen};
use super::{Agents, Edges, Gateway, Member, Nodes};
use crate::apiserver::{Api, Context, DeleteOptions, GetOptions};
use crate::resources::registry;
use crate::socket::Socket;
use crate::store::Store;
use axum::extract::rejection::JsonRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};
use longshore_api::Status;
use longshore_api::node::{
    CREDENTIAL_PATH, JOIN_PATH, Join, NODE_ID_LABEL, RELAY_PATH, RELAY_PROTOCOL, TUNNEL_PATH, TUNNEL_PROTOCOL,
};
use longshore_tunnel::relay;
use std::sync::Arc;

/// A join is a token, a name and a key.
const LARGEST_BODY: usize = 16 * 1024;

/// What one read of a relay's line takes at most.
const RELAY_BUFFER: usize = 16 * 1024;

/// What the handlers rest on.
struct Door {
    gateway: Gateway,
    api: Api,
    nodes: Arc<dyn Nodes>,
    store: Store,
    agents: Agents,
    seen: Seen,
}

/// Everything below `/node/v1`. `clusters` is the router of `/clusters/…`, which serves agents through their tunnels, too.
pub fn router(
    gateway: Gateway,
    api: Api,
    nodes: Arc<dyn Nodes>,
    edges: Option<Arc<dyn Edges>>,
    store: Store,
    clusters: Router,
) -> Router {
    let agents = Agents::new(gateway.sessions().clone(), nodes.clone(), edges, store.clone(), clusters);
    let door = Door { gateway, api, nodes, store, agents, seen: Seen::default() };
    Router::new()
        .route(JOIN_PATH, post(join))
        .route(CREDENTIAL_PATH, post(renew).delete(leave))
        .route(TUNNEL_PATH, get(open))
        .route(RELAY_PATH, get(open_relay))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Arc::new(door))
}

/// A `Status` as an answer.
pub(super) fn refusal(status: Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, [(CACHE_CONTROL, "no-store")], Json(status)).into_response()
}

fn answer(code: StatusCode, result: Result<impl serde::Serialize, Status>) -> Response {
    match result {
        Ok(body) => (code, [(CACHE_CONTROL, "no-store")], Json(body)).into_response(),
        Err(status) => refusal(status),
    }
}

async fn join(State(door): State<Arc<Door>>, body: Result<Json<Join>, JsonRejection>) -> Response {
    let joined = match body {
        Ok(Json(join)) => door.nodes.join(join).await,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(Status::too_large(rejection.body_text()))
        }
        Err(rejection) => Err(Status::bad_request(rejection.body_text())),
    };
    if let Ok(joined) = &joined {
        tracing::info!(cluster = %joined.cluster, node = %joined.node, "{} joined cluster {}", joined.name, joined.cluster);
    }
    answer(StatusCode::CREATED, joined)
}

async fn renew(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    let renewed = async {
        let (member, _) = door.judge(CREDENTIAL_PATH, &headers).await?;
        door.nodes.renew(&member).await
    };
    answer(StatusCode::OK, renewed.await)
}

/// A machine leaves for good: its identity ends, its Node object goes, its name is free.
async fn leave(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    let left = async {
        let (member, _) = door.judge(CREDENTIAL_PATH, &headers).await?;
        let Member { cluster, node, name, .. } = &member;
        door.nodes.revoke(cluster, node).await?;
        door.gateway.sessions().revoke(cluster, node);
        door.delete_node(&member).await?;
        tracing::info!(%cluster, %node, "{name} left cluster {cluster}");
        Ok(())
    };
    match left.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(status) => refusal(status),
    }
}

async fn open(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let admitted = async {
        let (member, credential) = door.judge(TUNNEL_PATH, &headers).await?;
        let upgrade = speaking(upgrade, TUNNEL_PROTOCOL)?;
        // A cluster that can't be served here is told now; from the session's start on it is kept loaded.
        door.store.cluster(&member.cluster).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok((member, credential, upgrade))
    };
    match admitted.await {
        Ok((member, credential, upgrade)) => {
            let agents = door.agents.clone();
            upgrade
                .read_buffer_size(longshore_tunnel::READ_BUFFER)
                .max_message_size(longshore_tunnel::LONGEST_MESSAGE)
                .max_frame_size(longshore_tunnel::LONGEST_MESSAGE)
                .on_upgrade(move |socket| agents.serve(member, credential, Socket(socket)))
        }
        Err(status) => refusal(status),
    }
}

/// For as long as the node's tunnel stands: who is dismissed there is dismissed here.
async fn open_relay(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let admitted = async {
        let (member, _) = door.judge(RELAY_PATH, &headers).await?;
        let upgrade = speaking(upgrade, RELAY_PROTOCOL)?;
        let tunnel = door.gateway.sessions().opener(&member.cluster, &member.name);
        Ok((tunnel.ok_or_else(|| Status::unavailable("the node's tunnel doesn't end here"))?, member, upgrade))
    };
    match admitted.await {
        Ok((tunnel, member, upgrade)) => {
            let relays = door.gateway.relays().clone();
            upgrade
                .read_buffer_size(RELAY_BUFFER)
                .max_message_size(relay::LONGEST)
                .max_frame_size(relay::LONGEST)
                .on_upgrade(move |socket| async move {
                    let Member { cluster, node, name, .. } = &member;
                    tokio::select! {
                        ended = relays.serve(cluster, node, Socket(socket)) => {
                            tracing::debug!(%cluster, %node, ?ended, "the relay's line of node {name} ended");
                        }
                        _ = tunnel.ended() => {}
                    }
                })
        }
        Err(status) => refusal(status),
    }
}

fn speaking(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    protocol: &'static str,
) -> Result<WebSocketUpgrade, Status> {
    let upgrade = upgrade.map_err(|rejection| Status::bad_request(rejection.body_text()))?.protocols([protocol]);
    match upgrade.selected_protocol() {
        Some(_) => Ok(upgrade),
        None => Err(Status::bad_request(format!("the subprotocol must be {protocol}"))),
    }
}

impl Door {
    /// Deletes the Node object of a member, unless another machine has it by now.
    async fn delete_node(&self, member: &Member) -> Result<(), Status> {
        let loaded = self.store.cluster(&member.cluster).await;
        let cluster = loaded.map_err(|error| Status::unavailable(error.to_string()))?;
        let nodes = registry().by_name("nodes").ok_or_else(|| Status::internal("there is no kind Node"))?;
        let cx = Context::system(cluster, "node-controller", jiff::Timestamp::now());
        let found = self.api.get(&cx, nodes, "", &member.name, &GetOptions::default()).await;
        let deleted = match found {
            Ok(object) if object.labels.get(NODE_ID_LABEL).is_some_and(|id| id == member.node.as_str()) => {
                let options = DeleteOptions { uid: Some(object.uid.to_string()), ..DeleteOptions::default() };
                self.api.delete(&cx, nodes, "", &member.name, &options).await.map(drop)
            }
            Ok(_) => Ok(()),
            Err(status) => Err(status),
        };
        match deleted {
            Err(status) if status.code != 404 && status.code != 409 => Err(status),
            _ => Ok(()),
        }
    }

    async fn judge(&self, path: &str, headers: &HeaderMap) -> Result<(Member, String), Status> {
        let now = jiff::Timestamp::now().as_second();
        proof::judge(&*self.nodes, &self.seen, path, headers, now).await
    }
}
