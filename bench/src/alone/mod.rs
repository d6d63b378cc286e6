//! What only ours is asked: many tenants, many nodes, and what idle ones cost. There is no peer for them.

mod endpoints;
mod history;
mod nodes;
mod scheduler;
mod tenants;

use crate::figures::{Figures, Measured};
use crate::processes::Cpu;
use crate::sides::Installation;
use crate::{Result, Settings};
use std::time::{Duration, Instant};

/// Takes all figures, each on a fresh installation. What fails is told and left out.
pub async fn measure(settings: &Settings, figures: &mut Figures) {
    figures.begin("longshore", 1);
    if any(settings, &["idle", "tenant"]) {
        println!("tenants");
        told(tenants::measure(settings, figures).await);
    }
    if any(settings, &["scheduler"]) {
        println!("the scheduler by itself");
        told(scheduler::measure(figures));
    }
    if any(settings, &["deployment"]) {
        println!("a deployment on hollow nodes");
        told(nodes::deployment(settings, figures).await);
    }
    if any(settings, &["endpoint"]) {
        println!("a change of endpoints, on all nodes");
        told(endpoints::measure(settings, figures).await);
    }
    if any(settings, &["nodes"]) {
        println!("connected nodes");
        told(nodes::idle(settings, figures).await);
    }
    if any(settings, &["node-tenants"]) {
        println!("tenants with a node each");
        told(nodes::of_many_tenants(settings, figures).await);
    }
    if any(settings, &["history"]) {
        println!("writes on a long history");
        told(history::measure(settings, figures).await);
    }
}

/// Whether any row of these was asked for.
pub fn any(settings: &Settings, prefixes: &[&str]) -> bool {
    let rows = crate::rows::ROWS.iter().map(|row| row.id).filter(|id| prefixes.iter().any(|p| id.starts_with(p)));
    rows.into_iter().any(|id| settings.wants(id))
}

fn told(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("  {error}");
    }
}

/// CPU time and time of an installation, from here on.
struct Meter<'a> {
    installation: &'a Installation,
    cpu: Cpu,
    begun: Instant,
}

impl<'a> Meter<'a> {
    fn start(installation: &'a Installation) -> Self {
        Self { installation, cpu: installation.processes().cpu(), begun: Instant::now() }
    }

    fn stop(self) -> Measured {
        let seconds = self.begun.elapsed().as_secs_f64();
        Measured { seconds, cpu: self.installation.processes().cpu().since(&self.cpu), ..Measured::default() }
    }
}

/// How much of one core the server used while nobody asked for anything for this long.
async fn idle_cpu(installation: &Installation, during: Duration) -> (f64, Measured) {
    let meter = Meter::start(installation);
    tokio::time::sleep(during).await;
    let measured = meter.stop();
    (100.0 * measured.cpu.get("server").copied().unwrap_or(f64::NAN) / measured.seconds, measured)
}
