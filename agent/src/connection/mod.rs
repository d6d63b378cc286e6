//! The one connection of a node to its server: outwards, kept up, carrying HTTP both ways.
//!
//! - [`identity`]: who this node is, kept on disk. [`trust`]: which server is the right one.
//! - [`dial`] and [`websocket`]: from a URL to an open carrier. [`exchange`]: joining, renewing, leaving.
//! - [`Link`]: the tunnel of this moment, for whoever wants to use it; [`client`]: the Kubernetes API over it; [`lines`]: what
//!   the server tells for as long as it is asked.
//!
//! One task ([`Link::run`]) connects, serves what the server opens, and connects again, forever. Nothing makes it give
//! up or forget: a server that is away, answers 5xx or doesn't know us (a database restored from before our joining, a
//! wrong server behind a changed name) may be right again tomorrow, and the containers go on meanwhile. A 401 is first
//! taken for a clock that is off, then for a credential that has expired: the node joins again with its own key where
//! the token file still lets it, and is the same node. Only a person ends it, by `longshore-agent leave`.

pub mod backoff;
pub mod client;
pub mod dial;
pub mod exchange;
pub mod identity;
pub mod lines;
pub mod trust;
pub mod websocket;

use crate::kubelet::Kubelet;
use backoff::{Backoff, GOOD};
use exchange::{Exchange, ExchangeError};
use hyper::service::service_fn;
use identity::Identity;
use jiff::Timestamp;
use kube::runtime::utils::Backoff as _;
use longshore_api::join_token::JoinToken;
use longshore_tunnel::{Config, Incoming, Opener, Side, Stream, Tunnel};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The way to the server as it is now. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    state: watch::Sender<State>,
}

#[derive(Clone, Default)]
struct State {
    opener: Option<Opener>,
    /// This machine's address towards the server, of the last connection.
    local: Option<IpAddr>,
    /// Why the server doesn't take this node, where that was its last word.
    refused: Option<String>,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: watch::channel(State::default()).0 }
    }
}

/// What keeps a link up.
pub struct Connector {
    pub identity: Arc<Identity>,
    /// Where a join token may be found; looked at when one is needed, so that a new one helps without a restart.
    pub token_file: Option<PathBuf>,
}

impl Link {
    /// The tunnel, while it is up.
    pub fn opener(&self) -> Option<Opener> {
        self.state.borrow().opener.clone().filter(Opener::is_open)
    }

    pub fn is_up(&self) -> bool {
        self.opener().is_some()
    }

    pub fn local_address(&self) -> Option<IpAddr> {
        self.state.borrow().local
    }

    /// Waits until the tunnel is up, or the server has said no: its reason.
    pub async fn settled(&self) -> Result<(), String> {
        let mut states = self.state.subscribe();
        let up = |state: &State| state.opener.as_ref().is_some_and(Opener::is_open);
        match states.wait_for(|state| up(state) || state.refused.is_some()).await {
            Ok(state) => state.refused.clone().map_or(Ok(()), Err),
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the tunnel has come up or gone down since this was last asked of `seen`.
    pub async fn changed(&self, seen: &mut Option<Opener>) {
        let same = |a: &Option<Opener>, b: &Option<Opener>| match (a, b) {
            (Some(a), Some(b)) => a.same_tunnel(b),
            (None, None) => true,
            _ => false,
        };
        let mut states = self.state.subscribe();
        if let Ok(state) = states.wait_for(|state| !same(&state.opener, seen)).await {
            *seen = state.opener.clone();
        }
    }

    /// Makes `opener` the way to the server until it ends.
    pub fn set(&self, opener: Opener, local: Option<IpAddr>) {
        self.state.send_modify(|state| {
            state.opener = Some(opener);
            state.local = local.or(state.local);
            state.refused = None;
        });
    }

    fn clear(&self) {
        self.state.send_modify(|state| state.opener = None);
    }

    /// Connects and serves `kubelet` over the tunnel, again and again; never returns.
    pub async fn run(self, connector: Arc<Connector>, kubelet: Kubelet) {
        let exchange = Exchange::new(connector.identity.clone());
        let mut backoff = Backoff::connecting();
        let mut last_said = String::new();
        loop {
            let begun = Instant::now();
            let failed = match connector.carry(&exchange).await {
                Ok(carried) => {
                    last_said.clear();
                    let (opener, incoming) = Tunnel::start(carried.carrier, Side::Agent, Config::default());
                    tracing::info!(server = connector.identity.server(), "connected");
                    self.set(opener.clone(), carried.local);
                    serve(&opener, incoming, &kubelet, connector.renewals(&exchange)).await;
                    self.clear();
                    let why = opener.ended().await;
                    tracing::warn!(%why, "the connection to the server is lost");
                    None
                }
                Err(error) => Some(error),
            };
            if begun.elapsed() >= GOOD && failed.is_none() {
                backoff.reset();
            }
            if let Some(error) = &failed {
                let text = error.to_string();
                let refused = error.is_refusal().then(|| text.clone());
                self.state.send_modify(|state| state.refused = refused);
                // Once for each reason: an absent server is no news a minute later.
                match text == last_said {
                    false => {
                        tracing::warn!(server = connector.identity.server(), error = %text, "no connection to the server; pods go on, trying again")
                    }
                    true => tracing::debug!(error = %text, "still no connection to the server"),
                }
                last_said = text;
            }
            tokio::time::sleep(backoff.after(failed.is_some_and(|e| e.is_refusal()))).await;
        }
    }
}

/// Serves what the server opens until the tunnel ends. Requests that run then end with it.
async fn serve(opener: &Opener, mut incoming: Incoming, kubelet: &Kubelet, renewals: impl Future<Output = ()>) {
    let mut streams = JoinSet::new();
    let mut renewals = std::pin::pin!(renewals);
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some(stream) => drop(streams.spawn(serve_one(stream, kubelet.clone()))),
                None => break,
            },
            Some(done) = streams.join_next() => {
                if let Err(error) = done && error.is_panic() {
                    tracing::error!(%error, "a request to this node panicked");
                }
            }
            () = &mut renewals => {}
        }
    }
    opener.close();
}

async fn serve_one(stream: Stream, kubelet: Kubelet) {
    let service = service_fn(move |request| {
        let kubelet = kubelet.clone();
        async move { kubelet.handle(request).await }
    });
    if let Err(error) = longshore_tunnel::http::serve(stream, service).await {
        tracing::debug!(%error, "a request to this node broke off");
    }
}

impl Connector {
    /// Joins where this node never has; waits for a server that isn't there. A refusal is the end: of the token, of the
    /// name, or of the certificate.
    pub async fn join(&self) -> Result<(), ExchangeError> {
        let exchange = Exchange::new(self.identity.clone());
        let mut backoff = Backoff::connecting();
        while self.identity.membership().is_none() {
            match exchange.join(&self.token()?).await {
                Ok(joined) => {
                    tracing::info!(cluster = %joined.cluster, node = %joined.node, "{} has joined", joined.name)
                }
                Err(error) if error.is_refusal() => return Err(error),
                Err(error) => {
                    tracing::warn!(server = self.identity.server(), %error, "could not join yet, trying again");
                    tokio::time::sleep(backoff.after(false)).await;
                }
            }
        }
        Ok(())
    }

    /// A carrier for the tunnel: with a fresh credential where the old one is of no use.
    async fn carry(&self, exchange: &Exchange) -> Result<exchange::Carried, ExchangeError> {
        match exchange.open().await {
            Err(error) if error.is_unauthorized() => match self.token() {
                // Another cluster's token says nothing about this node.
                Ok(token) if self.identity.ids().is_some_and(|(cluster, _)| cluster == token.cluster) => {
                    exchange.join(&token).await?;
                    exchange.open().await
                }
                _ => Err(error),
            },
            other => other,
        }
    }

    fn token(&self) -> Result<JoinToken, ExchangeError> {
        let path = self.token_file.as_ref().ok_or(ExchangeError::NotJoined)?;
        let text = std::fs::read_to_string(path)
            .map_err(|error| ExchangeError::Broken(format!("{}: {error}", path.display())))?;
        text.parse().map_err(|wrong| ExchangeError::Broken(format!("{}: {wrong}", path.display())))
    }

    /// Keeps the credential fresh while the tunnel is up; never returns.
    async fn renewals(&self, exchange: &Exchange) {
        loop {
            let due = self.identity.renew_at().unwrap_or(Timestamp::MAX);
            let wait = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
            // At most an hour, so that a machine that slept finds its turn.
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(Duration::from_secs(3600))).await;
                continue;
            }
            match exchange.renew().await {
                Ok(()) => tracing::info!("the node's credential was renewed"),
                Err(error) => {
                    tracing::warn!(%error, "the node's credential was not renewed");
                    tokio::time::sleep(Duration::from_secs(600)).await;
                }
            }
        }
    }
}
