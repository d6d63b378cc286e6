//! The rules for environment variables and where their values come from.

use super::volumes::{DOWNWARD_RESOURCES, field_selector, no_backsteps, resource_selector};
use crate::resources::findings::{Findings, all, text};
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PodSpec};
use longshore_api::field::Path;
use longshore_api::names;

const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
/// Printable ASCII except `=`, at least one character.
fn env_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![ENV_NAME.to_string()]
}

pub fn env(vars: &[EnvVar], path: &Path, found: &mut Findings) {
    for (i, var) in vars.iter().enumerate() {
        let path = path.index(i);
        match var.name.as_str() {
            "" => found.required(&path.child("name"), ""),
            name => found.each(&path.child("name"), name, env_name(name)),
        }
        env_source(var, &path.child("valueFrom"), found);
    }
}

/// What a variable can take from its pod's fields, beside single labels and annotations.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn env_source(var: &EnvVar, path: &Path, found: &mut Findings) {
    let Some(source) = &var.value_from else { return };
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_selector(field, &ENV_FIELDS, &path.child("fieldRef"), found);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_selector(resource, &DOWNWARD_RESOURCES, false, &path.child("resourceFieldRef"), found);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        key_selector(&key.name, &key.key, &path.child("configMapKeyRef"), found);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        key_selector(&key.name, &key.key, &path.child("secretKeyRef"), found);
    }
    if let Some(file) = &source.file_key_ref {
        sources += 1;
        let path = path.child("fileKeyRef");
        match file.key.as_str() {
            "" => found.required(&path.child("key"), ""),
            key => found.each(&path.child("key"), key, env_name(key)),
        }
        match file.volume_name.as_str() {
            "" => found.required(&path.child("volumeName"), ""),
            name => found.each(&path.child("volumeName"), name, names::dns1123_label(name)),
        }
        match file.path.as_str() {
            "" => found.required(&path.child("path"), ""),
            file => no_backsteps(file, &path.child("path"), found),
        }
    }
    if sources == 0 {
        let why =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        found.invalid(path, "", why);
    } else if !text(&var.value).is_empty() {
        found.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        found.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_selector(name: &str, key: &str, path: &Path, found: &mut Findings) {
    found.each(&path.child("name"), name, names::dns1123_subdomain(name));
    match key {
        "" => found.required(&path.child("key"), ""),
        key => found.each(&path.child("key"), key, names::config_map_key(key)),
    }
}

pub fn env_from(sources: &[EnvFromSource], path: &Path, found: &mut Findings) {
    for (i, source) in sources.iter().enumerate() {
        let path_of = path.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            found.each(&path_of.child("prefix"), prefix, env_name(prefix));
        }
        let named = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
        ];
        for (field, name) in named {
            match name {
                Some("") => found.required(&path_of.child(field).child("name"), ""),
                Some(name) => found.each(&path_of.child(field).child("name"), name, names::dns1123_subdomain(name)),
                None => {}
            }
        }
        match named.iter().filter(|(_, name)| name.is_some()).count() {
            0 => found.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => found.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

/// Variables read from files must name a volume that is an emptyDir.
pub fn file_key_volumes(spec: &PodSpec, path: &Path, found: &mut Findings) {
    let lists = [("initContainers", all(&spec.init_containers)), ("containers", &spec.containers[..])];
    for (list, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            for (j, var) in all(&container.env).iter().enumerate() {
                let Some(file) = var.value_from.as_ref().and_then(|s| s.file_key_ref.as_ref()) else { continue };
                let source = path.child(list).index(i).child("env").index(j).child("valueFrom").child("fileKeyRef");
                let path = source.child("volumeName");
                match all(&spec.volumes).iter().find(|v| v.name == file.volume_name) {
                    None => found.not_found(&path, file.volume_name.as_str(), ""),
                    Some(v) if v.empty_dir.is_none() => {
                        found.invalid(&path, file.volume_name.as_str(), "referenced volume must be of type emptyDir");
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
