//! ServiceAccount: every pod runs as one, and finds its token, the cluster's certificate and its namespace in a volume.

use super::pods::push;
use super::{Admission, newest};
use crate::apiserver::metadata;
use crate::resources::service_account;
use crate::resources::tree::{child, each};
use crate::store::{Cluster, WatchFilter};
use longshore_api::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const DEFAULT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and some: the seconds by which clients tell a token that lives an hour from one that was asked for so.
const TOKEN_SECONDS: i64 = 3607;
/// A namespace's `default` account comes a moment after the namespace; a pod made in between waits that long for it.
const PATIENCE: Duration = Duration::from_millis(1500);

pub fn admit(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    let (namespace, name) = (metadata::text(pod, "namespace").to_string(), metadata::text(pod, "name").to_string());
    if pod["metadata"]["annotations"].get(MIRROR).is_some() {
        return mirror(admission, &name, pod);
    }
    let mut account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_string();
    if account.is_empty() {
        account = DEFAULT.to_string();
        if let Some(spec) = child(pod, "spec") {
            spec.insert("serviceAccountName".into(), DEFAULT.into());
            // The old name of the field, which some clients still read.
            spec.insert("serviceAccount".into(), DEFAULT.into());
        }
    }
    let Some(found) = newest(admission.cluster, &service_account::RESOURCE, &namespace, &account)? else {
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount {account:?} not found");
        return Err(admission.forbidden(&name, &why));
    };
    let found = found.tree();
    let automount = |tree: &Value| tree["automountServiceAccountToken"].as_bool();
    if automount(&pod["spec"]).or(automount(&found)).unwrap_or(true) {
        mount(pod, rand::random);
    }
    let secrets = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
    if let (false, Some(list)) = (secrets, found["imagePullSecrets"].as_array().filter(|list| !list.is_empty())) {
        let names = list.iter().map(|s| json!({"name": s["name"]})).collect();
        if let Some(spec) = child(pod, "spec") {
            spec.insert("imagePullSecrets".into(), names);
        }
    }
    Ok(())
}

/// A mirror of what a node runs of its own accord may not borrow anything of the cluster's.
fn mirror(admission: &Admission<'_>, name: &str, pod: &Value) -> Result<(), Status> {
    let refuse = |why: &str| Err(admission.forbidden(name, why));
    if !pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        return refuse("a mirror pod may not reference service accounts");
    }
    let volumes = || pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = |volume: &Value| volume["projected"]["sources"].as_array().cloned().unwrap_or_default();
    if volumes().any(|v| !v["secret"].is_null() || sources(v).iter().any(|s| !s["secret"].is_null())) {
        return refuse("a mirror pod may not reference secrets");
    }
    if volumes().any(|v| sources(v).iter().any(|s| !s["serviceAccountToken"].is_null())) {
        return refuse("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Waits until the namespace has its `default` account, if the pod is to run as it. Whether it came, admission tells.
pub async fn await_default(cluster: &Arc<Cluster>, namespace: &str, pod: &Value) {
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    let there = || !matches!(newest(cluster, &service_account::RESOURCE, namespace, DEFAULT), Ok(None));
    if !["", DEFAULT].contains(&account) || there() {
        return;
    }
    let filter = WatchFilter {
        resource: Some(service_account::RESOURCE.store_name().into()),
        namespace: Some(namespace.into()),
        internal: true,
        ..WatchFilter::default()
    };
    let Ok(mut watch) = cluster.watch(None, filter) else { return };
    // It may have come between the first look and the watch.
    let wait = async {
        while !there() {
            watch.next().await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, wait).await;
}

/// Adds the volume, and its mount to every container that has nothing at that place.
fn mount(pod: &mut Value, random: impl FnMut() -> u32) {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let existing =
        volumes.filter_map(|v| v["name"].as_str()).find(|name| name.starts_with(VOLUME_PREFIX)).map(String::from);
    let name = existing.clone().unwrap_or_else(|| metadata::generated_name(VOLUME_PREFIX, random));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in child(pod, "spec").into_iter().flat_map(|spec| each(spec, list)) {
            let mounts = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
            if mounts.into_iter().any(|m| m["mountPath"] == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            match container.get_mut("volumeMounts") {
                Some(Value::Array(mounts)) => mounts.push(mount),
                _ => drop(container.insert("volumeMounts".into(), json!([mount]))),
            }
            needed = true;
        }
    }
    if !needed || existing.is_some() {
        return;
    }
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}});
    push(pod, "volumes", volume);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_the_token_once() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}],
            "initContainers": [{"name": "i"}]}});
        mount(&mut pod, || 0);
        assert_eq!(pod["spec"]["volumes"][0]["name"], "kube-api-access-bbbbb");
        let mount_of = json!([{"name": "kube-api-access-bbbbb", "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], mount_of);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"], mount_of);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let once = pod.clone();
        mount(&mut pod, || 1);
        assert_eq!(pod, once);
    }

    #[test]
    fn adds_no_volume_that_nobody_mounts() {
        let mut pod =
            json!({"spec": {"containers": [{"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]}});
        let before = pod.clone();
        mount(&mut pod, || 0);
        assert_eq!(pod, before);
    }
}
