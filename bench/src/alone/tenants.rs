//! Tenants: what making, waking and keeping one costs, and two thousand that are busy.

use super::Meter;
use crate::client::{Ask, Target};
use crate::figures::{Figures, Measured};
use crate::load::{Timed, bodies, pool};
use crate::processes::resident;
use crate::sides::Installation;
use crate::{Result, Settings};
use longshore_api::accounts::{Cluster, NewCluster};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Made and woken one by one, for their latency.
const ONE_BY_ONE: usize = 100;
const BUSY: usize = 2_000;
const CREATES_EACH: usize = 5;
const IDLE: usize = 10_000;
/// Before memory is read: what starting needed is given back by then.
const REST: Duration = Duration::from_secs(10);

pub async fn measure(settings: &Settings, figures: &mut Figures) -> Result<()> {
    let mut here = Installation::start(&settings.data).await?;
    tokio::time::sleep(REST).await;
    let started = here.started_in.as_secs_f64();
    figures.add("idle-memory", resident(here.server_pid())?, &detail(&[("started_seconds", started)]));

    // A first start makes keys and hashes a password, which takes memory once: what tenants add is counted from a second one.
    here = here.restart().await?;
    tokio::time::sleep(REST).await;
    let alone = resident(here.server_pid())?;

    let (mut clusters, making) = make(&here, "one", 1, ONE_BY_ONE).await?;
    figures.add("tenant-create", making.quantile(0.99), &quantiles(&making));
    let waking = wake(&here, &clusters, 1).await?;
    figures.add("tenant-wake", waking.quantile(0.99), &quantiles(&waking));

    if settings.wants("tenants-busy") {
        clusters.extend(make(&here, "busy", 16, BUSY - clusters.len()).await?.0);
        wake(&here, &clusters, 16).await?;
        let targets = targets(&here, &clusters)?;
        let connections = pool::connect(&targets).await?;
        let meter = Meter::start(&here);
        let timed = pool::with(connections, BUSY * CREATES_EACH, |mut connection, number| async move {
            let ask = Ask::post(CONFIG_MAPS, bodies::config_map(&format!("busy-{number}")));
            let answered = connection.ask(ask).await;
            (connection, answered.map(drop))
        })
        .await;
        let mut measured = meter.stop();
        measured.detail = quantiles(&timed).detail;
        figures.add("tenants-busy", timed.per_second(), &measured);
    }
    if settings.wants("tenants-idle") {
        let (_, making) = make(&here, "idle", 16, IDLE - clusters.len()).await?;
        println!("  {} tenants were made at {:.0}/s", making.count(), making.per_second());
        here = here.restart().await?;
        figures.add("tenants-idle-start", here.started_in.as_secs_f64(), &Measured::default());
        tokio::time::sleep(REST).await;
        let full = resident(here.server_pid())?;
        figures.add("tenants-idle-memory", full - alone, &detail(&[("alone", alone), ("with_tenants", full)]));
        let (cpu, measured) = super::idle_cpu(&here, Duration::from_secs(20)).await;
        figures.add("tenants-idle-cpu", cpu, &measured);
    }
    here.stop();
    Ok(())
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Makes clusters through the accounts API, so many at once.
pub async fn make(here: &Installation, name: &str, at_once: usize, count: usize) -> Result<(Vec<Cluster>, Timed)> {
    let target = Target::new(here.listen(), "", &here.token()?)?;
    let made = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let (kept, name) = (made.clone(), name.to_string());
    let timed = pool::each(&target, at_once, count, move |mut connection, number| {
        let new = NewCluster { name: format!("{name}-{number}"), organization: None };
        let kept = kept.clone();
        async move {
            let answered = async {
                let body = serde_json::to_vec(&new)?;
                let cluster: Cluster = serde_json::from_slice(&connection.ask(Ask::post("/v1/clusters", body)).await?)?;
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(cluster);
                Ok(())
            };
            let answered = answered.await;
            (connection, answered)
        }
    })
    .await?;
    let made = std::mem::take(&mut *made.lock().unwrap_or_else(PoisonError::into_inner));
    match made.len() == count {
        true => Ok((made, timed)),
        false => Err(format!("{} of {count} clusters were made", made.len()).into()),
    }
}

/// Asks each cluster something for the first time.
async fn wake(here: &Installation, clusters: &[Cluster], at_once: usize) -> Result<Timed> {
    let target = Target::new(here.listen(), "", &here.token()?)?;
    let paths: Vec<String> = clusters.iter().map(|c| format!("/clusters/{}{CONFIG_MAPS}", c.id)).collect();
    pool::requests(&target, at_once, paths.len(), move |number| Ask::get(paths[number].clone())).await
}

fn targets(here: &Installation, clusters: &[Cluster]) -> Result<Vec<Target>> {
    let target = Target::new(here.listen(), "", &here.token()?)?;
    Ok(clusters.iter().map(|cluster| target.at(&format!("/clusters/{}", cluster.id))).collect())
}

fn quantiles(timed: &Timed) -> Measured {
    let mut measured = detail(&[
        ("count", timed.count() as f64),
        ("errors", timed.errors as f64),
        ("p50_ms", timed.quantile(0.5)),
        ("p99_ms", timed.quantile(0.99)),
        ("max_ms", timed.quantile(1.0)),
    ]);
    measured.seconds = timed.elapsed.as_secs_f64();
    measured
}

fn detail(entries: &[(&str, f64)]) -> Measured {
    let detail = entries.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    Measured { detail, ..Measured::default() }
}
