//! The rules for security contexts.

use super::volumes::descending;
use crate::resources::findings::{Findings, all, text};
use k8s_openapi::api::core::v1::{AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};
use longshore_api::field::Path;
use serde_json::Value;
use std::collections::BTreeSet;

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";
const SYSCTL_RULE: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn id(id: Option<i64>, path: &Path, found: &mut Findings) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        found.invalid(path, id, ID_RANGE);
    }
}

pub fn container(context: Option<&SecurityContext>, host_users: bool, path: &Path, found: &mut Findings) {
    let Some(context) = context else { return };
    id(context.run_as_user, &path.child("runAsUser"), found);
    id(context.run_as_group, &path.child("runAsGroup"), found);
    let proc_mount = context.proc_mount.as_deref();
    found.none_or_one_of(&path.child("procMount"), proc_mount, &["Default", "Unmasked"]);
    if host_users && proc_mount == Some("Unmasked") {
        found.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), found);
    if context.allow_privilege_escalation == Some(false) {
        let shown = || serde_json::to_value(context).unwrap_or(Value::Null);
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            found.invalid(path, shown(), why);
        }
        let added = context.capabilities.as_ref().map(|c| all(&c.add)).unwrap_or_default();
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            found.invalid(path, shown(), why);
        }
    }
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), found);
}

pub fn pod(context: &PodSecurityContext, spec: &PodSpec, path: &Path, found: &mut Findings) {
    id(context.fs_group, &path.child("fsGroup"), found);
    id(context.run_as_user, &path.child("runAsUser"), found);
    id(context.run_as_group, &path.child("runAsGroup"), found);
    for (i, group) in all(&context.supplemental_groups).iter().enumerate() {
        id(Some(*group), &path.child("supplementalGroups").index(i), found);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        found.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    sysctls(context, spec, &path.child("sysctls"), found);
    let policy = context.fs_group_change_policy.as_deref();
    found.none_or_one_of(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), found);
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), found);
    let policy = context.supplemental_groups_policy.as_deref();
    found.none_or_one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    let policy = context.se_linux_change_policy.as_deref();
    found.none_or_one_of(&path.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
}

fn sysctls(context: &PodSecurityContext, spec: &PodSpec, path: &Path, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in all(&context.sysctls).iter().enumerate() {
        let (path, name) = (path.index(i).child("name"), sysctl.name.as_str());
        if name.is_empty() {
            found.required(&path, "");
        } else if !is_sysctl(name) {
            found.invalid(&path, name, SYSCTL_RULE);
        } else if !seen.insert(name) {
            found.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        let ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            found.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if spec.host_ipc == Some(true) && ipc {
            found.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |s: &str| {
        let b = s.as_bytes();
        !b.is_empty() && plain(b[0]) && plain(b[b.len() - 1]) && b.iter().all(|b| plain(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, found: &mut Findings) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "" => found.required(&path.child("type"), "type is required when seccompProfile is set"),
        kind => {
            found.none_or_one_of(&path.child("type"), Some(kind), &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
    let path_of = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => found.required(&path_of, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => descending(file, &path_of, found),
        (_, Some(_)) => {
            let shown = serde_json::to_value(profile).unwrap_or(Value::Null);
            found.invalid(&path_of, shown, "can only be set when seccomp type is Localhost");
        }
        (_, None) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path, found: &mut Findings) {
    const PATH_MAX: usize = 4095;
    let Some(profile) = profile else { return };
    let path_of = path.child("localhostProfile");
    let file = text(&profile.localhost_profile);
    match profile.type_.as_str() {
        "" => found.required(&path.child("type"), "type is required when appArmorProfile is set"),
        "Localhost" => {
            if file.trim().is_empty() {
                found.required(&path_of, "must be set when AppArmor type is Localhost");
            } else if file.trim() != file {
                found.invalid(&path_of, file, "must not be padded with whitespace");
            }
            if file.len() > PATH_MAX {
                found.too_long(&path_of, PATH_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.localhost_profile.is_some() {
                found.invalid(&path_of, file, "can only be set when AppArmor type is Localhost");
            }
        }
        other => found.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}
