//! `longshore-bench`: what `make bench` runs. Ours and the peer's servers are started, loaded in turn and stopped by one
//! program, so that every ratio it prints is of two figures from the same minutes on the same machine.
//!
//! It never fails for being slow: targets are printed as met or not, and what can't be measured is told and left out.
#![allow(clippy::print_stdout)] // Printing is what it is for.

mod alone;
mod client;
mod figures;
mod load;
mod machine;
mod network;
mod null;
mod processes;
mod report;
mod rows;
mod sides;

mod together;

use clap::{Parser, Subcommand};
use figures::Figures;
use sides::{Kind, Side};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Errors here are read by people only: whatever fails ends one measurement, and its sentence is printed.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

#[derive(Parser)]
#[command(name = "longshore-bench", version, about = "Benchmarks of Longshore, side by side with its peer")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures, prints a table, writes the raw figures
    Run(Settings),
    /// The null server: canned answers over TLS, on a port it prints
    #[command(hide = true)]
    Null,
}

#[derive(clap::Args, Clone)]
struct Settings {
    /// A folder with bin/kube-apiserver, bin/kube-scheduler and bin/kube-controller-manager (etcd on PATH): the peer
    #[arg(long, env = "PEER_DIR", value_parser = clap::value_parser!(PathBuf))]
    peer_dir: Option<PathBuf>,
    /// How often everything is measured; the table shows medians
    #[arg(long, env = "ROUNDS", default_value_t = 3)]
    rounds: usize,
    /// The main figures only, with less work: about a minute
    #[arg(long)]
    short: bool,
    /// Only rows whose name begins so (repeatable): `create`, `list`, `watch`, `pods`, `tenants`…
    #[arg(long = "only", env = "ONLY", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave the peer out, wherever it may be
    #[arg(long)]
    alone: bool,
    /// Where servers keep their data while they are measured: a folder on the disk that is meant
    #[arg(long, env = "BENCH_DATA", default_value = "target/bench-data")]
    data: PathBuf,
    /// Where the raw figures are written
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

impl Settings {
    /// Whether a row was asked for.
    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| row.starts_with(name.as_str()))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("can't start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        // Dropping what runs ends the servers that it has started.
        tokio::select! {
            done = execute(cli.command) => done,
            told = told_to_end() => told.and(Err("ended by a signal".into())),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run(settings) => run(settings).await,
        Command::Null => null::serve().await,
    }
}

async fn told_to_end() -> Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn run(mut settings: Settings) -> Result<()> {
    if settings.alone || settings.peer_dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
        settings.peer_dir = None;
    }
    sides::more_files()?;
    std::fs::create_dir_all(&settings.data)?;
    let mut figures = Figures::new(machine::describe());
    let rounds = match together::LOADS.iter().any(|(load, _)| settings.wants(load)) {
        true if settings.short => 1,
        true => settings.rounds.max(1),
        false => 0,
    };
    for round in 1..=rounds {
        let mut kinds = vec![Kind::Longshore, Kind::Null];
        if settings.peer_dir.is_some() {
            // Whoever comes second finds a warmer machine: they take turns.
            kinds.insert(if round % 2 == 1 { 1 } else { 0 }, Kind::Peer);
        }
        for kind in kinds {
            figures.begin(kind.name(), round);
            println!("round {round} of {rounds}: {}", kind.name());
            let side = match Side::start(kind, &settings).await {
                Ok(side) => side,
                Err(error) => {
                    eprintln!("  {} did not start: {error}", kind.name());
                    continue;
                }
            };
            figures.version(kind.name(), &side.version);
            together::measure(&side, &settings, &mut figures).await;
            drop(side);
        }
    }
    if !settings.short {
        alone::measure(&settings, &mut figures).await;
        figures = network::measure(&settings, figures).await;
    }
    report::print(&figures);
    let path = figures.write(&settings.results)?;
    println!("\nraw figures: {}", path.display());
    Ok(())
}
