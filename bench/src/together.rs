//! The figures that are taken of every side: one round of one side.

use crate::client::Ask;
use crate::figures::{Figures, Measured};
use crate::load::{Timed, bodies, pods, pool, watchers};
use crate::processes::Cpu;
use crate::sides::{Kind, Side};
use crate::{Result, Settings};
use std::time::{Duration, Instant};

/// How much work each load is.
struct Sizes {
    warm: usize,
    creates: usize,
    one_client: usize,
    listed: usize,
    lists: usize,
    watchers: usize,
    watched: usize,
    nodes: usize,
    pods: usize,
}

const FULL: Sizes = Sizes {
    warm: 2_000,
    creates: 20_000,
    one_client: 2_000,
    listed: 5_000,
    lists: 240,
    watchers: 200,
    watched: 500,
    nodes: 1_000,
    pods: 5_000,
};

/// Enough to see where things are. Lists stay as long, nodes as many: less would be another question.
const SHORT: Sizes =
    Sizes { warm: 500, creates: 10_000, one_client: 1_000, lists: 120, watched: 300, pods: 2_000, ..FULL };

/// The loads in their order, each giving the rows whose names begin so; and whether the null server can take it, too.
pub const LOADS: [(&str, bool); 5] =
    [("create", true), ("list", true), ("watch", true), ("pods", false), ("memory", false)];

const MANY: usize = 256;
const LISTERS: usize = 8;

/// CPU time and time, from here on.
struct Meter<'a> {
    side: &'a Side,
    cpu: Cpu,
    begun: Instant,
}

impl<'a> Meter<'a> {
    fn start(side: &'a Side) -> Self {
        Self { side, cpu: side.processes.cpu(), begun: Instant::now() }
    }

    fn stop(self) -> Measured {
        let seconds = self.begun.elapsed().as_secs_f64();
        Measured { seconds, cpu: self.side.processes.cpu().since(&self.cpu), ..Measured::default() }
    }
}

/// Takes all figures of one side. What fails is told and left out.
pub async fn measure(side: &Side, settings: &Settings, figures: &mut Figures) {
    let sizes = if settings.short { SHORT } else { FULL };
    crate::machine::touch_memory();
    if let Err(error) = warm(side, &sizes).await {
        eprintln!("  warming up: {error}");
    }
    for (load, null_too) in LOADS {
        if !settings.wants(load) || (side.kind == Kind::Null && !null_too) {
            continue;
        }
        let measured = match load {
            "create" => creates(side, &sizes, figures).await,
            "list" => lists(side, &sizes, figures).await,
            "watch" => watches(side, &sizes, figures).await,
            "pods" => bindings(side, &sizes, figures).await,
            _ => memory(side, figures),
        };
        if let Err(error) = measured {
            eprintln!("  {load}: {error}");
        }
    }
}

/// Waits for what a new cluster makes for itself, then writes a little.
async fn warm(side: &Side, sizes: &Sizes) -> Result<()> {
    let mut connection = side.target.connect().await?;
    let begun = Instant::now();
    while let Err(error) = connection.ask(Ask::get("/api/v1/namespaces/default")).await {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ask = |number| Ask::post(CONFIG_MAPS, bodies::config_map(&format!("warm-{number}")));
    pool::requests(&side.target, 32, sizes.warm, ask).await.map(drop)
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn creates(side: &Side, sizes: &Sizes, figures: &mut Figures) -> Result<()> {
    for (row, clients, total) in [("create-256", MANY, sizes.creates), ("create-1", 1, sizes.one_client)] {
        // Connected before the meter runs: handshakes are another figure.
        let connections = pool::connect(&vec![side.target.clone(); clients]).await?;
        let meter = Meter::start(side);
        let timed = pool::with(connections, total, move |mut connection, number| async move {
            let body = bodies::config_map(&format!("{row}-{number}"));
            let answered = connection.ask(Ask::post(CONFIG_MAPS, body)).await;
            (connection, answered.map(drop))
        })
        .await;
        let measured = detailed(meter.stop(), &timed);
        let value = if clients == 1 { timed.quantile(0.5) } else { timed.per_second() };
        figures.add(row, value, &measured);
    }
    Ok(())
}

fn detailed(mut measured: Measured, timed: &Timed) -> Measured {
    measured.seconds = timed.elapsed.as_secs_f64();
    for (name, value) in [
        ("count", timed.count() as f64),
        ("errors", timed.errors as f64),
        ("per_second", timed.per_second()),
        ("p50_ms", timed.quantile(0.5)),
        ("p99_ms", timed.quantile(0.99)),
        ("max_ms", timed.quantile(1.0)),
    ] {
        measured.detail.insert(name.into(), value);
    }
    measured
}

async fn lists(side: &Side, sizes: &Sizes, figures: &mut Figures) -> Result<()> {
    let path = "/api/v1/namespaces/listed/configmaps";
    let mut connection = side.target.connect().await?;
    connection.ask(Ask::post("/api/v1/namespaces", bodies::namespace("listed"))).await?;
    let make = move |number| Ask::post(path, bodies::config_map(&format!("listed-{number}")));
    pool::requests(&side.target, 64, sizes.listed, make).await?;
    let bytes = connection.count(Ask::get(path)).await?;
    let connections = pool::connect(&vec![side.target.clone(); LISTERS]).await?;
    let meter = Meter::start(side);
    let timed = pool::with(connections, sizes.lists, move |mut connection, _| async move {
        let listed = connection.count(Ask::get(path)).await;
        (connection, listed.map(drop))
    })
    .await;
    let mut measured = detailed(meter.stop(), &timed);
    measured.detail.insert("bytes_each".into(), bytes as f64);
    figures.add("list", timed.per_second(), &measured);
    Ok(())
}

async fn watches(side: &Side, sizes: &Sizes, figures: &mut Figures) -> Result<()> {
    let meter = Meter::start(side);
    let timed = watchers::deliveries(&side.target, "watched", sizes.watchers, sizes.watched).await?;
    let measured = detailed(meter.stop(), &timed);
    figures.add("watch-p50", timed.quantile(0.5), &measured);
    figures.add("watch-p99", timed.quantile(0.99), &measured);
    figures.add("watch-events", timed.per_second(), &measured);
    Ok(())
}

async fn bindings(side: &Side, sizes: &Sizes, figures: &mut Figures) -> Result<()> {
    let made = pods::make_nodes(&side.target, sizes.nodes).await?;
    if made.errors > 0 {
        return Err(format!("{} of {} nodes could not be made", made.errors, sizes.nodes).into());
    }
    let meter = Meter::start(side);
    let bound = pods::bind(&side.target, "bound", sizes.pods).await?;
    let mut measured = meter.stop();
    measured.seconds = bound.bound.as_secs_f64();
    measured.detail.insert("created_seconds".into(), bound.created.as_secs_f64());
    figures.add("pods", sizes.pods as f64 / bound.bound.as_secs_f64(), &measured);
    Ok(())
}

fn memory(side: &Side, figures: &mut Figures) -> Result<()> {
    let by_process = side.processes.memory()?;
    let total = by_process.values().sum();
    figures.add("memory", total, &Measured { detail: by_process, ..Measured::default() });
    Ok(())
}
