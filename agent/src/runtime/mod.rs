//! What runs containers. Everything above this trait knows pods; everything below knows Docker, or nothing at all.
//!
//! The trait is deliberately at the level of *containers*, not of pods: which container to start, stop or replace is
//! decided by the pure planner in [`crate::pods::plan`], from what [`Runtime::containers`] says is there. A runtime
//! must not decide anything, not even a restart (Docker's own restart policy is always `no`), or two deciders would
//! race. It must also never report or touch a container that doesn't carry this cluster's and this node's ids.
//!
//! Two implementations: [`docker`] and [`hollow`], which keeps pretended containers in memory so that thousands of
//! nodes fit into one process and still go through the very same planner, status and event code.

pub mod docker;
pub mod hollow;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWrite;

/// Whose containers these are: written as labels on every container and asked for in every list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster: String,
    pub node: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The pause container that holds the pod's namespaces.
    Sandbox,
    Init,
    App,
}

/// One container as the runtime knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The runtime's own id, without scheme.
    pub id: String,
    pub pod_uid: String,
    pub pod_namespace: String,
    pub pod_name: String,
    /// The container's name in the pod; empty for the sandbox.
    pub name: String,
    pub role: Role,
    pub attempt: u32,
    /// A fingerprint of the container's part of the spec, so that a changed image is seen.
    pub spec_hash: String,
    /// The sandbox whose namespaces it joined (for the sandbox: its own id).
    pub sandbox: String,
    /// The image's name as the spec gave it, and what it resolved to.
    pub image: String,
    pub image_id: String,
    pub created_at: Timestamp,
    pub state: State,
}

impl Record {
    /// A sandbox that runs from `now` on without a process of its own (a pretended one).
    pub fn of_sandbox(id: String, spec: &SandboxSpec, now: Timestamp) -> Self {
        Self {
            sandbox: id.clone(),
            id,
            pod_uid: spec.pod_uid.clone(),
            pod_namespace: spec.pod_namespace.clone(),
            pod_name: spec.pod_name.clone(),
            name: String::new(),
            role: Role::Sandbox,
            attempt: spec.attempt,
            spec_hash: String::new(),
            image: String::new(),
            image_id: String::new(),
            created_at: now,
            state: State::Running { started_at: now, pid: 0 },
        }
    }

    /// A container that was made at `now` and not started yet.
    pub fn of_container(id: String, spec: &ContainerSpec, now: Timestamp) -> Self {
        Self {
            id,
            pod_uid: spec.pod_uid.clone(),
            pod_namespace: spec.pod_namespace.clone(),
            pod_name: spec.pod_name.clone(),
            name: spec.name.clone(),
            role: if spec.init { Role::Init } else { Role::App },
            attempt: spec.attempt,
            spec_hash: spec.spec_hash.clone(),
            sandbox: spec.sandbox.clone(),
            image: spec.image.clone(),
            image_id: spec.image_id.clone(),
            created_at: now,
            state: State::Created,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Made but never started; left by starting it or by removing it.
    Created,
    Running {
        started_at: Timestamp,
        /// The first process's id on the host, 0 when there is none (hollow).
        pid: u32,
    },
    Exited(Exit),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`.
    pub reason: String,
    pub message: String,
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
}

impl Record {
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// The host path of its network namespace, while it runs.
    pub fn netns(&self) -> Option<PathBuf> {
        match self.state {
            State::Running { pid, .. } if pid > 0 => Some(PathBuf::from(format!("/proc/{pid}/ns/net"))),
            _ => None,
        }
    }
}

/// The pause container to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxSpec {
    pub pod_uid: String,
    pub pod_namespace: String,
    pub pod_name: String,
    pub attempt: u32,
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
    pub host_pid: bool,
    pub cgroup_parent: Option<String>,
    pub sysctls: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    pub pod_uid: String,
    pub pod_namespace: String,
    pub pod_name: String,
    pub name: String,
    pub init: bool,
    pub attempt: u32,
    pub spec_hash: String,
    pub sandbox: String,
    /// The image's name as in the spec, and the id it was resolved to (what is run).
    pub image: String,
    pub image_id: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// `SIGUSR1`; without it the image's.
    pub stop_signal: Option<String>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<String>,
    pub host_network: bool,
    pub host_ipc: bool,
    pub host_pid: bool,
    pub share_process_namespace: bool,
    pub security: Security,
    pub resources: Resources,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    /// Kubernetes's words: `None`, `HostToContainer`, `Bidirectional`.
    pub propagation: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Security {
    /// `user[:group]`; without it the image's own.
    pub user: Option<String>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub seccomp: Seccomp,
    /// A profile's name or `unconfined`; without it the runtime's own.
    pub app_armor: Option<String>,
    /// `user:…`, `role:…`, `type:…`, `level:…`.
    pub se_linux: Vec<String>,
    /// The parts of /proc that runtimes hide are shown.
    pub unmasked_proc: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Also for who says nothing: safe by default.
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A profile as JSON.
    Profile(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub cpu_shares: Option<i64>,
    pub cpu_period: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub memory: Option<i64>,
    pub oom_score_adj: Option<i64>,
}

/// Who asks a registry for an image.
#[derive(Clone, Default, PartialEq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub server: String,
    pub identity_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} at {})", self.username, self.server)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageRecord {
    pub id: String,
    /// Tags and digests, the newest name first.
    pub names: Vec<String>,
    pub size: u64,
    /// `USER` of the image: a number, a name, or empty for root.
    pub user: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    /// `docker`
    pub name: String,
    pub version: String,
    pub kernel: String,
    pub os: String,
    pub arch: String,
    pub cpus: i64,
    pub memory: i64,
    /// Where images and containers lie, for the disk figures.
    pub root: PathBuf,
}

#[derive(Clone, Debug)]
pub struct ExecSpec {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A running exec or attach.
pub struct Session {
    /// Shut down to tell the process that its input has ended.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub output: BoxStream<'static, std::io::Result<Output>>,
    pub control: Box<dyn SessionControl>,
}

/// What can be done to a session beside its streams.
pub trait SessionControl: Send + Sync {
    fn resize(&self, columns: u16, rows: u16) -> BoxFuture<'_, Result<(), RuntimeError>>;
    /// The exit code, once the output has ended. For an attach: `None`.
    fn exit_code(&self) -> BoxFuture<'_, Result<Option<i32>, RuntimeError>>;
    /// Kills what the session started, by its process id on the host. An attach only lets go.
    fn kill(&self) -> BoxFuture<'_, ()>;
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    pub follow: bool,
    pub since: Option<Timestamp>,
    pub tail: Option<u64>,
    pub timestamps: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// CPU and memory of a running container, as counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_nanoseconds: u64,
    pub memory_bytes: u64,
    pub working_set_bytes: u64,
}

/// Something happened. Streams of these have gaps by nature; `Relist` says that one may just have been.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Pod(String),
    Relist,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuntimeError {
    /// Nobody answers: the daemon is down or starting.
    #[error("the container runtime is not reachable: {0}")]
    Unreachable(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    /// The start was refused: no such command, no permission.
    #[error("{0}")]
    CannotRun(String),
    #[error("{0}")]
    Other(String),
}

pub type Answer<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

pub trait Runtime: Send + Sync + 'static {
    fn info(&self) -> Answer<'_, Info>;
    /// False for pretended containers: then no volumes are written, no references fetched, no probes made.
    fn is_real(&self) -> bool {
        true
    }

    /// The mount namespace in which it looks for what it mounts into containers; `None`: this process's own.
    fn mounts(&self) -> BoxFuture<'_, Option<PathBuf>> {
        Box::pin(async { None })
    }

    /// All own containers (`pod_uid`: of one pod), in no particular order.
    fn containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<Record>>;
    /// Makes and starts the sandbox.
    fn run_sandbox<'a>(&'a self, spec: &'a SandboxSpec) -> Answer<'a, Record>;
    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> Answer<'a, String>;
    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// SIGTERM (or the image's stop signal), then SIGKILL after `grace`. Fine when it is stopped or gone already.
    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()>;
    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;

    fn images(&self) -> Answer<'_, Vec<ImageRecord>>;
    fn image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ImageRecord>>;
    fn pull<'a>(&'a self, name: &'a str, credentials: Option<Credentials>) -> Answer<'a, ()>;

    fn exec<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> Answer<'a, Session>;
    fn attach<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> Answer<'a, Session>;
    /// Ends by itself: at the log's end, or with `follow` when the container ends.
    fn logs<'a>(
        &'a self,
        id: &'a str,
        options: &'a LogOptions,
    ) -> Answer<'a, BoxStream<'static, std::io::Result<Output>>>;
    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Usage>;

    /// Changes from now on, forever; begins with `Relist` and says it again after each gap.
    fn changes(&self) -> BoxStream<'static, Change>;
}
