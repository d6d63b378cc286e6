//! Ending containers: hooks, signals, and a grace that may become shorter on the way.

use super::Worker;
use crate::pods::plan::{self, FailedProbe, Kill, Step};
use crate::pods::{lifecycle, spec};
use crate::runtime::Record;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// What a hook leaves at least for the signal.
const AFTER_HOOK: Duration = Duration::from_secs(2);

/// Containers whose `preStop` was begun: it is not begun twice.
#[derive(Default)]
pub struct Hooks(Mutex<BTreeSet<String>>);

/// How long a deleted pod's containers have, from when their end began.
pub fn deletion_grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
    seconds.map_or_else(|| plan::grace(pod), Duration::from_secs)
}

impl Worker {
    /// Kills side by side. False when what is wanted changed meanwhile, so that the rest of the plan is out of date.
    pub(super) async fn kill(&mut self, pod: &Pod, records: &[Record], steps: &[Step]) -> bool {
        let mut wanted = self.wanted.clone();
        let this = &*self;
        let kills = steps.iter().filter_map(|step| match step {
            Step::Kill { id, name, why, grace } => Some(this.kill_one(pod, records, id, name, *why, *grace)),
            _ => None,
        });
        let kills: Vec<_> = kills.collect();
        if kills.is_empty() {
            return true;
        }
        let ending = |pod: &Pod, removed: bool| {
            let ends = removed || pod.metadata.deletion_timestamp.is_some();
            ends.then(|| deletion_grace(pod))
        };
        let before = ending(pod, this.wanted.borrow().removed);
        // A deletion, or one with less grace: what is left to wait is decided anew.
        let shorter = wanted.wait_for(|now| {
            ending(&now.pod, now.removed).is_some_and(|grace| before.is_none_or(|before| grace < before))
        });
        tokio::select! {
            _ = futures::future::join_all(kills) => true,
            Ok(_) = shorter => false,
        }
    }

    async fn kill_one(&self, pod: &Pod, records: &[Record], id: &str, name: &str, why: Kill, grace: Duration) {
        let found = spec::containers(pod).find(|(c, _)| c.name == name);
        let init = found.is_some_and(|(_, init)| init);
        let message = match why {
            Kill::Changed => format!("Container {name} definition changed, will be restarted"),
            Kill::Probe(FailedProbe::Liveness) => format!("Container {name} failed liveness probe, will be restarted"),
            Kill::Probe(FailedProbe::Startup) => format!("Container {name} failed startup probe, will be restarted"),
            _ => format!("Stopping container {name}"),
        };
        self.context.events.pod(pod, Some((name, init)), false, "Killing", message);
        let begun = Instant::now();
        let hook = found.and_then(|(c, _)| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
        let record = records.iter().find(|r| r.id == id);
        let mut grace = grace;
        if let (Some((container, _)), Some(hook), Some(record)) = (found, hook, record)
            && self.context.runtime.is_real()
            && !grace.is_zero()
            && self.hooks.0.lock().insert(id.to_owned())
        {
            let target = self.target(pod, record, container);
            let ran = tokio::time::timeout(grace, lifecycle::run(&target, hook, grace)).await;
            if let Err(error) = ran.unwrap_or_else(|_| Err("it took longer than the grace period".into())) {
                tracing::warn!(pod = spec::name(pod), container = name, %error, "a preStop hook failed");
                let about = Some((name, init));
                self.context.events.pod(pod, about, true, "FailedPreStopHook", "PreStopHook failed");
            }
            grace = grace.saturating_sub(begun.elapsed()).max(AFTER_HOOK);
        }
        if let Err(e) = self.context.runtime.stop(id, grace).await {
            tracing::warn!(container = name, error = %e, "a container was not stopped");
        }
    }
}
