//! The replica as a whole: its rooms, built once, and the one router over them.

use crate::accounts::{self, Accounts};
use crate::apiserver::{self, Api};
use crate::cluster::Drivers;
use crate::edge::{self, EdgeRoom, Listeners};
use crate::gateway::download::Downloads;
use crate::gateway::{self, Departures, Edges, Gateway};
use crate::health;
use crate::page;
use crate::process::serving::ServeError;
use crate::resources::registry;
use crate::store::{MasterKey, Store, StoreOptions};
use crate::stream;
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use sqlx::PgPool;
use std::path::PathBuf;
use std::sync::Arc;
use tower::ServiceExt;

/// What a replica is made of.
pub struct AppSettings {
    pub pool: PgPool,
    pub master: Arc<MasterKey>,
    /// `https://host:port` under which clients reach this installation.
    pub base_url: String,
    /// Where agents' binaries lie; none: beside this program.
    pub downloads: Option<PathBuf>,
    pub alone: bool,
    pub edge: Option<edge::Settings>,
}

/// The rooms of one replica.
pub struct App {
    pub store: Store,
    pub accounts: Arc<Accounts>,
    pub gateway: Gateway,
    pub api: Api,
    pub edge: Option<EdgeRoom>,
    pool: PgPool,
    downloads: PathBuf,
}

impl App {
    pub async fn open(settings: AppSettings) -> Result<(Self, Option<Listeners>), ServeError> {
        let AppSettings { pool, master, base_url, downloads, alone, edge } = settings;
        let options = StoreOptions { advertise: base_url.clone(), alone, ..StoreOptions::new(Arc::new(registry())) };
        let store = Store::open(pool.clone(), master.clone(), options).await?;
        store.on_load(Arc::new(apiserver::admission::Bootstrap));
        let accounts = Accounts::open(pool.clone(), store.clone(), master.clone(), base_url).await?;
        let gateway = Gateway::new();
        let api = Api::new(Arc::new(gateway.clone()), accounts.clone());
        store.on_load(Arc::new(Drivers::new(api.clone(), gateway.sessions().clone(), accounts.clone())));
        store.on_load(Arc::new(Departures::new(accounts.clone(), gateway.sessions().clone())));
        let edge = edge.map(|settings| {
            let (api, accounts) = (api.clone(), accounts.clone());
            EdgeRoom::open(settings, pool.clone(), master, gateway.clone(), api, accounts)
        });
        let (edge, listeners) = edge.unzip();
        if let Some(edge) = &edge {
            store.on_load(Arc::new(edge.clone()));
        }
        let downloads = downloads.unwrap_or_else(beside_this_program);
        Ok((Self { store, accounts, gateway, api, edge, pool, downloads }, listeners))
    }

    /// Everything that the port serves.
    pub fn router(&self) -> Router {
        let downloads = Downloads {
            base_url: self.accounts.base_url().into(),
            pin: self.accounts.server_pin(),
            folder: self.downloads.clone(),
        };
        let api = apiserver::router(self.api.clone(), self.accounts.clone(), self.store.clone());
        let (gateway, store) = (self.gateway.clone(), self.store.clone());
        let edges = self.edge.clone().map(|edge| Arc::new(edge) as Arc<dyn Edges>);
        let (nodes, clusters) = (self.accounts.clone(), api.clone());
        let agents = gateway::http::router(gateway, self.api.clone(), nodes, edges, store, clusters);
        Router::new()
            .merge(accounts::http::router(self.accounts.clone()))
            .merge(stream::router(self.accounts.clone(), api.clone()))
            .merge(agents)
            .merge(gateway::download::router(downloads))
            .merge(health::router(self.store.clone(), self.gateway.clone(), self.edge.clone()))
            .fallback(move |request| api_or_page(api, request))
    }

    /// Gives up ownership at once, so that another replica needs not wait for a lease to run out.
    pub async fn close(self) {
        self.gateway.sessions().close_all();
        self.store.close().await;
        self.pool.close().await;
    }
}

/// Where agents lie unless a setting says otherwise.
fn beside_this_program() -> PathBuf {
    std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from)).unwrap_or_default()
}

/// A cluster's API below `/clusters`, and everywhere for those who came through the cluster's own address; all else is the
/// page's.
async fn api_or_page(api: Router, request: Request) -> Response {
    let in_cluster = request.extensions().get::<apiserver::InCluster>().is_some();
    if in_cluster || request.uri().path().starts_with("/clusters/") {
        let Ok(response) = api.oneshot(request).await;
        return response;
    }
    let (parts, _) = request.into_parts();
    page::serve(parts.method, parts.uri, parts.headers).await
}
