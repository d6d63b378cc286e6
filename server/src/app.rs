//! The replica as a whole: its rooms, built once, and the one router over them.

use crate::accounts::{self, Accounts};
use crate::apiserver::{self, Api};
use crate::gateway::Gateway;
use crate::process::serving::ServeError;
use crate::resources::registry;
use crate::store::{MasterKey, Store, StoreOptions};
use axum::Router;
use axum::routing::get;
use sqlx::PgPool;
use std::path::PathBuf;
use std::sync::Arc;

/// The rooms of one replica.
pub struct App {
    pub store: Store,
    pub accounts: Arc<Accounts>,
    pub gateway: Gateway,
    pub api: Api,
    pool: PgPool,
    downloads: Option<PathBuf>,
}

impl App {
    pub async fn open(
        pool: PgPool,
        master: Arc<MasterKey>,
        base_url: String,
        downloads: Option<PathBuf>,
        alone: bool,
    ) -> Result<Self, ServeError> {
        let options = StoreOptions { advertise: base_url.clone(), alone, ..StoreOptions::new(Arc::new(registry())) };
        let store = Store::open(pool.clone(), master.clone(), options).await?;
        store.on_load(Arc::new(apiserver::admission::Bootstrap));
        let accounts = Accounts::open(pool.clone(), store.clone(), master, base_url).await?;
        let gateway = Gateway::new();
        let api = Api::new(Arc::new(gateway.clone()), accounts.clone());
        Ok(Self { store, accounts, gateway, api, pool, downloads })
    }

    /// Everything that the port serves.
    pub fn router(&self) -> Router {
        let _ = &self.downloads;
        Router::new()
            .merge(accounts::http::router(self.accounts.clone()))
            .route("/healthz", get(|| async { "ok" }))
            .route("/livez", get(|| async { "ok" }))
            .fallback_service(apiserver::router(self.api.clone(), self.accounts.clone(), self.store.clone()))
    }

    /// Gives up ownership at once, so that another replica needs not wait for a lease to run out.
    pub async fn close(self) {
        self.store.close().await;
        self.pool.close().await;
    }
}
