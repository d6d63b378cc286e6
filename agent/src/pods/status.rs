//! What is said about a pod: its `status`, as a kubelet writes it. Pure: from containers, probes and memory to a value.

use super::admission::Refusal;
use super::plan::{Ending, Health, Memory, latest, sandbox};
use super::spec;
use crate::runtime::{Record, State};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use longshore_api::quantity::Quantity;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub struct Input<'a> {
    pub pod: &'a Pod,
    /// What was last said; kept where nothing better is known.
    pub last: &'a PodStatus,
    pub records: &'a [Record],
    pub health: &'a BTreeMap<String, Health>,
    pub memory: &'a Memory,
    pub crash_loops: &'a BTreeMap<String, String>,
    /// Messages that containers left at their termination path, by container id.
    pub messages: &'a BTreeMap<String, String>,
    /// Names with digests of images, by image id.
    pub image_ids: &'a BTreeMap<String, String>,
    pub ips: &'a [IpAddr],
    pub host_ips: &'a [IpAddr],
    pub ending: Option<Ending>,
    /// Why this node doesn't run the pod, with [`Ending::Refused`].
    pub refusal: Option<&'a Refusal>,
    /// Nothing runs and nothing will.
    pub finished: bool,
    pub now: Timestamp,
}

pub fn status(input: &Input<'_>) -> PodStatus {
    let pod = input.pod;
    if let Some(refusal) = input.refusal {
        return refused(input, refusal);
    }
    // The last word was said, and nothing is left that could add to it.
    if spec::is_final(input.last) && input.records.is_empty() {
        return input.last.clone();
    }
    let pod_spec = pod.spec.as_ref();
    let policy = pod_spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let init = pod_spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let apps = pod_spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let has_init = !init.is_empty();

    let init_statuses: Vec<_> = init.iter().map(|c| container(input, c, true, has_init)).collect();
    let initialized = is_initialized(input, init, &init_statuses);
    let waits_for_init = has_init && !initialized;
    let statuses: Vec<_> = apps.iter().map(|c| container(input, c, false, waits_for_init)).collect();
    let (phase, reason, message) = phase(input, policy, init, &init_statuses, &statuses, initialized);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        container_statuses: (!statuses.is_empty()).then_some(statuses),
        init_container_statuses: (!init_statuses.is_empty()).then_some(init_statuses),
        start_time: Some(input.last.start_time.clone().unwrap_or(seconds(input.now))),
        qos_class: Some(input.last.qos_class.clone().unwrap_or_else(|| qos_class(pod).to_owned())),
        observed_generation: pod.metadata.generation,
        ..input.last.clone()
    };
    addresses(input, &mut status);
    conditions(input, init, initialized, &mut status);
    status
}

/// The pod never ran here: nothing is said of its containers.
fn refused(input: &Input<'_>, refusal: &Refusal) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(refusal.reason.clone()),
        message: Some(format!("Pod was rejected: {}", refusal.message)),
        start_time: Some(input.last.start_time.clone().unwrap_or(seconds(input.now))),
        qos_class: Some(input.last.qos_class.clone().unwrap_or_else(|| qos_class(input.pod).to_owned())),
        observed_generation: input.pod.metadata.generation,
        ..input.last.clone()
    }
}

/// Times on the wire are whole seconds.
pub fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn addresses(input: &Input<'_>, status: &mut PodStatus) {
    let host: Vec<String> = input.host_ips.iter().map(IpAddr::to_string).collect();
    if let Some(first) = host.first() {
        status.host_ip = Some(first.clone());
        status.host_ips = Some(host.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    }
    let ips = if spec::host_network(input.pod) { host } else { input.ips.iter().map(IpAddr::to_string).collect() };
    if let Some(first) = ips.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    }
}

/// One container's status. `waits_for_init`: what it says before it was ever started.
fn container(input: &Input<'_>, container: &Container, init: bool, waits_for_init: bool) -> ContainerStatus {
    let old = old(input.last, &container.name);
    let record = latest(input.records, &container.name);
    let previous = record.and_then(|record| {
        input
            .records
            .iter()
            .filter(|r| r.name == container.name && r.role == record.role && r.attempt < record.attempt)
            .max_by_key(|r| r.attempt)
    });
    let kept = old.and_then(|o| o.last_state.clone());
    let terminated = |r: &Record| terminated(r, input.messages.get(&r.id));
    let before = previous.and_then(terminated).map(as_terminated).or(kept.clone());
    let policy = input.pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let policy = if spec::is_sidecar(container) { "Always" } else { policy };
    let over = record.and_then(Record::exit).is_some_and(|e| !spec::restarts(policy, Some(e.code)));
    let block = if input.ending.is_some() || input.finished || over { None } else { block(input, container) };

    let (state, last_state) = match (record.map(|r| &r.state), block) {
        (Some(State::Running { started_at, .. }), _) => {
            let running = ContainerStateRunning { started_at: Some(seconds(*started_at)) };
            (ContainerState { running: Some(running), ..Default::default() }, before)
        }
        // Held back after it has been there: what it waits for now, and what happened last time.
        (Some(State::Exited(_)), Some(waiting)) => {
            (as_waiting(waiting), record.and_then(terminated).map(as_terminated).or(before))
        }
        (Some(State::Exited(_)), None) => (record.and_then(terminated).map(as_terminated).unwrap_or_default(), before),
        (Some(State::Created) | None, Some(waiting)) => (as_waiting(waiting), before),
        (Some(State::Created) | None, None) => {
            // An end that was told and whose container is gone since is still its end.
            match old.and_then(|o| o.state.clone()).filter(|s| s.terminated.is_some()) {
                Some(state) => (state, kept),
                None if (input.finished || input.ending.is_some()) && is_lost(old) => (as_terminated(lost(old)), kept),
                None => {
                    let reason = if waits_for_init { "PodInitializing" } else { "ContainerCreating" };
                    (as_waiting(ContainerStateWaiting { reason: Some(reason.into()), message: None }), before)
                }
            }
        }
    };
    let health = record.filter(|r| r.is_running()).and_then(|r| input.health.get(&r.id));
    let done = init && !spec::is_sidecar(container) && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    let started = health.is_some_and(|h| h.started);
    let serves = !init || spec::is_sidecar(container);
    let resources = container.resources.clone().filter(|r| r.limits.is_some() || r.requests.is_some());
    ContainerStatus {
        name: container.name.clone(),
        image: record
            .map(|r| r.image.clone())
            .filter(|i| !i.is_empty())
            .or(container.image.clone())
            .unwrap_or_default(),
        image_id: record.map(|r| image_id(input, r)).or(old.map(|o| o.image_id.clone())).unwrap_or_default(),
        container_id: record.map(|r| format!("docker://{}", r.id)).or(old.and_then(|o| o.container_id.clone())),
        restart_count: record
            .map(|r| r.attempt)
            .max(input.memory.attempts.get(&container.name).copied())
            .map_or(old.map_or(0, |o| o.restart_count), |a| i32::try_from(a).unwrap_or(i32::MAX)),
        ready: done || (serves && health.is_some_and(|h| h.ready && h.started)),
        started: Some(started),
        allocated_resources: resources.as_ref().and_then(|r| r.requests.clone()),
        resources,
        volume_mounts: mounts(container),
        state: Some(state),
        last_state,
        ..Default::default()
    }
}

/// It was there, and nobody knows how it ended.
fn is_lost(old: Option<&ContainerStatus>) -> bool {
    old.and_then(|o| o.container_id.as_deref()).is_some_and(|id| !id.is_empty())
}

fn lost(old: Option<&ContainerStatus>) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: old.and_then(|o| o.container_id.clone()),
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..Default::default()
    }
}

fn old<'a>(last: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let all = last.container_statuses.iter().chain(last.init_container_statuses.iter()).flatten();
    all.into_iter().find(|s| s.name == name)
}

fn image_id(input: &Input<'_>, record: &Record) -> String {
    match input.image_ids.get(&record.image_id) {
        Some(name) => format!("docker-pullable://{name}"),
        None => format!("docker://{}", record.image_id),
    }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mounts: Vec<_> = mounts
        .iter()
        .map(|m| VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.filter(|r| *r),
            recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".into()),
            ..Default::default()
        })
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

/// What holds a container back.
fn block(input: &Input<'_>, container: &Container) -> Option<ContainerStateWaiting> {
    if let Some(message) = input.crash_loops.get(&container.name) {
        return Some(ContainerStateWaiting { reason: Some("CrashLoopBackOff".into()), message: Some(message.clone()) });
    }
    input.memory.blocked.get(&container.name).map(|b| ContainerStateWaiting {
        reason: Some(b.reason.clone()),
        message: Some(b.message.clone()).filter(|m| !m.is_empty()),
    })
}

fn as_waiting(waiting: ContainerStateWaiting) -> ContainerState {
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn as_terminated(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn terminated(record: &Record, message: Option<&String>) -> Option<ContainerStateTerminated> {
    let exit = record.exit()?;
    Some(ContainerStateTerminated {
        container_id: Some(format!("docker://{}", record.id)),
        exit_code: exit.code,
        reason: Some(exit.reason.clone()),
        message: message.cloned().or(Some(exit.message.clone())).filter(|m| !m.is_empty()),
        started_at: exit.started_at.map(seconds),
        finished_at: Some(seconds(exit.finished_at)),
        signal: None,
    })
}

fn is_initialized(input: &Input<'_>, init: &[Container], statuses: &[ContainerStatus]) -> bool {
    let today = sandbox(input.records).map(|s| s.id.as_str());
    let apps = input.records.iter().any(|r| r.role == crate::runtime::Role::App && Some(r.sandbox.as_str()) == today);
    apps || init.iter().zip(statuses).all(|(container, status)| match spec::is_sidecar(container) {
        true => status.started == Some(true),
        false => {
            let ended = status.state.as_ref().and_then(|s| s.terminated.as_ref());
            ended.is_some_and(|t| t.exit_code == 0)
        }
    })
}

fn phase(
    input: &Input<'_>,
    policy: &str,
    init: &[Container],
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
    initialized: bool,
) -> (&'static str, Option<String>, Option<String>) {
    if let Some(Ending::DeadlineExceeded) = input.ending {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        return ("Failed", Some("DeadlineExceeded".into()), Some(message));
    }
    // A last word isn't taken back.
    match input.last.phase.as_deref() {
        Some("Succeeded") => return ("Succeeded", input.last.reason.clone(), input.last.message.clone()),
        Some("Failed") => return ("Failed", input.last.reason.clone(), input.last.message.clone()),
        _ => {}
    }
    let state = |s: &ContainerStatus| s.state.clone().unwrap_or_default();
    let ended = |s: &ContainerStatus| state(s).terminated;
    let init_failed =
        init.iter().zip(init_statuses).any(|(c, s)| !spec::is_sidecar(c) && ended(s).is_some_and(|t| t.exit_code != 0));
    if input.finished {
        let all_well = !init_failed && statuses.iter().all(|s| ended(s).is_some_and(|t| t.exit_code == 0));
        return (if all_well { "Succeeded" } else { "Failed" }, None, None);
    }
    let phase = if !initialized {
        if init_failed && policy == "Never" { "Failed" } else { "Pending" }
    } else if statuses
        .iter()
        .any(|s| state(s).waiting.is_some() && s.last_state.as_ref().and_then(|l| l.terminated.as_ref()).is_none())
    {
        "Pending"
    } else if statuses.iter().any(|s| state(s).running.is_some()) || policy == "Always" {
        "Running"
    } else if statuses.iter().all(|s| ended(s).is_some_and(|t| t.exit_code == 0)) {
        "Succeeded"
    } else if policy == "Never" {
        "Failed"
    } else {
        "Running"
    };
    (phase, None, None)
}

fn conditions(input: &Input<'_>, init: &[Container], initialized: bool, status: &mut PodStatus) {
    let phase = status.phase.clone().unwrap_or_default();
    let completed = match phase.as_str() {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let networked =
        sandbox(input.records).is_some_and(|s| s.is_running() && input.memory.networked.as_deref() == Some(&s.id));
    let mut wanted = vec![condition("PodReadyToStartContainers", networked, None, None)];

    let incomplete: Vec<&str> = init
        .iter()
        .filter(|c| {
            let found = status.init_container_statuses.iter().flatten().find(|s| s.name == c.name);
            !found.is_some_and(|s| if spec::is_sidecar(c) { s.started == Some(true) } else { s.ready })
        })
        .map(|c| c.name.as_str())
        .collect();
    wanted.push(match (completed, initialized) {
        (Some("PodCompleted"), _) => condition("Initialized", true, Some("PodCompleted"), None),
        (_, true) => condition("Initialized", true, None, None),
        (_, false) => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            condition("Initialized", false, Some("ContainersNotInitialized"), Some(message))
        }
    });

    let sidecars = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|s| init.iter().any(|c| c.name == s.name && spec::is_sidecar(c)));
    let unready: Vec<&str> = sidecars
        .chain(status.container_statuses.iter().flatten())
        .filter(|s| !s.ready)
        .map(|s| s.name.as_str())
        .collect();
    let containers_ready = match completed {
        Some(reason) => condition("ContainersReady", false, Some(reason), None),
        None if unready.is_empty() => condition("ContainersReady", true, None, None),
        None => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            condition("ContainersReady", false, Some("ContainersNotReady"), Some(message))
        }
    };
    let mut ready = PodCondition { type_: "Ready".into(), ..containers_ready.clone() };
    let theirs = input.pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    if ready.status == "True" {
        let gates = input.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
        let messages: Vec<String> = gates
            .iter()
            .filter_map(|gate| match theirs.iter().find(|c| c.type_ == gate.condition_type) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{}\" does not exist.",
                    gate.condition_type
                )),
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                    gate.condition_type, c.status
                )),
                Some(_) => None,
            })
            .collect();
        if !messages.is_empty() {
            ready = condition("Ready", false, Some("ReadinessGatesNotReady"), Some(messages.join(", ")));
        }
    }
    wanted.extend([ready, containers_ready]);

    // Ours are replaced, keeping the time of the last real change; everybody else's stay (PodScheduled, gates).
    let before = input.last.conditions.as_deref().unwrap_or_default();
    let mut all: Vec<PodCondition> = wanted
        .into_iter()
        .map(|mut new| {
            let old = before.iter().find(|c| c.type_ == new.type_);
            let same = old.filter(|o| o.status == new.status).and_then(|o| o.last_transition_time.clone());
            new.last_transition_time = Some(same.unwrap_or(seconds(input.now)));
            new.observed_generation = input.pod.metadata.generation;
            new
        })
        .collect();
    all.extend(theirs.iter().filter(|c| !OURS.contains(&c.type_.as_str())).cloned());
    status.conditions = Some(all);
}

/// The conditions that this node owns.
pub const OURS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

/// Takes over into `ours` what others have written over our conditions: the control plane says a pod isn't ready while its
/// node is silent, and who comes back has to say it anew. Whether there was any.
pub fn overruled(ours: &mut PodStatus, server: &PodStatus) -> bool {
    let mut any = false;
    let conditions = server.conditions.iter().flatten().filter(|c| OURS.contains(&c.type_.as_str()));
    for theirs in conditions {
        let known = ours.conditions.iter_mut().flatten().find(|c| c.type_ == theirs.type_);
        if let Some(known) = known.filter(|c| c.status != theirs.status) {
            *known = theirs.clone();
            any = true;
        }
    }
    any
}

fn condition(type_: &str, is: bool, reason: Option<&str>, message: Option<String>) -> PodCondition {
    PodCondition {
        type_: type_.into(),
        status: if is { "True" } else { "False" }.into(),
        reason: reason.map(Into::into),
        message,
        ..Default::default()
    }
}

/// Guaranteed: every container has limits for both and requests equal to them. BestEffort: nobody asks for anything.
pub fn qos_class(pod: &Pod) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for (container, _) in spec::containers(pod) {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let amount = |list: &BTreeMap<String, Amount>| {
                Quantity::parse(&list.get(name)?.0).ok().map(|q| q.milli_value()).filter(|q| *q > 0)
            };
            let (limit, request) = (amount(&limits), amount(&requests));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The smallest strategic merge patch from what was acknowledged to what is so now; `None` when nothing changed.
///
/// Lists that merge by key are replaced as a whole where elements may have to go (`podIPs`, `hostIPs`), and conditions are sent one
/// by one, so that nobody else's condition is touched.
pub fn patch(uid: &str, acknowledged: &PodStatus, now: &PodStatus) -> Option<serde_json::Value> {
    let (old, new) = (serde_json::to_value(acknowledged).ok()?, serde_json::to_value(now).ok()?);
    let (old, new) = (old.as_object()?, new.as_object()?);
    let mut changes = Map::new();
    for key in old.keys().chain(new.keys()) {
        if changes.contains_key(key) || old.get(key) == new.get(key) {
            continue;
        }
        let value = match (key.as_str(), new.get(key)) {
            (_, None) => Value::Null,
            ("podIPs" | "hostIPs", Some(Value::Array(items))) => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(items.iter().cloned());
                Value::Array(list)
            }
            ("conditions", Some(Value::Array(items))) => {
                let before = old.get("conditions").and_then(Value::as_array);
                let changed: Vec<Value> = items
                    .iter()
                    .filter(|c| c["type"].as_str().is_some_and(|t| OURS.contains(&t)))
                    .filter(|c| !before.is_some_and(|b| b.contains(c)))
                    .map(|c| {
                        let mut c = c.clone();
                        if let Some(fields) = c.as_object_mut() {
                            // Said explicitly, so that an older word doesn't stay.
                            fields.entry("reason").or_insert(Value::Null);
                            fields.entry("message").or_insert(Value::Null);
                        }
                        c
                    })
                    .collect();
                if changed.is_empty() {
                    continue;
                }
                Value::Array(changed)
            }
            (_, Some(value)) => value.clone(),
        };
        changes.insert(key.clone(), value);
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

#[cfg(test)]
mod tests;
