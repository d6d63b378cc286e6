//! Whether a write stays as cheap as it was when there is much history behind it.

use super::Meter;
use crate::client::Ask;
use crate::figures::{Figures, Measured};
use crate::load::{Timed, bodies, pool};
use crate::sides::Installation;
use crate::{Result, Settings};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Changes that fill once what the server keeps of a cluster's log in memory (32 MB).
const RETAINED: usize = 20_000;
const OBJECTS: usize = 1_000;
const MEASURED: usize = 2_000;
const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// One client's update, with the retained history written once, and ten times.
pub async fn measure(settings: &Settings, figures: &mut Figures) -> Result<()> {
    let here = Installation::start(&settings.data).await?;
    let target = here.target()?;
    let make = |number| Ask::post(PATH, bodies::config_map(&format!("kept-{number}")));
    pool::requests(&target, 64, OBJECTS, make).await?;
    let round = Arc::new(AtomicUsize::new(0));
    let updates = |clients, count| {
        let (target, round) = (target.clone(), round.clone());
        async move {
            let update = move |number: usize| {
                let text = format!(r#"{{"data":{{"round":"{}"}}}}"#, round.fetch_add(1, Ordering::Relaxed));
                Ask::merge_patch(format!("{PATH}/kept-{}", number % OBJECTS), text)
            };
            pool::requests(&target, clients, count, update).await
        }
    };
    updates(64, RETAINED).await?;
    let meter = Meter::start(&here);
    let once: Timed = updates(1, MEASURED).await?;
    let first = meter.stop();
    updates(64, 9 * RETAINED).await?;
    let meter = Meter::start(&here);
    let tenfold: Timed = updates(1, MEASURED).await?;
    let second = meter.stop();
    let mut measured = Measured { seconds: first.seconds + second.seconds, ..second.clone() };
    for (name, value) in [
        ("p50_ms_at_1", once.quantile(0.5)),
        ("p50_ms_at_10", tenfold.quantile(0.5)),
        ("p99_ms_at_1", once.quantile(0.99)),
        ("p99_ms_at_10", tenfold.quantile(0.99)),
        ("server_cpu_at_1", first.cpu.get("server").copied().unwrap_or(f64::NAN)),
        ("server_cpu_at_10", second.cpu.get("server").copied().unwrap_or(f64::NAN)),
        ("postgres_cpu_at_1", first.cpu.get("postgres").copied().unwrap_or(f64::NAN)),
        ("postgres_cpu_at_10", second.cpu.get("postgres").copied().unwrap_or(f64::NAN)),
    ] {
        measured.detail.insert(name.into(), value);
    }
    figures.add("history-tenfold", tenfold.quantile(0.5) / once.quantile(0.5), &measured);
    here.stop();
    Ok(())
}
