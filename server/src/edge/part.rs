//! What one cluster has the edge serve, kept from its objects. Pure.

use super::backends::{Backends, SERVICES, SLICES};
use crate::store::{Key as StoreKey, Object};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use longshore_api::edge::{self, ADDRESS_ANNOTATION, Ports};
use longshore_api::network::{Name, Protocol};
use longshore_edge::ingress::{Compiled, compile};
use longshore_edge::model::Backend;
use longshore_edge::services::Behind;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const INGRESSES: &str = "ingresses.networking.k8s.io";
pub const SECRETS: &str = "secrets";
pub const NODES: &str = "nodes";
/// What is followed only while there is an Ingress.
pub const OTHERS: [&str; 5] = ["ingressclasses.networking.k8s.io", SERVICES, SLICES, SECRETS, NODES];

#[derive(Default)]
pub struct Part {
    ingresses: BTreeMap<Name, Ingress>,
    classes: BTreeMap<Arc<str>, IngressClass>,
    /// Of nodes that serve Ingresses themselves and are ready: where the world finds each.
    edges: BTreeMap<Arc<str>, (Vec<String>, Ports)>,
    backends: Backends,
    news: News,
}

/// What has changed since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Ingresses, classes or nodes that are edges: everything is to be looked at.
    pub routes: bool,
    /// Services whose endpoints may be others.
    pub services: BTreeSet<Name>,
    pub secrets: BTreeSet<Name>,
}

impl Part {
    pub fn is_empty(&self) -> bool {
        self.ingresses.is_empty()
    }

    pub fn news(&mut self) -> News {
        News { services: self.backends.news(), ..std::mem::take(&mut self.news) }
    }

    pub fn ingress(&self, name: &Name) -> Option<&Ingress> {
        self.ingresses.get(name)
    }

    pub fn ingresses(&self) -> impl Iterator<Item = (&Name, &Ingress)> {
        self.ingresses.iter()
    }

    /// An object as it is now, or as it was last.
    pub fn take(&mut self, object: &Object, deleted: bool) {
        let StoreKey { resource, namespace, name } = &object.key;
        let key = Name::new(&**namespace, &**name);
        match &**resource {
            INGRESSES => {
                let ingress = read::<Ingress>(object).filter(|_| !deleted);
                // Its status is what we write ourselves.
                let of = |i: &Ingress| (i.spec.clone(), i.metadata.annotations.clone());
                let same = |old: Option<&Ingress>, new: Option<&Ingress>| old.map(of) == new.map(of);
                self.news.routes |= !same(self.ingresses.get(&key), ingress.as_ref());
                set(&mut self.ingresses, key, ingress);
            }
            "ingressclasses.networking.k8s.io" => {
                set(&mut self.classes, name.clone(), read(object).filter(|_| !deleted));
                self.news.routes = true;
            }
            SECRETS => {
                self.news.secrets.insert(key);
            }
            NODES => {
                let found = (edge::is_marked(&object.labels) && !deleted)
                    .then(|| read::<Node>(object))
                    .flatten()
                    .and_then(edge);
                self.news.routes |= self.edges.get(name) != found.as_ref();
                set(&mut self.edges, name.clone(), found);
            }
            _ => self.backends.take(object, deleted),
        }
    }

    pub fn compile(&self) -> Compiled {
        let (ingresses, classes): (Vec<_>, Vec<_>) =
            (self.ingresses.values().cloned().collect(), self.classes.values().cloned().collect());
        compile(&ingresses, &classes)
    }

    /// What is ours of `ingresses`, and all classes.
    pub fn ours(&self, ours: &BTreeSet<Name>) -> (Vec<Ingress>, Vec<IngressClass>) {
        let ingresses = self.ingresses.iter().filter(|(name, _)| ours.contains(name));
        (ingresses.map(|(_, ingress)| ingress.clone()).collect(), self.classes.values().cloned().collect())
    }

    /// Where the world finds the nodes that are edges.
    pub fn edges(&self) -> impl Iterator<Item = &(Vec<String>, Ports)> {
        self.edges.values()
    }

    pub fn behind(&self, backend: &Backend) -> Behind {
        self.backends.behind(backend, Protocol::Tcp)
    }
}

/// Where the world finds a node; None for one that isn't ready.
fn edge(node: Node) -> Option<(Vec<String>, Ports)> {
    let status = node.status.unwrap_or_default();
    let is = |c: &NodeCondition| c.type_ == "Ready" && c.status == "True";
    status.conditions.iter().flatten().find(|c| is(c))?;
    let annotations = node.metadata.annotations.unwrap_or_default();
    let of = |kind: &str| {
        let addresses = status.addresses.iter().flatten().filter(|a| a.type_ == kind);
        addresses.map(|a| a.address.clone()).collect::<Vec<_>>()
    };
    let told = annotations.get(ADDRESS_ANNOTATION).map(|text| vec![text.trim().to_string()]);
    let found = [told.unwrap_or_default(), of("ExternalIP"), of("InternalIP")];
    found.into_iter().find(|found| !found.is_empty()).map(|addresses| (addresses, edge::ports(&annotations)))
}

fn set<K: Ord, V>(all: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => all.insert(key, value),
        None => all.remove(&key),
    };
}

fn read<T: DeserializeOwned>(object: &Object) -> Option<T> {
    let read = serde_json::from_slice(&object.json);
    read.map_err(|error| tracing::warn!(key = ?object.key, %error, "the edge can't read an object")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;
    use longshore_edge::model::Port;
    use serde_json::{Value, json};

    fn object(resource: &str, name: &str, tree: Value) -> Object {
        let key = StoreKey { resource: resource.into(), namespace: "d".into(), name: name.into() };
        Object::read(key, Revision(1), tree.to_string().into(), |_| BTreeMap::new()).unwrap()
    }

    fn ingress(status: Value) -> Object {
        let path =
            json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}});
        let spec = json!({"rules": [{"host": "a.com", "http": {"paths": [path]}}]});
        object(INGRESSES, "web", json!({"metadata": {"name": "web", "namespace": "d"}, "spec": spec, "status": status}))
    }

    fn slice(name: &str, service: &str, address: &str) -> Object {
        let endpoint = json!({"addresses": [address], "nodeName": "n1", "conditions": {"ready": true}});
        let tree = json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": [endpoint]});
        object("endpointslices.discovery.k8s.io", name, tree)
    }

    #[test]
    fn a_status_is_no_news() {
        let mut part = Part::default();
        part.take(&ingress(json!({})), false);
        assert!(part.news().routes);
        part.take(&ingress(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})), false);
        assert_eq!(part.news(), News::default());
        part.take(&ingress(json!({})), true);
        assert!(part.news().routes && part.is_empty());
    }

    #[test]
    fn endpoints_follow_their_slices_and_services() {
        let mut part = Part::default();
        let backend = Backend { service: Name::new("d", "web"), port: Port::Number(80) };
        let addresses =
            |part: &Part| part.behind(&backend).targets.iter().map(|t| t.address.to_string()).collect::<Vec<String>>();
        part.take(&slice("web-1", "web", "10.0.0.1"), false);
        assert_eq!(addresses(&part), [""; 0], "there is no Service yet");
        part.take(
            &object(
                "services",
                "web",
                json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"ports": [{"port": 80}]}}),
            ),
            false,
        );
        part.take(&slice("web-2", "web", "10.0.0.2"), false);
        assert_eq!(addresses(&part), ["10.0.0.1:8080", "10.0.0.2:8080"]);
        assert_eq!(part.news().services, BTreeSet::from([Name::new("d", "web")]));
        // A slice that becomes another Service's leaves this one.
        part.take(&slice("web-2", "other", "10.0.0.2"), false);
        assert_eq!(addresses(&part), ["10.0.0.1:8080"]);
        assert_eq!(part.news().services, BTreeSet::from([Name::new("d", "other"), Name::new("d", "web")]));
        part.take(&slice("web-1", "web", "10.0.0.1"), true);
        assert_eq!(addresses(&part), [""; 0]);
    }
}
