//! One pod's worker: looks, plans, acts, says; again and again until the pod is gone.
//!
//! All decisions are [`super::plan`]'s. What a failed step means is written into [`Memory`], from where the next plan and
//! the status read it.

mod look;
mod say;
mod services;
mod start;
mod stop;
mod volumes;

use super::admission::{self, Refusal};
use super::network::{Identity, NetworkError};
use super::plan::{self, Ending, Input, Memory, Plan, Step};
use super::pulls::Pulls;
use super::told::Told;
use super::{desired, environment, spec};
use crate::node::context::Context;
use crate::probes::Probes;
use crate::probes::check::Target;
use crate::runtime::{Record, SandboxSpec};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::api::{Api, DeleteParams, Preconditions};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// After a failure that no change will announce the end of.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// Looked at this often even when nothing is said: a deadline, a lost event.
const IDLE: Duration = Duration::from_secs(60);
/// A glance: less than anyone would see.
const GLANCE: Duration = Duration::from_millis(20);
/// Until a status is said again that the server didn't take.
const UNSAID: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Wanted {
    pub pod: Arc<Pod>,
    /// The object is gone from the server.
    pub removed: bool,
}

pub struct Worker {
    context: Arc<Context>,
    wanted: watch::Receiver<Wanted>,
    wake: Arc<Notify>,
    memory: Memory,
    probes: Probes,
    pulls: Pulls,
    volumes: volumes::Freshness,
    findings: look::Findings,
    hooks: stop::Hooks,
    refusal: Option<Refusal>,
    /// The crash loops that were told of.
    held_back: BTreeMap<String, String>,
    ips: Vec<IpAddr>,
    /// As the network knows it.
    identity: Option<Identity>,
    /// What the server knows.
    told: Told,
    last: PodStatus,
    unsaid: bool,
    /// The newest version of the object that `told` was compared with.
    heard: u64,
}

impl Worker {
    pub fn new(context: Arc<Context>, wanted: watch::Receiver<Wanted>, wake: Arc<Notify>) -> Self {
        let said = wanted.borrow().pod.status.clone().unwrap_or_default();
        Self {
            context,
            wanted,
            memory: Memory::remembered(&said),
            probes: Probes::new(wake.clone()),
            wake,
            pulls: Pulls::default(),
            volumes: volumes::Freshness::default(),
            findings: look::Findings::default(),
            hooks: stop::Hooks::default(),
            refusal: None,
            held_back: BTreeMap::new(),
            ips: Vec::new(),
            identity: None,
            last: said.clone(),
            told: Told::new(said),
            unsaid: false,
            heard: 0,
        }
    }

    /// Ends when the pod's object is gone and nothing of it runs.
    pub async fn run(mut self) {
        loop {
            let Wanted { pod, removed } = self.wanted.borrow_and_update().clone();
            self.hear(&pod);
            self.describe(&pod).await;
            let now = Timestamp::now();
            let records = match self.context.runtime.containers(Some(spec::uid(&pod))).await {
                Ok(records) => records,
                Err(e) => {
                    tracing::warn!(pod = spec::name(&pod), error = %e, "the pod's containers are not known");
                    self.pause(Some(Duration::from_secs(2))).await;
                    continue;
                }
            };
            self.look(&pod, &records).await;
            let ending = self.ending(&pod, removed, &records, now);
            self.settle_pulls(&pod, now);
            match ending {
                Some(_) => self.probes.stop(),
                None => {
                    self.refresh_volumes(&pod, &records, now).await;
                    let ip = self.addresses(&pod).first().copied();
                    self.probes.sync(&self.context, &pod, &records, &self.last, ip);
                }
            }
            let health = self.probes.health();
            let input = Input { pod: &pod, records: &records, health: &health, memory: &self.memory, ending, now };
            let plan = plan::plan(&input);
            self.tell_back_off(&pod, &plan);
            let word = self.word(&pod, &records, &plan, ending, now);
            let leaves = plan.finished && (removed || pod.metadata.deletion_timestamp.is_some());
            if !leaves && !plan.steps.is_empty() {
                self.act_and_say(&pod, &records, plan.steps, word).await;
                continue;
            }
            if let Some(word) = word {
                let answered = word.say().await;
                self.answered(answered);
            }
            if leaves {
                if self.bury(&pod, &records, removed).await {
                    return;
                }
                self.pause(Some(Duration::from_secs(2))).await;
            } else {
                let due = plan.wake_at.into_iter().chain(self.volumes.due()).min();
                let until = due.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
                self.pause(until).await;
            }
        }
    }

    async fn describe(&mut self, pod: &Pod) {
        let identity = spec::identity(pod);
        if !spec::host_network(pod) && self.identity.as_ref() != Some(&identity) {
            self.context.network.describe(spec::uid(pod), identity.clone()).await;
            self.identity = Some(identity);
        }
    }

    fn ending(&mut self, pod: &Pod, removed: bool, records: &[Record], now: Timestamp) -> Option<Ending> {
        let deadline = pod.spec.as_ref().and_then(|s| s.active_deadline_seconds).zip(self.last.start_time.as_ref());
        let ending = if removed || pod.metadata.deletion_timestamp.is_some() {
            Some(Ending::Deleted { grace: stop::deletion_grace(pod) })
        } else if pod.status.as_ref().is_some_and(spec::is_final)
            || (self.refusal.is_none() && spec::is_final(&self.last))
        {
            Some(Ending::Finished)
        } else if deadline.is_some_and(|(seconds, start)| now >= start.0 + SignedDuration::from_secs(seconds)) {
            Some(Ending::DeadlineExceeded)
        } else if self.is_refused(pod, records) {
            Some(Ending::Refused)
        } else {
            None
        };
        if ending.is_some() {
            self.memory.ending_since.get_or_insert(now);
        }
        ending
    }

    /// Asked before anything of the pod is there; what runs was admitted.
    fn is_refused(&mut self, pod: &Pod, records: &[Record]) -> bool {
        if self.refusal.is_none()
            && records.is_empty()
            && self.context.runtime.is_real()
            && let Err(refusal) = admission::admit(pod, admission::Host::measure())
        {
            self.context.events.pod(pod, None, true, &refusal.reason, refusal.message.clone());
            self.refusal = Some(refusal);
        }
        self.refusal.is_some()
    }

    /// Until something changes, or `limit` has passed.
    async fn pause(&mut self, limit: Option<Duration>) {
        let woken = async {
            tokio::select! {
                () = self.wake.notified() => {}
                _ = self.wanted.changed() => {}
            }
        };
        let longest = if self.unsaid { UNSAID } else { IDLE };
        let _ = tokio::time::timeout(limit.unwrap_or(longest).min(longest), woken).await;
    }

    /// Once for each time that a container is held back.
    fn tell_back_off(&mut self, pod: &Pod, plan: &Plan) {
        for (name, message) in &plan.crash_loops {
            if self.held_back.get(name) != Some(message) {
                let init = spec::containers(pod).any(|(c, init)| init && &c.name == name);
                let text = format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    spec::name(pod),
                    spec::namespace(pod),
                    spec::uid(pod)
                );
                self.context.events.pod(pod, Some((name, init)), true, "BackOff", text);
            }
        }
        self.held_back.clone_from(&plan.crash_loops);
    }

    /// Removes what is left and confirms the deletion; true when the pod is gone for good.
    async fn bury(&mut self, pod: &Pod, records: &[Record], removed: bool) -> bool {
        for record in records {
            if self.context.runtime.remove(&record.id).await.is_err() {
                return false;
            }
        }
        let uid = spec::uid(pod);
        if let Err(error) = self.context.network.detach(uid).await {
            tracing::warn!(pod = spec::name(pod), %error, "a pod's address was not given back");
            return false;
        }
        if let Err(error) = crate::volumes::teardown(&self.context, pod).await {
            tracing::warn!(pod = spec::name(pod), %error, "a pod's volumes were not removed");
            return false;
        }
        self.context.references.unsubscribe(uid);
        if !removed {
            let api: Api<Pod> = Api::namespaced(self.context.client.clone(), spec::namespace(pod));
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
                ..Default::default()
            };
            match api.delete(spec::name(pod), &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(_) => return false,
            }
        }
        let _ = std::fs::remove_file(desired::pod_file(&self.context.data_dir, uid));
        self.context.pods.gone(uid);
        true
    }

    /// Nothing waits for the server to have heard of it; what is done at a glance is said together with what came of it.
    async fn act_and_say(&mut self, pod: &Arc<Pod>, records: &[Record], steps: Vec<Step>, word: Option<say::Word>) {
        let answered = {
            let mut acting = std::pin::pin!(self.act(pod, records, steps));
            match (tokio::time::timeout(GLANCE, &mut acting).await, word) {
                (Ok(()), _) => None,
                (Err(_), None) => {
                    acting.await;
                    None
                }
                (Err(_), Some(word)) => Some(futures::join!(word.say(), acting).0),
            }
        };
        if let Some(answered) = answered {
            self.answered(answered);
        }
    }

    async fn act(&mut self, pod: &Arc<Pod>, records: &[Record], steps: Vec<Step>) {
        if !self.kill(pod, records, &steps).await {
            return;
        }
        for step in steps {
            let done = match step {
                Step::Kill { .. } => Ok(()),
                Step::Prepare => self.prepare_volumes(pod).await,
                Step::RunSandbox { attempt } => self.run_sandbox(pod, attempt).await,
                Step::Network { sandbox } => self.network(pod, records, &sandbox).await,
                Step::Start { name, init, attempt } => self.start(pod, records, &name, init, attempt).await,
                Step::StopSandbox { id } => self.stop_sandbox(pod, &id).await,
                Step::Remove { id } => self.remove(pod, records, &id).await,
            };
            if let Err(message) = done {
                tracing::warn!(pod = spec::name(pod), %message, "a step failed");
                self.memory.sandbox_retry_at = Some(Timestamp::now() + RETRY);
                self.pause(Some(Duration::from_secs(2))).await;
                return;
            }
        }
    }

    /// What probes and hooks look at.
    fn target<'a>(&'a self, pod: &Pod, record: &'a Record, container: &'a Container) -> Target<'a> {
        Target {
            runtime: &self.context.runtime,
            record,
            container,
            network: &*self.context.network,
            host_network: spec::host_network(pod),
            ip: self.addresses(pod).first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1])),
        }
    }

    /// The pod's addresses: its own, or the host's where it shares the host's network.
    fn addresses(&self, pod: &Pod) -> Vec<IpAddr> {
        match spec::host_network(pod) {
            true => self.context.machine.read().addresses.clone(),
            false => self.ips.clone(),
        }
    }

    fn facts(&self, pod: &Pod) -> environment::Facts {
        let ips = self.addresses(pod);
        let machine = self.context.machine.read();
        let join = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        environment::Facts {
            node_name: self.context.name.clone(),
            host_ip: machine.addresses.first().map(IpAddr::to_string).unwrap_or_default(),
            host_ips: join(&machine.addresses),
            pod_ip: ips.first().map(IpAddr::to_string).unwrap_or_default(),
            pod_ips: join(&ips),
            cpu_milli: machine.cpu_milli,
            memory: machine.memory,
        }
    }

    async fn run_sandbox(&mut self, pod: &Pod, attempt: u32) -> Result<(), String> {
        let pod_spec = pod.spec.clone().unwrap_or_default();
        let sysctls = pod_spec.security_context.and_then(|s| s.sysctls).unwrap_or_default();
        let sandbox = SandboxSpec {
            pod_uid: spec::uid(pod).into(),
            pod_namespace: spec::namespace(pod).into(),
            pod_name: spec::name(pod).into(),
            attempt,
            hostname: crate::volumes::hostname(pod),
            host_network: spec::host_network(pod),
            host_ipc: pod_spec.host_ipc == Some(true),
            host_pid: pod_spec.host_pid == Some(true),
            cgroup_parent: None,
            sysctls: sysctls.into_iter().map(|s| (s.name.replace('/', "."), s.value)).collect(),
        };
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context.events.pod(pod, None, false, "SandboxChanged", message);
        }
        let run = match admission::sandbox(pod) {
            Ok(()) => {
                self.memory.attempts.insert(String::new(), attempt + 1);
                self.context.runtime.run_sandbox(&sandbox).await.map(drop).map_err(|e| e.to_string())
            }
            Err(why) => Err(why),
        };
        run.map_err(|why| {
            let message = format!("Failed to create pod sandbox: {why}");
            self.context.events.pod(pod, None, true, "FailedCreatePodSandBox", message.clone());
            message
        })
    }

    /// A pod that is done needs no address any more, nor the host's ports.
    async fn stop_sandbox(&self, pod: &Pod, id: &str) -> Result<(), String> {
        self.context.runtime.stop(id, Duration::ZERO).await.map_err(|e| e.to_string())?;
        match spec::is_final(&self.last) {
            true => self.context.network.detach(spec::uid(pod)).await.map_err(|e| e.to_string()),
            false => Ok(()),
        }
    }

    async fn network(&mut self, pod: &Pod, records: &[Record], sandbox: &str) -> Result<(), String> {
        if !spec::host_network(pod) {
            let record = records.iter().find(|r| r.id == sandbox);
            let netns = record.and_then(Record::netns).unwrap_or_default();
            let attached = self.context.network.attach(spec::uid(pod), netns, spec::host_ports(pod)).await;
            self.ips = attached.map_err(|error| {
                let reason = match &error {
                    NetworkError::NotReady(_) => "NetworkNotReady",
                    NetworkError::Failed(_) => "FailedCreatePodSandBox",
                };
                self.context.events.pod(pod, None, true, reason, error.to_string());
                error.to_string()
            })?;
        }
        if self.context.runtime.is_real() {
            let api = self.api_address(pod).await?;
            crate::volumes::write_etc(&self.context, pod, &self.ips, api).map_err(|e| e.to_string())?;
        }
        self.memory.networked = Some(sandbox.to_owned());
        self.memory.sandbox_retry_at = None;
        Ok(())
    }
}
