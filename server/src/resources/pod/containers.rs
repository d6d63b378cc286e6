//! The rules for containers: images, ports, environment, mounts, probes, hooks and resources.

use super::environment::{env, env_from};
use super::resources;
use super::security;
use super::volumes::{Volumes, descending, local_path};
use crate::resources::addresses::{PROTOCOLS, port_number, port_number_or_name};
use crate::resources::findings::{Findings, all, text};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec,
    Probe, SleepAction, TCPSocketAction, VolumeDevice, VolumeMount,
};
use longshore_api::field::Path;
use longshore_api::names;
use std::collections::{BTreeMap, BTreeSet};

const NOT_INIT: &str = "may not be set for init containers without restartPolicy=Always";

/// What the rules for one container need to know of its pod.
pub struct Around<'a> {
    pub spec: &'a PodSpec,
    pub volumes: &'a Volumes<'a>,
    pub host_users: bool,
}

pub fn containers(around: &Around<'_>, path: &Path, found: &mut Findings) {
    let containers = &around.spec.containers;
    if containers.is_empty() {
        found.required(path, "");
        return;
    }
    let mut names = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(container, around, &path, found);
        if !names.insert(container.name.as_str()) {
            found.duplicate(&path.child("name"), container.name.as_str());
        }
        hooks_and_probes(container, around, &path, found);
        restart_policy(container, &path, found);
    }
    host_port_conflicts(containers, path, found);
}

pub fn init_containers(around: &Around<'_>, path: &Path, found: &mut Findings) {
    let mut names: BTreeSet<_> = around.spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in all(&around.spec.init_containers).iter().enumerate() {
        let path_of = path.index(i);
        common(container, around, &path_of, found);
        let always = container.restart_policy.as_deref() == Some("Always");
        if always && !all(&container.restart_policy_rules).is_empty() {
            let why = "restartPolicyRules are not allowed for init containers with restart policy Always";
            found.forbidden(&path_of.child("restartPolicyRules"), why);
        } else {
            restart_policy(container, &path_of, found);
        }
        if !container.name.is_empty() && !names.insert(container.name.as_str()) {
            found.duplicate(&path_of.child("name"), container.name.as_str());
        }
        host_port_conflicts(std::slice::from_ref(container), path, found);
        if always {
            hooks_and_probes(container, around, &path_of, found);
        } else {
            for (field, set) in [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ] {
                if set {
                    found.forbidden(&path_of.child(field), NOT_INIT);
                }
            }
        }
    }
}

fn common(container: &Container, around: &Around<'_>, path: &Path, found: &mut Findings) {
    match container.name.as_str() {
        "" => found.required(&path.child("name"), ""),
        name => found.each(&path.child("name"), name, names::dns1123_label(name)),
    }
    if text(&container.image).is_empty() {
        found.required(&path.child("image"), "");
    }
    let policies = ["File", "FallbackToLogsOnError"];
    found.one_of(&path.child("terminationMessagePolicy"), text(&container.termination_message_policy), &policies);
    ports(all(&container.ports), &path.child("ports"), found);
    env(all(&container.env), &path.child("env"), found);
    env_from(all(&container.env_from), &path.child("envFrom"), found);
    mounts(container, around.volumes, &path.child("volumeMounts"), found);
    devices(container, around.volumes, &path.child("volumeDevices"), found);
    pull_policy(text(&container.image_pull_policy), &path.child("imagePullPolicy"), found);
    let claims = all(&around.spec.resource_claims);
    resources::container(container.resources.as_ref(), claims, &path.child("resources"), found);
    let never = text(&around.spec.restart_policy) == "Never";
    resize_policy(all(&container.resize_policy), never, &path.child("resizePolicy"), found);
    security::container(container.security_context.as_ref(), around.host_users, &path.child("securityContext"), found);
}

pub fn pull_policy(policy: &str, path: &Path, found: &mut Findings) {
    found.one_of(path, policy, &["Always", "IfNotPresent", "Never"]);
}

fn ports(ports: &[ContainerPort], path: &Path, found: &mut Findings) {
    let mut names_seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let wrong = names::port_name(name);
            if !wrong.is_empty() {
                found.each(&path.child("name"), name, wrong);
            } else if !names_seen.insert(name) {
                found.duplicate(&path.child("name"), name);
            }
        }
        match port.container_port {
            0 => found.required(&path.child("containerPort"), ""),
            number => port_number(number, &path.child("containerPort"), found),
        }
        if let Some(number) = port.host_port.filter(|p| *p != 0) {
            port_number(number, &path.child("hostPort"), found);
        }
        found.one_of(&path.child("protocol"), text(&port.protocol), &PROTOCOLS);
    }
}

fn host_port_conflicts(containers: &[Container], path: &Path, found: &mut Findings) {
    let mut taken = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in all(&container.ports).iter().enumerate() {
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let this = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if !taken.insert(this.clone()) {
                found.duplicate(&path.index(i).child("ports").index(j).child("hostPort"), this);
            }
        }
    }
}

fn mounts(container: &Container, volumes: &Volumes<'_>, path: &Path, found: &mut Findings) {
    let devices: BTreeMap<_, _> =
        all(&container.volume_devices).iter().map(|d| (d.name.as_str(), d.device_path.as_str())).collect();
    let mut paths = BTreeSet::new();
    for (i, mount) in all(&container.volume_mounts).iter().enumerate() {
        let path_of = path.index(i);
        let (name, at) = (mount.name.as_str(), mount.mount_path.as_str());
        if name.is_empty() {
            found.required(&path_of.child("name"), "");
        }
        if !volumes.contains_key(name) {
            found.not_found(&path_of.child("name"), name, "");
        }
        if at.is_empty() {
            found.required(&path_of.child("mountPath"), "");
        }
        if !paths.insert(at) {
            found.invalid(&path_of.child("mountPath"), at, "must be unique");
        }
        if devices.contains_key(name) {
            found.invalid(&path_of.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.values().any(|device| *device == at) {
            found.invalid(&path_of.child("mountPath"), at, "must not already exist as a path in volumeDevices");
        }
        // Kubernetes names the list here, not the mount.
        sub_paths(mount, &path_of, path, found);
        propagation(mount, container, path, found);
    }
}

fn sub_paths(mount: &VolumeMount, path_of: &Path, path: &Path, found: &mut Findings) {
    let (plain, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !plain.is_empty() {
        descending(plain, &path.child("subPath"), found);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            found.invalid(&path_of.child("subPathExpr"), expression, why);
        }
        descending(expression, &path.child("subPathExpr"), found);
    }
}

fn propagation(mount: &VolumeMount, container: &Container, path: &Path, found: &mut Findings) {
    let mode = mount.mount_propagation.as_deref();
    let path_of = path.child("mountPropagation");
    found.none_or_one_of(&path_of, mode, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.security_context.as_ref().is_some_and(|s| s.privileged == Some(true));
    if mode == Some("Bidirectional") && !privileged {
        found.forbidden(&path_of, "Bidirectional mount propagation is available only to privileged containers");
    }
    let path_of = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                found.forbidden(&path_of, "may only be specified when readOnly is true");
            }
            if mode.is_some_and(|m| m != "None") {
                found.forbidden(&path_of, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => found.not_supported(&path_of, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Container, volumes: &Volumes<'_>, path: &Path, found: &mut Findings) {
    let mounts = all(&container.volume_mounts);
    let (mut names_seen, mut paths_seen) = (BTreeSet::new(), BTreeSet::new());
    for (i, VolumeDevice { name, device_path }) in all(&container.volume_devices).iter().enumerate() {
        let path_of = path.index(i);
        let (name_path, device) = (path_of.child("name"), path_of.child("devicePath"));
        if name.is_empty() {
            found.required(&name_path, "");
        } else if !names_seen.insert(name) {
            found.invalid(&name_path, name.as_str(), "must be unique");
        }
        match volumes.get(name.as_str()) {
            None => found.not_found(&name_path, name.as_str(), ""),
            Some(v) if v.persistent_volume_claim.is_none() && v.ephemeral.is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                found.invalid(&name_path, name.as_str(), why);
            }
            Some(_) => {}
        }
        if device_path.is_empty() {
            found.required(&device, "");
        }
        if paths_seen.contains(device_path) {
            found.invalid(&device, device_path.as_str(), "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            found.invalid(&device, device_path.as_str(), "can not contain backsteps ('..')");
        } else {
            paths_seen.insert(device_path);
        }
        if mounts.iter().any(|m| m.name == *name) {
            found.invalid(&name_path, name.as_str(), "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| m.mount_path == *device_path) {
            found.invalid(&device, device_path.as_str(), "must not already exist as a path in volumeMounts");
        }
    }
}

fn resize_policy(policies: &[ContainerResizePolicy], never: bool, path: &Path, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if !seen.insert(&policy.resource_name) {
            found.duplicate(&path.index(i), policy.resource_name.as_str());
        }
        found.one_of(path, &policy.resource_name, &["cpu", "memory"]);
        found.one_of(path, &policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if never && policy.restart_policy != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            found.invalid(path, policy.restart_policy.as_str(), why);
        }
    }
}

fn restart_policy(container: &Container, path: &Path, found: &mut Findings) {
    let rules = all(&container.restart_policy_rules);
    let policy_path = path.child("restartPolicy");
    match container.restart_policy.as_deref() {
        None if rules.is_empty() => return,
        None => found.required(&policy_path, "must specify restartPolicy when restart rules are used"),
        policy => found.none_or_one_of(&policy_path, policy, &["Always", "Never", "OnFailure"]),
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        found.too_long(&path, 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        if !["Restart", "RestartAllContainers"].contains(&rule.action.as_str()) {
            found.not_supported(&path.child("action"), rule.action.as_str(), &["Restart", "RestartAllContainers"]);
        }
        let Some(codes) = &rule.exit_codes else {
            found.required(&path.child("exitCodes"), "must be specified");
            continue;
        };
        let path = path.child("exitCodes");
        found.none_or_one_of(&path.child("operator"), Some(&codes.operator), &["In", "NotIn"]);
        if all(&codes.values).len() > 255 {
            found.too_long(&path.child("values"), 255);
        }
    }
}

fn hooks_and_probes(container: &Container, around: &Around<'_>, path: &Path, found: &mut Findings) {
    let grace = around.spec.termination_grace_period_seconds;
    if let Some(lifecycle) = &container.lifecycle {
        hooks(lifecycle, around.spec, &path.child("lifecycle"), found);
    }
    for (field, handler, exact) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        let Some(handler) = handler else { continue };
        let path = path.child(field);
        probe(handler, grace, &path, found);
        let threshold = handler.success_threshold.unwrap_or_default();
        if exact && threshold != 1 {
            found.invalid(&path.child("successThreshold"), threshold, "must be 1");
        }
        if let Some(seconds) = handler.termination_grace_period_seconds.filter(|_| !exact) {
            let why = "must not be set for readinessProbes";
            found.invalid(&path.child("terminationGracePeriodSeconds"), seconds, why);
        }
    }
}

fn probe(probe: &Probe, grace: Option<i64>, path: &Path, found: &mut Findings) {
    let grpc = probe.grpc.as_ref().map(|g| g.port);
    Handler { exec: &probe.exec, http: &probe.http_get, tcp: &probe.tcp_socket, grpc, sleep: &None }
        .validate(grace, path, found);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        found.non_negative(&path.child(field), value.unwrap_or_default().into());
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        found.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

fn hooks(lifecycle: &Lifecycle, spec: &PodSpec, path: &Path, found: &mut Findings) {
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        let Some(LifecycleHandler { exec, http_get, sleep, tcp_socket }) = hook else { continue };
        Handler { exec, http: http_get, tcp: tcp_socket, grpc: None, sleep }.validate(
            spec.termination_grace_period_seconds,
            &path.child(field),
            found,
        );
    }
    if let Some(signal) = &lifecycle.stop_signal {
        let path = path.child("stopSignal");
        match spec.os.as_ref().map(|os| os.name.as_str()) {
            None => found.forbidden(&path, "may not be set for containers with empty `spec.os.name`"),
            Some("windows") => found.none_or_one_of(&path, Some(signal), &["SIGKILL", "SIGTERM"]),
            Some(_) if super::signals::LINUX.contains(&signal.as_str()) => {}
            Some(_) => found.not_supported(&path, signal.as_str(), &super::signals::LINUX),
        }
    }
}

/// What a probe or a hook does: exactly one of these.
struct Handler<'a> {
    exec: &'a Option<ExecAction>,
    http: &'a Option<HTTPGetAction>,
    tcp: &'a Option<TCPSocketAction>,
    grpc: Option<i32>,
    sleep: &'a Option<SleepAction>,
}

impl Handler<'_> {
    fn validate(&self, grace: Option<i64>, path: &Path, found: &mut Findings) {
        let set = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http.is_some()),
            ("tcpSocket", self.tcp.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut kinds = set.iter().filter(|(_, set)| *set).map(|(field, _)| *field);
        let Some(first) = kinds.next() else {
            found.required(path, "must specify a handler type");
            return;
        };
        for field in kinds {
            found.forbidden(&path.child(field), "may not specify more than 1 handler type");
        }
        let path = path.child(first);
        match (first, self.exec, self.http, self.tcp, self.grpc, self.sleep) {
            ("exec", Some(exec), ..) if all(&exec.command).is_empty() => found.required(&path.child("command"), ""),
            ("httpGet", _, Some(http), ..) => http_get(http, &path, found),
            ("tcpSocket", _, _, Some(tcp), ..) => port_number_or_name(&tcp.port, &path.child("port"), found),
            ("grpc", _, _, _, Some(port), _) => port_number(port, &path.child("port"), found),
            ("sleep", .., Some(sleep)) => {
                if let Some(grace) = grace.filter(|grace| sleep.seconds < 0 || sleep.seconds > *grace) {
                    let why = "must be non-negative and less than terminationGracePeriodSeconds";
                    found.invalid(&path, sleep.seconds, format!("{why} ({grace})"));
                }
            }
            _ => {}
        }
    }
}

fn http_get(http: &HTTPGetAction, path: &Path, found: &mut Findings) {
    if text(&http.path).is_empty() {
        found.required(&path.child("path"), "");
    }
    port_number_or_name(&http.port, &path.child("port"), found);
    let scheme = text(&http.scheme);
    found.none_or_one_of(&path.child("scheme"), Some(scheme), &["HTTP", "HTTPS"]);
    for header in all(&http.http_headers) {
        if header.name.is_empty() || !header.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            found.invalid(&path.child("httpHeaders"), header.name.as_str(), why);
        }
    }
}

/// An image that a pod (not a template) names must not be padded.
pub fn unpadded_images(containers: &[Container], path: &Path, found: &mut Findings) {
    for (i, container) in containers.iter().enumerate() {
        let image = text(&container.image);
        if image.trim().len() != image.len() {
            found.invalid(&path.index(i).child("image"), image, "must not have leading or trailing whitespace");
        }
    }
}

/// Keys of a ConfigMap or Secret as files.
pub fn file_path(target: &str, path: &Path, found: &mut Findings) {
    if target.is_empty() {
        found.required(path, "");
    }
    local_path(target, path, found);
}
