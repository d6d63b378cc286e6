//! What was measured, and the file it ends in.

use crate::Result;
use crate::machine::Machine;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One figure of one round.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its row's id in `rows`.
    pub row: &'static str,
    pub side: &'static str,
    pub round: usize,
    pub value: f64,
    /// How long the load ran.
    pub seconds: f64,
    /// CPU seconds while it ran, by process; `load` is the generator's.
    pub cpu: BTreeMap<String, f64>,
    /// Whatever else was counted: quantiles, errors, sizes.
    pub detail: BTreeMap<String, f64>,
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub machine: Machine,
    pub versions: BTreeMap<String, String>,
    pub figures: Vec<Figure>,
    #[serde(skip)]
    side: &'static str,
    #[serde(skip)]
    round: usize,
}

/// What one load gave, before it is a row's.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub seconds: f64,
    pub cpu: BTreeMap<String, f64>,
    pub detail: BTreeMap<String, f64>,
}

impl Figures {
    pub fn new(machine: Machine) -> Self {
        Self { machine, versions: BTreeMap::new(), figures: Vec::new(), side: "", round: 0 }
    }

    /// What is added from now on is this side's.
    pub fn begin(&mut self, side: &'static str, round: usize) {
        (self.side, self.round) = (side, round);
    }

    pub fn version(&mut self, side: &str, version: &str) {
        self.versions.insert(side.into(), version.into());
    }

    pub fn add(&mut self, row: &'static str, value: f64, measured: &Measured) {
        let Measured { seconds, cpu, detail } = measured.clone();
        let unit = crate::rows::find(row).map_or("", |row| row.unit);
        let spent: Vec<String> = cpu.iter().map(|(name, seconds)| format!("{name} {seconds:.1}")).collect();
        println!(
            "  {row:<22} {:>10} {unit:<4} in {seconds:.1} s; CPU s: {}",
            crate::report::number(value),
            spent.join(", ")
        );
        self.figures.push(Figure { row, side: self.side, round: self.round, value, seconds, cpu, detail });
    }

    /// The median over the rounds; none where it was not measured.
    pub fn median(&self, side: &str, row: &str) -> Option<f64> {
        let all = self.figures.iter().filter(|f| f.side == side && f.row == row);
        let mut values: Vec<f64> = all.map(|f| f.value).filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => None,
            n if n % 2 == 1 => Some(values[n / 2]),
            n => Some((values[n / 2 - 1] + values[n / 2]) / 2.0),
        }
    }

    /// Writes everything as JSON into a file named by date and commit.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let date = self.machine.date.replace(':', "");
        let path = folder.join(format!("{date}-{}.json", self.machine.commit));
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_leave_out_what_was_not_measured() {
        let mut figures = Figures::new(crate::machine::describe());
        for (round, value) in [(1, 3.0), (2, f64::NAN), (3, 1.0), (4, 2.0), (5, 9.0)] {
            figures.begin("longshore", round);
            figures.add("create-256", value, &Measured::default());
        }
        assert_eq!(figures.median("longshore", "create-256"), Some(2.5));
        assert_eq!(figures.median("peer", "create-256"), None);
    }
}
