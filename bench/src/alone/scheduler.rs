//! The scheduler by itself: the program `scheduler` among `longshore-control`'s examples, which `scripts/bench` builds.

use crate::Result;
use crate::figures::{Figures, Measured};
use serde_json::Value;
use std::process::Command;

const LOAD: &str = "spread+anti-affinity";
/// The growth that is told is from the first of these numbers of nodes to the second.
const NODES: u64 = 1_000;
const TWICE: u64 = 2_000;

/// 10,000 pods with spread and required anti-affinity: pods a second, and what twice the nodes do to it.
pub fn measure(figures: &mut Figures) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("examples").join("scheduler");
    let output =
        Command::new(&program).arg("--json").output().map_err(|error| format!("{}: {error}", program.display()))?;
    let told = String::from_utf8(output.stdout)?;
    let rows: Vec<Value> = told.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
    let rate = |nodes: u64| -> Result<f64> {
        let row = rows.iter().find(|row| row["load"] == LOAD && row["nodes"] == nodes);
        let rate = row.and_then(|row| row["pods_per_second"].as_f64());
        Ok(rate.ok_or_else(|| format!("{} tells nothing of {LOAD} on {nodes} nodes", program.display()))?)
    };
    figures.add("scheduler", rate(NODES)?, &Measured::default());
    figures.add("scheduler-growth", rate(NODES)? / rate(TWICE)?, &Measured::default());
    Ok(())
}
