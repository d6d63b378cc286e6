//! Pods in tables: what `kubectl get pods` makes of a pod's status (`pkg/printers/internalversion/printers.go`).

use crate::resources::Column;
use crate::resources::age::{age, since, time_at};
use crate::resources::tree::{at, bool_at, int_at, list_at, str_at};
use jiff::Timestamp;
use serde_json::{Value, json};

pub const COLUMNS: &[Column] = &[
    Column::new("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
    Column::new("Status", "string", "The aggregate status of the containers in this pod."),
    Column::new(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    Column::AGE,
    Column::wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    Column::wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    Column::wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    Column::wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match (summary.restarts, summary.last_restart) {
        (n @ 1.., Some(at)) => format!("{n} ({} ago)", since(Some(at), now)),
        (n, _) => n.to_string(),
    };
    let or_none = |text: &str| if text.is_empty() { "<none>".to_string() } else { text.to_string() };
    vec![
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.status.into(),
        restarts.into(),
        age(pod, now),
        or_none(str_at(pod, "/status/podIPs/0/ip")).into(),
        or_none(str_at(pod, "/spec/nodeName")).into(),
        or_none(str_at(pod, "/status/nominatedNodeName")).into(),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list_at(pod, "/spec/readinessGates");
    let open = |gate: &&Value| {
        let conditions = list_at(pod, "/status/conditions");
        let condition = conditions.iter().find(|c| at(c, "/type") == at(gate, "/conditionType"));
        condition.is_some_and(|c| str_at(c, "/status") == "True")
    };
    match gates.len() {
        0 => "<none>".to_string(),
        all => format!("{}/{all}", gates.iter().filter(open).count()),
    }
}

/// A row whose pod has come to its end says so, for clients that dim or hide it.
pub fn row_conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match str_at(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

/// What a pod comes to in one line.
struct Summary {
    status: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts and when the last of them was.
#[derive(Default)]
struct Restarts(i64, Option<Timestamp>);

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.0 += int_at(container, "/restartCount");
        self.1 = self.1.max(time_at(container, "/lastState/terminated/finishedAt"));
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = str_at(pod, "/status/phase");
        let mut status = match str_at(pod, "/status/reason") {
            "" => phase.to_string(),
            reason => reason.to_string(),
        };
        let gated = |c: &Value| str_at(c, "/type") == "PodScheduled" && str_at(c, "/reason") == "SchedulingGated";
        if list_at(pod, "/status/conditions").iter().any(gated) {
            status = "SchedulingGated".to_string();
        }
        let sidecars = list_at(pod, "/spec/initContainers").iter().filter(|c| is_sidecar(c)).count();
        let containers = list_at(pod, "/spec/containers").len() + sidecars;
        let mut summary = Self { status, ready: 0, containers, restarts: 0, last_restart: None };
        let (initializing, all, of_sidecars) = summary.init_containers(pod);
        let mut restarts = all;
        if !initializing || has_condition(pod, "Initialized") {
            restarts = of_sidecars;
            summary.main_containers(pod, &mut restarts);
        }
        Restarts(summary.restarts, summary.last_restart) = restarts;
        if !at(pod, "/metadata/deletionTimestamp").is_null() {
            if str_at(pod, "/status/reason") == "NodeLost" {
                summary.status = "Unknown".to_string();
            } else if !["Succeeded", "Failed"].contains(&phase) {
                summary.status = "Terminating".to_string();
            }
        }
        summary
    }

    /// Walks over the init containers up to the first that isn't done. Says whether there is one, and counts the restarts
    /// of all so far and of the sidecars among them.
    fn init_containers(&mut self, pod: &Value) -> (bool, Restarts, Restarts) {
        let (mut all, mut of_sidecars) = (Restarts::default(), Restarts::default());
        let specs = list_at(pod, "/spec/initContainers");
        for (i, container) in list_at(pod, "/status/initContainerStatuses").iter().enumerate() {
            all.add(container);
            let spec = specs.iter().find(|c| at(c, "/name") == at(container, "/name"));
            let sidecar = spec.is_some_and(is_sidecar);
            if sidecar {
                of_sidecars.add(container);
            }
            let terminated = at(container, "/state/terminated");
            if !terminated.is_null() && int_at(terminated, "/exitCode") == 0 {
                continue;
            }
            if sidecar && bool_at(container, "/started") {
                self.ready += usize::from(bool_at(container, "/ready"));
                continue;
            }
            let waiting = str_at(container, "/state/waiting/reason");
            self.status = if !terminated.is_null() {
                format!("Init:{}", end_of(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", specs.len())
            };
            return (true, all, of_sidecars);
        }
        (false, all, of_sidecars)
    }

    fn main_containers(&mut self, pod: &Value, restarts: &mut Restarts) {
        let mut running = false;
        for container in list_at(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(container);
            let waiting = str_at(container, "/state/waiting/reason");
            let terminated = at(container, "/state/terminated");
            if !waiting.is_empty() {
                self.status = waiting.to_string();
            } else if !terminated.is_null() {
                self.status = end_of(terminated);
            } else if bool_at(container, "/ready") && !at(container, "/state/running").is_null() {
                running = true;
                self.ready += 1;
            }
        }
        // One that is done beside others that still run doesn't make the pod done.
        if self.status == "Completed" && running {
            self.status = if has_condition(pod, "Ready") { "Running" } else { "NotReady" }.to_string();
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    str_at(container, "/restartPolicy") == "Always"
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    let conditions = list_at(pod, "/status/conditions");
    conditions.iter().find(|c| str_at(c, "/type") == kind).is_some_and(|c| str_at(c, "/status") == "True")
}

/// Why a container ended: its reason, else its signal, else its exit code.
fn end_of(terminated: &Value) -> String {
    match (str_at(terminated, "/reason"), int_at(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pod: Value) -> String {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let cells = cells(&pod, now);
        cells[..4].iter().map(|c| c.as_str().unwrap().to_string()).collect::<Vec<_>>().join(" | ")
    }

    fn pod(status: Value) -> Value {
        json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status,
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}})
    }

    #[test]
    fn says_what_a_pod_is_doing() {
        assert_eq!(shown(pod(json!({"phase": "Pending"}))), "0/2 | Pending | 0 | 60m");
        let waiting = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]});
        assert_eq!(shown(pod(waiting)), "0/2 | Init:0/2 | 0 | 60m");
        let failed = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}}}]});
        assert_eq!(shown(pod(failed)), "0/2 | Init:CrashLoopBackOff | 3 (5m ago) | 60m");
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let sidecar = json!({"name": "s", "started": true, "ready": true, "state": {"running": {}}});
        let crash = json!({"phase": "Running", "initContainerStatuses": [done, sidecar], "containerStatuses": [
            {"name": "a", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}}}]});
        assert_eq!(shown(pod(crash)), "1/2 | CrashLoopBackOff | 2 (5m ago) | 60m");
        let running = json!({"phase": "Running", "initContainerStatuses": [done, sidecar],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]});
        assert_eq!(shown(pod(running.clone())), "2/2 | Running | 0 | 60m");
        let mut leaving = pod(running);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:00Z");
        assert_eq!(shown(leaving), "2/2 | Terminating | 0 | 60m");
        let ended = json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]});
        assert_eq!(shown(pod(ended)), "0/2 | Signal:9 | 0 | 60m");
        let evicted = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(shown(pod(evicted)), "0/2 | Evicted | 0 | 60m");
    }

    #[test]
    fn one_container_done_beside_a_running_one_is_not_the_end() {
        let status = |ready: &str| {
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "b", "ready": true, "state": {"running": {}}}]})
        };
        assert!(shown(pod(status("True"))).contains("Running"));
        assert!(shown(pod(status("False"))).contains("NotReady"));
    }
}
