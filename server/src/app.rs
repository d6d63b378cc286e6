//! The replica as a whole: its rooms, built once, and the one router over them.

use crate::accounts::{self, Accounts};
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
    pool: PgPool,
    downloads: Option<PathBuf>,
}

impl App {
    pub async fn open(
        pool: PgPool,
        master: Arc<MasterKey>,
        base_url: String,
        downloads: Option<PathBuf>,
    ) -> Result<Self, ServeError> {
        let options = StoreOptions { advertise: base_url.clone(), ..StoreOptions::new(Arc::new(registry())) };
        let store = Store::open(pool.clone(), master.clone(), options).await?;
        let accounts = Accounts::open(pool.clone(), store.clone(), master, base_url).await?;
        Ok(Self { store, accounts, pool, downloads })
    }

    /// Everything that the port serves.
    pub fn router(&self) -> Router {
        let _ = &self.downloads;
        Router::new()
            .merge(accounts::http::router(self.accounts.clone()))
            .route("/healthz", get(|| async { "ok" }))
            .route("/livez", get(|| async { "ok" }))
    }

    /// Gives up ownership at once, so that another replica needs not wait for a lease to run out.
    pub async fn close(self) {
        self.store.close().await;
        self.pool.close().await;
    }
}
