//! The Node object, as a kubelet writes it. Pure: from what was measured and what the server has to what to say.

use super::context::Machine;
use super::machine::Measured;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use longshore_api::ids::NodeId;
use longshore_api::node::NODE_ID_LABEL;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What `kubectl get nodes` shows: Kubernetes's version whose API is spoken, and ours.
pub const VERSION: &str = concat!("v1.37.0+longshore-", env!("CARGO_PKG_VERSION"));
/// Pods a node takes.
pub const PODS: u32 = 110;
/// What is left to the machine, by the kubelet's defaults.
const KEPT_MEMORY: i64 = super::machine::KEPT_MEMORY as i64;
const KEPT_DISK: u64 = super::machine::KEPT_DISK;
/// Images listed, the largest first, and names of each.
const IMAGES: usize = 50;
const NAMES: usize = 5;
/// What a node is called, and by which labels.
#[derive(Clone, Debug)]
pub struct Naming {
    pub name: String,
    pub node: NodeId,
    /// From the join token and the command line.
    pub labels: BTreeMap<String, String>,
}

/// Go's word for a processor architecture, as labels and images have it.
fn architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i686" => "386",
        other => other,
    }
}

pub fn labels(naming: &Naming, arch: &str) -> BTreeMap<String, String> {
    let arch = architecture(arch);
    let own = [
        ("kubernetes.io/hostname", naming.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
        (NODE_ID_LABEL, naming.node.as_str()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    naming.labels.clone().into_iter().chain(own).collect()
}

/// To be created when the server has none.
pub fn registration(naming: &Naming, measured: &Measured, now: Timestamp) -> Node {
    let annotations = [("volumes.kubernetes.io/controller-managed-attach-detach", "true")];
    Node {
        metadata: ObjectMeta {
            name: Some(naming.name.clone()),
            labels: Some(labels(naming, &measured.runtime.arch)),
            annotations: Some(annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..Default::default()
        },
        status: Some(status(naming, measured, None, now)),
        ..Default::default()
    }
}

/// What labels and annotations of an object that is there already lack: a merge patch, or none.
pub fn missing(
    naming: &Naming,
    measured: &Measured,
    annotations: &BTreeMap<String, String>,
    live: &Node,
) -> Option<Value> {
    let lacking = |wanted: BTreeMap<String, String>, has: &Option<BTreeMap<String, String>>| {
        let has = |key: &String| has.as_ref().and_then(|has| has.get(key));
        wanted.into_iter().filter(|(key, value)| has(key) != Some(value)).collect::<BTreeMap<_, _>>()
    };
    let labels = match measured.runtime.arch.is_empty() {
        // Nothing is known of the machine before its runtime has answered once.
        true => BTreeMap::new(),
        false => lacking(labels(naming, &measured.runtime.arch), &live.metadata.labels),
    };
    let annotations = lacking(annotations.clone(), &live.metadata.annotations);
    let all = [("labels", labels), ("annotations", annotations)];
    let all: BTreeMap<_, _> = all.into_iter().filter(|(_, lacking)| !lacking.is_empty()).collect();
    (!all.is_empty()).then(|| json!({"metadata": all}))
}

/// The whole status; `live` is the one that the server has.
pub fn status(naming: &Naming, measured: &Measured, live: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let (capacity, allocatable) = resources(measured);
    NodeStatus {
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(measured, live, now)),
        addresses: Some(addresses(naming, measured)),
        // The kubelet API is reached through the tunnel; no port is listened on.
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: 0 }) }),
        node_info: Some(node_info(measured)),
        images: Some(images(measured)),
        ..Default::default()
    }
}

/// As the server writes quantities: what is compared with its answer must not differ in spelling (`1024Ki`, `1Mi`), or the
/// status would be written again for ever.
fn canonical(amount: String) -> Quantity {
    Quantity(longshore_api::quantity::Quantity::parse(&amount).map_or(amount, |quantity| quantity.to_string()))
}

fn resources(measured: &Measured) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
    let disk = measured.volumes.unwrap_or_default().size;
    let kibi = |bytes: i64| format!("{}Ki", bytes.max(0) / 1024);
    let list = |memory: String, disk: String| {
        let all = [
            ("cpu", measured.cpus.to_string()),
            ("memory", memory),
            ("ephemeral-storage", disk),
            ("pods", PODS.to_string()),
        ];
        all.map(|(name, amount)| (name.to_owned(), canonical(amount))).into()
    };
    let left = disk - disk / 100 * KEPT_DISK;
    (
        list(kibi(measured.memory), format!("{}Ki", disk / 1024)),
        list(kibi(measured.memory - KEPT_MEMORY), left.to_string()),
    )
}

/// What pods read of the machine: its addresses, and what a container without limits may use.
pub fn machine(measured: &Measured) -> Machine {
    Machine {
        addresses: measured.address.into_iter().collect(),
        cpu_milli: measured.cpus * 1000,
        memory: (measured.memory - KEPT_MEMORY).max(0) / 1024 * 1024,
    }
}

fn addresses(naming: &Naming, measured: &Measured) -> Vec<NodeAddress> {
    let internal = measured.address.map(|ip| ("InternalIP", ip.to_string()));
    internal
        .into_iter()
        .chain([("Hostname", naming.name.clone())])
        .map(|(type_, address)| NodeAddress { type_: type_.into(), address })
        .collect()
}

fn node_info(measured: &Measured) -> NodeSystemInfo {
    let runtime = &measured.runtime;
    NodeSystemInfo {
        machine_id: measured.ids.machine.clone(),
        system_uuid: measured.ids.system.clone(),
        boot_id: measured.ids.boot.clone(),
        kernel_version: runtime.kernel.clone(),
        os_image: runtime.os.clone(),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kubelet_version: VERSION.into(),
        operating_system: "linux".into(),
        architecture: architecture(&runtime.arch).into(),
        ..Default::default()
    }
}

fn images(measured: &Measured) -> Vec<ContainerImage> {
    let mut images: Vec<_> = measured.images.iter().filter(|image| !image.names.is_empty()).collect();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.names.cmp(&b.names)));
    let told = images.into_iter().take(IMAGES).map(|image| ContainerImage {
        names: Some(image.names.iter().take(NAMES).cloned().collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    told.collect()
}

fn conditions(measured: &Measured, live: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let live = live.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let told = |type_: &str| live.iter().find(|c| c.type_ == type_);
    let condition = |type_: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let since = told(type_).filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        NodeCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(seconds(now)),
            last_transition_time: Some(since.unwrap_or_else(|| seconds(now))),
        }
    };
    let ready = readiness(measured);
    vec![
        match measured.memory_pressure {
            true => condition(
                "MemoryPressure",
                true,
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            false => condition(
                "MemoryPressure",
                false,
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        },
        match measured.disk_pressure {
            true => condition("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure"),
            false => condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        },
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        match &ready {
            Ok(()) => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            Err(why) => condition("Ready", false, "KubeletNotReady", why),
        },
    ]
}

fn readiness(measured: &Measured) -> Result<(), String> {
    let runtime = measured.runtime_down.as_ref().map(|why| format!("container runtime is down: {why}"));
    let network = measured.network_down.as_ref().map(|why| {
        format!("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{why}")
    });
    let reasons: Vec<String> = runtime.into_iter().chain(network).collect();
    match reasons.len() {
        0 => Ok(()),
        1 => Err(reasons.concat()),
        _ => Err(format!("[{}]", reasons.join(", "))),
    }
}

fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// What `wanted` changes of `live`, as a strategic merge patch of the status; none when it says the same. Heartbeats alone
/// are no change, but go along with one; `heartbeat` sends them anyway.
pub fn patch(live: &NodeStatus, wanted: &NodeStatus, heartbeat: bool) -> Option<Value> {
    let (Value::Object(was), Value::Object(now)) = (json!(live), json!(wanted)) else { return None };
    let mut patch = Map::new();
    for (field, value) in now {
        // An empty list and none at all are the same on the wire.
        let empty = value.as_array().is_some_and(Vec::is_empty);
        if field == "conditions" || was.get(&field) == Some(&value) || (empty && !was.contains_key(&field)) {
            continue;
        }
        patch.insert(
            field.clone(),
            match (field.as_str(), value) {
                // A list merged by type would keep an address that is no more.
                ("addresses", Value::Array(addresses)) => {
                    std::iter::once(json!({"$patch": "replace"})).chain(addresses).collect()
                }
                (_, value) => value,
            },
        );
    }
    let unbeaten = |c: &NodeCondition| NodeCondition { last_heartbeat_time: None, ..c.clone() };
    let told = live.conditions.as_deref().unwrap_or_default();
    let new = wanted.conditions.as_deref().unwrap_or_default();
    let changed = new.iter().any(|c| !told.iter().any(|t| unbeaten(t) == unbeaten(c)));
    if patch.is_empty() && !changed && !heartbeat {
        return None;
    }
    patch.insert("conditions".into(), json!(new));
    Some(json!({"status": patch}))
}

/// The kubelet's events for conditions that have changed: reasons, in order.
pub fn transitions(live: Option<&NodeStatus>, wanted: &NodeStatus) -> Vec<&'static str> {
    let told = live.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let changed = wanted.conditions.iter().flatten().filter(|new| {
        let before = told.iter().find(|c| c.type_ == new.type_);
        before.is_none_or(|c| c.status != new.status)
    });
    let reason = |c: &NodeCondition| match (c.type_.as_str(), c.status.as_str()) {
        ("Ready", "True") => Some("NodeReady"),
        ("Ready", _) => Some("NodeNotReady"),
        ("MemoryPressure", "True") => Some("NodeHasInsufficientMemory"),
        ("MemoryPressure", _) => Some("NodeHasSufficientMemory"),
        ("DiskPressure", "True") => Some("NodeHasDiskPressure"),
        ("DiskPressure", _) => Some("NodeHasNoDiskPressure"),
        ("PIDPressure", "True") => Some("NodeHasInsufficientPID"),
        ("PIDPressure", _) => Some("NodeHasSufficientPID"),
        _ => None,
    };
    changed.filter_map(reason).collect()
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Disk, Ids};
    use super::*;
    use crate::runtime::{ImageRecord, Info};

    fn naming() -> Naming {
        let labels = BTreeMap::from([("zone".into(), "a".into()), ("kubernetes.io/os".into(), "plan9".into())]);
        Naming { name: "worker".into(), node: NodeId::new("n-1"), labels }
    }

    fn measured() -> Measured {
        Measured {
            ids: Ids { machine: "m".into(), system: "s".into(), boot: "b".into() },
            address: "10.0.0.7".parse().ok(),
            cpus: 2,
            memory: 1 << 30,
            volumes: Some(Disk { size: 100 << 20, available: 50 << 20, inodes: 10, inodes_free: 9 }),
            runtime: Info {
                name: "docker".into(),
                version: "20.10.24".into(),
                kernel: "6.1.0".into(),
                os: "Debian".into(),
                arch: "x86_64".into(),
                ..Default::default()
            },
            images: (0u8..60)
                .map(|n| ImageRecord { names: vec![format!("image:{n}")], size: n.into(), ..Default::default() })
                .chain([ImageRecord { size: 1 << 40, ..Default::default() }])
                .collect(),
            ..Default::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_object_is_what_a_kubelet_registers() {
        let node = registration(&naming(), &measured(), at(100));
        let labels = node.metadata.labels.as_ref().unwrap();
        let expected = [
            ("beta.kubernetes.io/arch", "amd64"),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            ("kubernetes.io/hostname", "worker"),
            ("kubernetes.io/os", "linux"),
            ("longshore.dev/node-id", "n-1"),
            ("zone", "a"),
        ];
        assert_eq!(labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
        let status = json!(node.status.unwrap());
        assert_eq!(
            status["capacity"],
            json!({"cpu": "2", "memory": "1Gi", "ephemeral-storage": "100Mi", "pods": "110"})
        );
        assert_eq!(status["allocatable"]["memory"], "924Mi");
        assert_eq!(status["allocatable"]["ephemeral-storage"], "99614720");
        assert_eq!(
            status["addresses"],
            json!([{"type": "InternalIP", "address": "10.0.0.7"}, {"type": "Hostname", "address": "worker"}])
        );
        assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "docker://20.10.24");
        assert_eq!(status["nodeInfo"]["architecture"], "amd64");
        let images = status["images"].as_array().unwrap();
        assert_eq!((images.len(), &images[0]), (50, &json!({"names": ["image:59"], "sizeBytes": 59})));
        let types: Vec<_> =
            status["conditions"].as_array().unwrap().iter().map(|c| (&c["type"], &c["status"])).collect();
        let (yes, no) = (&json!("True"), &json!("False"));
        assert_eq!(
            types,
            [
                (&json!("MemoryPressure"), no),
                (&json!("DiskPressure"), no),
                (&json!("PIDPressure"), no),
                (&json!("Ready"), yes)
            ]
        );
    }

    #[test]
    fn what_is_down_is_said() {
        let mut measured = measured();
        measured.network_down = Some("no range".into());
        let ready = |measured: &Measured| conditions(measured, None, at(1)).pop().unwrap();
        let network =
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no range";
        assert_eq!(ready(&measured).message.as_deref(), Some(network));
        measured.runtime_down = Some("gone".into());
        let both = ready(&measured);
        assert_eq!(both.message.unwrap(), format!("[container runtime is down: gone, {network}]"));
        assert_eq!((both.status.as_str(), both.reason.as_deref()), ("False", Some("KubeletNotReady")));
    }

    #[test]
    fn a_status_is_patched_only_when_it_says_something_new() {
        let first = status(&naming(), &measured(), None, at(100));
        let later = status(&naming(), &measured(), Some(&first), at(200));
        assert_eq!(patch(&first, &later, false), None);
        assert_eq!(json!(later.conditions.clone().unwrap()[3])["lastTransitionTime"], "1970-01-01T00:01:40Z");
        let beat = patch(&first, &later, true).unwrap();
        assert_eq!(beat["status"].as_object().unwrap().len(), 1);

        let mut moved = measured();
        moved.address = "10.0.0.8".parse().ok();
        let patch = patch(&first, &status(&naming(), &moved, Some(&first), at(300)), false).unwrap();
        let addresses = json!([{"$patch": "replace"}, {"type": "InternalIP", "address": "10.0.0.8"}, {"type": "Hostname", "address": "worker"}]);
        assert_eq!(patch["status"]["addresses"], addresses);
        assert!(patch["status"].get("capacity").is_none());
    }

    #[test]
    fn being_called_silent_is_answered() {
        let mut live = status(&naming(), &measured(), None, at(100));
        live.conditions.as_mut().unwrap()[3].status = "Unknown".into();
        let wanted = status(&naming(), &measured(), Some(&live), at(200));
        assert!(patch(&live, &wanted, false).is_some());
        assert_eq!(transitions(Some(&live), &wanted), ["NodeReady"]);
        assert_eq!(transitions(None, &wanted).len(), 4);
        assert!(transitions(Some(&wanted), &wanted).is_empty());
    }

    #[test]
    fn labels_that_an_object_lacks_are_added() {
        let mut node = registration(&naming(), &measured(), at(1));
        assert_eq!(missing(&naming(), &measured(), &BTreeMap::new(), &node), None);
        node.metadata.labels.as_mut().unwrap().insert("zone".into(), "b".into());
        let told = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        assert_eq!(
            missing(&naming(), &measured(), &told, &node),
            Some(json!({"metadata": {"labels": {"zone": "a"}, "annotations": {"k": "v"}}}))
        );
    }
}
