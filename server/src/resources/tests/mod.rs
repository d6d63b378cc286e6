//! What holds for every kind, and what each says of realistic objects.

mod pods;
pub mod properties;
mod tables;
mod workloads;

use serde_json::{Value, json};

/// A realistic object of each kind, by the store's name.
pub fn samples() -> Vec<(&'static str, Value)> {
    let meta = |name: &str| {
        json!({"name": name, "namespace": "shop", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web"}})
    };
    let container = json!({
        "name": "web", "image": "registry.example.com/shop/web:1.4", "command": ["/web"], "args": ["--port", "8080"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [
            {"name": "MODE", "value": "fast"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api"}}}],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "resources": {"limits": {"cpu": "0.5", "memory": "256Mi"}, "requests": {"cpu": "100m"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
        "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "conf", "mountPath": "/etc/web", "readOnly": true}],
        "securityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
    });
    let spec = json!({
        "containers": [container],
        "initContainers": [
            {"name": "migrate", "image": "shop/migrate"},
            {"name": "proxy", "image": "shop/proxy:2", "restartPolicy": "Always"}],
        "volumes": [
            {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "conf", "projected": {"sources": [{"configMap": {"name": "conf"}}, {"secret": {"name": "keys",
                "items": [{"key": "api", "path": "keys/api"}]}}]}}],
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "web"}}}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
    });
    let template = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}, "spec": spec});
    let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]});
    let mut pod_spec = spec.clone();
    pod_spec["nodeName"] = json!("node-1");
    vec![
        (
            "namespaces",
            json!({"metadata": {"name": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Active"}}),
        ),
        (
            "nodes",
            json!({"metadata": {"name": "node-1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"node-role.kubernetes.io/worker": ""}}, "spec": {"podCIDR": "10.244.1.0/24"},
            "status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian GNU/Linux 13 (trixie)",
                    "kernelVersion": "6.12.0", "containerRuntimeVersion": "docker://28.0.1"}}}),
        ),
        (
            "pods",
            json!({"metadata": meta("web-0"), "spec": pod_spec, "status": {"phase": "Running", "podIP": "10.244.1.5",
            "podIPs": [{"ip": "10.244.1.5"}], "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
            "initContainerStatuses": [
                {"name": "migrate", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "proxy", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "web", "ready": true, "started": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:50:00Z"}}}]}}),
        ),
        (
            "services",
            json!({"metadata": meta("web"), "spec": {"type": "LoadBalancer", "clusterIP": "10.96.3.4",
            "clusterIPs": ["10.96.3.4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]}}),
        ),
        (
            "endpointslices.discovery.k8s.io",
            json!({"metadata": meta("web-x1"), "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.1.5"], "conditions": {"ready": true}, "nodeName": "node-1"}],
            "ports": [{"name": "http", "port": 8080}]}),
        ),
        (
            "endpoints",
            json!({"metadata": meta("web"), "subsets": [{"addresses": [{"ip": "10.244.1.5"}], "ports": [{"port": 8080}]}]}),
        ),
        (
            "configmaps",
            json!({"metadata": meta("settings"), "data": {"a": "1", "b": "2"}, "binaryData": {"c": "aGk="}}),
        ),
        ("secrets", json!({"metadata": meta("keys"), "stringData": {"api": "hunter2"}})),
        ("serviceaccounts", json!({"metadata": meta("robot"), "secrets": [{"name": "robot-token"}]})),
        (
            "events",
            json!({"metadata": meta("web-0.17"), "type": "Warning", "reason": "BackOff", "message": "Back-off restarting failed container\n",
            "count": 3, "firstTimestamp": "2026-01-01T00:10:00Z", "lastTimestamp": "2026-01-01T00:59:00Z",
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web-0", "fieldPath": "spec.containers{web}"},
            "source": {"component": "kubelet", "host": "node-1"}}),
        ),
        (
            "leases.coordination.k8s.io",
            json!({"metadata": meta("leader"), "spec": {"holderIdentity": "web-0", "leaseDurationSeconds": 15}}),
        ),
        (
            "deployments.apps",
            json!({"metadata": meta("web"), "spec": {"replicas": 3, "selector": selector, "template": template},
            "status": {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 2, "availableReplicas": 2}}),
        ),
        (
            "replicasets.apps",
            json!({"metadata": meta("web-5d8f"), "spec": {"replicas": 3, "selector": selector, "template": template},
            "status": {"replicas": 3, "readyReplicas": 2, "availableReplicas": 2}}),
        ),
        (
            "networkpolicies.networking.k8s.io",
            json!({"metadata": meta("web"), "spec": {"podSelector": selector,
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "front"}}, "namespaceSelector": {}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                    "ports": [{"port": "http"}, {"port": 8000, "endPort": 8080, "protocol": "UDP"}]}],
                "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": "data"}}}]}]}}),
        ),
        (
            "priorityclasses.scheduling.k8s.io",
            json!({"metadata": {"name": "gold", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}, "value": 1000,
                "globalDefault": true, "description": "for what earns money", "preemptionPolicy": "Never"}),
        ),
        (
            "ingresses.networking.k8s.io",
            json!({"metadata": meta("web"), "spec": {"ingressClassName": "edge", "tls": [{"hosts": ["shop.example.com"], "secretName": "shop-tls"}],
                "rules": [{"host": "shop.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "web", "port": {"name": "http"}}}}]}}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}),
        ),
        (
            "ingressclasses.networking.k8s.io",
            json!({"metadata": {"name": "edge", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"controller": "longshore.dev/edge"}}),
        ),
    ]
}
