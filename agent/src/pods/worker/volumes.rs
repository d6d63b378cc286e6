//! Volumes of a running pod follow what they are made of: ConfigMaps, Secrets, labels, tokens.

use super::{RETRY, Worker};
use crate::pods::spec;
use crate::runtime::{Record, Role};
use crate::volumes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a first look at referenced objects may take before a start goes on with what is known.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the volumes were made of when they were last brought up to date.
#[derive(Default)]
pub struct Freshness {
    /// [`crate::pods::references::References::changes`] as last seen, and whether the volumes are older.
    changes: u64,
    stale: bool,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    /// When a token has to be renewed, or a failure tried again.
    due: Option<Timestamp>,
}

impl Freshness {
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

impl Worker {
    /// For containers that run already; before a start the plan asks for it.
    pub(super) async fn refresh_volumes(&mut self, pod: &Pod, records: &[Record], now: Timestamp) {
        let changes = self.context.references.changes();
        if self.volumes.changes != changes {
            self.volumes.changes = changes;
            self.volumes.stale = true;
            // What was refused for something missing may have it now.
            self.memory.blocked.retain(|_, blocked| blocked.reason != "CreateContainerConfigError");
            if !self.memory.volumes_ready {
                self.memory.sandbox_retry_at = None;
            }
        }
        let stale = self.volumes.stale
            || self.volumes.due.is_some_and(|due| due <= now)
            || self.volumes.labels != pod.metadata.labels
            || self.volumes.annotations != pod.metadata.annotations;
        if !records.iter().any(|r| r.is_running() && r.role != Role::Sandbox) {
            self.memory.volumes_ready &= !stale;
        } else if (stale || !self.memory.volumes_ready) && self.prepare_volumes(pod).await.is_err() {
            // The containers go on with what they have.
            self.memory.volumes_ready = true;
        }
    }

    pub(super) async fn prepare_volumes(&mut self, pod: &Pod) -> Result<(), String> {
        if !self.context.runtime.is_real() {
            self.memory.volumes_ready = true;
            return Ok(());
        }
        let keys = volumes::content::references(pod);
        self.context.references.subscribe(spec::uid(pod), &keys, &self.wake);
        self.context.references.settle(&keys, PATIENCE).await;
        self.volumes.changes = self.context.references.changes();
        self.volumes.stale = false;
        self.volumes.due = None;
        self.volumes.labels.clone_from(&pod.metadata.labels);
        self.volumes.annotations.clone_from(&pod.metadata.annotations);
        let now = Timestamp::now();
        match volumes::sync(&self.context, pod, &self.facts(pod), now).await {
            Ok(due) => {
                self.volumes.due = due;
                self.memory.volumes_ready = true;
                Ok(())
            }
            Err(message) => {
                self.volumes.due = Some(now + RETRY);
                self.context.events.pod(pod, None, true, "FailedMount", message.clone());
                Err(message)
            }
        }
    }

    pub(super) async fn remove(&mut self, pod: &Pod, records: &[Record], id: &str) -> Result<(), String> {
        self.context.runtime.remove(id).await.map_err(|e| e.to_string())?;
        if let Some(record) = records.iter().find(|r| r.id == id && r.role != Role::Sandbox) {
            let _ = std::fs::remove_file(volumes::termination_file(&self.context, pod, &record.name, record.attempt));
        }
        Ok(())
    }
}
