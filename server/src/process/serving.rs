//! From settings to a serving replica: builds the rooms in their order, and takes them down in reverse.

use super::edge::EdgeArgs;
use super::listener::{Cidr, Listener};
use super::names;
use crate::accounts::{self, Accounts};
use crate::app::{App, AppSettings};
use crate::edge::Listeners;
use crate::store::MasterKey;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

/// Writers are few (one flush at a time a replica), readers at load and sign-in: more connections would only cost memory.
const CONNECTIONS: u32 = 16;

/// All that a replica is told.
pub struct Settings {
    pub listen: SocketAddr,
    /// Where clients and other replicas reach us; none: derived from `listen`.
    pub advertise: Option<String>,
    pub trusted_proxies: Vec<Cidr>,
    pub database: PgConnectOptions,
    pub master_key: MasterKey,
    /// Where agents' binaries lie; none: beside this program.
    pub downloads: Option<PathBuf>,
    /// No other replica can be running on this database: a private Postgres that we have just started.
    pub alone: bool,
    pub edge: EdgeArgs,
    /// Whether hosts are free for whoever asks first, unless the edge is told otherwise.
    pub open: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("migrating the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("{0}")]
    Accounts(#[from] accounts::OpenError),
    #[error("{0}")]
    Store(#[from] crate::store::StoreError),
    #[error("{0}")]
    Tls(#[from] accounts::authority::TlsError),
    #[error("{0}")]
    Status(#[from] longshore_api::Status),
    #[error(transparent)]
    Postgres(#[from] super::postgres::PostgresError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}: expected 64 hexadecimal digits")]
    MasterKey(PathBuf),
    #[error("the edge's domain {0:?} is no name")]
    EdgeDomain(String),
    #[error("the DNS webhook {0:?} is no URL, or what it is to be asked with is no header")]
    EdgeWebhook(String),
    #[error("the DNS webhook's authorization can't be read: {0}")]
    EdgeWebhookFile(PathBuf),
    #[error("{0} is in use by another server")]
    InUse(PathBuf),
}

pub fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> ServeError {
    let path = path.to_path_buf();
    move |source| ServeError::File { path, source }
}

/// A replica that is ready to listen.
pub struct Replica {
    pub app: App,
    listener: Listener,
    edge: Option<Listeners>,
    /// Where nodes ask by UDP for their own address.
    reflector: Option<UdpSocket>,
    /// The port that was really bound.
    pub listen: SocketAddr,
}

/// The migrations, compiled in. Without sqlx's advisory lock: each is one transaction, and a loser of a race tries again.
pub async fn migrate(database: &PgConnectOptions) -> Result<(), ServeError> {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(database.clone()).await?;
    let mut migrator = sqlx::migrate!("../migrations");
    migrator.set_locking(false);
    let mut result = migrator.run(&pool).await;
    for _ in 0..3 {
        if result.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        result = migrator.run(&pool).await;
    }
    pool.close().await;
    Ok(result?)
}

impl Replica {
    /// Binds the port first, so that a port in use is told before anything is changed.
    pub async fn prepare(settings: Settings) -> Result<Self, ServeError> {
        let address = settings.listen;
        let tcp = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let listen = tcp.local_addr().map_err(|source| ServeError::Listen { address, source })?;
        let reflector = match UdpSocket::bind(listen).await {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!(%error, "UDP port {} is taken: nodes behind NAT will not learn their public addresses here", listen.port());
                None
            }
        };
        migrate(&settings.database).await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(settings.database)
            .await?;
        let advertise = settings.advertise.unwrap_or_else(|| names::default_advertise(listen));
        let host = names::host_of(&advertise).unwrap_or_default();
        let edge = settings.edge.prepare(listen, &host, settings.open).await?;
        let (app, edge) = App::open(AppSettings {
            pool,
            master: Arc::new(settings.master_key),
            base_url: advertise,
            downloads: settings.downloads,
            alone: settings.alone,
            edge,
        })
        .await?;
        let tls = app.accounts.server_config(&names::certificate_names(listen, &host))?;
        let listener =
            Listener { tcp, tls: tls.into(), trusted_proxies: settings.trusted_proxies, router: app.router() };
        Ok(Self { app, listener, edge, reflector, listen })
    }

    pub fn accounts(&self) -> &Arc<Accounts> {
        &self.app.accounts
    }

    /// Serves until `stop` turns true; everything acknowledged is committed when this returns.
    pub async fn serve(self, stop: watch::Receiver<bool>) {
        info!(listen = %self.listen, base_url = self.app.accounts.base_url(), "serving");
        let _reflecting = self.reflector.map(|socket| AbortOnDropHandle::new(tokio::spawn(reflect(socket))));
        let edge = async {
            if let (Some(room), Some(listeners)) = (&self.app.edge, self.edge) {
                room.serve(listeners, stop.clone()).await;
            }
        };
        tokio::join!(self.listener.serve(stop.clone()), edge);
        self.app.close().await;
    }
}

async fn reflect(socket: UdpSocket) {
    if let Err(error) = longshore_tunnel::reflect::serve(socket).await {
        warn!(%error, "nodes can't ask for their public addresses any more");
    }
}

/// Turns true at SIGTERM or SIGINT.
pub fn stop_signal() -> watch::Receiver<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sender.send(true);
        // The sender lives on: dropping it would look like nothing at all to those who wait.
        std::future::pending::<()>().await;
    });
    receiver
}

/// Reads a master key file.
pub fn read_master_key(path: &Path) -> Result<MasterKey, ServeError> {
    let text = std::fs::read_to_string(path).map_err(file_error(path))?;
    let mut key = [0u8; 32];
    hex::decode_to_slice(text.trim(), &mut key).map_err(|_| ServeError::MasterKey(path.to_path_buf()))?;
    Ok(MasterKey::new(key))
}
