//! What a pod gets that its author left out: `pkg/apis/core/v1/defaults.go`.
//!
//! A pod template gets what every pod spec gets (`template`); some defaults only appear on pods themselves (`pod`), so
//! that a template stays close to what was written.

use super::super::tree::{child, child_of, each, fill, fill_zero, put, there};
use longshore_api::quantity::Quantity;
use serde_json::{Map, Value, json};

type Fields = Map<String, Value>;

/// A pod.
pub fn pod(tree: &mut Value) {
    if let Some(status) = tree.get_mut("status").and_then(Value::as_object_mut) {
        both_addresses(status, "podIP", "podIPs");
        both_addresses(status, "hostIP", "hostIPs");
    }
    let Some(spec) = child(tree, "spec") else { return };
    spec_defaults(spec);
    for list in ["containers", "initContainers"] {
        each(spec, list).for_each(requests_from_limits);
    }
    fill(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            each(spec, list).for_each(host_ports);
        }
    }
}

/// The single address and the first of the list are one; where they differ the single one counts, as older kubelets know
/// no other.
fn both_addresses(status: &mut Fields, single: &str, list: &str) {
    let of = |value: Option<&Value>| value.and_then(Value::as_str).filter(|s| !s.is_empty()).map(String::from);
    let first = of(status.get(list).and_then(|list| list.get(0)).and_then(|entry| entry.get("ip")));
    match (of(status.get(single)), first) {
        (Some(ip), first) if first.as_ref() != Some(&ip) => drop(status.insert(list.into(), json!([{"ip": ip}]))),
        (None, Some(ip)) => drop(status.insert(single.into(), ip.into())),
        _ => {}
    }
}

/// The `template` of a controller's spec.
pub fn template(spec: &mut Fields) {
    let Some(template) = child_of(spec, "template") else { return };
    child_of(template, "metadata");
    if let Some(spec) = child_of(template, "spec") {
        spec_defaults(spec);
    }
}

fn spec_defaults(spec: &mut Fields) {
    fill_zero(spec, "dnsPolicy", "ClusterFirst");
    fill_zero(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", Fields::new());
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_zero(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    each(spec, "volumes").for_each(volume);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list).for_each(container);
    }
    quantities(spec, "overhead");
    if let Some(resources) = there(spec, "resources") {
        quantities(resources, "limits");
        quantities(resources, "requests");
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both always say the same.
fn service_account(spec: &mut Fields) {
    let name =
        |spec: &Fields, field: &str| spec.get(field).and_then(Value::as_str).filter(|s| !s.is_empty()).map(Value::from);
    if let Some(account) = name(spec, "serviceAccountName").or_else(|| name(spec, "serviceAccount")) {
        spec.insert("serviceAccountName".into(), account.clone());
        spec.insert("serviceAccount".into(), account);
    }
}

fn container(container: &mut Fields) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    fill_zero(container, "imagePullPolicy", policy);
    fill_zero(container, "terminationMessagePath", "/dev/termination-log");
    fill_zero(container, "terminationMessagePolicy", "File");
    fill(container, "resources", Fields::new());
    for port in each(container, "ports") {
        fill_zero(port, "protocol", "TCP");
    }
    for env in each(container, "env") {
        if let Some(source) = there(env, "valueFrom") {
            if let Some(field) = there(source, "fieldRef") {
                fill_zero(field, "apiVersion", "v1");
            }
            if let Some(resource) = there(source, "resourceFieldRef") {
                fill(resource, "divisor", "0");
                canonical(resource, "divisor");
            }
            if let Some(file) = there(source, "fileKeyRef") {
                fill(file, "optional", false);
            }
        }
    }
    if let Some(resources) = there(container, "resources") {
        quantities(resources, "limits");
        quantities(resources, "requests");
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = there(container, name) {
            fill_zero(probe, "timeoutSeconds", 1);
            fill_zero(probe, "periodSeconds", 10);
            fill_zero(probe, "successThreshold", 1);
            fill_zero(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = there(probe, "grpc") {
                fill(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = there(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = there(lifecycle, hook) {
                http_get(handler);
            }
        }
    }
}

fn http_get(handler: &mut Fields) {
    if let Some(http) = there(handler, "httpGet") {
        fill_zero(http, "path", "/");
        fill_zero(http, "scheme", "HTTP");
    }
}

/// `Always` for the tag `latest`, named or implied by neither tag nor digest.
pub fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let tag = name.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// File modes of volumes, and what kind of volume one without a source is.
fn volume(volume: &mut Fields) {
    if volume.iter().all(|(field, value)| field == "name" || value.is_null()) {
        volume.insert("emptyDir".into(), Fields::new().into());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = there(volume, source) {
            fill(source, "defaultMode", 0o644);
        }
    }
    if let Some(dir) = there(volume, "emptyDir") {
        canonical(dir, "sizeLimit");
    }
    if let Some(path) = there(volume, "hostPath") {
        fill(path, "type", "");
    }
    if let Some(image) = there(volume, "image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        fill_zero(image, "pullPolicy", policy);
    }
    if let Some(downward) = there(volume, "downwardAPI") {
        downward_files(downward);
    }
    if let Some(projected) = there(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = there(source, "serviceAccountToken") {
                fill(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = there(source, "downwardAPI") {
                downward_files(downward);
            }
        }
    }
}

fn downward_files(source: &mut Fields) {
    for file in each(source, "items") {
        if let Some(field) = there(file, "fieldRef") {
            fill_zero(field, "apiVersion", "v1");
        }
        if let Some(resource) = there(file, "resourceFieldRef") {
            fill(resource, "divisor", "0");
            canonical(resource, "divisor");
        }
    }
}

fn requests_from_limits(container: &mut Fields) {
    let Some(resources) = there(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned() else {
        return;
    };
    if let Some(requests) = child_of(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn host_ports(container: &mut Fields) {
    for port in each(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            fill_zero(port, "hostPort", number);
        }
    }
}

/// Quantities in a map are written canonically, and finer than a thousandth is rounded up.
pub fn quantities(owner: &mut Fields, field: &str) {
    let Some(list) = there(owner, field) else { return };
    let names: Vec<String> = list.keys().cloned().collect();
    for name in names {
        canonical(list, &name);
    }
}

/// `0.1` is kept as `100m`, `1` as `"1"`. What is no quantity stays as it is, for validation to refuse.
fn canonical(owner: &mut Fields, field: &str) {
    let written = match owner.get(field) {
        Some(Value::String(text)) => text.trim().to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return,
    };
    let Ok(quantity) = Quantity::parse(&written) else { return };
    let milli = Quantity::from_milli(quantity.milli_value());
    // Rounding is only for what has thousandths at all; large amounts are exact already.
    let finer = quantity.milli_value() < i64::MAX && quantity.cmp_amount(&milli).is_ne();
    let shown = if finer { milli.to_string() } else { quantity.to_string() };
    owner.insert(field.into(), shown.into());
}

/// Takes the status away that a client sent.
pub fn without_status(tree: &mut Value) {
    put(tree, "status", Value::Object(Fields::new()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_latest_always() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn fills_what_was_left_out() {
        let mut got = json!({"spec": {
            "hostNetwork": true,
            "containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}],
            "serviceAccount": "robot",
        }});
        pod(&mut got);
        let expected = json!({"spec": {
            "hostNetwork": true,
            "containers": [{"name": "a", "image": "a:1",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
                "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 420}}],
            "serviceAccount": "robot", "serviceAccountName": "robot",
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
        }});
        assert_eq!(got, expected);
        pod(&mut got);
        assert_eq!(got, expected, "defaults are idempotent");
    }
}
