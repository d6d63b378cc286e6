//! Hollow nodes: a Deployment that becomes Ready on them, and what connected ones cost while nothing happens.

use super::{Meter, idle_cpu, tenants};
use crate::client::{Ask, Connection, Target};
use crate::figures::{Figures, Measured};
use crate::load::pool;
use crate::processes::resident;
use crate::sides::Installation;
use crate::{Result, Settings};
use http_body_util::BodyExt;
use longshore_api::accounts::{Cluster, JoinToken};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEPLOYMENT_NODES: usize = 100;
const REPLICAS: usize = 1_000;
const IDLE_NODES: usize = 1_000;
const TENANTS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(600);
/// How long idleness is looked at.
const IDLE: Duration = Duration::from_secs(30);

/// Creates a Deployment on connected nodes; its figure ends when its status says that all replicas are ready.
pub async fn deployment(settings: &Settings, figures: &mut Figures) -> Result<()> {
    let here = Installation::start(&settings.data).await?;
    let agent = here.hollow_agent(DEPLOYMENT_NODES)?;
    let target = here.target()?;
    let mut connection = target.connect().await?;
    ready_nodes(&mut connection, DEPLOYMENT_NODES).await?;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let meter = Meter::start(&here);
    let begun = Instant::now();
    connection.ask(Ask::post(path, hollow_deployment())).await?;
    let watch = format!("{path}?watch=true&timeoutSeconds=600&fieldSelector=metadata.name%3Dmany");
    let all_ready = tokio::time::timeout(
        PATIENCE,
        see(&target, &watch, |object| object["status"]["readyReplicas"].as_u64() == Some(REPLICAS as u64)),
    );
    all_ready.await.map_err(|_| "not all replicas became ready")??;
    let seconds = begun.elapsed().as_secs_f64();
    figures.add("deployment-ready", seconds, &meter.stop());
    drop(agent);
    here.stop();
    Ok(())
}

fn hollow_deployment() -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {
                "metadata": {"labels": {"app": "many"}},
                "spec": {"containers": [{
                    "name": "main", "image": "hollow",
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }]},
            },
        },
    })
    .to_string()
}

/// Reads a watch until an object is as wanted.
async fn see(target: &Target, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    let mut connection = target.connect().await?;
    let answer = connection.send(Ask::get(path)).await?;
    if !answer.status().is_success() {
        return Err(format!("watching {path}: {}", answer.status()).into());
    }
    let (mut body, mut rest) = (answer.into_body(), Vec::new());
    loop {
        let frame = body.frame().await.ok_or("the watch ended")??;
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            if wanted(&event["object"]) {
                return Ok(());
            }
        }
    }
}

/// Waits until so many nodes of the cluster are Ready.
async fn ready_nodes(connection: &mut Connection, nodes: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer: Value = serde_json::from_slice(&connection.ask(Ask::get("/api/v1/nodes")).await?)?;
        let items = answer["items"].as_array().map_or(&[][..], |items| items);
        let is_ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array().map_or(&[][..], |all| all);
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let ready = items.iter().filter(is_ready).count();
        if ready >= nodes {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{ready} of {nodes} nodes became ready within {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What a thousand connected nodes of one cluster cost while nothing happens.
pub async fn idle(settings: &Settings, figures: &mut Figures) -> Result<()> {
    let here = Installation::start(&settings.data).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = resident(here.server_pid())?;
    let begun = Instant::now();
    let agent = here.hollow_agent(IDLE_NODES)?;
    ready_nodes(&mut here.target()?.connect().await?, IDLE_NODES).await?;
    let joined = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let after = resident(here.server_pid())?;
    let detail = [("before", before), ("after", after), ("joined_seconds", joined), ("agent", resident(agent.pid())?)];
    let detail = detail.map(|(name, value)| (name.to_string(), value)).into();
    figures.add("nodes-memory", after - before, &Measured { detail, ..Measured::default() });
    let (cpu, measured) = idle_cpu(&here, IDLE).await;
    figures.add("nodes-cpu", cpu, &measured);
    drop(agent);
    here.stop();
    Ok(())
}

/// Ten thousand tenants, each with a cluster and one connected node.
pub async fn of_many_tenants(settings: &Settings, figures: &mut Figures) -> Result<()> {
    let here = Installation::start(&settings.data).await?;
    let (clusters, _) = tenants::make(&here, "tenant", 16, TENANTS).await?;
    let tokens = join_tokens(&here, clusters).await?;
    let begun = Instant::now();
    let agent = here.hollow_agent_of_many(tokens.path(), TENANTS)?;
    let metrics = Target::new(here.listen(), "", &here.token()?)?;
    let mut connection = metrics.connect().await?;
    let connected = loop {
        let connected = connected_nodes(&mut connection).await?;
        if connected >= TENANTS || begun.elapsed() > PATIENCE {
            break connected;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    if connected < TENANTS {
        return Err(format!("{connected} of {TENANTS} nodes were connected within {PATIENCE:?}").into());
    }
    let joined = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let memory = resident(here.server_pid())?;
    let detail = [("joined_seconds", joined), ("agent", resident(agent.pid())?)];
    let detail = detail.map(|(name, value)| (name.to_string(), value)).into();
    figures.add("node-tenants-memory", memory, &Measured { detail, ..Measured::default() });
    let (cpu, measured) = idle_cpu(&here, IDLE).await;
    figures.add("node-tenants-cpu", cpu, &measured);
    drop(agent);
    here.stop();
    Ok(())
}

/// A folder with a join token for each cluster, named as the node that is to have it.
async fn join_tokens(here: &Installation, clusters: Vec<Cluster>) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let target = Target::new(here.listen(), "", &here.token()?)?;
    let (path, count) = (folder.path().to_path_buf(), clusters.len());
    let made = pool::each(&target, 16, count, move |mut connection, number| {
        let ask = Ask::post(format!("/v1/clusters/{}/join-tokens", clusters[number].id), "{}");
        let file = path.join(format!("hollow-{number}"));
        async move {
            let answered = connection.ask(ask).await.and_then(|answer| {
                let made: JoinToken = serde_json::from_slice(&answer)?;
                Ok(std::fs::write(file, made.token)?)
            });
            (connection, answered)
        }
    })
    .await?;
    match made.errors {
        0 => Ok(folder),
        errors => Err(format!("{errors} of {count} join tokens could not be made").into()),
    }
}

/// Tunnels of the whole installation, as its metrics have them.
async fn connected_nodes(connection: &mut Connection) -> Result<usize> {
    let page = connection.ask(Ask::get("/metrics")).await?;
    let page = String::from_utf8_lossy(&page);
    let line = page.lines().find(|line| line.starts_with("longshore_connected_nodes"));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse::<f64>().ok());
    Ok(value.ok_or("no longshore_connected_nodes among the metrics")? as usize)
}
