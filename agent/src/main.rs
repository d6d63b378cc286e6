//! longshore-agent: arguments, logs, exit status; everything else is in the library.

use clap::Parser;
use longshore_agent::process::Command;
use longshore_edge::logs::Logs;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The C library's own allocator took half of a busy agent's time, above all where it is linked statically.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Command::parse();
    let filter =
        EnvFilter::try_from_env("LONGSHORE_LOG").unwrap_or_else(|_| EnvFilter::new("info,nlink=error,boringtun=off"));
    let terminal = std::io::stderr().is_terminal();
    let logs = Logs::to(std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(logs.clone()).with_ansi(terminal).init();
    let code = match command.execute().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    let _ = logs.flush();
    code
}
