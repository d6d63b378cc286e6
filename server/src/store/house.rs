//! Housekeeping of one replica: Events expire, history is trimmed, idle clusters are unloaded, sleeping ones are woken
//! when their time comes, and the log's partitions are made ahead of time and dropped when they are past retention.

use super::cluster::Cluster;
use super::replica::Shared;
use super::watch::Ended;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(5);

/// Partitions are an hour or twenty minutes long, made hours ahead: looking once a minute is plenty.
const MAINTENANCE_EVERY: u32 = 12;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut round = 0_u32;
    loop {
        if round.is_multiple_of(MAINTENANCE_EVERY) {
            maintain(&shared).await;
        }
        for cluster in shared.all() {
            tidy(&shared, &cluster).await;
        }
        look_back(&shared).await;
        wake(&shared).await;
        round = round.wrapping_add(1);
        tokio::time::sleep(ROUND).await;
    }
}

async fn maintain(shared: &Shared) {
    if let Err(error) = shared.log.maintain(shared.clock.now()).await {
        tracing::warn!(%error, "the log's partitions were not looked after: {error}");
    }
}

async fn tidy(shared: &Arc<Shared>, cluster: &Arc<Cluster>) {
    cluster.tidy();
    cluster.expire_events().await;
    if cluster.stop_if_idle(shared.options.idle) {
        if let Err(error) = shared.log.set_wake_at(cluster.id(), cluster.wake_at()).await {
            tracing::warn!(cluster = %cluster.id(), %error, "cluster {} may not be woken in time: {error}", cluster.id());
        }
        shared.let_go(cluster, Ended::Unloaded, None);
        tracing::info!(cluster = %cluster.id(), "cluster {} was idle and is unloaded", cluster.id());
    }
}

/// A write finds out by itself that the log was rolled back: its fence fails. A cluster that is only read would go on
/// showing what no longer exists.
async fn look_back(shared: &Arc<Shared>) {
    // Taken first: what the log says afterwards can only be more.
    let seen: Vec<_> = shared.all().into_iter().map(|cluster| (cluster.revision(), cluster)).collect();
    let ids: Vec<_> = seen.iter().map(|(_, cluster)| cluster.id().clone()).collect();
    let found = match shared.log.revisions(&ids).await {
        Ok(found) => found,
        Err(error) => return tracing::debug!(%error, "the clusters' revisions could not be compared: {error}"),
    };
    let found: HashMap<_, _> = found.into_iter().collect();
    for (revision, cluster) in seen {
        if found.get(cluster.id()).is_some_and(|found| *found < revision) {
            tracing::error!(cluster = %cluster.id(), "the log of cluster {} went back: loading it anew", cluster.id());
            shared.let_go(&cluster, Ended::Moved, None);
        }
    }
}

async fn wake(shared: &Arc<Shared>) {
    match shared.log.due(shared.clock.now()).await {
        Ok(due) => {
            for id in due.into_iter().filter(|id| !shared.is_loaded(id)) {
                if let Err(error) = shared.clone().load(id.clone()).await {
                    tracing::debug!(cluster = %id, %error, "cluster {id} was due and could not be loaded: {error}");
                }
            }
        }
        Err(error) => tracing::debug!(%error, "due clusters could not be looked up: {error}"),
    }
}
