//! Where and of what the figures are: machine, kernel, commit, date.

use serde::Serialize;
use std::fs;
use std::process::Command;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub date: String,
    /// Of the checkout that was built; ends in `-changed` where it had uncommitted changes.
    pub commit: String,
    pub processor: String,
    pub cores: usize,
    pub memory_gigabytes: f64,
    pub kernel: String,
    pub postgres: String,
}

pub fn describe() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_string()).unwrap_or_default()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kilobytes: f64 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    Machine {
        date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        commit: commit(),
        processor: field(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gigabytes: (kilobytes / 1e5).round() / 10.0,
        kernel: read("/proc/sys/kernel/osrelease").trim().into(),
        postgres: output("pg_config", &["--version"]).unwrap_or_default(),
    }
}

/// What one side needs, and its load.
const TOUCHED: usize = 4 << 30;

/// A virtual machine may have given memory that lay free back to its host: whoever comes first would pay for having it again.
/// Half of what is free at most: nobody else is to go without.
pub fn touch_memory() {
    let free = nix::sys::sysinfo::sysinfo().map_or(0, |all| all.ram_unused() / 2);
    let bytes = usize::try_from(free).unwrap_or(usize::MAX).min(TOUCHED);
    drop(std::hint::black_box(vec![1_u8; bytes]));
}

fn commit() -> String {
    let Some(commit) = output("git", &["rev-parse", "--short=10", "HEAD"]) else { return "unknown".into() };
    let changed =
        output("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    if changed { format!("{commit}-changed") } else { commit }
}

/// What a program prints; none when it isn't there or fails.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
