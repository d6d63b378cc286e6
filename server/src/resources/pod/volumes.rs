//! The rules for volumes and what they project into files.

use super::containers::{file_path, pull_policy};
use crate::resources::findings::{Findings, all, text};
use crate::resources::selectors;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, ProjectedVolumeSource,
    ResourceFieldSelector, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use longshore_api::field::Path;
use longshore_api::names;
use longshore_api::quantity::Quantity;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The volumes that are valid, by name: what mounts may name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const ONE_TYPE: &str = "may not specify more than 1 volume type";

pub fn volumes<'a>(volumes: &'a [Volume], is_pod: bool, path: &Path, found: &mut Findings) -> Volumes<'a> {
    let mut valid = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let mut wrong = Findings::default();
        source(volume, is_pod, &path, &mut wrong);
        match volume.name.as_str() {
            "" => wrong.required(&path.child("name"), ""),
            name => wrong.each(&path.child("name"), name, names::dns1123_label(name)),
        }
        if valid.contains_key(volume.name.as_str()) {
            wrong.duplicate(&path.child("name"), volume.name.as_str());
        }
        if wrong.is_empty() {
            valid.insert(&volume.name, volume);
        }
        found.append(wrong);
    }
    valid
}

/// The sources in the order in which Kubernetes looks at them; the first one set is the volume's, others are too many.
fn sources(volume: &Volume) -> [(&'static str, bool); 30] {
    [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephFS", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwarAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ]
}

fn source(volume: &Volume, is_pod: bool, path: &Path, found: &mut Findings) {
    let all_sources = sources(volume);
    let mut set = all_sources.iter().filter(|(_, set)| *set).map(|(field, _)| *field);
    let Some(first) = set.next() else {
        found.required(path, "must specify a volume type");
        return;
    };
    for field in set {
        found.forbidden(&path.child(field), ONE_TYPE);
    }
    match first {
        "emptyDir" => empty_dir(volume, path, found),
        "hostPath" => host_path(volume, &path.child("hostPath"), found),
        "secret" => {
            let Some(secret) = &volume.secret else { return };
            let path = path.child("secret");
            if text(&secret.secret_name).is_empty() {
                found.required(&path.child("secretName"), "");
            }
            mode(secret.default_mode, &path.child("defaultMode"), found);
            items(all(&secret.items), &path.child("items"), found);
        }
        "configMap" => {
            let Some(map) = &volume.config_map else { return };
            let path = path.child("configMap");
            if map.name.is_empty() {
                found.required(&path.child("name"), "");
            }
            mode(map.default_mode, &path.child("defaultMode"), found);
            items(all(&map.items), &path.child("items"), found);
        }
        "downwarAPI" => {
            let Some(downward) = &volume.downward_api else { return };
            let path = path.child("downwardAPI");
            mode(downward.default_mode, &path.child("defaultMode"), found);
            for file in all(&downward.items) {
                downward_file(file, &path, found);
            }
        }
        "projected" => {
            let Some(projected) = &volume.projected else { return };
            projections(projected, &path.child("projected"), found);
        }
        "persistentVolumeClaim" if volume.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name.is_empty()) => {
            found.required(&path.child("persistentVolumeClaim").child("claimName"), "");
        }
        "nfs" => nfs(volume, &path.child("nfs"), found),
        "csi" if volume.csi.as_ref().is_some_and(|csi| csi.driver.is_empty()) => {
            found.required(&path.child("csi").child("driver"), "");
        }
        "ephemeral" if volume.ephemeral.as_ref().is_some_and(|e| e.volume_claim_template.is_none()) => {
            found.required(&path.child("ephemeral").child("volumeClaimTemplate"), "");
        }
        "image" => {
            let Some(image) = &volume.image else { return };
            let path = path.child("image");
            if is_pod && text(&image.reference).is_empty() {
                found.required(&path.child("reference"), "");
            }
            pull_policy(text(&image.pull_policy), &path.child("pullPolicy"), found);
        }
        // In-tree drivers of storage systems: no node here mounts them, so nothing more is known of them.
        _ => {}
    }
}

fn empty_dir(volume: &Volume, path: &Path, found: &mut Findings) {
    let limit = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
    let Some(limit) = limit else { return };
    let path = path.child("emptyDir").child("sizeLimit");
    if found.quantity(&path, &limit.0).is_some_and(|q| q.is_negative()) {
        found.forbidden(&path, "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(volume: &Volume, path: &Path, found: &mut Findings) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let Some(host) = &volume.host_path else { return };
    if host.path.is_empty() {
        found.required(&path.child("path"), "");
        return;
    }
    no_backsteps(&host.path, &path.child("path"), found);
    found.none_or_one_of(&path.child("type"), host.type_.as_deref(), &TYPES);
}

fn nfs(volume: &Volume, path: &Path, found: &mut Findings) {
    let Some(nfs) = &volume.nfs else { return };
    if nfs.server.is_empty() {
        found.required(&path.child("server"), "");
    }
    if nfs.path.is_empty() {
        found.required(&path.child("path"), "");
    } else if !nfs.path.starts_with('/') {
        found.invalid(&path.child("path"), nfs.path.as_str(), "must be an absolute path");
    }
}

fn mode(mode: Option<i32>, path: &Path, found: &mut Findings) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        found.invalid(path, mode, MODE);
    }
}

fn items(items: &[KeyToPath], path: &Path, found: &mut Findings) {
    for (i, item) in items.iter().enumerate() {
        let path = path.index(i);
        if item.key.is_empty() {
            found.required(&path.child("key"), "");
        }
        file_path(&item.path, &path.child("path"), found);
        mode(item.mode, &path.child("mode"), found);
    }
}

/// What a volume can take from its pod's fields.
const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// What can be read of a container's resources, beside huge pages.
pub const DOWNWARD_RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path, found: &mut Findings) {
    file_path(&file.path, &path.child("path"), found);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            field_selector(field, &VOLUME_FIELDS, &path.child("fieldRef"), found);
            if other.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                found.invalid(path, "resource", why);
            }
        }
        (None, Some(resource)) => {
            resource_selector(resource, &DOWNWARD_RESOURCES, true, &path.child("resourceFieldRef"), found);
        }
        (None, None) => found.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file.mode, &path.child("mode"), found);
}

/// `fieldRef`: one of `fields`, or a single label or annotation.
pub fn field_selector(selector: &ObjectFieldSelector, fields: &[&str], path: &Path, found: &mut Findings) {
    const KNOWN: [&str; 14] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let field_path = selector.field_path.as_str();
    if text(&selector.api_version).is_empty() {
        found.required(&path.child("apiVersion"), "");
        return;
    }
    if field_path.is_empty() {
        found.required(&path.child("fieldPath"), "");
        return;
    }
    let subscripted = field_path.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let plain = subscripted.map_or(field_path, |(field, _)| field);
    if text(&selector.api_version) != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {}", text(&selector.api_version));
        found.invalid(&path.child("fieldPath"), field_path, why);
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => found.each(path, key, names::qualified_name(&key.to_lowercase())),
        Some(("metadata.labels", key)) => found.each(path, key, names::qualified_name(key)),
        Some(_) => {
            let why = format!("error converting fieldPath: field label does not support subscript: {field_path}");
            found.invalid(&path.child("fieldPath"), field_path, why);
        }
        None if !KNOWN.contains(&plain) => {
            let why = format!("error converting fieldPath: field label not supported: {field_path}");
            found.invalid(&path.child("fieldPath"), field_path, why);
        }
        None if !fields.contains(&plain) => found.not_supported(&path.child("fieldPath"), plain, fields),
        None => {}
    }
}

/// `resourceFieldRef`; in a volume it must say of which container.
pub fn resource_selector(
    selector: &ResourceFieldSelector,
    resources: &[&str],
    in_volume: bool,
    path: &Path,
    found: &mut Findings,
) {
    let resource = selector.resource.as_str();
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && text(&selector.container_name).is_empty() {
        found.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        found.required(&path.child("resource"), "");
    } else if !resources.contains(&resource) && !huge {
        found.not_supported(&path.child("resource"), resource, resources);
    }
    let path = path.child("divisor");
    let Some(divisor) = selector.divisor.as_ref().and_then(|d| found.quantity(&path, &d.0)) else { return };
    if divisor.is_zero() {
        return;
    }
    let (what, supported): (&str, &[&str]) = match resource {
        "limits.cpu" | "requests.cpu" => ("cpu", &["1m", "1"]),
        "limits.memory" | "requests.memory" => ("memory", &BYTES),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => ("local ephemeral storage", &BYTES),
        _ if huge => ("hugepages", &BYTES),
        _ => return,
    };
    if !supported.contains(&divisor.to_string().as_str()) {
        let list = if what == "cpu" { "1m and 1".to_string() } else { supported.join(", ") };
        found.invalid(&path, resource, format!("only divisor's values {list} are supported with the {what} resource"));
    }
}

const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

fn projections(projected: &ProjectedVolumeSource, path: &Path, found: &mut Findings) {
    mode(projected.default_mode, &path.child("defaultMode"), found);
    let mut taken = BTreeSet::new();
    for (i, source) in all(&projected.sources).iter().enumerate() {
        let path_of = path.child("sources").index(i);
        projection(source, &path_of, path, &mut taken, found);
    }
}

fn projection(
    source: &VolumeProjection,
    path_of: &Path,
    path: &Path,
    taken: &mut BTreeSet<String>,
    found: &mut Findings,
) {
    let mut take = |target: &str, shown: &str, found: &mut Findings| {
        if !target.is_empty() && !taken.insert(target.to_string()) {
            found.invalid(path, shown, "conflicting duplicate paths");
        }
    };
    let keyed = [
        ("secret", source.secret.as_ref().map(|s| (&s.name, all(&s.items)))),
        ("configMap", source.config_map.as_ref().map(|m| (&m.name, all(&m.items)))),
    ];
    for (field, named) in keyed {
        let Some((name, list)) = named else { continue };
        if name.is_empty() {
            found.required(&path_of.child(field).child("name"), "");
        }
        items(list, &path_of.child(field).child("items"), found);
        for item in list {
            take(&item.path, name, found);
        }
    }
    for file in source.downward_api.iter().flat_map(|d| all(&d.items)) {
        downward_file(file, &path_of.child("downwardAPI"), found);
        take(&file.path, &file.path, found);
    }
    if let Some(token) = &source.service_account_token {
        account_token(token, path_of, path, found);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        trust_bundle(bundle, &path_of.child("clusterTrustBundle"), found);
        take(&bundle.path, &bundle.path, found);
    }
    let kinds = [
        source.secret.is_some(),
        source.config_map.is_some(),
        source.downward_api.is_some(),
        source.service_account_token.is_some(),
        source.cluster_trust_bundle.is_some(),
        source.pod_certificate.is_some(),
    ];
    if kinds.iter().filter(|set| **set).count() > 1 {
        found.forbidden(path_of, "may not specify more than 1 volume type per source");
    }
}

fn account_token(token: &ServiceAccountTokenProjection, path_of: &Path, path: &Path, found: &mut Findings) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    let expiration = path_of.child("serviceAccountToken").child("expirationSeconds");
    if seconds < 10 * 60 {
        found.invalid(&expiration, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        found.invalid(&expiration, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    match token.path.as_str() {
        "" => found.required(&path.child("path"), ""),
        target => local_path(target, &path.child("path"), found),
    }
}

fn trust_bundle(bundle: &ClusterTrustBundleProjection, path: &Path, found: &mut Findings) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            let shown = serde_json::to_value(bundle).unwrap_or(Value::Null);
            found.invalid(path, shown, "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            if name.is_empty() {
                found.required(&path.child("name"), "must be a valid object name");
            }
            if bundle.label_selector.is_some() {
                let shown = serde_json::to_value(&bundle.label_selector).unwrap_or(Value::Null);
                let why = "labelSelector must be unset if name is specified";
                found.invalid(&path.child("labelSelector"), shown, why);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                found.required(&path.child("signerName"), "must be a valid signer name");
            }
            selectors::validate(bundle.label_selector.as_ref(), &path.child("labelSelector"), found);
        }
        (None, None) => found.required(path, "either name or signerName must be specified"),
    }
    file_path(&bundle.path, &path.child("path"), found);
}

pub fn no_backsteps(target: &str, path: &Path, found: &mut Findings) {
    if target.split('/').any(|part| part == "..") {
        found.invalid(path, target, "must not contain '..'");
    }
}

pub fn descending(target: &str, path: &Path, found: &mut Findings) {
    if target.starts_with('/') {
        found.invalid(path, target, "must be a relative path");
    }
    no_backsteps(target, path, found);
}

/// A relative path that isn't one of those the kubelet keeps for itself (`..data`).
pub fn local_path(target: &str, path: &Path, found: &mut Findings) {
    descending(target, path, found);
    if target.starts_with("..") && !target.starts_with("../") {
        found.invalid(path, target, "must not start with '..'");
    }
}

/// Whether a quantity is a whole number of huge pages of the size in its name.
pub fn whole_huge_pages(resource: &str, quantity: &Quantity) -> bool {
    let size = resource.strip_prefix("hugepages-").and_then(|s| Quantity::parse(s).ok()).map_or(0, |q| q.value());
    size > 0 && quantity.value() % size == 0
}
