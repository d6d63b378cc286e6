//! One server process: the real store, API, drivers and gateway, on the simulated database. It can be stopped, and it can
//! be killed: then nothing of it reaches the database or anybody else any more.

use crate::dice::Dice;
use crate::fate::{Line, Way};
use crate::wire::End;
use crate::witness::Witness;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Method, Response};
use http_body_util::BodyExt;
use longshore_api::Status;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::node::{Join, Joined, Renewed};
use longshore_server::accounts::{Authenticator, Identity};
use longshore_server::apiserver::{self, Api, IssuedToken, Publication, TokenIssuer, TokenSpec, admission};
use longshore_server::cluster::{Drivers, RootCa};
use longshore_server::gateway::{Agents, Departures, Gateway, Member, Nodes};
use longshore_server::resources::registry;
use longshore_server::store::simulated::{SimulatedDatabase, abandon};
use longshore_server::store::{MasterKey, Retention, Store, StoreError, StoreOptions};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub struct Process {
    pub name: String,
    pub store: Store,
    line: Arc<Line>,
    agents: Agents,
    router: Router,
    gone: CancellationToken,
}

/// How a world's servers are set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub retention: Retention,
}

impl Process {
    pub async fn start(
        name: &str,
        setup: Setup,
        database: &SimulatedDatabase,
        witness: &Witness,
        dice: Dice,
        way: Way,
    ) -> Result<Arc<Self>, StoreError> {
        let line = Arc::new(Line::new(dice, way));
        let options = StoreOptions {
            advertise: name.to_string(),
            retention: setup.retention,
            ..StoreOptions::new(Arc::new(registry()))
        };
        // The installation's key: every process has the same.
        let store = database.open(line.clone(), Arc::new(MasterKey::new([7; 32])), options).await?;
        store.on_load(Arc::new(admission::Bootstrap));
        let gateway = Gateway::new();
        let (api, sessions) = (Api::new(Arc::new(gateway.clone()), Arc::new(Nobody)), gateway.sessions().clone());
        store.on_load(Arc::new(Drivers::new(api.clone(), sessions.clone(), Arc::new(Nobody))));
        store.on_load(Arc::new(Departures::new(Arc::new(Nobody), sessions.clone())));
        let clusters = apiserver::router(api, Arc::new(Nobody), store.clone());
        let router = witnessed(clusters, witness.clone());
        let agents = Agents::new(sessions, Arc::new(Nobody), None, store.clone(), router.clone());
        let gone = CancellationToken::new();
        Ok(Arc::new(Self { name: name.into(), store, line, agents, router, gone }))
    }

    pub fn is_alive(&self) -> bool {
        !self.gone.is_cancelled()
    }

    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    pub fn line(&self) -> &Line {
        &self.line
    }

    /// kill -9.
    pub fn kill(&self) {
        self.line.become_so(Way::Dead);
        self.gone.cancel();
        abandon(&self.store);
    }

    /// SIGTERM.
    pub async fn stop(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(10), self.store.close()).await;
        self.kill();
    }

    /// The answer's head; none where the connection broke before it.
    pub async fn ask(&self, request: Request) -> Option<Response<Body>> {
        tokio::select! {
            biased;
            () = self.gone.cancelled() => None,
            response = self.router.clone().oneshot(request) => response.ok(),
        }
    }

    /// Admits a machine as the gateway's door does; none where it is refused.
    pub async fn admit(&self, cluster: &ClusterId) -> Option<()> {
        tokio::select! {
            biased;
            () = self.gone.cancelled() => None,
            loaded = self.store.cluster(cluster) => loaded.ok().map(drop),
        }
    }

    /// Serves an admitted machine.
    pub fn serve(&self, member: Member, carrier: End) {
        let (agents, gone) = (self.agents.clone(), self.gone.clone());
        let credential = member.name.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = agents.serve(member, credential, carrier) => {}
            }
        });
    }
}

/// The API's router under the witness's eyes: what leaves it is what somebody was told.
fn witnessed(clusters: Router, witness: Witness) -> Router {
    Router::new().fallback(move |request: Request| {
        let (clusters, witness) = (clusters.clone(), witness.clone());
        async move { watched(clusters, witness, request).await }
    })
}

async fn watched(clusters: Router, witness: Witness, request: Request) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let query = uri.query().unwrap_or_default();
    let reads = method == Method::GET;
    let fresh = reads && !query.contains("watch=") && !query.contains("resourceVersion=");
    let floor = witness.floor();
    tracing::debug!(target: "longshore_sim::requests", "{method} {uri}");
    if !reads {
        witness.asked(uri.path());
    }
    let response = clusters.oneshot(request).await.unwrap_or_else(|never| match never {});
    if !response.status().is_success() || (reads && !fresh) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if let Ok(tree) = serde_json::from_slice::<Value>(&bytes) {
        let revision = tree["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse::<i64>().ok());
        match (revision, tree["metadata"]["uid"].as_str()) {
            (Some(revision), Some(uid)) if !reads => witness.acknowledged(revision, uid),
            (Some(revision), None) if fresh && tree["items"].is_array() => {
                let found = no_fresh_read_is_older_than_what_was_acknowledged(revision, floor, uri.path());
                witness.check("no_fresh_read_is_older_than_what_was_acknowledged", found);
            }
            _ => {}
        }
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// A list without `resourceVersion` shows every write that was acknowledged before it was asked for.
fn no_fresh_read_is_older_than_what_was_acknowledged(revision: i64, floor: i64, path: &str) -> Result<(), String> {
    match revision < floor {
        true => Err(format!("a list of {path} is of revision {revision}, when {floor} had been acknowledged")),
        false => Ok(()),
    }
}

/// Keys, tokens and accounts: nobody here needs any.
struct Nobody;

fn none<T>() -> BoxFuture<'static, Result<T, Status>> {
    Box::pin(async { Err(Status::unavailable("there are no accounts here")) })
}

impl Authenticator for Nobody {
    async fn authenticate(&self, _: &ClusterId, parts: &Parts) -> Result<Identity, Status> {
        parts.extensions.get::<Identity>().cloned().ok_or_else(Status::unauthorized)
    }
}

impl TokenIssuer for Nobody {
    fn issue<'a>(&'a self, _: &'a ClusterId, _: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        none()
    }
    fn publication<'a>(&'a self, _: &'a ClusterId) -> BoxFuture<'a, Result<Publication, Status>> {
        none()
    }
}

impl RootCa for Nobody {
    fn root_ca<'a>(&'a self, _: &'a ClusterId) -> BoxFuture<'a, Result<String, Status>> {
        Box::pin(async { Ok("the CA".to_string()) })
    }
}

impl Nodes for Nobody {
    fn join(&self, _: Join) -> BoxFuture<'_, Result<Joined, Status>> {
        none()
    }
    fn verify<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Member, Status>> {
        none()
    }
    fn renew<'a>(&'a self, _: &'a Member) -> BoxFuture<'a, Result<Renewed, Status>> {
        none()
    }
    fn revoke<'a>(&'a self, _: &'a ClusterId, _: &'a NodeId) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
    fn cluster_tls<'a>(&'a self, _: &'a ClusterId) -> BoxFuture<'a, Result<Arc<rustls::ServerConfig>, Status>> {
        none()
    }
}
