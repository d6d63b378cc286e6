//! Keeps the node's own Node object: made when it isn't there (also when someone deleted it while we run), its status
//! written when it says something new, and every five minutes as a heartbeat.
//!
//! What the server has is watched and compared with, not what was last written: a condition that the control plane has
//! changed (a node called silent) is so put right as soon as it is seen. The same watch brings the node's slice of the
//! pod range.

use super::context::Context;
use super::machine::{self, Disk, Ids, Measured, Pressure};
use super::object::{self, Naming};
use crate::connection::Link;
use crate::connection::backoff::Backoff;
use crate::runtime::{ImageRecord, Info};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Images are listed less often: it costs Docker more than all else here.
const LOOK_AT_IMAGES: Duration = Duration::from_secs(60);
const HEARTBEAT: Duration = Duration::from_secs(300);
/// A runtime that hangs must not hang us.
const PATIENCE: Duration = Duration::from_secs(8);

pub struct Reporter {
    context: Arc<Context>,
    link: Link,
    naming: Naming,
    api: Api<Node>,
    ids: Ids,
    memory: Pressure,
    disk: Pressure,
    runtime: Info,
    images: Vec<ImageRecord>,
    images_at: Option<Instant>,
    /// The object as the server has it; `None` while that isn't known.
    live: Option<Node>,
    beaten: Option<Instant>,
}

impl Reporter {
    pub fn new(context: Arc<Context>, link: Link, naming: Naming) -> Self {
        Self {
            api: Api::all(context.client.clone()),
            // A pretended node is no machine.
            ids: if context.runtime.is_real() { Ids::read() } else { Ids::default() },
            context,
            link,
            naming,
            memory: Pressure::default(),
            disk: Pressure::default(),
            runtime: Info::default(),
            images: Vec::new(),
            images_at: None,
            live: None,
            beaten: None,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        self.context.events.node(&self.naming.name, false, "Starting", "Starting kubelet.");
        let watch = watcher::watch_object(self.api.clone(), &self.naming.name);
        let mut nodes = std::pin::pin!(watch.backoff(Backoff::watching()));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut network = self.context.network.not_ready();
        let mut annotations = self.context.network.annotations();
        loop {
            tokio::select! {
                next = nodes.next() => match next {
                    Some(Ok(Some(node))) => self.seen(node),
                    Some(Ok(None)) => {
                        self.live = None;
                        self.register().await;
                        continue;
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the watch of the node was interrupted");
                        continue;
                    }
                    None => return,
                },
                _ = look.tick() => {}
                Ok(()) = network.changed() => {}
                Ok(()) = annotations.changed() => {}
            }
            self.report().await;
        }
    }

    fn seen(&mut self, node: Node) {
        let spec = node.spec.as_ref();
        let both = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        let first = spec.and_then(|spec| spec.pod_cidr.clone()).filter(|range| !range.is_empty());
        let ranges = if both.is_empty() { first.into_iter().collect() } else { both };
        if !ranges.is_empty() {
            self.context.network.set_ranges(&ranges);
        }
        self.live = Some(node);
    }

    /// Makes the object. When that fails, the next look or the watch brings us here again.
    async fn register(&mut self) {
        let measured = self.measure().await;
        if self.runtime.arch.is_empty() {
            // Nothing is known of the machine before its runtime has answered once; labels would be wrong for good.
            return;
        }
        let node = object::registration(&self.naming, &measured, Timestamp::now());
        match self.api.create(&PostParams::default(), &node).await {
            Ok(node) => {
                tracing::info!(node = self.naming.name, "the node is registered");
                self.seen(node);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => tracing::debug!(%error, "the node was not registered"),
        }
    }

    async fn report(&mut self) {
        let measured = self.measure().await;
        let Some(live) = self.live.clone() else {
            if self.link.is_up() {
                self.register().await;
            }
            return;
        };
        let annotations = self.context.network.annotations().borrow().clone();
        if let Some(missing) = object::missing(&self.naming, &measured, &annotations, &live) {
            match self.api.patch(&self.naming.name, &PatchParams::default(), &Patch::Merge(&missing)).await {
                Ok(node) => self.seen(node),
                Err(error) => tracing::debug!(%error, "the node's labels and annotations were not written"),
            }
        }
        let empty = NodeStatus::default();
        let told = live.status.as_ref();
        let wanted = object::status(&self.naming, &measured, told, Timestamp::now());
        let due = self.beaten.is_none_or(|at| at.elapsed() >= HEARTBEAT);
        let Some(patch) = object::patch(told.unwrap_or(&empty), &wanted, due) else { return };
        match self.api.patch_status(&self.naming.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Ok(node) => {
                for reason in object::transitions(told, &wanted) {
                    let message = format!("Node {} status is now: {reason}", self.naming.name);
                    self.context.events.node(&self.naming.name, false, reason, message);
                }
                self.beaten = Some(Instant::now());
                self.seen(node);
            }
            Err(error) => tracing::debug!(%error, "the node's status was not written"),
        }
    }

    async fn measure(&mut self) -> Measured {
        let runtime_down = self.ask_runtime().await.err();
        let (_, available) = machine::memory();
        let now = Timestamp::now();
        let real = self.context.runtime.is_real();
        let volumes = Disk::of(&self.context.data_dir);
        let short = machine::disk_is_short(volumes, Disk::of(&self.runtime.root));
        let at_once = Measured::at_once(self.link.local_address());
        let measured = Measured {
            ids: self.ids.clone(),
            cpus: if self.runtime.cpus > 0 { self.runtime.cpus } else { at_once.cpus },
            // A pretended node has no address of its own before it is connected.
            address: if real { at_once.address } else { self.link.local_address() },
            memory: if self.runtime.memory > 0 { self.runtime.memory } else { at_once.memory },
            volumes,
            // A pretended node has the pressures of a machine that isn't its own: none.
            memory_pressure: real && self.memory.look(available.is_some_and(|left| left < machine::KEPT_MEMORY), now),
            disk_pressure: real && self.disk.look(short, now),
            runtime: self.runtime.clone(),
            runtime_down,
            network_down: self.context.network.not_ready().borrow().clone(),
            images: self.images.clone(),
        };
        *self.context.machine.write() = object::machine(&measured);
        measured
    }

    async fn ask_runtime(&mut self) -> Result<(), String> {
        let late = |_| format!("no answer within {} s", PATIENCE.as_secs());
        let info = tokio::time::timeout(PATIENCE, self.context.runtime.info()).await.map_err(late)?;
        self.runtime = info.map_err(|error| error.to_string())?;
        if self.images_at.is_none_or(|at| at.elapsed() >= LOOK_AT_IMAGES) {
            let images = tokio::time::timeout(PATIENCE, self.context.runtime.images()).await.map_err(late)?;
            self.images = images.map_err(|error| error.to_string())?;
            self.images_at = Some(Instant::now());
        }
        Ok(())
    }
}
