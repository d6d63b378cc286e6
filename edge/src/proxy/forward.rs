//! A request to an endpoint: another endpoint when one can't be connected to, once more when it surely wasn't looked at,
//! and otherwise never twice.

use super::Shared;
use super::body::{Progress, RequestBody};
use super::metrics::count;
use super::upstream::{Busy, Connection, Pool, Sender, Upstream};
use crate::model::Policy;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::ext::Protocol;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// A request's head as an endpoint gets it.
#[derive(Clone)]
pub struct Outgoing {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    /// Of an extended `CONNECT`.
    pub connect: Option<Protocol>,
}

impl Outgoing {
    fn with(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        if let Some(protocol) = &self.connect {
            request.extensions_mut().insert(protocol.clone());
        }
        request
    }
}

pub struct Answered {
    pub response: Response<Incoming>,
    pub busy: Busy,
    pub connection: Sender,
}

#[derive(Debug)]
pub enum Failure {
    Connect(io::Error),
    Broken(hyper::Error),
    /// It speaks HTTP/2, and hasn't said that it takes an extended `CONNECT`.
    NoTunnels,
    Late,
    TooLarge,
    ClientSilent,
}

pub async fn send(
    shared: &Shared,
    pool: &Pool,
    head: Outgoing,
    body: RequestBody,
    policy: &Policy,
    client: IpAddr,
) -> Result<Answered, Failure> {
    let protocol = pool.protocol(policy);
    let progress = body.progress();
    // What has no body and changes nothing may be sent once more.
    let replay = head.method.is_idempotent().then(|| body.again()).flatten();
    let mut replays = usize::from(replay.is_some());
    let mut body = Some(body);
    let mut tried: Vec<Arc<Upstream>> = Vec::new();
    let mut fresh = false;
    let mut last = None;
    while tried.len() < shared.settings.tries {
        let Some(upstream) = pool.pick(&tried, client) else { break };
        let busy = Busy::new(upstream.clone());
        let connected = match head.connect {
            Some(_) => {
                let alone = upstream.connect_alone(&*shared.dialer, protocol, policy.connect, &shared.settings).await;
                let Some(connected) = alone.transpose() else { return Err(Failure::NoTunnels) };
                connected
            }
            None => upstream.connect(&*shared.dialer, protocol, policy.connect, &shared.settings, fresh).await,
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                count(&shared.metrics.connects_failed);
                upstream.failed();
                last = Some(error);
                tried.push(upstream);
                continue;
            }
        };
        upstream.worked();
        let Some(sending) = body.take() else { break };
        let Connection { mut sender, reused } = connection;
        match exchange(&mut sender, head.with(sending), policy.read, &progress).await {
            Ok(response) => return Ok(Answered { response, busy, connection: sender }),
            Err(Outcome::Unsent(unsent)) => {
                count(&shared.metrics.retries);
                body = Some(unsent);
                if !reused {
                    tried.push(upstream);
                }
                fresh = true;
            }
            Err(Outcome::Failed(Failure::Broken(error))) if reused && replays > 0 => {
                // The connection was about to be closed, most likely.
                tracing::debug!(%error, "a kept connection broke under a request, which is sent once more");
                count(&shared.metrics.retries);
                replays -= 1;
                body = replay.as_ref().and_then(RequestBody::again);
                fresh = true;
            }
            Err(Outcome::Failed(failure)) => return Err(failure),
        }
    }
    Err(Failure::Connect(last.unwrap_or_else(|| io::Error::other("no endpoint is left"))))
}

enum Outcome {
    /// The endpoint hasn't seen it.
    Unsent(RequestBody),
    Failed(Failure),
}

async fn exchange(
    sender: &mut Sender,
    request: Request<RequestBody>,
    patience: Duration,
    progress: &Progress,
) -> Result<Response<Incoming>, Outcome> {
    let sent = match sender {
        Sender::Http1(sender) => {
            if sender.ready().await.is_err() {
                return Err(Outcome::Unsent(request.into_body()));
            }
            in_time(sender.try_send_request(request), patience, progress).await
        }
        Sender::Http2(sender) => {
            if sender.ready().await.is_err() {
                return Err(Outcome::Unsent(request.into_body()));
            }
            in_time(sender.try_send_request(request), patience, progress).await
        }
    };
    match sent {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut error)) => Err(match error.take_message() {
            Some(unsent) => Outcome::Unsent(unsent.into_body()),
            None if progress.too_large() => Outcome::Failed(Failure::TooLarge),
            None if progress.silent() => Outcome::Failed(Failure::ClientSilent),
            None => Outcome::Failed(Failure::Broken(error.into_error())),
        }),
        None => Err(Outcome::Failed(Failure::Late)),
    }
}

/// The answer's head, unless there was none for so long after the last piece of the request.
async fn in_time<F>(sending: F, patience: Duration, progress: &Progress) -> Option<F::Output>
where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
{
    let mut sending = pin!(sending);
    let mut from = tokio::time::Instant::now();
    loop {
        tokio::select! {
            sent = sending.as_mut() => return Some(sent),
            () = tokio::time::sleep_until(from + patience) => {}
        }
        let last = progress.last();
        if last <= from {
            return None;
        }
        from = last;
    }
}
