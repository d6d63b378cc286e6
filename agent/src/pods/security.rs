//! Security contexts: what holds for one container, or why it must not run. Pure.
//!
//! Invariant: a field that asks for more safety is honoured or the container is refused; none is passed over in silence.

use super::spec;
use crate::runtime::{Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, Pod};

/// The container's security context over the pod's. `image_user`: `USER` of its image. `profile` reads a seccomp profile
/// of this node by its path. `Err`: the message of a `CreateContainerConfigError`.
pub fn security(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    profile: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Security, String> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        non_root(user, image_user).map_err(|why| format!("{why} ({})", about(pod, container)))?;
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let seccomp = match own.seccomp_profile.or(of_pod.seccomp_profile) {
        None => Seccomp::RuntimeDefault,
        Some(wanted) => match (wanted.type_.as_str(), wanted.localhost_profile) {
            ("RuntimeDefault", _) => Seccomp::RuntimeDefault,
            ("Unconfined", _) => Seccomp::Unconfined,
            ("Localhost", Some(path)) => Seccomp::Profile(profile(&path)?),
            (other, _) => return Err(format!("seccomp profile type {other:?} is not supported")),
        },
    };
    let app_armor = match own.app_armor_profile.or(of_pod.app_armor_profile) {
        None => None,
        Some(wanted) => match (wanted.type_.as_str(), wanted.localhost_profile) {
            ("RuntimeDefault", _) => None,
            ("Unconfined", _) => Some("unconfined".to_owned()),
            ("Localhost", Some(name)) => Some(name),
            (other, _) => return Err(format!("AppArmor profile type {other:?} is not supported")),
        },
    };
    let labels = own.se_linux_options.or(of_pod.se_linux_options).unwrap_or_default();
    let labels = [("user", labels.user), ("role", labels.role), ("type", labels.type_), ("level", labels.level)];
    let mut groups: Vec<i64> = of_pod.supplemental_groups.into_iter().flatten().chain(of_pod.fs_group).collect();
    groups.dedup();
    Ok(Security {
        user: identity(user, own.run_as_group.or(of_pod.run_as_group), image_user),
        supplemental_groups: groups,
        privileged: own.privileged == Some(true),
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp,
        app_armor,
        se_linux: labels
            .into_iter()
            .filter_map(|(key, value)| value.filter(|v| !v.is_empty()).map(|value| format!("{key}:{value}")))
            .collect(),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn about(pod: &Pod, container: &Container) -> String {
    format!("pod: \"{}_{}({})\", container: {}", spec::name(pod), spec::namespace(pod), spec::uid(pod), container.name)
}

/// Whether it is certain that the container doesn't run as root.
fn non_root(user: Option<i64>, image_user: &str) -> Result<(), String> {
    match user {
        Some(0) => return Err("container's runAsUser breaks non-root policy".into()),
        Some(_) => return Ok(()),
        None => {}
    }
    let name = image_user.split(':').next().unwrap_or_default();
    match name.parse::<u64>() {
        Ok(0) => Err("container has runAsNonRoot and image will run as root".into()),
        Ok(_) => Ok(()),
        Err(_) if name.is_empty() => Err("container has runAsNonRoot and image will run as root".into()),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
    }
}

/// `user[:group]` where it isn't what the image says anyway. A group alone keeps the image's user.
fn identity(user: Option<i64>, group: Option<i64>, image_user: &str) -> Option<String> {
    let of_image = image_user.split(':').next().filter(|name| !name.is_empty()).unwrap_or("0");
    match (user, group) {
        (None, None) => None,
        (Some(user), None) => Some(user.to_string()),
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (None, Some(group)) => Some(format!("{of_image}:{group}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod: Value, container: Value, image_user: &str) -> Result<Security, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"securityContext": pod, "containers": [{"name": "c", "securityContext": container}]},
        }))
        .unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        security(&pod, &container, image_user, &|path| match path {
            "there.json" => Ok("{}".into()),
            _ => Err(format!("no profile {path}")),
        })
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let about = "(pod: \"p_ns(u)\", container: c)";
        let strict = json!({"runAsNonRoot": true});
        for image_user in ["", "0", "0:0", ":5"] {
            assert_eq!(
                of(strict.clone(), json!({}), image_user).unwrap_err(),
                format!("container has runAsNonRoot and image will run as root {about}"),
                "{image_user}"
            );
        }
        assert_eq!(
            of(strict.clone(), json!({}), "app:app").unwrap_err(),
            format!(
                "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root {about}"
            )
        );
        assert_eq!(
            of(json!({"runAsUser": 0}), strict.clone(), "7").unwrap_err(),
            format!("container's runAsUser breaks non-root policy {about}")
        );
        assert!(of(strict.clone(), json!({}), "7").is_ok());
        assert!(of(strict.clone(), json!({"runAsUser": 7}), "").is_ok());
        assert!(of(strict, json!({"runAsNonRoot": false}), "").is_ok(), "the container's own word counts");
    }

    #[test]
    fn a_group_alone_keeps_the_images_user() {
        let user = |pod: Value, image: &str| of(pod, json!({}), image).unwrap().user;
        assert_eq!(user(json!({"runAsGroup": 5}), "app:app").as_deref(), Some("app:5"));
        assert_eq!(user(json!({"runAsGroup": 5}), "").as_deref(), Some("0:5"));
        assert_eq!(user(json!({"runAsUser": 7, "runAsGroup": 5}), "app").as_deref(), Some("7:5"));
        assert_eq!(user(json!({"runAsUser": 7}), "app").as_deref(), Some("7"));
        assert_eq!(user(json!({}), "app"), None);
    }

    #[test]
    fn profiles_come_from_the_container_first_and_default_to_the_runtimes() {
        let seccomp = |pod: Value, container: Value| of(pod, container, "").map(|s| s.seccomp);
        let profile = |kind: &str| json!({"seccompProfile": {"type": kind}});
        assert_eq!(seccomp(json!({}), json!({})).unwrap(), Seccomp::RuntimeDefault);
        assert_eq!(seccomp(profile("Unconfined"), json!({})).unwrap(), Seccomp::Unconfined);
        assert_eq!(seccomp(profile("Unconfined"), profile("RuntimeDefault")).unwrap(), Seccomp::RuntimeDefault);
        let local = |path: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": path}});
        assert_eq!(seccomp(json!({}), local("there.json")).unwrap(), Seccomp::Profile("{}".into()));
        assert_eq!(seccomp(json!({}), local("none.json")).unwrap_err(), "no profile none.json");

        let armor = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}});
        assert_eq!(of(armor, json!({}), "").unwrap().app_armor.as_deref(), Some("mine"));
        let labels = json!({"seLinuxOptions": {"type": "t", "level": "s0:c1"}});
        assert_eq!(of(json!({}), labels, "").unwrap().se_linux, ["type:t", "level:s0:c1"]);
    }

    #[test]
    fn every_switch_reaches_the_runtime() {
        let container = json!({"privileged": false, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "procMount": "Unmasked", "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}});
        let got = of(json!({"supplementalGroups": [1, 2], "fsGroup": 3}), container, "").unwrap();
        assert!(got.read_only_root && got.no_new_privileges && got.unmasked_proc && !got.privileged);
        assert_eq!(got.supplemental_groups, [1, 2, 3]);
        assert_eq!((got.add_capabilities, got.drop_capabilities), (vec!["NET_ADMIN".into()], vec!["ALL".into()]));
    }
}
