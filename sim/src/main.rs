//! `longshore-sim`: runs worlds, each in a process of its own.

use clap::{Parser, Subcommand};
use longshore_sim::world::{self, Verdict};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A world that takes more of a processor's time than this never ends, in seconds.
const PATIENCE: u64 = 300;
/// Nor does one that takes longer than this, in real time, even where it gets little of a processor.
const LOST: Duration = Duration::from_secs(3600);

#[derive(Parser)]
#[command(name = "longshore-sim", about = "Simulates whole clusters, each from a seed")]
struct Arguments {
    #[command(subcommand)]
    command: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Many worlds, one after another on each processor.
    Run {
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Beginning no more worlds after so many seconds.
        #[arg(long)]
        within: Option<u64>,
        #[arg(long)]
        jobs: Option<usize>,
        /// These seeds first, one a line (what stands behind # is a remark).
        #[arg(long)]
        also: Option<std::path::PathBuf>,
    },
    /// One world, in this process.
    One {
        #[arg(long)]
        seed: u64,
        /// Tells everything as it happens.
        #[arg(long)]
        loud: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Order::One { seed, loud } => one(seed, loud),
        Order::Run { seeds, first, within, jobs, also } => {
            let mut all: Vec<u64> = also.as_deref().map(listed).unwrap_or_default();
            all.extend(first..first.saturating_add(seeds));
            let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
            many(&all, within.map(Duration::from_secs), jobs)
        }
    }
}

fn listed(path: &std::path::Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok()).collect()
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn one(seed: u64, loud: bool) -> ExitCode {
    if let Ok(filter) = std::env::var("LONGSHORE_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    }
    // The kernel ends us then.
    let _ = setrlimit(Resource::RLIMIT_CPU, PATIENCE, PATIENCE + 1);
    let Verdict { broken, digest, changes, acknowledgements, took, last_events, .. } = world::live(seed, loud);
    let seconds = took.as_secs();
    let figures = format!("{changes} changes, {acknowledgements} acknowledged, {seconds} s, history {digest}");
    match broken {
        None => {
            say(&format!("seed {seed}: holds; {figures}"));
            ExitCode::SUCCESS
        }
        Some(broken) => {
            last_events.iter().for_each(|event| say(event));
            say(&format!("seed {seed}: BROKEN {}: {}; {figures}", broken.sentence, broken.detail));
            ExitCode::FAILURE
        }
    }
}

/// Exit status and output of one world in a process of its own.
fn child(seed: u64) -> (bool, String) {
    let Ok(program) = std::env::current_exe() else { return (false, "this program is gone".into()) };
    let mut command = Command::new(program);
    command.args(["one", "--seed", &seed.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (false, format!("seed {seed}: can't be started: {error}")),
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.map(|mut pipe| pipe.read_to_string(&mut text));
            text
        })
    };
    let out = reader(out.map(|p| Box::new(p) as Box<dyn std::io::Read + Send>));
    let err = reader(err.map(|p| Box::new(p) as Box<dyn std::io::Read + Send>));
    let begun = Instant::now();
    let passed = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.signal() == Some(Signal::SIGXCPU as i32) => break None,
            Ok(Some(status)) => break Some(status.success()),
            Ok(None) if begun.elapsed() < LOST => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let text = format!("{}{}", err.join().unwrap_or_default(), out.join().unwrap_or_default());
    match passed {
        Some(true) => (true, text),
        Some(false) => (false, text),
        None => {
            let after = format!("{PATIENCE} s of processor time or {} s", LOST.as_secs());
            (false, format!("{text}seed {seed}: BROKEN a_world_ends: after {after}"))
        }
    }
}

fn many(seeds: &[u64], within: Option<Duration>, jobs: usize) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let done: Mutex<BTreeMap<usize, (u64, bool)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(seed) = seeds.get(place) else { return };
                    if within.is_some_and(|within| begun.elapsed() > within) {
                        return;
                    }
                    let (passed, text) = child(*seed);
                    if passed {
                        say(text.trim_end());
                    } else {
                        say(&format!(
                            "--- seed {seed} ---\n{}\n--- replay: make sim SEEDS=1 FIRST={seed} ---",
                            text.trim_end()
                        ));
                    }
                    done.lock().unwrap_or_else(|e| e.into_inner()).insert(place, (*seed, passed));
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    let passed = done.values().filter(|(_, passed)| *passed).count();
    let failed: Vec<u64> = done.values().filter(|(_, passed)| !passed).map(|(seed, _)| *seed).collect();
    let range = match (done.values().next(), done.values().last()) {
        (Some((first, _)), Some((last, _))) => format!("seeds {first} to {last}"),
        _ => "no seeds".into(),
    };
    let took = begun.elapsed().as_secs_f64();
    if !failed.is_empty() {
        say(&format!("failing seeds: {failed:?}"));
    }
    say(&format!("{passed} held, {} failed ({range}, {took:.1} s)", failed.len()));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
