//! longshore-server: see `--help`.

use clap::{Args, Parser, Subcommand};
use longshore_edge::logs::Logs;
use longshore_server::process::dev::{self, DevSettings};
use longshore_server::process::edge::EdgeArgs;
use longshore_server::process::listener::Cidr;
use longshore_server::process::serving::{self, Replica, ServeError, Settings};
use sqlx::postgres::PgConnectOptions;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Measured against glibc's: a fifth less CPU for creates and lists, a third less memory after them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "longshore-server", version, about = "Kubernetes's API as a multi-tenant service on one Postgres")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything in one process for one machine, with a private Postgres in DIR
    Dev {
        /// Where state and credentials are kept
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(long, default_value = "127.0.0.1:7480")]
        listen: SocketAddr,
        /// Another Postgres than the private one
        #[arg(long)]
        database_url: Option<PgConnectOptions>,
        #[command(flatten)]
        common: Common,
    },
    /// A replica in production; settings from flags or LONGSHORE_* variables
    Serve {
        #[arg(long, env = "LONGSHORE_LISTEN", default_value = "127.0.0.1:7480")]
        listen: SocketAddr,
        #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
        database_url: PgConnectOptions,
        /// A file with 64 hexadecimal digits: the key that wraps all others
        #[arg(long, env = "LONGSHORE_MASTER_KEY_FILE")]
        master_key_file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Bring the database's schema up to date, and end
    Migrate {
        #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
        database_url: PgConnectOptions,
    },
}

#[derive(Args)]
struct Common {
    /// Base URL under which clients and other replicas reach this one (default: the listen address)
    #[arg(long, env = "LONGSHORE_ADVERTISE")]
    advertise: Option<String>,
    /// Addresses from which a proxy may speak plain HTTP (repeatable)
    #[arg(long = "trusted-proxy", value_name = "CIDR", env = "LONGSHORE_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxies: Vec<Cidr>,
    /// Folder of the agents that machines download (default: beside this program)
    #[arg(long, env = "LONGSHORE_DOWNLOADS")]
    downloads: Option<PathBuf>,
    #[command(flatten)]
    edge: EdgeArgs,
}

/// So many tasks run before sockets are looked at again. Hundreds run in a row where many watchers are told of a change; a
/// write that arrives meanwhile shouldn't wait for most of them (docs/performance.md).
const TASKS_BETWEEN_SOCKETS: u32 = 13;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("LONGSHORE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let logs = Logs::to(std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(logs.clone()).with_ansi(terminal).init();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().event_interval(TASKS_BETWEEN_SOCKETS).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "can't start threads");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    let _ = logs.flush();
    code
}

async fn run(command: Command) -> Result<(), ServeError> {
    match command {
        Command::Dev { data_dir, listen, database_url, common } => {
            let Common { advertise, trusted_proxies, downloads, edge } = common;
            let database = database_url;
            dev::run(DevSettings { data_dir, listen, advertise, trusted_proxies, database, downloads, edge }).await
        }
        Command::Serve { listen, database_url, master_key_file, common } => {
            let stop = serving::stop_signal();
            let replica = Replica::prepare(Settings {
                listen,
                advertise: common.advertise,
                trusted_proxies: common.trusted_proxies,
                database: database_url,
                master_key: serving::read_master_key(&master_key_file)?,
                downloads: common.downloads,
                alone: false,
                edge: common.edge,
                open: false,
            })
            .await?;
            replica.serve(stop).await;
            Ok(())
        }
        Command::Migrate { database_url } => serving::migrate(&database_url).await,
    }
}
