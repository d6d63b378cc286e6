//! Starting a container: its image, its making, its start, its first hook.

use super::{RETRY, Worker, stop};
use crate::pods::backoff::go_duration;
use crate::pods::plan::{self, Blocked};
use crate::pods::references::InNamespace;
use crate::pods::{environment, images, lifecycle, resources, security, spec};
use crate::runtime::{ContainerSpec, ImageRecord, Mount, Record, RuntimeError};
use crate::volumes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::sync::Arc;
use std::time::Duration;

/// How long a failed pull is shown as such before the pod says that it waits.
const PULL_SHOWN: SignedDuration = SignedDuration::from_secs(3);
/// A `postStart` hook has no limit of its own; the pod's end is one.
const HOOK: Duration = Duration::from_secs(24 * 3600);

impl Worker {
    fn block(&mut self, name: &str, reason: &str, message: impl Into<String>, retry_at: Timestamp) {
        let blocked = Blocked { reason: reason.into(), message: message.into(), retry_at: Some(retry_at) };
        self.memory.blocked.insert(name.to_owned(), blocked);
    }

    pub(super) async fn start(
        &mut self,
        pod: &Arc<Pod>,
        records: &[Record],
        name: &str,
        init: bool,
        attempt: u32,
    ) -> Result<(), String> {
        let Some((container, _)) = spec::containers(pod).find(|(c, _)| c.name == name) else { return Ok(()) };
        let Some(sandbox) = plan::sandbox(records).filter(|s| s.is_running()).map(|s| s.id.clone()) else {
            return Ok(());
        };
        let about = Some((name, init));
        let Some(image) = self.image(pod, container, init).await? else { return Ok(()) };
        let created = match self.container(pod, container, init, attempt, sandbox, &image).await {
            Ok(spec) => match self.context.runtime.create(&spec).await {
                Ok(id) => Ok(id),
                Err(RuntimeError::Unreachable(message)) => return Err(message),
                Err(e) => Err(("CreateContainerError", e.to_string())),
            },
            Err(message) => Err(("CreateContainerConfigError", message)),
        };
        let id = match created {
            Ok(id) => id,
            Err((reason, message)) => {
                self.context.events.pod(pod, about, true, "Failed", format!("Error: {message}"));
                self.block(name, reason, message, Timestamp::now() + RETRY);
                return Ok(());
            }
        };
        self.context.events.pod(pod, about, false, "Created", "Container created");
        plan::note_start(&mut self.memory, container, plan::latest(records, name), attempt, Timestamp::now());
        match self.context.runtime.start(&id).await {
            Ok(()) => self.context.events.pod(pod, about, false, "Started", "Container started"),
            Err(RuntimeError::Unreachable(message)) => return Err(message),
            Err(e) => {
                self.context.events.pod(pod, about, true, "Failed", format!("Error: {e}"));
                self.block(name, "RunContainerError", e.to_string(), Timestamp::now() + RETRY);
                return Ok(());
            }
        }
        self.post_start(pod, container, init, &id).await;
        Ok(())
    }

    /// The hook that runs beside the container's first moments; a container whose hook fails is killed.
    async fn post_start(&mut self, pod: &Arc<Pod>, container: &Container, init: bool, id: &str) {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return };
        if !self.context.runtime.is_real() {
            return;
        }
        let Ok(records) = self.context.runtime.containers(Some(spec::uid(pod))).await else { return };
        let Some(record) = records.iter().find(|r| r.id == id && r.is_running()) else { return };
        let target = self.target(pod, record, container);
        let mut wanted = self.wanted.clone();
        let ends = wanted.wait_for(|w| w.removed || w.pod.metadata.deletion_timestamp.is_some());
        let ran = tokio::select! {
            ran = lifecycle::run(&target, hook, HOOK) => ran,
            _ = ends => return,
        };
        if let Err(error) = ran {
            let (name, about) = (container.name.as_str(), Some((container.name.as_str(), init)));
            tracing::warn!(pod = spec::name(pod), container = name, %error, "a postStart hook failed");
            self.context.events.pod(pod, about, true, "FailedPostStartHook", "PostStartHook failed");
            self.context.events.pod(pod, about, false, "Killing", "FailedPostStartHook");
            if let Err(error) = self.context.runtime.stop(id, stop::deletion_grace(pod)).await {
                tracing::warn!(container = name, %error, "a container was not stopped");
            }
            self.block(name, "PostStartHookError", error, Timestamp::now());
        }
    }

    /// The image to run. `None` when it can't be had now (the reason is noted) or is on its way.
    async fn image(&mut self, pod: &Pod, container: &Container, init: bool) -> Result<Option<ImageRecord>, String> {
        let (name, now) = (container.name.as_str(), Timestamp::now());
        let about = Some((name, init));
        let asked = container.image.clone().unwrap_or_default();
        let image = match images::normalize(&asked) {
            Ok(image) => image,
            Err(message) => {
                self.context.events.pod(pod, about, true, "InspectFailed", message.clone());
                self.context.events.pod(pod, about, true, "Failed", "Error: InvalidImageName");
                self.block(name, "InvalidImageName", message, now + RETRY);
                return Ok(None);
            }
        };
        if let Some(pulled) = self.pulls.take(name, &image) {
            return Ok(Some(pulled));
        }
        let present = self.context.runtime.image(&image).await.map_err(|e| e.to_string())?;
        match (present, images::policy(container)) {
            (Some(found), images::Policy::IfNotPresent | images::Policy::Never) => {
                let text =
                    format!("Container image \"{asked}\" already present on machine and can be accessed by the pod");
                self.context.events.pod(pod, about, false, "Pulled", text);
                return Ok(Some(found));
            }
            (None, images::Policy::Never) => {
                let text = format!("Container image \"{asked}\" is not present with pull policy of Never");
                self.context.events.pod(pod, about, true, "ErrImageNeverPull", text.clone());
                self.context.events.pod(pod, about, true, "Failed", "Error: ErrImageNeverPull");
                self.block(name, "ErrImageNeverPull", text, now + RETRY);
                return Ok(None);
            }
            _ => {}
        }
        if let Some((held, why)) = self.pulls.held(&image, now) {
            let text = format!("Back-off pulling image \"{asked}\": ErrImagePull: {why}");
            self.context.events.pod(pod, about, false, "BackOff", format!("Back-off pulling image \"{asked}\""));
            self.context.events.pod(pod, about, true, "Failed", "Error: ImagePullBackOff");
            self.block(name, "ImagePullBackOff", text, held.until);
            return Ok(None);
        }
        self.context.events.pod(pod, about, false, "Pulling", format!("Pulling image \"{asked}\""));
        let secrets = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
        let lookup = InNamespace { references: &self.context.references, namespace: spec::namespace(pod) };
        let secrets: Vec<_> =
            secrets.filter_map(|s| environment::Lookup::secret(&lookup, &s.name).ok().flatten()).collect();
        let credentials = images::credentials(&image, &secrets);
        self.pulls.start(name, &image, credentials, &self.context.runtime, &self.wake);
        self.note_pulling();
        Ok(None)
    }

    fn note_pulling(&mut self) {
        self.memory.pulling = self.pulls.containers().cloned().collect();
    }

    /// Tells of pulls that have ended.
    pub(super) fn settle_pulls(&mut self, pod: &Pod, now: Timestamp) {
        for pulled in self.pulls.ended(now) {
            let name = pulled.container.as_str();
            let found = spec::containers(pod).find(|(c, _)| c.name == name);
            let Some((container, init)) = found else { continue };
            let asked = container.image.clone().unwrap_or_default();
            let about = Some((name, init));
            match pulled.result {
                Ok(image) => {
                    let took = duration(pulled.took);
                    let text = format!(
                        "Successfully pulled image \"{asked}\" in {took} ({took} including waiting). Image size: {} bytes.",
                        image.size
                    );
                    self.context.events.pod(pod, about, false, "Pulled", text);
                    self.memory.blocked.remove(name);
                }
                Err(message) => {
                    let text = format!("Failed to pull image \"{asked}\": {message}");
                    self.context.events.pod(pod, about, true, "Failed", text);
                    self.context.events.pod(pod, about, true, "Failed", "Error: ErrImagePull");
                    self.block(name, "ErrImagePull", message, now + PULL_SHOWN);
                }
            }
        }
        self.note_pulling();
    }

    async fn container(
        &self,
        pod: &Pod,
        container: &Container,
        init: bool,
        attempt: u32,
        sandbox: String,
        image: &ImageRecord,
    ) -> Result<ContainerSpec, String> {
        let pod_spec = pod.spec.clone().unwrap_or_default();
        let lookup = InNamespace { references: &self.context.references, namespace: spec::namespace(pod) };
        let real = self.context.runtime.is_real();
        let services = self.services(pod).await?;
        let env = environment::environment(pod, container, &self.facts(pod), &services, &lookup)?;
        let mounts: Vec<Mount> = match real {
            true => volumes::mounts(&self.context, pod, container, attempt, &env).await?,
            false => Vec::new(),
        };
        let profiles = self.context.data_dir.join("seccomp");
        let profile = |path: &str| {
            let path = profiles.join(path);
            std::fs::read_to_string(&path)
                .map_err(|e| format!("cannot load seccomp profile \"{}\": {e}", path.display()))
        };
        let words =
            |list: &Option<Vec<String>>| list.iter().flatten().map(|w| environment::expand(w, &env.values)).collect();
        let memory = self.context.machine.read().memory;
        Ok(ContainerSpec {
            pod_uid: spec::uid(pod).into(),
            pod_namespace: spec::namespace(pod).into(),
            pod_name: spec::name(pod).into(),
            name: container.name.clone(),
            init,
            attempt,
            spec_hash: spec::hash(container),
            sandbox,
            image: container.image.clone().unwrap_or_default(),
            image_id: image.id.clone(),
            command: words(&container.command),
            args: words(&container.args),
            env: env.pairs(),
            working_dir: container.working_dir.clone(),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
            mounts,
            host_network: spec::host_network(pod),
            host_ipc: pod_spec.host_ipc == Some(true),
            host_pid: pod_spec.host_pid == Some(true),
            share_process_namespace: pod_spec.share_process_namespace == Some(true),
            security: security::security(pod, container, &image.user, &profile)?,
            resources: resources::resources(pod, container, memory),
            devices: Vec::new(),
        })
    }
}

/// As Go prints what took less than a minute, to the millisecond; longer ones to the second.
fn duration(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{}ms", took.as_millis()),
        1..60 => format!("{}s", took.as_millis() as f64 / 1000.0),
        seconds => go_duration(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))),
    }
}
