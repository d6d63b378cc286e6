//! What may change in a pod once it exists, and what its status may say.

use crate::resources::addresses;
use crate::resources::findings::{Findings, all, text};
use crate::resources::tree::{at, list_at, put, same, str_at};
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, PodStatus, Toleration};
use longshore_api::field::{Error, Path};
use longshore_api::names;
use serde_json::Value;

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn spec(tree: &Value, old: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    mirror_annotation(tree, old, &mut found);
    let path = Path::new("spec");
    let (Some(new), Some(was)) = (found.part::<PodSpec>(tree, "spec"), found.part::<PodSpec>(old, "spec")) else {
        return found.into_errors();
    };
    for (field, new, was) in [
        ("containers", new.containers.len(), was.containers.len()),
        ("initContainers", all(&new.init_containers).len(), all(&was.init_containers).len()),
    ] {
        if new != was {
            found.forbidden(&path.child(field), "pod updates may not add or remove containers");
            return found.into_errors();
        }
    }
    if !active_deadline(new.active_deadline_seconds, was.active_deadline_seconds, &path, &mut found) {
        return found.into_errors();
    }
    added_tolerations(all(&new.tolerations), all(&was.tolerations), &path.child("tolerations"), &mut found);
    for (i, gate) in all(&new.scheduling_gates).iter().enumerate() {
        if !all(&was.scheduling_gates).iter().any(|g| g.name == gate.name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            found.forbidden(&path.child("schedulingGates").index(i).child("name"), why);
        }
    }
    let changed = with_changeable_of(at(tree, "/spec"), at(old, "/spec"));
    if !same(&changed, at(old, "/spec")) {
        let difference = unified_diff(&pretty(at(old, "/spec")), &pretty(&changed));
        found.forbidden(&path, format!("{CHANGEABLE}\n{difference}"));
    }
    found.into_errors()
}

/// The new spec with everything that may change set back to what it was: what differs then may not.
fn with_changeable_of(new: &Value, old: &Value) -> Value {
    let mut spec = new.clone();
    for list in ["containers", "initContainers"] {
        let was = list_at(old, &format!("/{list}"));
        let now = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, was) in now.zip(was) {
            put(container, "image", was.get("image").cloned().unwrap_or_default());
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        put(&mut spec, field, old.get(field).cloned().unwrap_or_default());
    }
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(old).is_some_and(|seconds| seconds < 0) && grace(new) == Some(1) {
        put(&mut spec, "terminationGracePeriodSeconds", old["terminationGracePeriodSeconds"].clone());
    }
    // A pod that waits at a gate may still be told where it should go.
    if !list_at(old, "/schedulingGates").is_empty() {
        let narrowed = |field: &str| {
            let was = old.get(field).and_then(Value::as_object);
            let now = new.get(field).and_then(Value::as_object);
            was.into_iter().flatten().all(|(k, v)| now.and_then(|n| n.get(k)) == Some(v))
        };
        if narrowed("nodeSelector") {
            put(&mut spec, "nodeSelector", old.get("nodeSelector").cloned().unwrap_or_default());
        }
    }
    spec
}

/// Whether the rest of the update is worth judging.
fn active_deadline(new: Option<i64>, was: Option<i64>, path: &Path, found: &mut Findings) -> bool {
    let path = path.child("activeDeadlineSeconds");
    match (new, was) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            found.invalid(&path, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(was)) if was < new => {
            found.invalid(&path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            found.invalid(&path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn added_tolerations(new: &[Toleration], old: &[Toleration], path: &Path, found: &mut Findings) {
    let kept = |was: &Toleration| {
        new.iter().any(|now| Toleration { toleration_seconds: now.toleration_seconds, ..was.clone() } == *now)
    };
    if !old.iter().all(kept) {
        found.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn mirror_annotation(tree: &Value, old: &Value, found: &mut Findings) {
    let path = Path::new("metadata").child("annotations").key(MIRROR);
    let value = |tree: &Value| tree["metadata"]["annotations"][MIRROR].as_str().map(String::from);
    match (value(tree), value(old)) {
        (new, old) if new == old => {}
        (_, Some(_)) => found.forbidden(&path, "may not remove or update mirror pod annotation"),
        (_, None) => found.forbidden(&path, "may not add mirror pod annotation"),
    }
}

pub fn status(tree: &Value, old: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    let path = Path::new("status");
    let (Some(new), Some(was), Some(spec)) = (
        found.part::<PodStatus>(tree, "status"),
        found.part::<PodStatus>(old, "status"),
        found.part::<PodSpec>(old, "spec"),
    ) else {
        return found.into_errors();
    };
    for (i, condition) in all(&new.conditions).iter().enumerate() {
        if !["PodScheduled", "Ready", "Initialized"].contains(&condition.type_.as_str()) {
            let path = path.child("conditions").index(i).child("Type");
            found.each(&path, &condition.type_, names::qualified_name(&condition.type_));
        }
    }
    if str_at(tree, "/spec/nodeName") != text(&spec.node_name) {
        found.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let nominated = text(&new.nominated_node_name);
    if nominated != text(&was.nominated_node_name) && !nominated.is_empty() {
        found.each(&path.child("nominatedNodeName"), nominated, names::dns1123_subdomain(nominated));
    }
    if let Some(class) = new.qos_class.as_deref().filter(|class| *class != text(&was.qos_class)) {
        found.invalid(&path.child("qosClass"), class, crate::resources::findings::IMMUTABLE);
    }
    let main = (all(&new.container_statuses), all(&was.container_statuses));
    transitions(main.0, main.1, &spec, false, &path.child("containerStatuses"), &mut found);
    let init = (all(&new.init_container_statuses), all(&was.init_container_statuses));
    transitions(init.0, init.1, &spec, true, &path.child("initContainerStatuses"), &mut found);
    let pod_ips: Vec<_> = all(&new.pod_ips).iter().map(|ip| ip.ip.as_str()).collect();
    ips(&pod_ips, &path.child("podIPs"), &mut found);
    let host_ips: Vec<_> = all(&new.host_ips).iter().map(|ip| ip.ip.as_str()).collect();
    if let Some(first) = host_ips.first().filter(|first| **first != text(&new.host_ip)) {
        found.invalid(&path.child("hostIPs").index(0).child("ip"), *first, "must be equal to `hostIP`");
    }
    ips(&host_ips, &path.child("hostIPs"), &mut found);
    found.into_errors()
}

fn ips(ips: &[&str], path: &Path, found: &mut Findings) {
    for (i, ip) in ips.iter().enumerate() {
        addresses::ip(ip, &path.index(i), found);
    }
    if ips.len() > 2 || (ips.len() == 2 && !addresses::dual_stack(ips)) {
        found.invalid(path, ips.to_vec(), "may specify no more than one IP for each IP family");
    }
}

/// A container that has come to its end for good must not come back to life.
fn transitions(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    spec: &PodSpec,
    init: bool,
    path: &Path,
    found: &mut Findings,
) {
    let policy = text(&spec.restart_policy);
    for (i, was) in old.iter().enumerate() {
        let Some(ended) = was.state.as_ref().and_then(|s| s.terminated.as_ref()) else { continue };
        let containers = if init { all(&spec.init_containers) } else { &spec.containers[..] };
        let container = containers.iter().find(|c| c.name == was.name);
        let own = container.and_then(|c| c.restart_policy.as_deref());
        let ruled = container.is_some_and(|c| !all(&c.restart_policy_rules).is_empty());
        let restarts = match own.unwrap_or(policy) {
            "Always" => true,
            "OnFailure" => ended.exit_code != 0,
            _ => false,
        };
        if restarts || ruled {
            continue;
        }
        let alive = |now: &&ContainerStatus| {
            now.name == was.name && now.state.as_ref().is_none_or(|state| state.terminated.is_none())
        };
        if new.iter().any(|now| alive(&now)) {
            found.forbidden(&path.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The lines that differ with three lines around them, as `diff -u` shows one region from the first to the last change.
fn unified_diff(old: &str, new: &str) -> String {
    const CONTEXT: usize = 3;
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (from, after) = (head.saturating_sub(CONTEXT), tail.saturating_sub(CONTEXT));
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let mut out =
        format!("@@ -{},{} +{},{} @@\n", from + 1, old.len() - after - from, from + 1, new.len() - after - from);
    let mut write = |sign: char, lines: &[&str]| {
        for line in lines {
            out.push(sign);
            out.push_str(line);
            out.push('\n');
        }
    };
    write(' ', &old[from..head]);
    write('-', &old[head..old_end]);
    write('+', &new[head..new_end]);
    write(' ', &old[old_end..old.len() - after]);
    out
}
