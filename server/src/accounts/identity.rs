//! Who is asking. Made by an authenticator, judged by the authorizer, carried in every request's context.

use axum::http::request::Parts;
use longshore_api::Status;
use longshore_api::ids::{ClusterId, NodeId, UserId};
use std::collections::BTreeMap;

/// An authenticated caller. `username`, `uid`, `groups` and `extra` are what `kubectl auth whoami` prints; `who` is what
/// decisions rest on.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub username: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
    pub who: Who,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// A member of the organization that the cluster belongs to.
    Person { user: UserId, role: Role },
    /// A pod's or a script's token; `pod` is the one the token is bound to.
    ServiceAccount { namespace: String, name: String, pod: Option<(String, String)> },
    /// An agent, through its tunnel or with its credential.
    Node { node: NodeId, name: String },
    /// A controller of ours, named by the username. Never made from a request.
    System,
    /// No credentials were sent.
    Anonymous,
}

/// A member's role in an organization. The order is that of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Developer,
    Admin,
    Owner,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// None for a word that is no role: the caller treats the membership as absent.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Developer, Self::Admin, Self::Owner].into_iter().find(|r| r.as_str() == word)
    }
}

const AUTHENTICATED: &str = "system:authenticated";

impl Identity {
    pub fn person(user: UserId, email: &str, role: Role) -> Self {
        let mut groups = vec![format!("longshore:{}", role.as_str())];
        if role >= Role::Admin {
            groups.push("system:masters".into());
        }
        groups.push(AUTHENTICATED.into());
        let uid = user.to_string();
        Self { username: email.into(), uid, groups, extra: BTreeMap::new(), who: Who::Person { user, role } }
    }

    pub fn service_account(namespace: &str, name: &str, uid: &str, pod: Option<(String, String)>) -> Self {
        let groups =
            vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), AUTHENTICATED.into()];
        let mut extra = BTreeMap::new();
        if let Some((pod_name, pod_uid)) = &pod {
            extra.insert("authentication.kubernetes.io/pod-name".into(), vec![pod_name.clone()]);
            extra.insert("authentication.kubernetes.io/pod-uid".into(), vec![pod_uid.clone()]);
        }
        let who = Who::ServiceAccount { namespace: namespace.into(), name: name.into(), pod };
        let username = format!("system:serviceaccount:{namespace}:{name}");
        Self { username, uid: uid.into(), groups, extra, who }
    }

    pub fn node(node: NodeId, name: &str) -> Self {
        Self {
            username: format!("system:node:{name}"),
            uid: node.to_string(),
            groups: vec!["system:nodes".into(), AUTHENTICATED.into()],
            extra: BTreeMap::new(),
            who: Who::Node { node, name: name.into() },
        }
    }

    /// A controller: `system:serviceaccount:kube-system:deployment-controller`, as Kubernetes names its own.
    pub fn system(component: &str) -> Self {
        Self {
            username: format!("system:serviceaccount:kube-system:{component}"),
            uid: String::new(),
            groups: vec!["system:masters".into(), AUTHENTICATED.into()],
            extra: BTreeMap::new(),
            who: Who::System,
        }
    }

    pub fn anonymous() -> Self {
        Self {
            username: "system:anonymous".into(),
            uid: String::new(),
            groups: vec!["system:unauthenticated".into()],
            extra: BTreeMap::new(),
            who: Who::Anonymous,
        }
    }
}

/// Finds out who sent a request to a cluster. A credential that is no good is an error (401), none at all is
/// `Identity::anonymous`; a person who is no member of the cluster's organization gets 404, as if it weren't there.
pub trait Authenticator: Send + Sync + 'static {
    fn authenticate(&self, cluster: &ClusterId, parts: &Parts)
    -> impl Future<Output = Result<Identity, Status>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_by_power_and_round_trip() {
        assert!(Role::Owner > Role::Admin && Role::Admin > Role::Developer && Role::Developer > Role::Viewer);
        for role in [Role::Viewer, Role::Developer, Role::Admin, Role::Owner] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }

    #[test]
    fn only_owners_and_admins_are_masters() {
        let groups = |role| Identity::person(UserId::new("u-1"), "a@b.c", role).groups;
        assert!(groups(Role::Admin).contains(&"system:masters".to_string()));
        assert!(!groups(Role::Developer).contains(&"system:masters".to_string()));
    }
}
