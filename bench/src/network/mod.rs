//! The virtual network: two machines with Docker and agents, and pods that are measured from inside (root). Beside each figure
//! the same of what it is compared with, in the same minute: wireguard-go, a WebSocket, the pod itself, nginx.
//!
//! Programs that are missing (`iperf3`, `ping`, `wireguard-go`, `wg`, `nginx`) leave their rows out.

mod answers;
mod dns;
mod edge;
mod mesh;
mod services;
mod stage;

use crate::figures::{Figures, Measured};
use crate::{Result, Settings};
use stage::Stage;
use std::panic::AssertUnwindSafe;

const ROWS: [&str; 4] = ["mesh", "service", "dns", "edge"];

/// Takes all figures on one stage. What fails is told and left out.
pub async fn measure(settings: &Settings, mut figures: Figures) -> Figures {
    let wanted: Vec<&str> = ROWS.into_iter().filter(|row| crate::alone::any(settings, &[row])).collect();
    if wanted.is_empty() {
        return figures;
    }
    // What drives programs waits for them.
    let done = tokio::task::spawn_blocking(move || {
        // What it is built from ends with a panic where something is missing.
        let told = std::panic::catch_unwind(AssertUnwindSafe(|| on_stage(&wanted, &mut figures)));
        if told.is_err() {
            eprintln!("  the network could not be measured");
        }
        figures
    });
    done.await.expect("panics are caught")
}

fn on_stage(wanted: &[&str], figures: &mut Figures) {
    println!("the network");
    let stage = match Stage::start() {
        Ok(stage) => stage,
        Err(error) => return eprintln!("  {error}"),
    };
    for row in wanted {
        let measured = match *row {
            "mesh" => mesh::measure(&stage, figures),
            "service" => services::measure(&stage, figures),
            "dns" => dns::measure(&stage, figures),
            _ => edge::measure(&stage, figures),
        };
        if let Err(error) = measured {
            eprintln!("  {row}: {error}");
        }
    }
}

/// Ours, and what it is compared with.
fn compared(figures: &mut Figures, row: &'static str, ours: f64, other: f64) {
    figures.begin("peer", 1);
    figures.add(row, other, &Measured::default());
    figures.begin("longshore", 1);
    figures.add(row, ours, &Measured::default());
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().ok_or_else(|| "nothing was measured".into())
}
