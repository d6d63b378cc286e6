//! A pod, as scheduler and controllers see it.

use super::affinity::{self, PodAffinity, SpreadConstraint};
use super::meta::{Condition, Meta, Status, annotations};
use super::node::{NodeSelectorTerm, Toleration};
use super::read;
use super::resources::Resources;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

#[derive(Clone, Debug, Default)]
pub struct Pod {
    pub meta: Meta,
    pub node_name: String,
    pub scheduler_name: String,
    pub service_account: String,
    pub priority: i32,
    /// What it asks of a node: containers, init containers and overhead as Kubernetes adds them up.
    pub requests: Resources,
    pub host_network: bool,
    pub host_ports: Vec<HostPort>,
    pub ports: Vec<ContainerPort>,
    pub node_selector: BTreeMap<String, String>,
    pub node_affinity: NodeAffinity,
    /// Near which pods it is to run, and far from which.
    pub affinity: PodAffinity,
    pub anti_affinity: PodAffinity,
    pub spread: Vec<SpreadConstraint>,
    /// Images of all containers, init containers included.
    pub images: Vec<String>,
    /// Whether it may make others go (`preemptionPolicy` isn't `Never`).
    pub preempts: bool,
    /// Where room was made for it.
    pub nominated_node: String,
    pub tolerations: Vec<Toleration>,
    /// Gates that must go before it may be scheduled.
    pub scheduling_gates: Vec<String>,
    pub hostname: String,
    pub subdomain: String,
    /// `controller.kubernetes.io/pod-deletion-cost`
    pub deletion_cost: i32,
    pub phase: Phase,
    /// Every container's restarts, the largest number (what ranks a pod for deletion).
    pub restarts: i32,
    pub ready: ReadyState,
    pub scheduled: PodScheduled,
    /// Carries condition `DisruptionTarget`.
    pub disruption_target: bool,
    /// That condition says that the scheduler made it.
    pub preempted: bool,
    pub ips: Vec<String>,
    /// When its node took it up.
    pub start_time: Option<Timestamp>,
    /// A digest of everything that the scheduler judges a pod by: equal for pods of one template. Different pods may
    /// have the same by chance, so it finds candidates and [`Pod::is_like`] decides.
    pub shape: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    #[serde(other)]
    Unknown,
}

/// Condition `Ready`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyState {
    pub ready: bool,
    /// Since when it is as it is.
    pub since: Option<Timestamp>,
}

/// Condition `PodScheduled`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodScheduled {
    #[default]
    Unset,
    Yes,
    /// With reason and message, so that the same refusal isn't written twice.
    No {
        reason: String,
        message: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPort {
    pub name: String,
    pub protocol: String,
    pub port: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeAffinity {
    /// Any one of these; none: no such demand.
    pub required: Option<Vec<NodeSelectorTerm>>,
    pub preferred: Vec<PreferredTerm>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct PreferredTerm {
    pub weight: i64,
    pub preference: NodeSelectorTerm,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    scheduler_name: String,
    service_account_name: String,
    priority: i32,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    overhead: Value,
    resources: ContainerResources,
    node_selector: BTreeMap<String, String>,
    affinity: Affinity,
    tolerations: Vec<Toleration>,
    scheduling_gates: Vec<Named>,
    topology_spread_constraints: Vec<affinity::WireSpread>,
    preemption_policy: String,
    hostname: String,
    subdomain: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    image: String,
    resources: ContainerResources,
    restart_policy: String,
    ports: Vec<Port>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerResources {
    requests: Value,
    limits: Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    protocol: String,
    container_port: i32,
    host_port: i32,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: WireNodeAffinity,
    pod_affinity: affinity::WireAffinity,
    pod_anti_affinity: affinity::WireAffinity,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireNodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Vec<PreferredTerm>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector {
    node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Phase,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    nominated_node_name: String,
    start_time: Option<Timestamp>,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Ip>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    restart_count: i32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ip {
    ip: String,
}

impl Pod {
    pub fn of(object: &Value) -> Self {
        let spec: Spec = object.get("spec").map(read).unwrap_or_default();
        let status: PodStatus = object.get("status").map(read).unwrap_or_default();
        let deletion_cost = annotations(object)
            .get("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse().ok())
            .unwrap_or_default();
        let ready = Condition::find(&status.conditions, "Ready");
        let mut ips: Vec<String> = status.pod_ips.into_iter().map(|ip| ip.ip).filter(|ip| !ip.is_empty()).collect();
        if ips.is_empty() && !status.pod_ip.is_empty() {
            ips.push(status.pod_ip);
        }
        let containers = || spec.init_containers.iter().chain(&spec.containers);
        let mut pod = Self {
            meta: Meta::of(object),
            images: containers().map(|c| c.image.clone()).collect(),
            preempts: spec.preemption_policy != "Never",
            nominated_node: status.nominated_node_name,
            start_time: status.start_time,
            shape: 0,
            requests: requests(&spec),
            host_network: spec.host_network,
            host_ports: host_ports(&spec),
            ports: spec
                .containers
                .iter()
                .flat_map(|c| &c.ports)
                .map(|p| ContainerPort { name: p.name.clone(), protocol: or_tcp(&p.protocol), port: p.container_port })
                .collect(),
            node_name: spec.node_name,
            scheduler_name: spec.scheduler_name,
            service_account: spec.service_account_name,
            priority: spec.priority,
            node_selector: spec.node_selector,
            node_affinity: NodeAffinity {
                required: spec.affinity.node_affinity.required.map(|r| r.node_selector_terms),
                preferred: spec.affinity.node_affinity.preferred,
            },
            spread: spec.topology_spread_constraints.into_iter().map(SpreadConstraint::from).collect(),
            affinity: spec.affinity.pod_affinity.into(),
            anti_affinity: spec.affinity.pod_anti_affinity.into(),
            tolerations: spec.tolerations,
            scheduling_gates: spec.scheduling_gates.into_iter().map(|g| g.name).collect(),
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            deletion_cost,
            phase: status.phase,
            restarts: status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or_default(),
            ready: ReadyState {
                ready: ready.is_some_and(|c| c.status == Status::True),
                since: ready.and_then(|c| c.last_transition_time),
            },
            scheduled: match Condition::find(&status.conditions, "PodScheduled") {
                None => PodScheduled::Unset,
                Some(c) if c.status == Status::True => PodScheduled::Yes,
                Some(c) => PodScheduled::No { reason: c.reason.clone(), message: c.message.clone() },
            },
            disruption_target: Condition::find(&status.conditions, "DisruptionTarget")
                .is_some_and(|c| c.status == Status::True),
            preempted: Condition::find(&status.conditions, "DisruptionTarget")
                .is_some_and(|c| c.status == Status::True && c.reason == "PreemptionByScheduler"),
            ips,
        };
        pod.shape = pod.digest();
        pod
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.meta.namespace, &self.meta.labels, self.meta.controller().map(|o| &o.uid)).hash(&mut hasher);
        (&self.scheduler_name, self.priority, self.preempts, &self.images).hash(&mut hasher);
        (&self.requests, &self.host_ports, &self.node_selector, &self.node_affinity).hash(&mut hasher);
        (&self.tolerations, &self.affinity, &self.anti_affinity, &self.spread).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the scheduler can't tell the two apart: what holds for one on a node holds for the other.
    pub fn is_like(&self, other: &Self) -> bool {
        self.shape == other.shape
            && self.meta.namespace == other.meta.namespace
            && self.meta.labels == other.meta.labels
            && self.meta.controller().map(|o| &o.uid) == other.meta.controller().map(|o| &o.uid)
            && self.scheduler_name == other.scheduler_name
            && (self.priority, self.preempts) == (other.priority, other.preempts)
            && self.images == other.images
            && self.requests == other.requests
            && self.host_ports == other.host_ports
            && self.node_selector == other.node_selector
            && self.node_affinity == other.node_affinity
            && self.tolerations == other.tolerations
            && self.affinity == other.affinity
            && self.anti_affinity == other.anti_affinity
            && self.spread == other.spread
    }

    /// Neither succeeded nor failed, and nobody asked it to go.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.meta.is_terminating()
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn is_available(&self, min_ready_seconds: i64, now: Timestamp) -> bool {
        self.ready.ready
            && (min_ready_seconds == 0
                || self.ready.since.is_some_and(|t| t.as_second() + min_ready_seconds <= now.as_second()))
    }
}

fn or_tcp(protocol: &str) -> String {
    if protocol.is_empty() { "TCP".into() } else { protocol.into() }
}

fn host_ports(spec: &Spec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let mut all: Vec<HostPort> = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| &c.ports)
        .map(|p| {
            let port = if p.host_port == 0 && spec.host_network { p.container_port } else { p.host_port };
            HostPort { ip: p.host_ip.clone(), protocol: or_tcp(&p.protocol), port }
        })
        .filter(|p| p.port > 0)
        .collect();
    all.sort();
    all.dedup();
    all
}

/// `PodRequests` of Kubernetes: containers and sidecars run together; an init container runs with the sidecars started
/// before it; the pod needs the larger of both, plus overhead; pod-level requests win over all that.
fn requests(spec: &Spec) -> Resources {
    let of = |c: &Container| {
        let mut asked = Resources::of(&c.resources.limits);
        if !c.resources.requests.is_null() {
            let mut named = Resources::of(&c.resources.requests);
            // A limit stands in for a request that isn't there, resource by resource (defaulting does it on write; objects
            // from before a default may lack it).
            for (name, amount) in asked.extended {
                named.extended.entry(name).or_insert(amount);
            }
            if c.resources.requests.get("cpu").is_none() {
                named.cpu = asked.cpu;
            }
            if c.resources.requests.get("memory").is_none() {
                named.memory = asked.memory;
            }
            asked = named;
        }
        asked
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for init in &spec.init_containers {
        let mut asked = of(init);
        if init.restart_policy == "Always" {
            total.add(&asked);
            sidecars.add(&asked);
            asked = sidecars.clone();
        } else {
            asked.add(&sidecars);
        }
        starting.raise(&asked);
    }
    total.raise(&starting);
    total.overridden_by(&spec.resources.requests);
    total.add(&Resources::of(&spec.overhead));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn adds_up_requests_as_kubernetes_does() {
        let pod = Pod::of(&json!({"spec": {
            "initContainers": [
                {"resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}, "restartPolicy": "Always"},
                {"resources": {"requests": {"cpu": "2", "memory": "10Mi"}}}],
            "containers": [
                {"resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi", "example.com/gpu": 2}}},
                {"resources": {"requests": {"cpu": "0.25"}}}],
            "overhead": {"cpu": "10m"}}}));
        assert_eq!(pod.requests.cpu, 2110);
        assert_eq!(pod.requests.memory, (1 << 30) + (64 << 20));
        assert_eq!(pod.requests.extended["example.com/gpu"], 2);
    }

    #[test]
    fn reads_what_a_kubelet_reported() {
        let pod = Pod::of(
            &json!({"metadata": {"name": "a", "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-7"}},
            "spec": {"nodeName": "n", "hostNetwork": true, "containers": [{"ports": [{"containerPort": 80, "name": "http"}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [{"restartCount": 3}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"},
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}]}}),
        );
        let at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!((pod.phase, pod.restarts, pod.deletion_cost), (Phase::Running, 3, -7));
        assert!(pod.is_available(0, at) && !pod.is_available(1, at));
        assert_eq!(pod.host_ports[0].port, 80);
        assert_eq!(pod.scheduled, PodScheduled::No { reason: "Unschedulable".into(), message: "no".into() });
        assert_eq!(pod.ips, ["10.0.0.1"]);
    }
}
