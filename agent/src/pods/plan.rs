//! What to do next for a pod: a pure function of the desired pod, the containers that are there, and the time.
//!
//! It is level-triggered: the worker carries out a plan's steps, looks again, and plans again, until there is nothing to
//! do before [`Plan::wake_at`]. So a plan never has to say "and then"; an agent that died between two steps, a container
//! killed behind its back and an ordinary start are all the same case. The rules are the kubelet's: a dead sandbox
//! means the whole pod is made anew, init containers run in order in the sandbox of today, restarts follow the policy
//! and back off.

use super::backoff::{Backoff, go_duration};
use super::spec;
use crate::runtime::{Record, Role};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a prober has found out about one running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The startup probe passed, or there is none.
    pub started: bool,
    pub ready: bool,
    /// A liveness or startup probe wants the container killed.
    pub failed: Option<FailedProbe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedProbe {
    Liveness,
    Startup,
}

/// What the worker remembers between two plans. Lost with the agent, except for what is seeded from the last status.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Restarts, by container name and spec hash.
    pub restarts: Backoff,
    /// Attempts known of, also of containers whose record is gone.
    pub attempts: BTreeMap<String, u32>,
    /// Why a container isn't started, and when it may be tried again (`None`: when something changes).
    pub blocked: BTreeMap<String, Blocked>,
    /// Containers whose image is being pulled right now.
    pub pulling: BTreeSet<String>,
    /// When a sandbox may be tried again after a failure.
    pub sandbox_retry_at: Option<Timestamp>,
    /// The sandbox whose network is complete, by id.
    pub networked: Option<String>,
    /// Volumes, tokens and references are in place.
    pub volumes_ready: bool,
    /// When termination began, for what is left of the grace period.
    pub ending_since: Option<Timestamp>,
}

impl Memory {
    /// What an agent that starts again knows from the last status: how often each container was started, also where the
    /// containers themselves are gone.
    pub fn remembered(status: &PodStatus) -> Self {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let started = all.filter(|s| s.container_id.as_deref().is_some_and(|id| !id.is_empty()));
        let attempts = started.map(|s| (s.name.clone(), u32::try_from(s.restart_count).unwrap_or(0))).collect();
        Self { attempts, ..Self::default() }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    pub reason: String,
    pub message: String,
    pub retry_at: Option<Timestamp>,
}

/// Why a pod must end although its containers don't want to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `deletionTimestamp` is set, or the object is gone: with this grace.
    Deleted { grace: Duration },
    /// `activeDeadlineSeconds` has passed.
    DeadlineExceeded,
    /// The last status that was written is final: an agent that starts again must not run the pod once more.
    Finished,
    /// This node doesn't run it at all.
    Refused,
}

pub struct Input<'a> {
    pub pod: &'a Pod,
    pub records: &'a [Record],
    pub health: &'a BTreeMap<String, Health>,
    pub memory: &'a Memory,
    pub ending: Option<Ending>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Volumes and references, before anything that mounts them.
    Prepare,
    RunSandbox {
        attempt: u32,
    },
    /// The sandbox runs without a complete network (agent restarted in between, or the first attempt failed).
    Network {
        sandbox: String,
    },
    Start {
        name: String,
        init: bool,
        attempt: u32,
    },
    Kill {
        id: String,
        name: String,
        why: Kill,
        grace: Duration,
    },
    StopSandbox {
        id: String,
    },
    Remove {
        id: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    Ending,
    SandboxGone,
    Changed,
    Probe(FailedProbe),
    /// It is no container of this pod's spec, or a duplicate.
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be carried out now; kills side by side, everything else in order.
    pub steps: Vec<Step>,
    /// Containers held back by their crashes: name to message.
    pub crash_loops: BTreeMap<String, String>,
    pub wake_at: Option<Timestamp>,
    /// Nothing runs and nothing will.
    pub finished: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |t| t.min(at)));
    }
}

/// The newest attempt of a container.
pub fn latest<'a>(records: &'a [Record], name: &str) -> Option<&'a Record> {
    records.iter().filter(|r| r.role != Role::Sandbox && r.name == name).max_by_key(|r| r.attempt)
}

pub fn sandbox(records: &[Record]) -> Option<&Record> {
    records.iter().filter(|r| r.role == Role::Sandbox).max_by_key(|r| r.attempt)
}

/// The key under which a container's restarts are counted: a changed container starts with a clean record.
fn restart_key(container: &Container) -> String {
    format!("{}/{}", container.name, spec::hash(container))
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    if input.ending.is_some() {
        end(input, &mut plan);
        return plan;
    }
    let Some(spec) = &input.pod.spec else {
        plan.finished = true;
        return plan;
    };
    let sandbox = sandbox(input.records);
    let current = sandbox.filter(|s| s.is_running()).map(|s| s.id.as_str());

    // Whatever runs in another sandbox than today's, or isn't named by the spec, doesn't belong.
    for record in input.records.iter().filter(|r| r.is_running()) {
        let known = spec::containers(input.pod).any(|(c, _)| c.name == record.name);
        let newest = latest(input.records, &record.name).is_some_and(|l| l.id == record.id);
        let why = match record.role {
            Role::Sandbox if Some(record.id.as_str()) != current => Kill::Unknown,
            Role::Sandbox => continue,
            _ if Some(record.sandbox.as_str()) != current => Kill::SandboxGone,
            _ if !known || !newest => Kill::Unknown,
            _ => continue,
        };
        if record.role == Role::Sandbox {
            plan.steps.push(Step::StopSandbox { id: record.id.clone() });
        } else {
            let (id, name, grace) = (record.id.clone(), record.name.clone(), grace(input.pod));
            plan.steps.push(Step::Kill { id, name, why, grace });
        }
    }
    if !plan.steps.is_empty() {
        return plan;
    }

    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let Some(current) = current else {
        without_sandbox(input, policy, sandbox, &mut plan);
        return plan;
    };
    if input.memory.networked.as_deref() != Some(current) {
        match input.memory.sandbox_retry_at.filter(|at| *at > input.now) {
            Some(at) => plan.wake(at),
            None => plan.steps.push(Step::Network { sandbox: current.to_owned() }),
        }
        return plan;
    }

    match init(input, policy, current, &mut plan) {
        Init::Done => {}
        Init::Waiting => return plan,
        Init::Failed => {
            finish(input, &mut plan);
            return plan;
        }
    }
    let mut alive = false;
    for container in &spec.containers {
        alive |= app(input, policy, container, &mut plan);
    }
    if !alive {
        finish(input, &mut plan);
    } else {
        collect_garbage(input, &mut plan);
    }
    plan
}

/// The pod has no running sandbox: make one, unless its containers have all come to their end.
fn without_sandbox(input: &Input<'_>, policy: &str, dead: Option<&Record>, plan: &mut Plan) {
    let spec = input.pod.spec.as_ref();
    let containers = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let ran = input.records.iter().any(|r| r.role != Role::Sandbox && r.exit().is_some())
        || containers.iter().any(|c| input.memory.attempts.contains_key(&c.name));
    let ever = dead.is_some() || ran;
    let to_start = containers.iter().any(|c| match latest(input.records, &c.name) {
        Some(record) => spec::restarts(policy, record.exit().map(|e| e.code)),
        None => true,
    });
    // With `Never` nothing runs twice, not even what the loss of a sandbox interrupted.
    if ever && (!to_start || (policy == "Never" && ran)) {
        plan.finished = true;
        return;
    }
    if let Some(at) = input.memory.sandbox_retry_at.filter(|at| *at > input.now) {
        plan.wake(at);
        return;
    }
    if !input.memory.volumes_ready {
        plan.steps.push(Step::Prepare);
    }
    let known = input.memory.attempts.get("").copied();
    let attempt = dead.map(|d| d.attempt + 1).into_iter().chain(known).max().unwrap_or(0);
    plan.steps.push(Step::RunSandbox { attempt });
}

enum Init {
    Done,
    Waiting,
    Failed,
}

/// Init containers one after the other, as far as this sandbox has come.
fn init(input: &Input<'_>, policy: &str, sandbox: &str, plan: &mut Plan) -> Init {
    let spec = input.pod.spec.as_ref();
    let containers = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    // Once a container of the pod has been there in this sandbox, initialization is over for good; only sidecars go on.
    let over = input.records.iter().any(|r| r.role == Role::App && r.sandbox == sandbox);
    for container in containers {
        let record = latest(input.records, &container.name).filter(|r| r.sandbox == sandbox);
        if spec::is_sidecar(container) {
            match record {
                Some(record) if record.is_running() => {
                    let health = input.health.get(&record.id);
                    if let Some(probe) = health.and_then(|h| h.failed) {
                        kill(input, record, container, Kill::Probe(probe), plan);
                    }
                    if !over && !health.is_some_and(|h| h.started) {
                        return Init::Waiting;
                    }
                }
                _ => {
                    start(input, container, true, plan);
                    if !over {
                        return Init::Waiting;
                    }
                }
            }
            continue;
        }
        if over {
            continue;
        }
        match record {
            Some(record) if record.exit().is_some_and(|e| e.code == 0) => continue,
            Some(record) if record.is_running() => {}
            Some(record) if record.exit().is_some() && policy == "Never" => return Init::Failed,
            _ => start(input, container, true, plan),
        }
        return Init::Waiting;
    }
    Init::Done
}

/// One container of the pod; true when it runs or will.
fn app(input: &Input<'_>, policy: &str, container: &Container, plan: &mut Plan) -> bool {
    let Some(record) = latest(input.records, &container.name) else {
        // Somebody removed what was left of it: what must not run twice isn't started on that account.
        if policy == "Never" && input.memory.attempts.contains_key(&container.name) {
            return false;
        }
        start(input, container, false, plan);
        return true;
    };
    if record.is_running() {
        let failed = input.health.get(&record.id).and_then(|h| h.failed);
        if record.spec_hash != spec::hash(container) {
            kill(input, record, container, Kill::Changed, plan);
        } else if let Some(probe) = failed {
            kill(input, record, container, Kill::Probe(probe), plan);
        }
        return true;
    }
    if !spec::restarts(policy, record.exit().map(|e| e.code)) {
        return false;
    }
    start(input, container, false, plan);
    true
}

fn kill(input: &Input<'_>, record: &Record, container: &Container, why: Kill, plan: &mut Plan) {
    let own = match why {
        Kill::Probe(FailedProbe::Liveness) => &container.liveness_probe,
        Kill::Probe(FailedProbe::Startup) => &container.startup_probe,
        _ => &None,
    };
    let own = own.as_ref().and_then(|p| p.termination_grace_period_seconds).and_then(|s| u64::try_from(s).ok());
    let grace = own.map(Duration::from_secs).unwrap_or_else(|| grace(input.pod));
    plan.steps.push(Step::Kill { id: record.id.clone(), name: record.name.clone(), why, grace });
}

/// Starts the next attempt, unless something holds it back.
fn start(input: &Input<'_>, container: &Container, init: bool, plan: &mut Plan) {
    let name = &container.name;
    if input.memory.pulling.contains(name) {
        return;
    }
    if let Some(blocked) = input.memory.blocked.get(name) {
        match blocked.retry_at {
            Some(at) if at <= input.now => {}
            Some(at) => return plan.wake(at),
            None => return,
        }
    }
    let record = latest(input.records, name);
    if let Some(exit) = record.and_then(Record::exit)
        && let Some(held) = input.memory.restarts.held(&restart_key(container), exit.finished_at, input.now)
    {
        let meta = &input.pod.metadata;
        let message = format!(
            "back-off {} restarting failed container={name} pod={}_{}({})",
            go_duration(held.delay),
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default()
        );
        plan.crash_loops.insert(name.clone(), message);
        return plan.wake(held.until);
    }
    if !input.memory.volumes_ready && !plan.steps.contains(&Step::Prepare) {
        plan.steps.push(Step::Prepare);
    }
    let attempt = match record {
        // Made but never run: the same attempt, done again from the start.
        Some(record) if record.exit().is_none() => {
            plan.steps.push(Step::Remove { id: record.id.clone() });
            record.attempt
        }
        // Its newest record may have been removed behind our back: what is remembered counts too.
        _ => record.map(|r| r.attempt).max(input.memory.attempts.get(name).copied()).map_or(0, |last| last + 1),
    };
    plan.steps.push(Step::Start { name: name.clone(), init, attempt });
}

/// To be called when a start is carried out, so that the next one backs off.
pub fn note_start(memory: &mut Memory, container: &Container, last: Option<&Record>, attempt: u32, now: Timestamp) {
    if let Some(exit) = last.and_then(Record::exit) {
        memory.restarts.attempt(&restart_key(container), exit.finished_at, now);
    }
    memory.attempts.insert(container.name.clone(), attempt);
    memory.blocked.remove(&container.name);
}

/// Every container has come to its end by itself: the sandbox (and any sidecar) goes too.
fn finish(input: &Input<'_>, plan: &mut Plan) {
    // Also what was planned so far: nothing starts in a pod that has failed.
    plan.steps.clear();
    plan.crash_loops.clear();
    plan.wake_at = None;
    end(input, plan);
}

/// Stops what runs: first the containers, then sidecars in reverse order, then the sandbox.
fn end(input: &Input<'_>, plan: &mut Plan) {
    let grace = match input.ending {
        Some(Ending::Deleted { grace }) => grace,
        _ => grace(input.pod),
    };
    let spent = input.memory.ending_since.map_or(SignedDuration::ZERO, |since| input.now.duration_since(since));
    let left = grace.saturating_sub(Duration::try_from(spent).unwrap_or_default()).max(MINIMUM_GRACE);

    let sidecars: Vec<&str> = spec::containers(input.pod)
        .filter(|(c, init)| *init && spec::is_sidecar(c))
        .map(|(c, _)| c.name.as_str())
        .collect();
    let running = |r: &&Record| r.is_running() && r.role != Role::Sandbox;
    let kill = |record: &Record| Step::Kill {
        id: record.id.clone(),
        name: record.name.clone(),
        why: Kill::Ending,
        grace: left,
    };
    let first = input.records.iter().filter(running).filter(|r| !sidecars.contains(&r.name.as_str()));
    plan.steps.extend(first.map(kill));
    if plan.steps.is_empty() {
        let last =
            sidecars.iter().rev().find_map(|name| input.records.iter().filter(running).find(|r| r.name == *name));
        plan.steps.extend(last.map(kill));
    }
    if plan.steps.is_empty() {
        let sandboxes = input.records.iter().filter(|r| r.role == Role::Sandbox && r.is_running());
        plan.steps.extend(sandboxes.map(|s| Step::StopSandbox { id: s.id.clone() }));
    }
    plan.finished = plan.steps.is_empty();
}

/// A container always gets a moment to hear its signal, even when forced.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1))
}

/// Of each container only the newest and the one before it (for `--previous`) are kept; of sandboxes only the newest.
fn collect_garbage(input: &Input<'_>, plan: &mut Plan) {
    let mut by_name: BTreeMap<(Role, &str), Vec<&Record>> = BTreeMap::new();
    for record in input.records {
        let role = if record.role == Role::Sandbox { Role::Sandbox } else { Role::App };
        by_name.entry((role, &record.name)).or_default().push(record);
    }
    for ((role, _), mut records) in by_name {
        records.sort_by_key(|r| std::cmp::Reverse(r.attempt));
        let keep = if role == Role::Sandbox { 1 } else { 2 };
        for record in records.into_iter().skip(keep).filter(|r| !r.is_running()) {
            plan.steps.push(Step::Remove { id: record.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
