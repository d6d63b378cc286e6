//! How a container says whose it is: labels, from which everything the planner needs is read back after a restart.

use crate::runtime::{ContainerSpec, Owner, Role, SandboxSpec};
use std::collections::HashMap;

pub const CLUSTER: &str = "io.longshore.cluster";
pub const NODE: &str = "io.longshore.node";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const CONTAINER: &str = "io.kubernetes.container.name";
const ROLE: &str = "io.longshore.role";
const ATTEMPT: &str = "io.longshore.attempt";
const SPEC_HASH: &str = "io.longshore.spec-hash";
const SANDBOX: &str = "io.longshore.sandbox";
const IMAGE: &str = "io.longshore.image";

pub type Labels = HashMap<String, String>;

/// What is read back. The state is asked from Docker, never kept in labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub pod_uid: String,
    pub pod_namespace: String,
    pub pod_name: String,
    pub name: String,
    pub role: Role,
    pub attempt: u32,
    pub spec_hash: String,
    pub sandbox: String,
    pub image: String,
}

fn write(owner: &Owner, pairs: &[(&str, &str)]) -> Labels {
    let mut labels: Labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    labels.insert(CLUSTER.into(), owner.cluster.clone());
    labels.insert(NODE.into(), owner.node.clone());
    labels
}

pub fn of_sandbox(owner: &Owner, spec: &SandboxSpec) -> Labels {
    write(
        owner,
        &[
            (POD_UID, &spec.pod_uid),
            (POD_NAME, &spec.pod_name),
            (POD_NAMESPACE, &spec.pod_namespace),
            (CONTAINER, "POD"),
            (ROLE, "sandbox"),
            (ATTEMPT, &spec.attempt.to_string()),
        ],
    )
}

pub fn of_container(owner: &Owner, spec: &ContainerSpec) -> Labels {
    write(
        owner,
        &[
            (POD_UID, &spec.pod_uid),
            (POD_NAME, &spec.pod_name),
            (POD_NAMESPACE, &spec.pod_namespace),
            (CONTAINER, &spec.name),
            (ROLE, if spec.init { "init" } else { "app" }),
            (ATTEMPT, &spec.attempt.to_string()),
            (SPEC_HASH, &spec.spec_hash),
            (SANDBOX, &spec.sandbox),
            (IMAGE, &spec.image),
        ],
    )
}

/// `None`: not one of ours, or not readable; it is left alone then.
pub fn read(owner: &Owner, id: &str, labels: &Labels) -> Option<Identity> {
    let get = |key: &str| labels.get(key).cloned();
    if get(CLUSTER)? != owner.cluster || get(NODE)? != owner.node {
        return None;
    }
    let role = match get(ROLE)?.as_str() {
        "sandbox" => Role::Sandbox,
        "init" => Role::Init,
        "app" => Role::App,
        _ => return None,
    };
    let sandbox = role == Role::Sandbox;
    Some(Identity {
        pod_uid: get(POD_UID)?,
        pod_namespace: get(POD_NAMESPACE)?,
        pod_name: get(POD_NAME)?,
        name: if sandbox { String::new() } else { get(CONTAINER)? },
        role,
        attempt: get(ATTEMPT)?.parse().ok()?,
        spec_hash: get(SPEC_HASH).unwrap_or_default(),
        sandbox: if sandbox { id.to_owned() } else { get(SANDBOX)? },
        image: get(IMAGE).unwrap_or_default(),
    })
}

/// The filter that lists ours and nobody else's.
pub fn filter(owner: &Owner, pod_uid: Option<&str>) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{CLUSTER}={}", owner.cluster), format!("{NODE}={}", owner.node)];
    labels.extend(pod_uid.map(|uid| format!("{POD_UID}={uid}")));
    HashMap::from([("label".to_owned(), labels)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(node: &str) -> Owner {
        Owner { cluster: "c-1".into(), node: node.into() }
    }

    #[test]
    fn what_is_written_is_read_back_by_the_same_owner_only() {
        let spec = ContainerSpec {
            pod_uid: "u".into(),
            pod_name: "p".into(),
            pod_namespace: "ns".into(),
            name: "web".into(),
            attempt: 3,
            sandbox: "s".into(),
            image: "busybox".into(),
            ..Default::default()
        };
        let labels = of_container(&owner("n-1"), &spec);
        let read_back = read(&owner("n-1"), "id", &labels).unwrap();
        assert_eq!((read_back.name.as_str(), read_back.attempt, read_back.role), ("web", 3, Role::App));
        assert_eq!(read(&owner("n-2"), "id", &labels), None);
        assert_eq!(read(&owner("n-1"), "id", &Labels::new()), None);
    }

    #[test]
    fn a_sandbox_is_its_own_sandbox() {
        let spec = SandboxSpec { pod_uid: "u".into(), attempt: 1, ..Default::default() };
        let labels = of_sandbox(&owner("n-1"), &spec);
        assert_eq!(read(&owner("n-1"), "id", &labels).unwrap().sandbox, "id");
    }
}
