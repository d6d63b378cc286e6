//! Pods that this node must not run at all, and what of a pod its sandbox can't give. Pure.
//!
//! Who binds a pod past the scheduler, or asks for what no node here has, is told by a failed pod, as the kubelet does
//! it; running the pod without what it asked for would be worse than not running it.

use super::spec;
use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

/// What the machine can do, as far as pods may ask for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    pub app_armor: bool,
}

impl Host {
    pub fn measure() -> Self {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self { app_armor: enabled.is_ok_and(|text| text.starts_with('Y')) }
    }
}

/// Why a pod is refused: its status's reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

/// Namespaced, and unable to harm the node or other pods: Kubernetes's own list.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

pub fn admit(pod: &Pod, host: Host) -> Result<(), Refusal> {
    let refuse = |reason: &str, message: String| Err(Refusal { reason: reason.into(), message });
    let Some(pod_spec) = &pod.spec else { return Ok(()) };
    if pod_spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".into());
    }
    let context = pod_spec.security_context.clone().unwrap_or_default();
    if context.supplemental_groups_policy.as_deref() == Some("Strict") {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refuse("SupplementalGroupsPolicyNotSupported", message.into());
    }
    for sysctl in context.sysctls.iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        if let Err(why) = sysctl_allowed(&name, spec::host_network(pod), pod_spec.host_ipc == Some(true)) {
            return refuse("SysctlForbidden", format!("forbidden sysctl: {name:?} {why}"));
        }
    }
    let enforced = |profile: Option<&AppArmorProfile>| profile.is_some_and(|p| p.type_ != "Unconfined");
    let app_armor = spec::containers(pod).any(|(container, _)| {
        let own = container.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
        enforced(own.or(context.app_armor_profile.as_ref()))
    });
    if app_armor && !host.app_armor {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return refuse("AppArmor", message.into());
    }
    Ok(())
}

fn sysctl_allowed(name: &str, host_network: bool, host_ipc: bool) -> Result<(), &'static str> {
    if name.starts_with("net.") && host_network {
        return Err("not allowed with host net enabled");
    }
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
    if ipc && host_ipc {
        return Err("not allowed with host ipc enabled");
    }
    if SAFE_SYSCTLS.contains(&name) { Ok(()) } else { Err("not allowlisted") }
}

/// What no sandbox of this runtime has. `Err`: the end of the message of a `FailedCreatePodSandBox`; it is asked for again,
/// as another runtime may come.
pub fn sandbox(pod: &Pod) -> Result<(), String> {
    let Some(pod_spec) = &pod.spec else { return Ok(()) };
    if let Some(class) = pod_spec.runtime_class_name.as_deref().filter(|c| !c.is_empty()) {
        return Err(format!("failed to get sandbox runtime: no runtime for {class:?} is configured"));
    }
    if pod_spec.host_users == Some(false) {
        return Err("the runtime handler \"\" does not support user namespaces".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c"}]);
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn refused(spec: Value) -> Option<(String, String)> {
        admit(&pod(spec), Host::default()).err().map(|r| (r.reason, r.message))
    }

    #[test]
    fn only_safe_sysctls_are_admitted() {
        let sysctls = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        for name in SAFE_SYSCTLS {
            assert_eq!(refused(sysctls(name)), None);
        }
        assert_eq!(refused(sysctls("net/ipv4/tcp_syncookies")), None);
        let (reason, message) = refused(sysctls("kernel.msgmax")).unwrap();
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")
        );
        let mut host = sysctls("net.ipv4.tcp_syncookies");
        host["hostNetwork"] = json!(true);
        assert!(refused(host).unwrap().1.ends_with("not allowed with host net enabled"));
    }

    #[test]
    fn what_cant_be_enforced_is_refused() {
        let armor = |kind: &str| json!({"securityContext": {"appArmorProfile": {"type": kind}}});
        assert_eq!(refused(armor("RuntimeDefault")).unwrap().0, "AppArmor");
        assert_eq!(refused(armor("Unconfined")), None);
        assert!(admit(&pod(armor("RuntimeDefault")), Host { app_armor: true }).is_ok());
        let strict = json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}});
        assert_eq!(refused(strict).unwrap().0, "SupplementalGroupsPolicyNotSupported");
        assert_eq!(refused(json!({"os": {"name": "windows"}})).unwrap().0, "PodOSNotSupported");
        assert_eq!(refused(json!({"os": {"name": "linux"}})), None);
        assert!(sandbox(&pod(json!({"hostUsers": false}))).is_err());
        assert!(sandbox(&pod(json!({"hostUsers": true}))).is_ok());
        assert!(sandbox(&pod(json!({"runtimeClassName": "gvisor"}))).is_err());
    }
}
