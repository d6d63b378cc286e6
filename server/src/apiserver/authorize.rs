//! Who may do what. A pure function over the identity and what is asked, deny by default.
//!
//! Until Kubernetes RBAC comes, roles in the organization decide, plus what a node and a service account need to work:
//! - owners and administrators, and our own controllers, may do everything;
//! - a developer edits what lives in namespaces, except what steers others' traffic (hand-made endpoints), what only
//!   controllers write (status, bindings), and namespaces and nodes themselves;
//! - a viewer reads all of it but Secrets;
//! - a node reaches its own Node and lease, its pods, and what they name;
//! - a service account may ask who it is and what the API has, nothing else.
//!
//! What a node's pods name can only be known from the cluster, so it is asked through `NodeScope`; nothing else here looks
//! at stored state. Rejected: judging by verb alone and checking content later in handlers. What isn't allowed by this
//! file is refused before a body is read.

use crate::accounts::{Identity, Role, Who};

/// What a request wants, as Kubernetes's authorizers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method in
    /// lower case.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    /// For lists and watches of one object by `fieldSelector=metadata.name=…`, that name.
    pub name: String,
    /// The node that a list or watch of pods is narrowed to (`fieldSelector=spec.nodeName=…`).
    pub node_selector: String,
    /// The path, where it names no resource.
    pub path: String,
    pub is_resource: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Why, in words that may be shown; often empty.
    Deny(String),
}

impl Decision {
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }
    fn when(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Deny(String::new()) }
    }
}

/// What a node's pods name, looked up in the cluster. All methods are about pods that are bound to that node.
pub trait NodeScope {
    fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool;
    fn has_pods_in(&self, node: &str, namespace: &str) -> bool;
    /// Whether a pod mounts, reads its environment from, or pulls its images with the object. `resource` is `secrets`,
    /// `configmaps` or `serviceaccounts`.
    fn names(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool;
}

/// Paths that clients read before they know who they are.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// Paths that every authenticated client reads to find out what there is.
const DISCOVERY: [&str; 5] = ["/api", "/apis", "/openapi", "/.well-known/openid-configuration", "/openid/v1/jwks"];
const READS: [&str; 3] = ["get", "list", "watch"];
/// The namespace of nodes' leases.
pub const NODE_LEASES: &str = "kube-node-lease";

pub fn authorize(identity: &Identity, asked: &Attributes, scope: &dyn NodeScope) -> Decision {
    if !asked.is_resource {
        return path(identity, asked);
    }
    if identity.who == Who::Anonymous {
        return Decision::Deny(String::new());
    }
    if asks_about_itself(asked) {
        return Decision::Allow;
    }
    match &identity.who {
        Who::System => Decision::Allow,
        Who::Person { role, .. } => Decision::when(person(*role, asked)),
        Who::Node { name, .. } => node(name, asked, scope),
        Who::ServiceAccount { .. } | Who::Anonymous => Decision::Deny(String::new()),
    }
}

fn path(identity: &Identity, asked: &Attributes) -> Decision {
    let below = |roots: &[&str]| {
        roots
            .iter()
            .any(|root| asked.path == *root || asked.path.strip_prefix(root).is_some_and(|r| r.starts_with('/')))
    };
    let reads = asked.verb == "get" || asked.verb == "head";
    let everything = match identity.who {
        Who::System => true,
        Who::Person { role, .. } => role >= Role::Admin,
        _ => false,
    };
    let known = identity.who != Who::Anonymous;
    Decision::when(everything || (reads && (below(&PUBLIC) || (known && below(&DISCOVERY)))))
}

/// The paths that every authenticated client may read, as `auth can-i --list` shows them.
pub fn open_paths() -> Vec<String> {
    PUBLIC.iter().chain(&DISCOVERY).flat_map(|path| [path.to_string(), format!("{path}/*")]).collect()
}

/// `auth whoami`, `auth can-i`: open to everyone who has signed in.
fn asks_about_itself(asked: &Attributes) -> bool {
    let review = matches!(
        (asked.group.as_str(), asked.resource.as_str()),
        ("authentication.k8s.io", "selfsubjectreviews")
            | ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
    );
    review && asked.verb == "create" && asked.subresource.is_empty()
}

/// One line of what a role may do, in the shape that `auth can-i --list` shows.
pub struct Rule {
    pub groups: &'static [&'static str],
    pub resources: &'static [&'static str],
    pub verbs: &'static [&'static str],
}

const CHANGES: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// What a viewer reads: everything of our kinds but Secrets. New kinds are added by name: a list that forgets one denies.
const VIEWER: &[Rule] = &[
    Rule {
        groups: &[""],
        resources: &[
            "configmaps",
            "endpoints",
            "events",
            "namespaces",
            "namespaces/status",
            "nodes",
            // Reads of what nodes tell of themselves, and nothing else ([`super::node_paths`]).
            "nodes/proxy",
            "nodes/status",
            "pods",
            "pods/log",
            "pods/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
        verbs: &READS,
    },
    Rule {
        groups: &["apps"],
        resources: &[
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
        ],
        verbs: &READS,
    },
    Rule { groups: &["coordination.k8s.io"], resources: &["leases"], verbs: &READS },
    Rule { groups: &["discovery.k8s.io"], resources: &["endpointslices"], verbs: &READS },
    Rule { groups: &["events.k8s.io"], resources: &["events"], verbs: &READS },
    Rule {
        groups: &["networking.k8s.io"],
        resources: &["ingressclasses", "ingresses", "ingresses/status", "networkpolicies"],
        verbs: &READS,
    },
    Rule { groups: &["scheduling.k8s.io"], resources: &["priorityclasses"], verbs: &READS },
];

/// What a developer may do beside reading.
const DEVELOPER: &[Rule] = &[
    Rule { groups: &[""], resources: &["secrets"], verbs: &READS },
    Rule {
        groups: &[""],
        resources: &["configmaps", "events", "pods", "secrets", "serviceaccounts", "services"],
        verbs: CHANGES,
    },
    Rule { groups: &[""], resources: &["pods/attach", "pods/exec", "pods/portforward"], verbs: &["get", "create"] },
    Rule {
        groups: &[""],
        resources: &["pods/proxy", "services/proxy"],
        verbs: &["get", "create", "update", "patch", "delete"],
    },
    Rule { groups: &[""], resources: &["pods/eviction", "serviceaccounts/token"], verbs: &["create"] },
    Rule {
        groups: &["apps"],
        resources: &["deployments", "deployments/scale", "replicasets", "replicasets/scale"],
        verbs: CHANGES,
    },
    Rule { groups: &["coordination.k8s.io"], resources: &["leases"], verbs: CHANGES },
    Rule { groups: &["events.k8s.io"], resources: &["events"], verbs: CHANGES },
    Rule { groups: &["networking.k8s.io"], resources: &["ingresses", "networkpolicies"], verbs: CHANGES },
];

const EVERYTHING: &[Rule] = &[Rule { groups: &["*"], resources: &["*"], verbs: &["*"] }];

/// The rules of a role, for decisions and for `SelfSubjectRulesReview` alike.
pub fn rules(role: Role) -> Vec<&'static Rule> {
    match role {
        Role::Owner | Role::Admin => EVERYTHING.iter().collect(),
        Role::Developer => VIEWER.iter().chain(DEVELOPER).collect(),
        Role::Viewer => VIEWER.iter().collect(),
    }
}

fn person(role: Role, asked: &Attributes) -> bool {
    let resource = match asked.subresource.as_str() {
        "" => asked.resource.clone(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let has = |list: &[&str], word: &str| list.contains(&"*") || list.contains(&word);
    rules(role)
        .iter()
        .any(|rule| has(rule.groups, &asked.group) && has(rule.resources, &resource) && has(rule.verbs, &asked.verb))
}

fn node(node: &str, asked: &Attributes, scope: &dyn NodeScope) -> Decision {
    let verb = asked.verb.as_str();
    let reads = READS.contains(&verb);
    let changes = matches!(verb, "update" | "patch");
    let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
    let own_pod = || !name.is_empty() && scope.has_pod(node, namespace, name);
    let allowed = match (asked.group.as_str(), asked.resource.as_str(), asked.subresource.as_str()) {
        // A create carries its name in the body: the handler compares it (`admit_node`).
        ("", "nodes", "") => match verb {
            "create" => true,
            _ => name == node && (reads || changes),
        },
        ("", "nodes", "status") => name == node && (verb == "get" || changes),
        ("coordination.k8s.io", "leases", "") if namespace == NODE_LEASES => match verb {
            "create" => true,
            _ => name == node && (reads || changes || verb == "delete"),
        },
        ("", "pods", "") => match verb {
            "list" | "watch" => asked.node_selector == node || own_pod(),
            "get" | "delete" => own_pod(),
            _ => false,
        },
        ("", "pods", "status") => (verb == "get" || changes) && own_pod(),
        ("", "secrets" | "configmaps", "") => {
            reads && !name.is_empty() && scope.names(node, &asked.resource, namespace, name)
        }
        ("", "serviceaccounts", "") => {
            verb == "get" && !name.is_empty() && scope.names(node, "serviceaccounts", namespace, name)
        }
        // Bound to which pod stands in the body: the handler checks that it runs here.
        ("", "serviceaccounts", "token") => verb == "create" && scope.names(node, "serviceaccounts", namespace, name),
        // A container's environment names every service of its namespace, and `kubernetes`.
        ("", "services", "") => {
            reads && ((namespace == "default" && name == "kubernetes") || scope.has_pods_in(node, namespace))
        }
        ("" | "events.k8s.io", "events", "") => matches!(verb, "create" | "update" | "patch"),
        _ => false,
    };
    match allowed {
        true => Decision::Allow,
        false if asked.resource == "pods" && matches!(verb, "list" | "watch") => {
            Decision::Deny("can only list/watch pods with spec.nodeName field selector".into())
        }
        false => Decision::Deny(match asked.resource.as_str() {
            "secrets" | "configmaps" | "serviceaccounts" | "pods" => {
                format!("no relationship found between node '{node}' and this object")
            }
            _ => String::new(),
        }),
    }
}

/// The sentence of a 403, Kubernetes's own.
pub fn refusal(identity: &Identity, asked: &Attributes, why: &str) -> String {
    let user = &identity.username;
    let mut text = if asked.is_resource {
        let resource = match asked.subresource.as_str() {
            "" => asked.resource.clone(),
            subresource => format!("{}/{subresource}", asked.resource),
        };
        // A namespace counts as lying in itself.
        let namespace = if asked.resource == "namespaces" { &asked.name } else { &asked.namespace };
        let place = match namespace.as_str() {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!("User {user:?} cannot {} resource {resource:?} in API group {:?} {place}", asked.verb, asked.group)
    } else {
        format!("User {user:?} cannot {} path {:?}", asked.verb, asked.path)
    };
    if !why.is_empty() {
        text.push_str(": ");
        text.push_str(why);
    }
    text
}

/// For paths that name no resource: nothing in the cluster is looked at, so it need not be loaded.
pub struct NoScope;

impl NodeScope for NoScope {
    fn has_pod(&self, _: &str, _: &str, _: &str) -> bool {
        false
    }
    fn has_pods_in(&self, _: &str, _: &str) -> bool {
        false
    }
    fn names(&self, _: &str, _: &str, _: &str, _: &str) -> bool {
        false
    }
}
