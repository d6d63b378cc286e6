//! Small questions to a pod's spec.

use super::network::{HostPort, Identity, Protocol};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodStatus};
use sha2::{Digest, Sha256};

/// Init containers first, then the others; with each whether it is an init container.
pub fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let apps = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    init.iter().map(|c| (c, true)).chain(apps.iter().map(|c| (c, false)))
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that ended (`None`: never ran to an end) runs again under this policy.
pub fn restarts(policy: &str, exit_code: Option<i32>) -> bool {
    match (policy, exit_code) {
        (_, None) => true,
        ("Never", _) => false,
        ("OnFailure", Some(code)) => code != 0,
        _ => true,
    }
}

/// A fingerprint of what can change in a running container's spec and asks for a restart: its name and image.
pub fn hash(container: &Container) -> String {
    let text = format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default());
    hex::encode(&Sha256::digest(text)[..6])
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

pub fn identity(pod: &Pod) -> Identity {
    Identity { namespace: namespace(pod).to_owned(), labels: pod.metadata.labels.clone().unwrap_or_default() }
}

/// The ports of the host that its containers ask for. Those for an IPv6 address and SCTP ones are left out.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let asked = |port: &ContainerPort| {
        let number = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        let host_ip = match port.host_ip.as_deref().unwrap_or_default() {
            "" | "0.0.0.0" | "::" => None,
            ip => Some(ip.parse().ok()?),
        };
        let (host_port, pod_port) = (number(port.host_port?)?, number(port.container_port)?);
        Some(HostPort { protocol, host_ip, host_port, pod_port })
    };
    containers(pod).flat_map(|(c, _)| c.ports.iter().flatten()).filter_map(asked).collect()
}

/// Nothing of it runs any more, and nothing will: the last word of its status.
pub fn is_final(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}
