//! The cluster as controllers and scheduler see it: an indexed snapshot, a prefix of the cluster's log.
//!
//! It is built from projections alone and kept up by applying changes in the log's order, so it is always a state the
//! cluster was really in: an owner that isn't there is gone, not "not seen yet", which is why nothing here needs the
//! live look-ups and expectations that Kubernetes's caches make necessary. What isn't in the log but matters all the same
//! (when a node was last heard, the cluster's CA, an action that failed) is here too, as data, put in by whoever knows.

use crate::action::ObjectKey;
use crate::contacts::Contacts;
use crate::projection::{
    ConfigMap, Deployment, EndpointSlice, Endpoints, Lease, Meta, Namespace, Node, Pod, Projection, ReplicaSet, Service,
};
use crate::scheduler::Profiles;
use crate::usage::Usage;
use jiff::Timestamp;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

/// An object in the view.
#[derive(Clone, Debug)]
pub struct Record {
    pub key: Arc<ObjectKey>,
    pub revision: i64,
    pub projection: Projection,
}

impl Record {
    pub fn meta(&self) -> &Meta {
        // Objects without a projection aren't kept (`View::apply`).
        static NOTHING: std::sync::LazyLock<Meta> = std::sync::LazyLock::new(Meta::default);
        self.projection.meta().unwrap_or(&NOTHING)
    }

    pub fn get<K: Kind>(&self) -> Option<Item<K>> {
        let object = K::from(&self.projection)?.clone();
        Some(Item { key: self.key.clone(), revision: self.revision, object })
    }
}

/// An object of a known kind at a revision.
#[derive(Debug)]
pub struct Item<K> {
    pub key: Arc<ObjectKey>,
    pub revision: i64,
    pub object: Arc<K>,
}

impl<K> Clone for Item<K> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), revision: self.revision, object: self.object.clone() }
    }
}

impl<K> Deref for Item<K> {
    type Target = K;
    fn deref(&self) -> &K {
        &self.object
    }
}

/// A kind with a projection of its own.
pub trait Kind: Sized {
    const RESOURCE: &'static str;
    fn from(projection: &Projection) -> Option<&Arc<Self>>;
}

macro_rules! kinds {
    ($($kind:ident = $resource:literal),* $(,)?) => {$(
        impl Kind for $kind {
            const RESOURCE: &'static str = $resource;
            fn from(projection: &Projection) -> Option<&Arc<Self>> {
                match projection {
                    Projection::$kind(object) => Some(object),
                    _ => None,
                }
            }
        }
    )*};
}

kinds! {
    ConfigMap = "configmaps",
    Deployment = "deployments.apps",
    Endpoints = "endpoints",
    EndpointSlice = "endpointslices.discovery.k8s.io",
    Lease = "leases.coordination.k8s.io",
    Namespace = "namespaces",
    Node = "nodes",
    Pod = "pods",
    ReplicaSet = "replicasets.apps",
    Service = "services",
}

/// One change of the log: the object's new state, or none when it was deleted.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: ObjectKey,
    pub revision: i64,
    pub projection: Option<Projection>,
}

/// What a change did to the view.
#[derive(Clone, Debug)]
pub struct Applied {
    pub key: Arc<ObjectKey>,
    pub before: Option<Record>,
    pub after: Option<Record>,
}

impl Applied {
    /// The object after the change, or as it last was.
    pub fn record(&self) -> Option<&Record> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// Both sides, for what either of them points to.
    pub fn sides(&self) -> impl Iterator<Item = &Record> {
        self.before.iter().chain(&self.after)
    }
}

/// Where an object can be found besides by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Index {
    /// Whatever names this uid as an owner.
    Owner(String),
    /// Pods and ReplicaSets without a controller, by resource and namespace: who may be adopted.
    Stray(&'static str, String),
    /// Pods by node.
    Node(String),
    /// Pods without a node, not finished.
    Unbound,
    /// Pods by namespace and one label.
    Label(String, String, String),
    /// Services by namespace and the first pair of their selector.
    Selector(String, String, String),
    /// Endpoint slices by namespace and service.
    Slices(String, String),
}

/// The label by which an endpoint slice names its service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

type Postings = BTreeMap<Arc<ObjectKey>, Record>;
type Names = BTreeMap<String, Record>;

/// A failure of a controller's last action on a key, for those whose status must tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `create`, `delete`, …
    pub verb: &'static str,
    /// The resource that couldn't be created, deleted, …
    pub resource: String,
    /// Kubernetes's reason, as `Status` has it.
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default)]
pub struct View {
    revision: i64,
    resources: BTreeMap<Cow<'static, str>, BTreeMap<String, Names>>,
    indexes: HashMap<Index, Postings>,
    uids: HashMap<String, Arc<ObjectKey>>,
    usage: HashMap<String, Usage>,
    failures: HashMap<(&'static str, ObjectKey), Failure>,
    gone_nodes: HashMap<String, Timestamp>,
    /// Who was heard when.
    pub contacts: Contacts,
    /// What doesn't change while the cluster is loaded.
    pub settings: Settings,
}

/// The cluster's own facts, as its row has them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM of the CA that vouches for the API server.
    pub root_ca: String,
    /// The ranges that nodes' slices are cut from, one of each family at most and IPv4's first, each with the length of a
    /// slice: `10.244.0.0/16` and 24.
    pub pod_ranges: Vec<(String, u8)>,
    /// `Kind.group` → resource, for owner references: an owner of an unknown kind is never taken for absent.
    pub kinds: HashMap<String, KindInfo>,
    /// How pods are scheduled, by the name they ask for.
    pub profiles: Profiles,
}

#[derive(Clone, Debug)]
pub struct KindInfo {
    pub resource: String,
    pub namespaced: bool,
}

impl View {
    /// The last revision applied.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Takes one change in. `now` is when it arrived, which is what counts as a sign of life of a node (its own clock may
    /// be wrong). Kinds without a projection only move the revision.
    pub fn apply(&mut self, change: Change, now: Timestamp) -> Option<Applied> {
        self.revision = self.revision.max(change.revision);
        let projection = change.projection.filter(|p| !matches!(p, Projection::None));
        let key = Arc::new(change.key);
        let before = self.remove(&key);
        let after = projection.map(|projection| {
            let key = before.as_ref().map_or_else(|| key.clone(), |b| b.key.clone());
            self.insert(Record { key, revision: change.revision, projection })
        });
        if before.is_none() && after.is_none() {
            return None;
        }
        let applied = Applied { key, before, after };
        self.notice(&applied, now);
        Some(applied)
    }

    /// Signs of life, and nodes that went.
    fn notice(&mut self, applied: &Applied, now: Timestamp) {
        let (before, after) = (applied.before.as_ref(), applied.after.as_ref());
        match applied.key.resource.as_ref() {
            Node::RESOURCE => {
                let name = &applied.key.name;
                let heartbeat = |r: Option<&Record>| {
                    let node = r.and_then(Record::get::<Node>)?;
                    node.condition("Ready").and_then(|c| c.last_heartbeat_time)
                };
                match after {
                    None => {
                        self.gone_nodes.insert(name.clone(), now);
                        self.contacts.forget(name);
                    }
                    Some(_) => {
                        self.gone_nodes.remove(name);
                        if heartbeat(after).is_some() && heartbeat(before) != heartbeat(after) {
                            self.contacts.heard(name, now);
                        }
                    }
                }
            }
            Lease::RESOURCE if applied.key.namespace == "kube-node-lease" => {
                let renewed = |r: Option<&Record>| r.and_then(Record::get::<Lease>).and_then(|l| l.renewed);
                if renewed(after).is_some() && renewed(before) != renewed(after) {
                    self.contacts.heard(&applied.key.name, now);
                }
            }
            _ => {}
        }
    }

    fn insert(&mut self, record: Record) -> Record {
        for index in indexes(&record) {
            self.indexes.entry(index).or_default().insert(record.key.clone(), record.clone());
        }
        self.uids.insert(record.meta().uid.clone(), record.key.clone());
        if let Some(pod) = record.get::<Pod>()
            && !pod.node_name.is_empty()
            && !pod.is_finished()
        {
            self.usage.entry(pod.node_name.clone()).or_default().add(&pod);
        }
        let namespaces = self.resources.entry(record.key.resource.clone()).or_default();
        namespaces.entry(record.key.namespace.clone()).or_default().insert(record.key.name.clone(), record.clone());
        record
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Record> {
        let namespaces = self.resources.get_mut(&*key.resource)?;
        let names = namespaces.get_mut(&key.namespace)?;
        let record = names.remove(&key.name)?;
        if names.is_empty() {
            namespaces.remove(&key.namespace);
        }
        for index in indexes(&record) {
            if let Some(postings) = self.indexes.get_mut(&index) {
                postings.remove(&record.key);
                if postings.is_empty() {
                    self.indexes.remove(&index);
                }
            }
        }
        if self.uids.get(&record.meta().uid).is_some_and(|k| *k == record.key) {
            self.uids.remove(&record.meta().uid);
        }
        if let Some(pod) = record.get::<Pod>()
            && !pod.node_name.is_empty()
            && !pod.is_finished()
            && let Some(usage) = self.usage.get_mut(&pod.node_name)
        {
            usage.subtract(&pod);
            if usage.is_empty() {
                self.usage.remove(&pod.node_name);
            }
        }
        Some(record)
    }

    pub fn record(&self, key: &ObjectKey) -> Option<&Record> {
        self.resources.get(&*key.resource)?.get(&key.namespace)?.get(&key.name)
    }

    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<Item<K>> {
        self.resources.get(K::RESOURCE)?.get(namespace)?.get(name)?.get()
    }

    /// The object of `key`, if it is of this kind and there.
    pub fn item<K: Kind>(&self, key: &ObjectKey) -> Option<Item<K>> {
        self.record(key)?.get()
    }

    pub fn exists(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let names = self.resources.get(resource).and_then(|r| r.get(namespace));
        names.is_some_and(|n| n.contains_key(name))
    }

    /// All of a kind, by namespace and name.
    pub fn list<K: Kind>(&self) -> impl Iterator<Item = Item<K>> {
        let namespaces = self.resources.get(K::RESOURCE);
        namespaces.into_iter().flat_map(|n| n.values()).flat_map(|n| n.values()).filter_map(Record::get)
    }

    pub fn list_in<K: Kind>(&self, namespace: &str) -> impl Iterator<Item = Item<K>> {
        let names = self.resources.get(K::RESOURCE).and_then(|n| n.get(namespace));
        names.into_iter().flat_map(|n| n.values()).filter_map(Record::get)
    }

    /// Everything there is, of every kind.
    pub fn all(&self) -> impl Iterator<Item = &Record> {
        self.resources.values().flat_map(|n| n.values()).flat_map(|n| n.values())
    }

    /// Everything in a namespace, by kind.
    pub fn content(&self, namespace: &str) -> impl Iterator<Item = &Record> {
        self.resources.values().filter_map(move |n| n.get(namespace)).flat_map(|n| n.values())
    }

    pub fn by_uid(&self, uid: &str) -> Option<&Record> {
        self.record(self.uids.get(uid)?)
    }

    fn found(&self, index: Index) -> impl Iterator<Item = &Record> + use<'_> {
        self.indexes.get(&index).into_iter().flat_map(|p| p.values())
    }

    /// Whatever names `uid` as an owner, managing or not.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Record> + use<'a> {
        self.found(Index::Owner(uid.to_string()))
    }

    /// Objects of a kind that `uid` manages.
    pub fn controlled<'a, K: Kind>(&'a self, uid: &str) -> impl Iterator<Item = Item<K>> + use<'a, K> {
        let owner = uid.to_string();
        let managed = move |r: &&Record| r.meta().controller().is_some_and(|c| c.uid == owner);
        self.dependents(uid).filter(managed).filter_map(Record::get)
    }

    /// Objects of a kind that nobody manages (kept for pods and ReplicaSets).
    pub fn strays<'a, K: Kind>(&'a self, namespace: &str) -> impl Iterator<Item = Item<K>> + use<'a, K> {
        self.found(Index::Stray(K::RESOURCE, namespace.to_string())).filter_map(Record::get)
    }

    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = Item<Pod>> + use<'a> {
        self.found(Index::Node(node.to_string())).filter_map(Record::get)
    }

    /// Pods that no node was found for yet.
    pub fn unbound_pods(&self) -> impl Iterator<Item = Item<Pod>> {
        self.found(Index::Unbound).filter_map(Record::get)
    }

    /// Nodes that pods are bound to, whether or not they exist.
    pub fn used_nodes(&self) -> impl Iterator<Item = &str> {
        self.indexes.keys().filter_map(|i| match i {
            Index::Node(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Pods that carry all these labels; none for an empty selector, which in a Service selects nothing.
    pub fn pods_selected(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<Item<Pod>> {
        let smallest = selector
            .iter()
            .map(|(k, v)| self.indexes.get(&Index::Label(namespace.to_string(), k.clone(), v.clone())))
            .min_by_key(|p| p.map_or(0, BTreeMap::len));
        let Some(Some(postings)) = smallest else { return Vec::new() };
        let carries = |r: &&Record| selector.iter().all(|(k, v)| r.meta().labels.get(k) == Some(v));
        postings.values().filter(carries).filter_map(Record::get).collect()
    }

    /// Services whose selector a pod with these labels meets.
    pub fn services_selecting(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Item<Service>> {
        let candidates =
            labels.iter().flat_map(|(k, v)| self.found(Index::Selector(namespace.to_string(), k.clone(), v.clone())));
        candidates
            .filter_map(Record::get::<Service>)
            .filter(|s| s.selector.as_ref().is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v))))
            .collect()
    }

    pub fn slices_of<'a>(
        &'a self,
        namespace: &str,
        service: &str,
    ) -> impl Iterator<Item = Item<EndpointSlice>> + use<'a> {
        self.found(Index::Slices(namespace.to_string(), service.to_string())).filter_map(Record::get)
    }

    /// What the pods bound to a node ask of it.
    pub fn usage(&self, node: &str) -> Option<&Usage> {
        self.usage.get(node)
    }

    /// Since when a node that pods are bound to isn't there.
    pub fn gone_since(&self, node: &str) -> Timestamp {
        self.gone_nodes.get(node).copied().unwrap_or(self.contacts.loaded_at())
    }

    /// How `controller`'s last action on `key` failed, if it did.
    pub fn failure(&self, controller: &'static str, key: &ObjectKey) -> Option<&Failure> {
        self.failures.get(&(controller, key.clone()))
    }

    /// Notes how a controller's actions on `key` ended. Says whether that is news.
    pub fn set_failure(&mut self, controller: &'static str, key: &ObjectKey, failure: Option<Failure>) -> bool {
        let at = (controller, key.clone());
        match failure {
            Some(failure) => self.failures.insert(at, failure.clone()).as_ref() != Some(&failure),
            None => self.failures.remove(&at).is_some(),
        }
    }

    /// Frees what was remembered about a node that nobody is bound to any more.
    pub fn forget_gone_nodes(&mut self) {
        let indexes = &self.indexes;
        self.gone_nodes.retain(|name, _| indexes.contains_key(&Index::Node(name.clone())));
    }
}

fn indexes(record: &Record) -> Vec<Index> {
    let meta = record.meta();
    let namespace = || meta.namespace.clone();
    let mut all: Vec<Index> = meta.owner_references.iter().map(|o| Index::Owner(o.uid.clone())).collect();
    match &record.projection {
        Projection::Pod(pod) => {
            all.extend(meta.labels.iter().map(|(k, v)| Index::Label(namespace(), k.clone(), v.clone())));
            if !pod.node_name.is_empty() {
                all.push(Index::Node(pod.node_name.clone()));
            } else if !pod.is_finished() {
                all.push(Index::Unbound);
            }
            if meta.controller().is_none() {
                all.push(Index::Stray(Pod::RESOURCE, namespace()));
            }
        }
        Projection::ReplicaSet(_) if meta.controller().is_none() => {
            all.push(Index::Stray(ReplicaSet::RESOURCE, namespace()));
        }
        Projection::Service(service) => {
            let first = service.selector.as_ref().and_then(|s| s.iter().next());
            all.extend(first.map(|(k, v)| Index::Selector(namespace(), k.clone(), v.clone())));
        }
        Projection::EndpointSlice(_) => {
            all.extend(meta.labels.get(SERVICE_NAME).map(|s| Index::Slices(namespace(), s.clone())));
        }
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, label: &str, owner: &str) -> Change {
        let owners = if owner.is_empty() { json!([]) } else { json!([{"uid": owner, "controller": true}]) };
        let tree = json!({"metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"),
            "labels": {"app": label}, "ownerReferences": owners},
            "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "100m"}}}]}});
        change("pods", name, Some(tree), 1)
    }

    fn change(resource: &'static str, name: &str, tree: Option<serde_json::Value>, revision: i64) -> Change {
        let projection = tree.map(|t| Projection::of(resource, &t));
        Change { key: ObjectKey::new(resource, "d", name), revision, projection }
    }

    proptest! {
        /// Whatever came and went, indexes hold exactly what is there, and nothing is left when all is gone.
        #[test]
        fn indexes_hold_what_is_there(steps in prop::collection::vec((0..6u8, 0..3u8, 0..3u8, 0..3u8, any::<bool>()), 1..60)) {
            let mut view = View::default();
            let now = Timestamp::UNIX_EPOCH;
            for (name, node, label, owner, gone) in steps {
                let text = |prefix: &str, n: u8| if n == 0 { String::new() } else { format!("{prefix}{n}") };
                let mut change = pod(&format!("p{name}"), &text("n", node), &text("l", label), &text("o", owner));
                if gone {
                    change.projection = None;
                }
                view.apply(change, now);
                for node in ["n1", "n2"] {
                    let on: Vec<_> = view.list::<Pod>().filter(|p| p.node_name == node).collect();
                    prop_assert_eq!(view.pods_on(node).count(), on.len());
                    prop_assert_eq!(view.usage(node).map_or(0, |u| u.requests.cpu), 100 * on.len() as i64);
                }
                for label in ["l1", "l2"] {
                    let selector = [("app".to_string(), label.to_string())].into();
                    let carrying = view.list::<Pod>().filter(|p| p.meta.labels["app"] == label).count();
                    prop_assert_eq!(view.pods_selected("d", &selector).len(), carrying);
                }
                let strays = view.list::<Pod>().filter(|p| p.meta.controller().is_none()).count();
                prop_assert_eq!(view.strays::<Pod>("d").count(), strays);
                prop_assert_eq!(view.controlled::<Pod>("o1").count() + view.controlled::<Pod>("o2").count() + strays, view.list::<Pod>().count());
            }
            for name in 0..6 {
                view.apply(change("pods", &format!("p{name}"), None, 9), now);
            }
            prop_assert!(view.indexes.is_empty() && view.uids.is_empty() && view.usage.is_empty());
        }
    }
}
