//! One pod's worker: looks, plans, acts, says; again and again until the pod is gone.
//!
//! All decisions are [`super::plan`]'s. What a failed step means is written into [`Memory`], from where the next plan and
//! the status read it.

use super::plan::{self, Blocked, Ending, Input, Kill, Memory, Plan, Step};
use super::references::InNamespace;
use super::{desired, environment, images, spec, status};
use crate::node::context::Context;
use crate::probes::Probes;
use crate::runtime::{ContainerSpec, Mount, Record, Resources, RuntimeError, SandboxSpec, Security};
use crate::volumes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use longshore_api::quantity::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// After a failure that no change will announce the end of.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

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
    ips: Vec<IpAddr>,
    /// What the server has last accepted.
    said: PodStatus,
    last: PodStatus,
}

impl Worker {
    pub fn new(context: Arc<Context>, wanted: watch::Receiver<Wanted>, wake: Arc<Notify>) -> Self {
        let said = wanted.borrow().pod.status.clone().unwrap_or_default();
        let probes = Probes::new(wake.clone());
        Self { context, wanted, probes, wake, memory: Memory::default(), ips: Vec::new(), last: said.clone(), said }
    }

    /// Ends when the pod's object is gone and nothing of it runs.
    pub async fn run(mut self) {
        loop {
            let Wanted { pod, removed } = self.wanted.borrow_and_update().clone();
            let now = Timestamp::now();
            let records = match self.context.runtime.containers(Some(spec::uid(&pod))).await {
                Ok(records) => records,
                Err(e) => {
                    tracing::warn!(pod = spec::name(&pod), error = %e, "the pod's containers are not known");
                    self.pause(Some(Duration::from_secs(2))).await;
                    continue;
                }
            };
            let ending = self.ending(&pod, removed, now);
            match ending {
                Some(_) => self.probes.stop(),
                None => self.probes.sync(&self.context, &pod, &records, self.ips.first().copied()),
            }
            let health = self.probes.health();
            let input = Input { pod: &pod, records: &records, health: &health, memory: &self.memory, ending, now };
            let plan = plan::plan(&input);
            self.say(&pod, &records, &plan, ending, now).await;
            if plan.finished && (removed || pod.metadata.deletion_timestamp.is_some()) {
                if self.bury(&pod, &records, removed).await {
                    return;
                }
                self.pause(Some(Duration::from_secs(2))).await;
            } else if plan.steps.is_empty() {
                let until =
                    plan.wake_at.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
                self.pause(until).await;
            } else {
                self.act(&pod, &records, plan.steps).await;
            }
        }
    }

    fn ending(&mut self, pod: &Pod, removed: bool, now: Timestamp) -> Option<Ending> {
        let deadline = pod.spec.as_ref().and_then(|s| s.active_deadline_seconds).zip(self.last.start_time.as_ref());
        let ending = if removed || pod.metadata.deletion_timestamp.is_some() {
            let seconds = pod.metadata.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
            Some(Ending::Deleted { grace: seconds.map_or_else(|| plan::grace(pod), Duration::from_secs) })
        } else if spec::is_final(pod) {
            Some(Ending::Finished)
        } else if deadline.is_some_and(|(seconds, start)| now >= start.0 + SignedDuration::from_secs(seconds)) {
            Some(Ending::DeadlineExceeded)
        } else {
            None
        };
        if ending.is_some() {
            self.memory.ending_since.get_or_insert(now);
        }
        ending
    }

    /// Until something changes, or `limit` has passed.
    async fn pause(&mut self, limit: Option<Duration>) {
        let woken = async {
            tokio::select! {
                () = self.wake.notified() => {}
                _ = self.wanted.changed() => {}
            }
        };
        // Looked at now and then even when nothing is said: a deadline, a lost event.
        let _ =
            tokio::time::timeout(limit.unwrap_or(Duration::from_secs(60)).min(Duration::from_secs(60)), woken).await;
    }

    async fn say(&mut self, pod: &Pod, records: &[Record], plan: &Plan, ending: Option<Ending>, now: Timestamp) {
        let hosts = self.context.machine.read().addresses.clone();
        let health = self.probes.health();
        let status = status::status(&status::Input {
            pod,
            last: &self.last,
            records,
            health: &health,
            memory: &self.memory,
            crash_loops: &plan.crash_loops,
            messages: &BTreeMap::new(),
            image_ids: &BTreeMap::new(),
            ips: &self.ips,
            host_ips: &hosts,
            ending,
            finished: plan.finished,
            now,
        });
        self.last = status;
        self.context.pods.said(spec::uid(pod), &self.last);
        let Some(patch) = status::patch(spec::uid(pod), &self.said, &self.last) else { return };
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), spec::namespace(pod));
        let (params, patch) = (PatchParams::default(), Patch::Strategic(&patch));
        let write = api.patch_status(spec::name(pod), &params, &patch);
        match tokio::time::timeout(Duration::from_secs(5), write).await {
            Ok(Ok(_)) => self.said = self.last.clone(),
            Ok(Err(e)) => tracing::debug!(pod = spec::name(pod), error = %e, "a status was not written"),
            Err(_) => {}
        }
    }

    /// Removes what is left and confirms the deletion; true when the pod is gone for good.
    async fn bury(&mut self, pod: &Pod, records: &[Record], removed: bool) -> bool {
        for record in records {
            if self.context.runtime.remove(&record.id).await.is_err() {
                return false;
            }
        }
        let uid = spec::uid(pod);
        if self.context.network.detach(uid).await.is_err() || volumes::teardown(&self.context, pod).is_err() {
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

    async fn act(&mut self, pod: &Arc<Pod>, records: &[Record], steps: Vec<Step>) {
        let kills = steps.iter().filter_map(|step| match step {
            Step::Kill { id, name, why, grace } => Some(self.kill(pod, id, name, *why, *grace)),
            _ => None,
        });
        futures::future::join_all(kills).await;
        for step in steps {
            let done = match step {
                Step::Kill { .. } => Ok(()),
                Step::Prepare => self.prepare(pod).await,
                Step::RunSandbox { attempt } => self.run_sandbox(pod, attempt).await,
                Step::Network { sandbox } => self.network(pod, records, &sandbox).await,
                Step::Start { name, init, attempt } => self.start(pod, records, &name, init, attempt).await,
                Step::StopSandbox { id } => {
                    self.context.runtime.stop(&id, Duration::ZERO).await.map_err(|e| e.to_string())
                }
                Step::Remove { id } => self.context.runtime.remove(&id).await.map_err(|e| e.to_string()),
            };
            if let Err(message) = done {
                tracing::warn!(pod = spec::name(pod), %message, "a step failed");
                self.memory.sandbox_retry_at = Some(Timestamp::now() + RETRY);
                self.pause(Some(Duration::from_secs(2))).await;
                return;
            }
        }
    }

    async fn kill(&self, pod: &Pod, id: &str, name: &str, why: Kill, grace: Duration) {
        let init = spec::containers(pod).any(|(c, init)| init && c.name == name);
        let message = match why {
            Kill::Changed => format!("Container {name} definition changed, will be restarted"),
            Kill::Probe(plan::FailedProbe::Liveness) => {
                format!("Container {name} failed liveness probe, will be restarted")
            }
            Kill::Probe(plan::FailedProbe::Startup) => {
                format!("Container {name} failed startup probe, will be restarted")
            }
            _ => format!("Stopping container {name}"),
        };
        self.context.events.pod(pod, Some((name, init)), false, "Killing", message);
        if let Err(e) = self.context.runtime.stop(id, grace).await {
            tracing::warn!(container = name, error = %e, "a container was not stopped");
        }
    }

    fn facts(&self, pod: &Pod) -> environment::Facts {
        let machine = self.context.machine.read();
        let join = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        let ips = if spec::host_network(pod) { &machine.addresses } else { &self.ips };
        environment::Facts {
            node_name: self.context.name.clone(),
            host_ip: machine.addresses.first().map(IpAddr::to_string).unwrap_or_default(),
            host_ips: join(&machine.addresses),
            pod_ip: ips.first().map(IpAddr::to_string).unwrap_or_default(),
            pod_ips: join(ips),
            cpu_milli: machine.cpu_milli,
            memory: machine.memory,
        }
    }

    async fn prepare(&mut self, pod: &Pod) -> Result<(), String> {
        if self.context.runtime.is_real() {
            let keys = volumes::content::references(pod);
            self.context.references.subscribe(spec::uid(pod), &keys, &self.wake);
            self.context.references.settle(&keys, Duration::from_secs(3)).await;
            if let Err(message) = volumes::sync(&self.context, pod, &self.facts(pod), Timestamp::now()).await {
                self.context.events.pod(pod, None, true, "FailedMount", message.clone());
                return Err(message);
            }
        }
        self.memory.volumes_ready = true;
        Ok(())
    }

    async fn run_sandbox(&mut self, pod: &Pod, attempt: u32) -> Result<(), String> {
        let pod_spec = pod.spec.clone().unwrap_or_default();
        let sandbox = SandboxSpec {
            pod_uid: spec::uid(pod).into(),
            pod_namespace: spec::namespace(pod).into(),
            pod_name: spec::name(pod).into(),
            attempt,
            hostname: volumes::hostname(pod),
            host_network: spec::host_network(pod),
            host_ipc: pod_spec.host_ipc == Some(true),
            host_pid: pod_spec.host_pid == Some(true),
            ..Default::default()
        };
        self.memory.attempts.insert(String::new(), attempt + 1);
        self.context.runtime.run_sandbox(&sandbox).await.map(drop).map_err(|e| {
            let message = format!("Failed to create pod sandbox: {e}");
            self.context.events.pod(pod, None, true, "FailedCreatePodSandBox", message.clone());
            message
        })
    }

    async fn network(&mut self, pod: &Pod, records: &[Record], sandbox: &str) -> Result<(), String> {
        if !spec::host_network(pod) {
            let record = records.iter().find(|r| r.id == sandbox);
            let netns = record.and_then(Record::netns).unwrap_or_default();
            self.ips = self.context.network.attach(spec::uid(pod), netns).await.map_err(|e| e.to_string())?;
        }
        if self.context.runtime.is_real() {
            volumes::write_etc(&self.context, pod, &self.ips).map_err(|e| e.to_string())?;
        }
        self.memory.networked = Some(sandbox.to_owned());
        self.memory.sandbox_retry_at = None;
        Ok(())
    }

    fn block(&mut self, name: &str, reason: &str, message: String) {
        let retry_at = Some(Timestamp::now() + RETRY);
        self.memory.blocked.insert(name.to_owned(), Blocked { reason: reason.into(), message, retry_at });
    }

    async fn start(
        &mut self,
        pod: &Arc<Pod>,
        records: &[Record],
        name: &str,
        init: bool,
        attempt: u32,
    ) -> Result<(), String> {
        let Some((container, _)) = spec::containers(pod).find(|(c, _)| c.name == name) else { return Ok(()) };
        let container = container.clone();
        let Some(sandbox) = plan::sandbox(records).filter(|s| s.is_running()).map(|s| s.id.clone()) else {
            return Ok(());
        };
        let about = Some((name, init));
        let Some((image, image_id)) = self.image(pod, &container, init).await else { return Ok(()) };
        let created = match self.container(pod, &container, init, attempt, sandbox, image, image_id) {
            Ok(spec) => self.context.runtime.create(&spec).await.map_err(|e| ("CreateContainerError", e.to_string())),
            Err(message) => Err(("CreateContainerConfigError", message)),
        };
        let id = match created {
            Ok(id) => id,
            Err((reason, message)) => {
                self.context.events.pod(pod, about, true, "Failed", format!("Error: {message}"));
                self.block(name, reason, message);
                return Ok(());
            }
        };
        self.context.events.pod(pod, about, false, "Created", "Container created");
        plan::note_start(&mut self.memory, &container, plan::latest(records, name), attempt, Timestamp::now());
        match self.context.runtime.start(&id).await {
            Ok(()) => self.context.events.pod(pod, about, false, "Started", "Container started"),
            Err(RuntimeError::Unreachable(message)) => return Err(message),
            Err(e) => {
                self.context.events.pod(pod, about, true, "Failed", format!("Error: {e}"));
                self.block(name, "RunContainerError", e.to_string());
            }
        }
        Ok(())
    }

    /// The image to run, pulled as the policy says; `None` when it can't be had now, with the reason noted.
    async fn image(&mut self, pod: &Pod, container: &Container, init: bool) -> Option<(String, String)> {
        let name = &container.name;
        let about = Some((name.as_str(), init));
        let asked = container.image.clone().unwrap_or_default();
        let image = match images::normalize(&asked) {
            Ok(image) => image,
            Err(message) => {
                self.context.events.pod(pod, about, true, "InspectFailed", message.clone());
                self.block(name, "InvalidImageName", message);
                return None;
            }
        };
        let runtime = self.context.runtime.clone();
        let present = runtime.image(&image).await.ok().flatten();
        let policy = images::policy(container);
        match (present, policy) {
            (Some(found), images::Policy::IfNotPresent | images::Policy::Never) => {
                let text =
                    format!("Container image \"{asked}\" already present on machine and can be accessed by the pod");
                self.context.events.pod(pod, about, false, "Pulled", text);
                return Some((asked, found.id));
            }
            (None, images::Policy::Never) => {
                let text = format!("Container image \"{asked}\" is not present with pull policy of Never");
                self.context.events.pod(pod, about, true, "ErrImageNeverPull", text.clone());
                self.block(name, "ErrImageNeverPull", text);
                return None;
            }
            _ => {}
        }
        self.context.events.pod(pod, about, false, "Pulling", format!("Pulling image \"{asked}\""));
        let secrets = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
        let lookup = InNamespace { references: &self.context.references, namespace: spec::namespace(pod) };
        let secrets: Vec<_> =
            secrets.filter_map(|s| environment::Lookup::secret(&lookup, &s.name).ok().flatten()).collect();
        let credentials = images::credentials(&image, &secrets).into_iter().next();
        let pulled = runtime.pull(&image, credentials).await;
        match (pulled, runtime.image(&image).await) {
            (Ok(()), Ok(Some(found))) => {
                self.context.events.pod(pod, about, false, "Pulled", format!("Successfully pulled image \"{asked}\""));
                Some((asked, found.id))
            }
            (failed, _) => {
                let message = failed.err().map_or_else(|| "the image vanished".into(), |e| e.to_string());
                let text = format!("Failed to pull image \"{asked}\": {message}");
                self.context.events.pod(pod, about, true, "Failed", text.clone());
                self.context.events.pod(pod, about, true, "Failed", "Error: ErrImagePull");
                self.block(name, "ErrImagePull", text);
                None
            }
        }
    }

    fn container(
        &self,
        pod: &Pod,
        container: &Container,
        init: bool,
        attempt: u32,
        sandbox: String,
        image: String,
        image_id: String,
    ) -> Result<ContainerSpec, String> {
        let lookup = InNamespace { references: &self.context.references, namespace: spec::namespace(pod) };
        let env = environment::environment(pod, container, &self.facts(pod), &[], &lookup)?;
        let mounts: Vec<Mount> = match self.context.runtime.is_real() {
            true => volumes::mounts(&self.context, pod, container, attempt, &env)?,
            false => Vec::new(),
        };
        let words =
            |list: &Option<Vec<String>>| list.iter().flatten().map(|w| environment::expand(w, &env.values)).collect();
        Ok(ContainerSpec {
            pod_uid: spec::uid(pod).into(),
            pod_namespace: spec::namespace(pod).into(),
            pod_name: spec::name(pod).into(),
            name: container.name.clone(),
            init,
            attempt,
            spec_hash: spec::hash(container),
            sandbox,
            image,
            image_id,
            command: words(&container.command),
            args: words(&container.args),
            env: env.pairs(),
            working_dir: container.working_dir.clone(),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            mounts,
            host_network: spec::host_network(pod),
            host_ipc: pod.spec.as_ref().and_then(|s| s.host_ipc) == Some(true),
            host_pid: pod.spec.as_ref().and_then(|s| s.host_pid) == Some(true),
            share_process_namespace: pod.spec.as_ref().and_then(|s| s.share_process_namespace) == Some(true),
            security: security(pod, container),
            resources: resources(container),
            devices: Vec::new(),
        })
    }
}

/// The container's security context over the pod's.
fn security(pod: &Pod, container: &Container) -> Security {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let seccomp = own.seccomp_profile.or(of_pod.seccomp_profile);
    Security {
        user: own.run_as_user.or(of_pod.run_as_user),
        group: own.run_as_group.or(of_pod.run_as_group),
        supplemental_groups: of_pod.supplemental_groups.into_iter().flatten().chain(of_pod.fs_group).collect(),
        privileged: own.privileged == Some(true),
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp: seccomp.map(|p| match p.localhost_profile {
            Some(path) => format!("Localhost:{path}"),
            None => p.type_,
        }),
    }
}

/// Processor time and memory as the kernel counts them; a request without a limit only weighs.
fn resources(container: &Container) -> Resources {
    let given = container.resources.clone().unwrap_or_default();
    let (limits, requests) = (given.limits.unwrap_or_default(), given.requests.unwrap_or_default());
    let amount = |q: Option<&Amount>| q.and_then(|q| Quantity::parse(&q.0).ok());
    let cpu = amount(limits.get("cpu")).map(|q| q.milli_value()).filter(|m| *m > 0);
    let asked = amount(requests.get("cpu")).map(|q| q.milli_value()).or(cpu).unwrap_or(0);
    Resources {
        cpu_shares: Some((asked * 1024 / 1000).max(2)),
        cpu_period: cpu.map(|_| 100_000),
        cpu_quota: cpu.map(|milli| (milli * 100).max(1000)),
        memory: amount(limits.get("memory")).map(|q| q.value()).filter(|m| *m > 0),
        oom_score_adj: None,
    }
}
