//! `longshore-agent leave`: the way back. The node's pods end as if they were deleted, its containers, networks and
//! volumes go, the server forgets it, and only then this machine forgets who it was.
//!
//! With the server away everything on this machine still goes; what the server keeps then is told. With Docker away
//! nothing is forgotten: its containers could never be found again.

use super::folder::{Folder, RuntimeKind, Settings};
use super::member::{Machinery, Member};
use super::{DATA_DIR, ProcessError};
use crate::connection::exchange::Exchange;
use crate::connection::identity::Identity;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use nix::mount::{MntFlags, umount2};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long the server may take to be there.
const CONNECT: Duration = Duration::from_secs(15);
/// What a container that is still there in the end gets to stop by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Nodes of one process that leave at the same time.
const PARALLEL: usize = 16;
/// What an agent keeps in its folder; whatever else lies there isn't ours to remove.
const OURS: [&str; 7] = ["pods", "desired", "network", "nodes", "settings.json", "identity.json", "lock"];

#[derive(Args, Debug)]
pub struct Leave {
    /// The folder that the agent was run with.
    #[arg(long, env = "LONGSHORE_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// How many seconds the pods may take to end; then they are killed.
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
}

impl Leave {
    pub async fn execute(self) -> Result<(), ProcessError> {
        if !self.data_dir.exists() {
            return Err(ProcessError::NoNode(self.data_dir));
        }
        let folder = Folder::open(&self.data_dir)?;
        if let Some(settings) = folder.settings() {
            let nodes = match settings.runtime {
                RuntimeKind::Docker => vec![folder.path.clone()],
                RuntimeKind::Hollow => below(&folder.path.join("nodes")),
            };
            futures::stream::iter(nodes)
                .map(|dir| self.leave(dir, &settings))
                .buffer_unordered(PARALLEL)
                .try_collect::<()>()
                .await?;
        }
        forget(&folder.path)?;
        tracing::info!("this machine has left; nothing of its node is kept");
        Ok(())
    }

    async fn leave(&self, dir: PathBuf, settings: &Settings) -> Result<(), ProcessError> {
        let Some(identity) = Identity::load(&dir)?.map(Arc::new) else { return Ok(()) };
        if identity.membership().is_none() {
            return Ok(());
        }
        let machinery = Machinery::new(settings, &identity, &dir)?;
        let member = Member::start(&machinery, identity.clone(), None, &dir, &Default::default())?;
        let name = identity.name();
        let settled = timeout(CONNECT, member.link.settled()).await;
        let connected = settled.unwrap_or_else(|_| Err("the server could not be reached".into()));
        if connected.is_ok()
            && let Err(error) = self.drain(&member, &name).await
        {
            tracing::warn!(node = name, %error, "node {name} could not be drained: {error}; its pods are killed");
        }
        drop(member);
        clear(&machinery).await?;
        let told = match connected {
            Ok(()) => Exchange::new(identity).resign().await.map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        if let Err(why) = told {
            tracing::warn!(node = name, "{why}. If the cluster still lists node {name}, delete it there");
        }
        Ok(())
    }

    /// Takes no new pods and ends those that are there, each with its own grace.
    async fn drain(&self, member: &Member, name: &str) -> Result<(), kube::Error> {
        let client = member.agent.context.client.clone();
        let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        Api::<Node>::all(client.clone()).patch(name, &PatchParams::default(), &cordon).await?;
        let of_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        loop {
            let pods = Api::<Pod>::all(client.clone()).list(&of_node).await?.items;
            if pods.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
                let (namespace, pod) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
                let api: Api<Pod> = Api::namespaced(client.clone(), namespace.unwrap_or_default());
                match api.delete(pod.unwrap_or_default(), &DeleteParams::default()).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(error),
                }
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
}

/// Removes what is left on this machine.
async fn clear(machinery: &Machinery) -> Result<(), ProcessError> {
    let records = machinery.runtime.containers(None).await?;
    let removals = records.iter().map(|record| async {
        machinery.runtime.stop(&record.id, GRACE).await?;
        machinery.runtime.remove(&record.id).await
    });
    futures::future::try_join_all(removals).await?;
    if let Some(network) = &machinery.pod_network {
        network.teardown().await?;
    }
    Ok(())
}

/// The identity last but for the lock: whoever is interrupted here can call it again.
fn forget(dir: &Path) -> Result<(), ProcessError> {
    unmount_below(dir);
    for name in OURS {
        let path = dir.join(name);
        let removed = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
        removed.map_err(|source| ProcessError::File { path, source })?;
    }
    // Someone else's files may lie beside ours.
    let _ = std::fs::remove_dir(dir);
    Ok(())
}

/// Volumes in memory are mounts: those inside others first.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let mut below: Vec<&Path> = points.filter(|point| point.starts_with(dir) && *point != dir).collect();
    below.sort();
    for point in below.into_iter().rev() {
        if let Err(error) = umount2(point, MntFlags::MNT_DETACH) {
            tracing::warn!(path = %point.display(), %error, "could not be unmounted");
        }
    }
}

fn below(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
