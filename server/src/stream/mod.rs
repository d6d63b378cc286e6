//! The server's end of `/v1/stream` (`longshore_api::stream`): many watches and logs over one WebSocket.
//!
//! Each subscription is a GET of the cluster's API, run through the very router that HTTP uses: what may be seen, how it is
//! rendered and what is refused is decided in one place. Here the answers are only put into frames. One bounded queue leads
//! to the socket: a browser that reads slowly holds its subscriptions back, and the API ends watches that fall behind,
//! which are then resumed or listed again. Nothing is kept for a connection that is gone.

mod subscription;

use crate::accounts::{Accounts, TicketHolder};
use crate::process::listener::Peer;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue};
use longshore_api::Status;
use longshore_api::stream::{BEAT_SECONDS, ClientFrame, MAX_CLIENT_FRAME, MAX_SUBSCRIPTIONS, ServerFrame};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use subscription::Source;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// Frames that wait for the socket. A frame is at most a page of a list.
const QUEUE: usize = 32;
/// Read at once: what a page says is short, and a library holds this much for each open page.
const READ_BUFFER: usize = 4 * 1024;
/// A socket that takes nothing for so long is dead.
const SEND_WITHIN: Duration = Duration::from_secs(30);

struct Streams {
    accounts: Arc<Accounts>,
    api: Router,
}

/// `/v1/stream`. `api` is the router of `/clusters/…`.
pub fn router(accounts: Arc<Accounts>, api: Router) -> Router {
    Router::new().route("/v1/stream", get(open)).with_state(Arc::new(Streams { accounts, api }))
}

/// On whose behalf a connection asks.
#[derive(Clone)]
enum Caller {
    Ticket(TicketHolder),
    Bearer(HeaderValue),
}

#[derive(Deserialize)]
struct Opening {
    ticket: Option<String>,
}

async fn open(
    State(streams): State<Arc<Streams>>,
    Query(opening): Query<Opening>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let is_secure = peer.is_none_or(|Extension(peer)| peer.tls);
    let caller = match (&opening.ticket, headers.get(AUTHORIZATION)) {
        (Some(ticket), _) if same_origin(&headers, is_secure) => {
            streams.accounts.redeem_ticket(ticket).map(Caller::Ticket)
        }
        (Some(_), _) => Err(Status::failure(403, "Forbidden", "cross-origin request")),
        // A browser can't send this header with a WebSocket, so its origin says nothing here.
        (None, Some(token)) => Ok(Caller::Bearer(token.clone())),
        (None, None) => Err(Status::unauthorized()),
    };
    match caller {
        Ok(caller) => {
            upgrade.read_buffer_size(READ_BUFFER).max_message_size(MAX_CLIENT_FRAME).on_upgrade(move |socket| {
                serve(socket, Source { accounts: streams.accounts.clone(), api: streams.api.clone(), caller })
            })
        }
        Err(status) => crate::accounts::http::Failure(status).into_response(),
    }
}

/// A browser always says where a page came from; it must be from here. In the clear the scheme says nothing: a proxy in
/// front of us may have ended TLS.
fn same_origin(headers: &HeaderMap, is_secure: bool) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let from = text(ORIGIN).and_then(|o| o.split_once("://"));
    from.is_some_and(|(scheme, host)| Some(host) == text(HOST) && (scheme == "https" || !is_secure && scheme == "http"))
}

/// The running subscriptions of one connection; dropped with it.
#[derive(Default)]
struct Running(HashMap<u32, AbortHandle>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

impl Running {
    fn stop(&mut self, id: u32) {
        if let Some(task) = self.0.remove(&id) {
            task.abort();
        }
    }
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    now.to_string()
}

async fn serve(mut socket: WebSocket, source: Source) {
    let (frames, mut queue) = mpsc::channel::<ServerFrame>(QUEUE);
    let mut running = Running::default();
    if !send(&mut socket, &ServerFrame::Hello { now: now() }).await {
        return;
    }
    let mut quiet_since = Instant::now();
    loop {
        let beat = tokio::time::sleep_until(quiet_since + Duration::from_secs(BEAT_SECONDS));
        tokio::select! {
            message = socket.recv() => {
                let Some(Ok(message)) = message else { return };
                let frame = match message {
                    Message::Text(text) => serde_json::from_str::<ClientFrame>(&text),
                    Message::Close(_) => return,
                    _ => continue,
                };
                // Who speaks another language is told so by the close.
                let Ok(frame) = frame else { return };
                if let Some(refusal) = handle(frame, &source, &frames, &mut running)
                    && !send(&mut socket, &refusal).await
                {
                    return;
                }
            }
            Some(frame) = queue.recv() => {
                if let ServerFrame::End { id, .. } = &frame {
                    running.0.remove(id);
                }
                if !send(&mut socket, &frame).await {
                    return;
                }
                quiet_since = Instant::now();
            }
            () = beat => {
                if !send(&mut socket, &ServerFrame::Beat { now: now() }).await {
                    return;
                }
                quiet_since = Instant::now();
            }
        }
    }
}

async fn send(socket: &mut WebSocket, frame: &ServerFrame) -> bool {
    let Ok(text) = serde_json::to_string(frame) else { return false };
    matches!(timeout(SEND_WITHIN, socket.send(Message::Text(text.into()))).await, Ok(Ok(())))
}

/// Starts or stops; answers with a refusal where there is one.
fn handle(
    frame: ClientFrame,
    source: &Source,
    frames: &mpsc::Sender<ServerFrame>,
    running: &mut Running,
) -> Option<ServerFrame> {
    let id = match &frame {
        ClientFrame::Watch(watch) => watch.id,
        ClientFrame::Logs(logs) => logs.id,
        ClientFrame::Stop { id } => {
            running.stop(*id);
            return None;
        }
    };
    running.stop(id);
    if running.0.len() >= MAX_SUBSCRIPTIONS {
        let status = Status::too_many_requests("too many subscriptions on one connection", 1);
        return Some(ServerFrame::End { id, status: Some(status) });
    }
    let (source, frames) = (source.clone(), frames.clone());
    let task = tokio::spawn(async move {
        let status = match frame {
            ClientFrame::Watch(watch) => source.watch(watch, &frames).await,
            ClientFrame::Logs(logs) => source.logs(logs, &frames).await,
            ClientFrame::Stop { .. } => Ok(()),
        };
        // A connection that is gone has no one to tell.
        let _ = frames.send(ServerFrame::End { id, status: status.err() }).await;
    });
    running.0.insert(id, task.abort_handle());
    None
}
