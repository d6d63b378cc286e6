//! The objects that are written, the same for every side.

use serde_json::json;

/// A ConfigMap of some 300 bytes.
pub fn config_map(name: &str) -> String {
    let value = "x".repeat(256);
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"k":"{value}"}}}}"#)
}

/// A pod as a user writes it: one container with requests.
pub fn pod(name: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "load"}},
        "spec": {"containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.9",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }]},
    })
    .to_string()
}

pub fn namespace(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string()
}

pub fn node(name: &str, zone: usize) -> String {
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("z{zone}")});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}).to_string()
}

/// What a kubelet would report, once.
pub fn node_status() -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let room = json!({"cpu": "32", "memory": "128Gi", "pods": "110"});
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}).to_string()
}
