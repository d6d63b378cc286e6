//! Probes: whether containers have started, are alive, and are ready.
//!
//! One task for each running container; what it finds out goes into a map that the pod's worker reads when it plans. A
//! startup probe holds the others back until it succeeds. A container without probes is started and ready as soon as
//! it runs.

pub mod check;
pub mod tracker;

use crate::node::context::Context;
use crate::pods::plan::{FailedProbe, Health};
use crate::pods::spec;
use crate::runtime::{Record, State};
use check::{Outcome, Target};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracker::{Tracker, Verdict};

/// The probes of one pod.
pub struct Probes {
    health: Arc<Mutex<BTreeMap<String, Health>>>,
    tasks: BTreeMap<String, AbortOnDropHandle<()>>,
    wake: Arc<Notify>,
}

impl Probes {
    pub fn new(wake: Arc<Notify>) -> Self {
        Self { health: Arc::default(), tasks: BTreeMap::new(), wake }
    }

    /// Starts probing what runs now and stops probing what doesn't.
    ///
    /// What was said of a container that ran before this agent started (`last`) holds until its probes say otherwise: an
    /// agent's restart makes nobody unready.
    pub fn sync(
        &mut self,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        records: &[Record],
        last: &PodStatus,
        ip: Option<IpAddr>,
    ) {
        let running: Vec<&Record> = records.iter().filter(|r| r.is_running() && !r.name.is_empty()).collect();
        self.tasks.retain(|id, _| running.iter().any(|r| &r.id == id));
        self.health.lock().retain(|id, _| running.iter().any(|r| &r.id == id));
        for record in running {
            if self.tasks.contains_key(&record.id) {
                continue;
            }
            let Some((container, _)) = spec::containers(pod).find(|(c, _)| c.name == record.name) else { continue };
            let probed = context.runtime.is_real();
            let has = |probe: &Option<Probe>| probed && probe.is_some();
            let told = told(last, record);
            let started = !has(&container.startup_probe) || told.is_some_and(|s| s.started == Some(true));
            let ready = started && (!has(&container.readiness_probe) || told.is_some_and(|s| s.ready));
            self.health.lock().entry(record.id.clone()).or_insert(Health { started, ready, failed: None });
            let any =
                has(&container.startup_probe) || has(&container.readiness_probe) || has(&container.liveness_probe);
            // A pod that was adopted has its address a moment later.
            if let Some(ip) = ip.filter(|_| any) {
                let prober = Prober {
                    context: context.clone(),
                    pod: pod.clone(),
                    container: container.clone(),
                    record: record.clone(),
                    ip,
                    health: self.health.clone(),
                    wake: self.wake.clone(),
                };
                self.tasks.insert(record.id.clone(), AbortOnDropHandle::new(tokio::spawn(prober.run())));
            }
        }
    }

    pub fn health(&self) -> BTreeMap<String, Health> {
        self.health.lock().clone()
    }

    /// Nothing is probed any more: the pod is ending, and nobody shall call it unhealthy for that.
    pub fn stop(&mut self) {
        self.tasks.clear();
    }
}

/// What the last status said of this very container.
fn told<'a>(last: &'a PodStatus, record: &Record) -> Option<&'a ContainerStatus> {
    let all = last.container_statuses.iter().chain(&last.init_container_statuses).flatten();
    all.into_iter().find(|s| s.container_id.as_ref().is_some_and(|id| id.ends_with(&record.id)))
}

struct Prober {
    context: Arc<Context>,
    pod: Arc<Pod>,
    container: Container,
    record: Record,
    ip: IpAddr,
    health: Arc<Mutex<BTreeMap<String, Health>>>,
    wake: Arc<Notify>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

impl Prober {
    async fn run(self) {
        let since = match self.record.state {
            State::Running { started_at, .. } => started_at,
            _ => Timestamp::now(),
        };
        let started = self.health.lock().get(&self.record.id).is_some_and(|h| h.started);
        if let Some(probe) = &self.container.startup_probe
            && !started
            && !self.until(Kind::Startup, probe, since, |v| v == Verdict::Success).await
        {
            return;
        }
        let liveness = async {
            if let Some(probe) = &self.container.liveness_probe {
                self.until(Kind::Liveness, probe, since, |_| false).await;
            }
        };
        let readiness = async {
            if let Some(probe) = &self.container.readiness_probe {
                self.until(Kind::Readiness, probe, since, |_| false).await;
            }
        };
        tokio::join!(liveness, readiness);
    }

    /// Probes until `enough` says so (true) or the container must be killed (false).
    async fn until(&self, kind: Kind, probe: &Probe, since: Timestamp, enough: impl Fn(Verdict) -> bool) -> bool {
        let mut tracker = Tracker::new(probe, since);
        loop {
            let wait = tracker.due().duration_since(Timestamp::now());
            tokio::time::sleep(std::time::Duration::try_from(wait).unwrap_or_default()).await;
            let target = Target {
                runtime: &self.context.runtime,
                record: &self.record,
                container: &self.container,
                network: &*self.context.network,
                host_network: spec::host_network(&self.pod),
                ip: self.ip,
            };
            let outcome = check::check(&target, probe).await;
            if let Outcome::Failure(message) = &outcome {
                let init = spec::containers(&self.pod).any(|(c, init)| init && c.name == self.container.name);
                let text = format!("{} probe failed: {message}", kind.word());
                self.context.events.pod(&self.pod, Some((&self.container.name, init)), true, "Unhealthy", text);
            }
            let verdict = tracker.record(outcome == Outcome::Success, Timestamp::now());
            self.note(kind, verdict);
            if enough(verdict) {
                return true;
            }
            if verdict == Verdict::Failure && kind != Kind::Readiness {
                return false;
            }
        }
    }

    fn note(&self, kind: Kind, verdict: Verdict) {
        let mut all = self.health.lock();
        let Some(health) = all.get_mut(&self.record.id) else { return };
        let before = *health;
        match (kind, verdict) {
            (_, Verdict::Undecided) => {}
            (Kind::Startup, Verdict::Success) => {
                health.started = true;
                health.ready |= self.container.readiness_probe.is_none();
            }
            (Kind::Startup, Verdict::Failure) => health.failed = Some(FailedProbe::Startup),
            (Kind::Liveness, Verdict::Failure) => health.failed = Some(FailedProbe::Liveness),
            (Kind::Liveness, Verdict::Success) => {}
            (Kind::Readiness, verdict) => health.ready = verdict == Verdict::Success,
        }
        if *health != before {
            self.wake.notify_one();
        }
    }
}
