//! `dev`: everything in one process for one machine, with a private Postgres and credentials in files.

use super::edge::EdgeArgs;
use super::files::{private_folder, write_private};
use super::listener::Cidr;
use super::postgres::Postgres;
use super::serving::{Replica, ServeError, Settings, file_error, read_master_key, stop_signal};
use crate::accounts::founding::FounderSecrets;
use crate::store::MasterKey;
use longshore_api::join_token::JoinToken;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use tracing::info;

pub struct DevSettings {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub advertise: Option<String>,
    pub trusted_proxies: Vec<Cidr>,
    pub database: Option<PgConnectOptions>,
    pub downloads: Option<PathBuf>,
    pub edge: EdgeArgs,
}

const EMAIL: &str = "admin@longshore.local";

/// `admin.json`, for scripts.
#[derive(Serialize, Deserialize)]
struct AdminFile {
    url: String,
    email: String,
    password: String,
    token: String,
    cluster_url: String,
}

/// Runs until a signal stops it.
pub async fn run(settings: DevSettings) -> Result<(), ServeError> {
    let stop = stop_signal();
    private_folder(&settings.data_dir).map_err(file_error(&settings.data_dir))?;
    let dir = settings.data_dir.canonicalize().map_err(file_error(&settings.data_dir))?;
    let _lock = lock(&dir)?;
    let ready = dir.join("ready");
    remove_if_there(&ready)?;
    let master_key = load_or_make_master_key(&dir)?;
    let postgres = match settings.database {
        Some(_) => None,
        None => Some(Postgres::start(&dir).await?),
    };
    let database = match (&postgres, settings.database) {
        (Some(postgres), _) => postgres.options(),
        (None, Some(given)) => given,
        (None, None) => unreachable!("a private Postgres was started when no database was given"),
    };
    let alone = postgres.is_some();
    let served = serve(
        &dir,
        stop,
        Settings {
            listen: settings.listen,
            advertise: settings.advertise,
            trusted_proxies: settings.trusted_proxies,
            database,
            master_key,
            downloads: settings.downloads,
            alone,
            edge: settings.edge,
            // One machine, one party.
            open: true,
        },
    )
    .await;
    remove_if_there(&ready)?;
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
    served
}

async fn serve(dir: &Path, stop: tokio::sync::watch::Receiver<bool>, settings: Settings) -> Result<(), ServeError> {
    let replica = Replica::prepare(settings).await?;
    let known = read_secrets(dir);
    let secrets = known.clone().unwrap_or_else(FounderSecrets::random);
    let accounts = replica.accounts().clone();
    let founded = accounts.found(EMAIL, &secrets).await?;
    if known.is_none() {
        // The files are new or were lost: the database must agree with what is written now.
        accounts.set_password(EMAIL, &secrets.password).await?;
    }
    let join = accounts.keep_founder_tokens(&founded, &secrets).await?;
    replica.app.store.cluster(&founded.cluster).await?;

    let reached = SocketAddr::new(reachable(replica.listen.ip()), replica.listen.port());
    let base = format!("https://{reached}");
    // Without a certificate to trust, where that is: plain HTTP is spoken on loopback alone.
    let plain = SocketAddr::new(loopback_of(replica.listen.ip()), replica.listen.port());
    let listens = replica.listen.ip().is_unspecified() || replica.listen.ip().is_loopback();
    let admin = AdminFile {
        url: if listens { format!("http://{plain}/") } else { format!("{base}/") },
        email: founded.email.clone(),
        password: secrets.password,
        token: secrets.api_token.clone(),
        cluster_url: format!("{base}/clusters/{}", founded.cluster),
    };
    let kubeconfig = accounts.kubeconfig(&founded.cluster, "default", &founded.email, &secrets.api_token, &base);
    let admin = serde_json::to_string_pretty(&admin).map_err(longshore_api::Status::internal)? + "\n";
    for (name, text) in [
        ("ca.crt", accounts.authority().certificate_pem()),
        ("join-token", &format!("{join}\n")),
        ("admin.json", &admin),
        ("kubeconfig", &kubeconfig),
    ] {
        write(dir, name, text)?;
    }
    let dir = dir.to_path_buf();
    let announce = {
        let dir = dir.clone();
        let stop = stop.clone();
        async move {
            // The port is bound already: what connects from now on is answered as soon as `serve` polls.
            if !*stop.borrow() {
                write(&dir, "ready", &format!("{}\n", std::process::id()))?;
                info!(data_dir = %dir.display(), "ready");
            }
            Ok::<(), ServeError>(())
        }
    };
    let (announced, ()) = tokio::join!(announce, replica.serve(stop));
    announced
}

/// The address for clients on this machine: of a listener on all interfaces, loopback.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { loopback_of(ip) } else { ip }
}

fn loopback_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) if !v6.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        _ => std::net::Ipv4Addr::LOCALHOST.into(),
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), ServeError> {
    let path = dir.join(name);
    write_private(&path, text).map_err(file_error(&path))
}

/// Held while the server lives: a second one would take the first one's Postgres for a left-over and stop it.
fn lock(dir: &Path) -> Result<fs::File, ServeError> {
    let path = dir.join("lock");
    let file = fs::File::create(&path).map_err(file_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ServeError::InUse(dir.to_path_buf())),
        Err(fs::TryLockError::Error(error)) => Err(file_error(&path)(error)),
    }
}

fn remove_if_there(path: &Path) -> Result<(), ServeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

fn load_or_make_master_key(dir: &Path) -> Result<MasterKey, ServeError> {
    let path = dir.join("master-key");
    if !path.exists() {
        let (raw, _) = MasterKey::random();
        write(dir, "master-key", &format!("{}\n", hex::encode(raw)))?;
    }
    read_master_key(&path)
}

/// What an earlier start wrote; none when any of it is missing or unreadable.
fn read_secrets(dir: &Path) -> Option<FounderSecrets> {
    let admin: AdminFile = serde_json::from_str(&fs::read_to_string(dir.join("admin.json")).ok()?).ok()?;
    let join: JoinToken = fs::read_to_string(dir.join("join-token")).ok()?.parse().ok()?;
    Some(FounderSecrets { password: admin.password, api_token: admin.token, join_secret: join.secret })
}
