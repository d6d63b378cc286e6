//! Docker, through bollard, as it is on people's machines: 20.10 (API 1.41) and newer, cgroup v1 and v2.
//!
//! Invariant: nothing here lists, stops or removes a container without this cluster's and this node's labels
//! ([`labels::filter`] for lists; ids given to the other calls come from those lists).
//!
//! The daemon may be away when the agent starts and whenever it likes later: every call says `Unreachable` then, and
//! the stream of changes begins again with `Relist` once it is back.

mod create;
mod daemon;
mod hijack;
mod labels;
mod pause;
mod session;

use super::*;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters as query;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// Calls that answer at once by nature must do so within this; creating a container on a slow disk is the longest.
const TIMEOUT_SECONDS: u64 = 120;
/// How many containers are inspected at the same time after a list.
const PARALLEL_INSPECTS: usize = 8;
/// How long a killed container may take to be reported dead.
const DEATH: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub struct Docker {
    inner: Arc<Inner>,
}

struct Inner {
    socket: PathBuf,
    owner: Owner,
    /// Connected and its API version agreed upon; `None` until the daemon answered for the first time.
    api: Mutex<Option<bollard::Docker>>,
}

impl Docker {
    /// `host`: `unix:///var/run/docker.sock` or a path. Doesn't connect yet.
    pub fn new(host: &str, owner: Owner) -> Result<Self, RuntimeError> {
        let path = match host.split_once("://") {
            None => host,
            Some(("unix", path)) => path,
            Some((scheme, _)) => {
                return Err(RuntimeError::Other(format!(
                    "docker host {host}: only unix sockets are supported, not {scheme}"
                )));
            }
        };
        Ok(Self { inner: Arc::new(Inner { socket: path.into(), owner, api: Mutex::new(None) }) })
    }

    async fn api(&self) -> Result<bollard::Docker, RuntimeError> {
        let mut api = self.inner.api.lock().await;
        if let Some(api) = &*api {
            return Ok(api.clone());
        }
        let socket = self.inner.socket.to_string_lossy();
        let connected = bollard::Docker::connect_with_unix(&socket, TIMEOUT_SECONDS, bollard::API_DEFAULT_VERSION)
            .map_err(|e| RuntimeError::Unreachable(e.to_string()))?;
        let negotiated = connected.negotiate_version().await.map_err(error)?;
        Ok(api.insert(negotiated).clone())
    }

    /// A path with the version agreed upon, for requests outside bollard.
    async fn path(&self, rest: &str) -> Result<String, RuntimeError> {
        let version = self.api().await?.client_version();
        Ok(format!("/v{}.{}{rest}", version.major_version, version.minor_version))
    }

    async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, RuntimeError> {
        self.api().await?.inspect_container(id, None).await.map_err(error)
    }

    /// One record, or `None` when the container isn't ours or went away meanwhile.
    async fn record(&self, id: &str) -> Result<Option<Record>, RuntimeError> {
        match self.inspect(id).await {
            Ok(inspected) => Ok(record(&self.inner.owner, inspected)),
            Err(RuntimeError::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Record>, RuntimeError> {
        let options = query::ListContainersOptions {
            all: true,
            filters: Some(labels::filter(&self.inner.owner, pod_uid)),
            ..Default::default()
        };
        let found = self.api().await?.list_containers(Some(options)).await.map_err(error)?;
        let ids = found.into_iter().filter_map(|c| c.id);
        let mut records = futures::stream::iter(ids)
            .map(|id| async move { self.record(&id).await })
            .buffer_unordered(PARALLEL_INSPECTS)
            .try_filter_map(|r| async move { Ok(r) })
            .try_collect::<Vec<_>>()
            .await?;
        records.sort_by(|a, b| (a.role, &a.name, a.attempt).cmp(&(b.role, &b.name, b.attempt)));
        Ok(records)
    }

    /// Waits until the container is dead, at most `limit`; true when it is.
    async fn dead_within(&self, id: &str, limit: Duration) -> Result<bool, RuntimeError> {
        let api = self.api().await?;
        let options = query::WaitContainerOptions { condition: "not-running".into() };
        let mut wait = std::pin::pin!(api.wait_container(id, Some(options)));
        match tokio::time::timeout(limit, wait.next()).await {
            Err(_) => Ok(false),
            Ok(_) => Ok(!self.record(id).await?.is_some_and(|r| r.is_running())),
        }
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<(), RuntimeError> {
        let options = query::KillContainerOptions { signal: signal.into() };
        match self.api().await?.kill_container(id, Some(options)).await.map_err(error) {
            // Not running (any more), or gone.
            Err(RuntimeError::Conflict(_) | RuntimeError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn stop_in(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let inspected = match self.inspect(id).await {
            Err(RuntimeError::NotFound(_)) => return Ok(()),
            other => other?,
        };
        if inspected.state.as_ref().and_then(|s| s.running) != Some(true) {
            return Ok(());
        }
        let signal = inspected.config.and_then(|c| c.stop_signal).unwrap_or_else(|| "SIGTERM".into());
        if !grace.is_zero() {
            self.signal(id, &signal).await?;
            if self.dead_within(id, grace).await? {
                return Ok(());
            }
        }
        self.signal(id, "SIGKILL").await?;
        match self.dead_within(id, DEATH).await? {
            true => Ok(()),
            false => Err(RuntimeError::Other(format!("container {id} doesn't die"))),
        }
    }

    async fn ensure_pause(&self) -> Result<(), RuntimeError> {
        let api = self.api().await?;
        match api.inspect_image(&pause::image()).await.map_err(error) {
            Err(RuntimeError::NotFound(_)) => {}
            other => return other.map(|_| ()),
        }
        let options = query::CreateImageOptions {
            from_src: Some("-".into()),
            repo: Some(pause::REPOSITORY.into()),
            tag: Some(pause::tag()),
            changes: vec![r#"ENTRYPOINT ["/pause"]"#.into()],
            ..Default::default()
        };
        let body = bollard::body_full(pause::archive().into());
        api.create_image(Some(options), Some(body), None).try_for_each(|_| async { Ok(()) }).await.map_err(error)
    }

    async fn run_pause(&self, spec: &SandboxSpec) -> Result<Record, RuntimeError> {
        self.ensure_pause().await?;
        let id = self.create_named(create::sandbox_name(spec), create::sandbox(&self.inner.owner, spec)).await?;
        if let Err(e) = self.api().await?.start_container(&id, None).await.map_err(error) {
            // A sandbox that never ran is nobody's evidence.
            let _ = self.remove_forced(&id).await;
            return Err(e);
        }
        self.record(&id).await?.ok_or_else(|| RuntimeError::Other("the sandbox vanished".into()))
    }

    /// Creates it; a leftover of ours with the same name (an agent that died in between) is removed first.
    async fn create_named(
        &self,
        name: String,
        mut body: bollard::models::ContainerCreateBody,
    ) -> Result<String, RuntimeError> {
        let api = self.api().await?;
        if let Some(score) = body.host_config.as_mut().and_then(|host| host.oom_score_adj.as_mut()) {
            *score = (*score).max(daemon::lowest_oom_score_adj(&self.inner.socket).await);
        }
        let options = query::CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        match api.create_container(Some(options.clone()), body.clone()).await.map_err(error) {
            Err(RuntimeError::Conflict(message)) => match self.record(&name).await? {
                Some(leftover) if !leftover.is_running() => {
                    self.remove_forced(&leftover.id).await?;
                    api.create_container(Some(options), body).await.map(|c| c.id).map_err(error)
                }
                _ => Err(RuntimeError::Conflict(message)),
            },
            other => other.map(|c| c.id),
        }
    }

    async fn remove_forced(&self, id: &str) -> Result<(), RuntimeError> {
        let options = query::RemoveContainerOptions { force: true, v: true, link: false };
        match self.api().await?.remove_container(id, Some(options)).await.map_err(error) {
            // Gone, or being removed already.
            Err(RuntimeError::NotFound(_) | RuntimeError::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    async fn watch(self, changes: tokio::sync::mpsc::Sender<Change>) {
        let mut pause = Duration::from_millis(100);
        loop {
            if let Ok(api) = self.api().await
                && api.ping().await.is_ok()
            {
                let mut filters = labels::filter(&self.inner.owner, None);
                filters.insert("type".into(), vec!["container".into()]);
                let options = query::EventsOptions { filters: Some(filters), ..Default::default() };
                let mut events = std::pin::pin!(api.events(Some(options)));
                // Asked for only after the subscription's request was polled once, so that nothing falls in between.
                let mut first = events.next().now_or_never();
                if changes.send(Change::Relist).await.is_err() {
                    return;
                }
                pause = Duration::from_millis(100);
                loop {
                    let event = match first.take() {
                        Some(event) => event,
                        None => events.next().await,
                    };
                    let Some(Ok(event)) = event else { break };
                    let acts = matches!(event.action.as_deref(), Some("die" | "oom" | "destroy" | "start"));
                    let uid = event.actor.and_then(|a| a.attributes).and_then(|mut a| a.remove(labels::POD_UID));
                    if let (true, Some(uid)) = (acts, uid)
                        && changes.send(Change::Pod(uid)).await.is_err()
                    {
                        return;
                    }
                }
                // The daemon went away: whoever waits for a death must look.
                if changes.send(Change::Relist).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// What Docker's errors mean to the planner.
fn error(e: DockerError) -> RuntimeError {
    match e {
        DockerError::DockerResponseServerError { status_code: 404, message } => RuntimeError::NotFound(message),
        DockerError::DockerResponseServerError { status_code: 409, message } => RuntimeError::Conflict(message),
        DockerError::DockerResponseServerError { message, .. } => RuntimeError::Other(message),
        DockerError::DockerStreamError { error } => RuntimeError::Other(error),
        DockerError::JsonDataError { .. } | DockerError::APIVersionParseError {} => RuntimeError::Other(e.to_string()),
        other => RuntimeError::Unreachable(other.to_string()),
    }
}

/// Docker writes the zero time for "never".
fn time(text: Option<&String>) -> Option<Timestamp> {
    text.and_then(|t| t.parse::<Timestamp>().ok()).filter(|t| t.as_second() > 0)
}

fn record(owner: &Owner, inspected: ContainerInspectResponse) -> Option<Record> {
    let id = inspected.id?;
    let labels = inspected.config.and_then(|c| c.labels)?;
    let own = labels::read(owner, &id, &labels)?;
    let created_at = time(inspected.created.as_ref()).unwrap_or(Timestamp::UNIX_EPOCH);
    let state = inspected.state.unwrap_or_default();
    let started_at = time(state.started_at.as_ref());
    let code = state.exit_code.unwrap_or(0) as i32;
    let state = match state.status {
        // Paused behind our back is still a running process as far as a pod is concerned.
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => State::Running {
            started_at: started_at.unwrap_or(created_at),
            pid: state.pid.and_then(|p| u32::try_from(p).ok()).unwrap_or(0),
        },
        // A start that was refused leaves the container as created, with a code and an error.
        Some(ContainerStateStatusEnum::CREATED) if code != 0 => State::Exited(Exit {
            code,
            reason: "ContainerCannotRun".into(),
            message: state.error.unwrap_or_default(),
            started_at: Some(created_at),
            finished_at: created_at,
        }),
        Some(ContainerStateStatusEnum::CREATED) => State::Created,
        _ => State::Exited(Exit {
            code,
            reason: match (state.oom_killed, code) {
                (Some(true), _) => "OOMKilled",
                (_, 0) => "Completed",
                _ => "Error",
            }
            .into(),
            message: state.error.unwrap_or_default(),
            started_at,
            finished_at: time(state.finished_at.as_ref()).unwrap_or(created_at),
        }),
    };
    Some(Record {
        id,
        pod_uid: own.pod_uid,
        pod_namespace: own.pod_namespace,
        pod_name: own.pod_name,
        name: own.name,
        role: own.role,
        attempt: own.attempt,
        spec_hash: own.spec_hash,
        sandbox: own.sandbox,
        image: own.image,
        image_id: inspected.image.unwrap_or_default(),
        created_at,
        state,
    })
}

impl Runtime for Docker {
    fn info(&self) -> Answer<'_, Info> {
        async {
            let info = self.api().await?.info().await.map_err(error)?;
            Ok(Info {
                name: "docker".into(),
                version: info.server_version.unwrap_or_default(),
                kernel: info.kernel_version.unwrap_or_default(),
                os: info.operating_system.unwrap_or_default(),
                arch: info.architecture.unwrap_or_default(),
                cpus: info.ncpu.unwrap_or_default(),
                memory: info.mem_total.unwrap_or_default(),
                root: info.docker_root_dir.unwrap_or_else(|| "/var/lib/docker".into()).into(),
            })
        }
        .boxed()
    }

    fn mounts(&self) -> BoxFuture<'_, Option<PathBuf>> {
        async { daemon::pid(&self.inner.socket).await.map(|pid| format!("/proc/{pid}/ns/mnt").into()) }.boxed()
    }

    fn containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<Record>> {
        self.list(pod_uid).boxed()
    }

    fn run_sandbox<'a>(&'a self, spec: &'a SandboxSpec) -> Answer<'a, Record> {
        self.run_pause(spec).boxed()
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> Answer<'a, String> {
        let body = create::container(&self.inner.owner, spec);
        self.create_named(create::container_name(spec), body).boxed()
    }

    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        async move {
            match self.api().await?.start_container(id, None).await {
                Err(DockerError::DockerResponseServerError { message, .. }) => Err(RuntimeError::CannotRun(message)),
                other => other.map_err(error),
            }
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()> {
        self.stop_in(id, grace).boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.remove_forced(id).boxed()
    }

    fn images(&self) -> Answer<'_, Vec<ImageRecord>> {
        async {
            let images = self.api().await?.list_images(None::<query::ListImagesOptions>).await.map_err(error)?;
            Ok(images
                .into_iter()
                .map(|image| ImageRecord {
                    id: image.id,
                    names: image
                        .repo_digests
                        .into_iter()
                        .chain(image.repo_tags)
                        .filter(|name| !name.starts_with("<none>") && !name.ends_with("<none>"))
                        .collect(),
                    size: image.size.max(0) as u64,
                    user: String::new(),
                })
                .collect())
        }
        .boxed()
    }

    fn image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ImageRecord>> {
        async move {
            match self.api().await?.inspect_image(name).await.map_err(error) {
                Ok(image) => Ok(Some(ImageRecord {
                    id: image.id.unwrap_or_default(),
                    names: image
                        .repo_digests
                        .into_iter()
                        .flatten()
                        .chain(image.repo_tags.into_iter().flatten())
                        .collect(),
                    size: image.size.unwrap_or(0).max(0) as u64,
                    user: image.config.and_then(|c| c.user).unwrap_or_default(),
                })),
                Err(RuntimeError::NotFound(_)) => Ok(None),
                Err(e) => Err(e),
            }
        }
        .boxed()
    }

    fn pull<'a>(&'a self, name: &'a str, credentials: Option<Credentials>) -> Answer<'a, ()> {
        async move {
            let options = query::CreateImageOptions { from_image: Some(name.into()), ..Default::default() };
            let credentials = credentials.map(|c| bollard::auth::DockerCredentials {
                username: Some(c.username).filter(|s| !s.is_empty()),
                password: Some(c.password).filter(|s| !s.is_empty()),
                serveraddress: Some(c.server).filter(|s| !s.is_empty()),
                identitytoken: Some(c.identity_token).filter(|s| !s.is_empty()),
                ..Default::default()
            });
            let api = self.api().await?;
            api.create_image(Some(options), None, credentials).try_for_each(|_| async { Ok(()) }).await.map_err(error)
        }
        .boxed()
    }

    fn exec<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> Answer<'a, Session> {
        session::exec(self, id, spec).boxed()
    }

    fn attach<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> Answer<'a, Session> {
        session::attach(self, id, spec).boxed()
    }

    fn logs<'a>(
        &'a self,
        id: &'a str,
        options: &'a LogOptions,
    ) -> Answer<'a, BoxStream<'static, std::io::Result<Output>>> {
        async move {
            let tty = self.inspect(id).await?.config.and_then(|c| c.tty) == Some(true);
            let mut path = self.path(&format!("/containers/{id}/logs?")).await?;
            let flag = |b: bool| if b { "1" } else { "0" };
            path += &format!(
                "follow={}&stdout={}&stderr={}&timestamps={}",
                flag(options.follow),
                flag(options.stdout),
                flag(options.stderr),
                flag(options.timestamps)
            );
            if let Some(since) = options.since {
                path += &format!("&since={}.{:09}", since.as_second(), since.subsec_nanosecond());
            }
            if let Some(tail) = options.tail {
                path += &format!("&tail={tail}");
            }
            hijack::read(&self.inner.socket, &path, tty).await
        }
        .boxed()
    }

    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Usage> {
        async move {
            let options = query::StatsOptions { stream: false, one_shot: true };
            let api = self.api().await?;
            let stats = std::pin::pin!(api.stats(id, Some(options)))
                .try_next()
                .await
                .map_err(error)?
                .ok_or_else(|| RuntimeError::NotFound(format!("no figures for {id}")))?;
            let memory = stats.memory_stats.unwrap_or_default();
            let bytes = memory.usage.unwrap_or(0);
            let figure = |name: &str| memory.stats.as_ref().and_then(|s| s.get(name)).copied();
            let inactive = figure("total_inactive_file").or_else(|| figure("inactive_file")).unwrap_or(0);
            Ok(Usage {
                cpu_nanoseconds: stats.cpu_stats.and_then(|c| c.cpu_usage).and_then(|u| u.total_usage).unwrap_or(0),
                memory_bytes: bytes,
                working_set_bytes: bytes.saturating_sub(inactive),
            })
        }
        .boxed()
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let (sender, receiver) = tokio::sync::mpsc::channel(256);
        let task = AbortOnDropHandle::new(tokio::spawn(self.clone().watch(sender)));
        futures::stream::unfold((receiver, task), |(mut receiver, task)| async move {
            receiver.recv().await.map(|change| (change, (receiver, task)))
        })
        .boxed()
    }
}
