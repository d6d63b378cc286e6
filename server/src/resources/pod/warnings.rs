//! What is allowed in a pod and yet is likely a mistake: `pkg/api/pod/warnings.go`.

use crate::resources::findings::{all, text};
use crate::resources::tree::{at, same, str_at};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodAffinity, PodAffinityTerm, PodAntiAffinity, PodSpec};
use longshore_api::field::Path;
use longshore_api::names;
use longshore_api::quantity::Quantity;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub fn pod(tree: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let wrong = names::dns1123_label(str_at(tree, "/metadata/name"));
    if old.is_none() && !wrong.is_empty() {
        let why =
            "this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended";
        warnings.push(format!("metadata.name: {why}: [{}]", wrong.join(" ")));
    }
    warnings.extend(changed_spec(at(tree, "/spec"), old.map(|o| at(o, "/spec")), &Path::new("spec")));
    warnings
}

/// Of a controller's `template`.
pub fn template(template: &Value, old: Option<&Value>, path: &Path) -> Vec<String> {
    changed_spec(at(template, "/spec"), old.map(|o| at(o, "/spec")), &path.child("spec"))
}

/// Only what was touched is worth a word.
fn changed_spec(new: &Value, old: Option<&Value>, path: &Path) -> Vec<String> {
    if old.is_some_and(|old| same(new, old)) {
        return Vec::new();
    }
    PodSpec::deserialize(new).map_or_else(|_| Vec::new(), |spec| spec_warnings(&spec, path))
}

fn spec_warnings(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, constraint) in all(&spec.topology_spread_constraints).iter().enumerate() {
        if constraint.label_selector.is_none() {
            let path = path.child("topologySpreadConstraints").index(i).child("labelSelector");
            warnings.push(format!("{path}: a null labelSelector results in matching no pod"));
        }
    }
    for (i, volume) in all(&spec.volumes).iter().enumerate() {
        let path = path.child("volumes").index(i);
        if volume.git_repo.is_some() {
            let path = path.child("gitRepo");
            warnings.push(format!("{path}: deprecated in v1.11, and disabled by default in v1.33+"));
        }
    }
    duplicates(all(&spec.host_aliases).iter().map(|a| a.ip.as_str()), "ip", &path.child("hostAliases"), &mut warnings);
    let secrets = all(&spec.image_pull_secrets);
    let path_of = path.child("imagePullSecrets");
    duplicates(secrets.iter().map(|s| s.name.as_str()), "name", &path_of, &mut warnings);
    for (i, _) in secrets.iter().enumerate().filter(|(_, s)| s.name.is_empty()) {
        warnings.push(format!("{}: invalid empty name \"\"", path_of.index(i).child("name")));
    }
    let lists = [("initContainers", all(&spec.init_containers)), ("containers", &spec.containers[..])];
    let containers = || {
        lists
            .iter()
            .flat_map(|(list, containers)| containers.iter().enumerate().map(|(i, c)| (path.child(list).index(i), c)))
    };
    for (path, container) in containers() {
        fractions(container, &path, &mut warnings);
        hidden_variables(container, &path, &mut warnings);
    }
    ports(containers(), &mut warnings);
    port_names(containers(), &mut warnings);
    affinity(spec, &path.child("affinity"), &mut warnings);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn duplicates<'a>(values: impl Iterator<Item = &'a str>, field: &str, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, value) in values.enumerate() {
        if !seen.insert(value) {
            warnings.push(format!("{}: duplicate {field} {value:?}", path.index(i).child(field)));
        }
    }
}

/// A byte can't be halved.
fn fractions(container: &Container, path: &Path, warnings: &mut Vec<String>) {
    let Some(resources) = &container.resources else { return };
    for name in ["memory", "ephemeral-storage"] {
        for (field, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
            let Some(quantity) = list.as_ref().and_then(|l| l.get(name)).and_then(|q| Quantity::parse(&q.0).ok())
            else {
                continue;
            };
            if quantity.milli_value() % 1000 != 0 {
                let path = path.child("resources").child(field).key(name);
                let shown = quantity.to_string();
                warnings.push(format!("{path}: fractional byte value {shown:?} is invalid, must be an integer"));
            }
        }
    }
}

fn hidden_variables(container: &Container, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, var) in all(&container.env).iter().enumerate() {
        let reference = format!("$({})", var.name);
        let value = text(&var.value);
        // Building on the earlier value, as in `PATH=$(PATH):/more`, is no accident.
        let builds_on = var.value_from.is_none() && value != reference && value.contains(&reference);
        if !seen.insert(&var.name) && !builds_on {
            let path = path.child("env").index(i);
            let name = &var.name;
            warnings
                .push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

fn ports<'a>(containers: impl Iterator<Item = (Path, &'a Container)>, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<(i32, &str), Vec<(Path, &ContainerPort)>> = BTreeMap::new();
    for (path, container) in containers {
        for (i, port) in all(&container.ports).iter().enumerate() {
            let path = path.child("ports").index(i);
            let host = |p: &ContainerPort| (p.host_ip.clone().unwrap_or_default(), p.host_port.unwrap_or_default());
            let others = seen.entry((port.container_port, text(&port.protocol))).or_default();
            for (other_path, other) in others.iter() {
                let ((ip, number), (other_ip, other_number)) = (host(port), host(other));
                let problem = if (&ip, number) == (&other_ip, other_number) {
                    "duplicate"
                } else if number == 0 || other_number == 0 {
                    "overlapping"
                } else if number == other_number && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                warnings.push(format!("{path}: {problem} port definition with {other_path}"));
            }
            others.push((path, port));
        }
    }
}

fn port_names<'a>(containers: impl Iterator<Item = (Path, &'a Container)>, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<&str, Path> = BTreeMap::new();
    for (path, container) in containers {
        for (i, port) in all(&container.ports).iter().enumerate() {
            let (path, name) = (path.child("ports").index(i), text(&port.name));
            match seen.get(name) {
                _ if name.is_empty() => {}
                Some(first) => warnings.push(format!(
                    "{path}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                )),
                None => {
                    seen.insert(name, path);
                }
            }
        }
    }
}

fn affinity(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let Some(affinity) = &spec.affinity else { return };
    let mut judge = |path: Path, term: &PodAffinityTerm| {
        if term.label_selector.is_none() {
            let path = path.child("labelSelector");
            warnings.push(format!("{path}: a null labelSelector results in matching no pod"));
        }
    };
    let both = |pod: &PodAffinity| {
        (
            pod.required_during_scheduling_ignored_during_execution.clone(),
            pod.preferred_during_scheduling_ignored_during_execution.clone(),
        )
    };
    let anti = |pod: &PodAntiAffinity| {
        (
            pod.required_during_scheduling_ignored_during_execution.clone(),
            pod.preferred_during_scheduling_ignored_during_execution.clone(),
        )
    };
    for (field, terms) in [
        ("podAffinity", affinity.pod_affinity.as_ref().map(both)),
        ("podAntiAffinity", affinity.pod_anti_affinity.as_ref().map(anti)),
    ] {
        let Some((required, preferred)) = terms else { continue };
        for (i, term) in all(&required).iter().enumerate() {
            judge(path.child(field).child("requiredDuringSchedulingIgnoredDuringExecution").index(i), term);
        }
        for (i, term) in all(&preferred).iter().enumerate() {
            let path = path.child(field).child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
            judge(path.child("podAffinityTerm"), &term.pod_affinity_term);
        }
    }
}
