//! From a container's spec to what Docker is asked to create. Pure.

use super::labels;
use super::pause;
use crate::runtime::{ContainerSpec, Owner, SandboxSpec, Seccomp, Security};
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountType, RestartPolicy, RestartPolicyNameEnum,
};
use std::collections::HashMap;

/// The names that the kubelet gives under Docker, so that `docker ps` reads as people know it.
pub fn sandbox_name(spec: &SandboxSpec) -> String {
    format!("k8s_POD_{}_{}_{}_{}", spec.pod_name, spec.pod_namespace, spec.pod_uid, spec.attempt)
}

pub fn container_name(spec: &ContainerSpec) -> String {
    format!("k8s_{}_{}_{}_{}_{}", spec.name, spec.pod_name, spec.pod_namespace, spec.pod_uid, spec.attempt)
}

/// What both kinds have in common. Logs go to `json-file` whatever the daemon's default is: `kubectl logs` reads them
/// back through Docker; the sizes are the kubelet's own defaults.
fn host_config() -> HostConfig {
    HostConfig {
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([("max-size".into(), "10m".into()), ("max-file".into(), "5".into())])),
        }),
        init: Some(false),
        ..Default::default()
    }
}

pub fn sandbox(owner: &Owner, spec: &SandboxSpec) -> ContainerCreateBody {
    let host = HostConfig {
        network_mode: Some(if spec.host_network { "host" } else { "none" }.into()),
        ipc_mode: Some(if spec.host_ipc { "host" } else { "shareable" }.into()),
        pid_mode: spec.host_pid.then(|| "host".into()),
        cgroup_parent: spec.cgroup_parent.clone(),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        // As the kubelet's: the last to be killed when memory runs out, and hardly any weight on the processor.
        oom_score_adj: Some(-998),
        cpu_shares: Some(2),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        readonly_rootfs: Some(true),
        ..host_config()
    };
    ContainerCreateBody {
        image: Some(pause::image()),
        hostname: (!spec.host_network && !spec.hostname.is_empty()).then(|| spec.hostname.clone()),
        labels: Some(labels::of_sandbox(owner, spec)),
        host_config: Some(host),
        ..Default::default()
    }
}

pub fn container(owner: &Owner, spec: &ContainerSpec) -> ContainerCreateBody {
    let joined = format!("container:{}", spec.sandbox);
    let pid_mode =
        if spec.host_pid { Some("host".to_owned()) } else { spec.share_process_namespace.then(|| joined.clone()) };
    let resources = &spec.resources;
    let host = HostConfig {
        network_mode: Some(if spec.host_network { "host".into() } else { joined.clone() }),
        ipc_mode: Some(if spec.host_ipc { "host".into() } else { joined }),
        uts_mode: spec.host_network.then(|| "host".into()),
        pid_mode,
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        privileged: Some(spec.security.privileged),
        readonly_rootfs: Some(spec.security.read_only_root),
        cap_add: list(&spec.security.add_capabilities),
        cap_drop: list(&spec.security.drop_capabilities),
        security_opt: list(&security_options(&spec.security)),
        masked_paths: spec.security.unmasked_proc.then(Vec::new),
        readonly_paths: spec.security.unmasked_proc.then(Vec::new),
        group_add: list(&spec.security.supplemental_groups.iter().map(i64::to_string).collect::<Vec<_>>()),
        cpu_shares: resources.cpu_shares,
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        memory: resources.memory,
        // The same as the memory limit: none of it in swap.
        memory_swap: resources.memory,
        oom_score_adj: resources.oom_score_adj,
        ..host_config()
    };
    ContainerCreateBody {
        // By id: between the check and now the tag may have moved.
        image: Some(if spec.image_id.is_empty() { spec.image.clone() } else { spec.image_id.clone() }),
        entrypoint: (!spec.command.is_empty()).then(|| spec.command.clone()),
        cmd: (!spec.args.is_empty()).then(|| spec.args.clone()),
        env: Some(spec.env.clone()),
        working_dir: spec.working_dir.clone(),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        tty: Some(spec.tty),
        stop_signal: spec.stop_signal.clone(),
        user: spec.security.user.clone(),
        labels: Some(labels::of_container(owner, spec)),
        host_config: Some(host),
        // A pod's probes are the only health there is.
        healthcheck: Some(bollard::models::HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        ..Default::default()
    }
}

fn list(items: &[String]) -> Option<Vec<String>> {
    (!items.is_empty()).then(|| items.to_vec())
}

/// Where nothing is said Docker's default profiles hold.
fn security_options(security: &Security) -> Vec<String> {
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges:true".to_owned());
    }
    match &security.seccomp {
        Seccomp::RuntimeDefault => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(json) => options.push(format!("seccomp={json}")),
    }
    options.extend(security.app_armor.iter().map(|profile| format!("apparmor={profile}")));
    options.extend(security.se_linux.iter().map(|label| format!("label={label}")));
    options
}

fn mount(mount: &crate::runtime::Mount) -> Mount {
    let propagation = match mount.propagation.as_deref() {
        Some("HostToContainer") => MountBindOptionsPropagationEnum::RSLAVE,
        Some("Bidirectional") => MountBindOptionsPropagationEnum::RSHARED,
        _ => MountBindOptionsPropagationEnum::RPRIVATE,
    };
    Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..Default::default() }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { cluster: "c".into(), node: "n".into() }
    }

    #[test]
    fn docker_never_restarts_anything_itself() {
        for body in [sandbox(&owner(), &SandboxSpec::default()), container(&owner(), &ContainerSpec::default())] {
            let policy = body.host_config.unwrap().restart_policy.unwrap();
            assert_eq!(policy.name, Some(RestartPolicyNameEnum::NO));
        }
    }

    #[test]
    fn containers_join_the_sandbox_and_get_no_flags_that_mode_refuses() {
        let spec = ContainerSpec { sandbox: "abc".into(), ..Default::default() };
        let body = container(&owner(), &spec);
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("container:abc"));
        assert_eq!(host.ipc_mode.as_deref(), Some("container:abc"));
        assert_eq!((body.hostname, host.dns, host.extra_hosts, host.port_bindings), (None, None, None, None));
    }

    #[test]
    fn memory_limits_leave_no_room_for_swap() {
        let mut spec = ContainerSpec::default();
        spec.resources.memory = Some(64 << 20);
        let host = container(&owner(), &spec).host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    }

    #[test]
    fn security_options_as_docker_writes_them() {
        let mut security = Security { no_new_privileges: true, ..Default::default() };
        assert_eq!(security_options(&security), ["no-new-privileges:true"]);
        security.seccomp = Seccomp::Unconfined;
        security.app_armor = Some("mine".into());
        security.se_linux = vec!["level:s0".into()];
        let all = ["no-new-privileges:true", "seccomp=unconfined", "apparmor=mine", "label=level:s0"];
        assert_eq!(security_options(&security), all);
        security = Security { seccomp: Seccomp::Profile("{}".into()), ..Default::default() };
        assert_eq!(security_options(&security), ["seccomp={}"]);
    }

    #[test]
    fn an_unmasked_proc_hides_nothing() {
        let mut spec = ContainerSpec::default();
        assert_eq!(container(&owner(), &spec).host_config.unwrap().masked_paths, None);
        spec.security.unmasked_proc = true;
        let host = container(&owner(), &spec).host_config.unwrap();
        assert_eq!((host.masked_paths, host.readonly_paths), (Some(vec![]), Some(vec![])));
    }
}
