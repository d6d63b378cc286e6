//! What a cluster's nodes are told that serve its Ingresses themselves.

use super::EdgeRoom;
use super::certificates::Certificates;
use super::part::NODES;
use crate::gateway::Edges;
use crate::store::{Cluster, Key, StoreError};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use longshore_api::Status;
use longshore_api::edge::{Certificate, EDGE_LABEL, Edge, is_marked};
use longshore_edge::acme::Issued;
use longshore_edge::challenge::Challenges;
use longshore_edge::host::Host;
use longshore_edge::model::CertificateSource;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// A cluster's Ingresses as they are served. One of a loaded cluster's companions.
#[derive(Clone)]
pub(super) struct Told(watch::Sender<Arc<Served>>);

impl Default for Told {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }
}

#[derive(Default)]
pub(super) struct Served {
    pub ingresses: Vec<Ingress>,
    pub classes: Vec<IngressClass>,
    pub hosts: BTreeSet<Host>,
    pub certificates: BTreeSet<CertificateSource>,
}

impl Served {
    /// Whether a certificate of this host's own is ordered for it.
    fn orders(&self, host: &str) -> bool {
        self.certificates.contains(&CertificateSource::Automatic(host.to_owned()))
    }
}

impl Told {
    pub fn set(&self, served: Served) {
        self.0.send_replace(Arc::new(served));
    }

    /// A Secret is another one now.
    pub fn look_again(&self) {
        self.0.send_modify(|_| {});
    }
}

/// One node that reads.
struct Reader {
    cluster: Arc<Cluster>,
    node: Key,
    certificates: Certificates,
    served: watch::Receiver<Arc<Served>>,
    issued: watch::Receiver<u64>,
    /// What it was told last.
    line: Bytes,
}

impl Reader {
    /// The next line that says something new; None once the node is no edge any more.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let served = self.served.borrow_and_update().clone();
            self.issued.mark_unchanged();
            if !is_edge(&self.cluster, &self.node).is_ok_and(|is| is) {
                return None;
            }
            let line = self.line(&served).await;
            if line != self.line {
                self.line = line.clone();
                return Some(line);
            }
            tokio::select! {
                changed = self.served.changed() => changed.ok()?,
                changed = self.issued.changed() => changed.ok()?,
            }
        }
    }

    async fn line(&self, served: &Served) -> Bytes {
        let mut certificates = Vec::new();
        for source in &served.certificates {
            if let Some(issued) = self.certificates.pem(&self.cluster, source).await {
                let source = source.clone();
                certificates.push(Certificate { source, chain: issued.chain, key: issued.key });
            }
        }
        let edge = Edge {
            ingresses: trees(&served.ingresses),
            classes: trees(&served.classes),
            hosts: served.hosts.iter().map(Host::to_string).collect(),
            certificates,
        };
        let mut line = serde_json::to_vec(&edge).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

fn trees(objects: &[impl Serialize]) -> Vec<Value> {
    objects.iter().filter_map(|object| serde_json::to_value(object).ok()).collect()
}

impl Edges for EdgeRoom {
    fn follow(&self, cluster: Arc<Cluster>, node: &str) -> Result<BoxStream<'static, Bytes>, Status> {
        let told = cluster.companion::<Told>();
        let certificates = self.0.certificates.clone();
        let (served, issued) = (told.0.subscribe(), certificates.issued());
        let reader = Reader { cluster, node: key_of(node), certificates, served, issued, line: Bytes::new() };
        if !is_edge(&reader.cluster, &reader.node).map_err(|error| Status::unavailable(error.to_string()))? {
            let why = format!("it has no label {EDGE_LABEL}");
            return Err(Status::failure(403, "Forbidden", format!("node {node:?} is no edge: {why}")));
        }
        let lines = stream::unfold(reader, |mut reader| async move {
            let line = reader.next().await?;
            Some((line, reader))
        });
        Ok(lines.boxed())
    }

    fn challenge<'a>(&'a self, host: &'a str, token: &'a str) -> BoxFuture<'a, Option<String>> {
        self.0.certificates.http(host, token)
    }

    fn tls_challenge<'a>(
        &'a self,
        cluster: Arc<Cluster>,
        node: &'a str,
        host: &'a str,
    ) -> BoxFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            let orders = cluster.companion::<Told>().0.borrow().orders(host);
            if !(orders && is_edge(&cluster, &key_of(node)).is_ok_and(|is| is)) {
                return None;
            }
            let Issued { chain, key } = self.0.certificates.tls_challenge(host).await?;
            let shown = Certificate { source: CertificateSource::Automatic(host.to_owned()), chain, key };
            serde_json::to_vec(&shown).ok().map(Bytes::from)
        })
    }
}

fn key_of(node: &str) -> Key {
    Key { resource: NODES.into(), namespace: "".into(), name: node.into() }
}

fn is_edge(cluster: &Cluster, node: &Key) -> Result<bool, StoreError> {
    let node = cluster.get(node)?;
    Ok(node.is_some_and(|node| is_marked(&node.labels)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_api::network::Name;

    #[test]
    fn a_challenge_is_for_hosts_that_are_ordered_for_alone() {
        let automatic = |host: &str| CertificateSource::Automatic(host.to_owned());
        let certificates = [automatic("a.com"), CertificateSource::Secret(Name::new("a", "b.com"))].into();
        let served = Served { hosts: [Host::Any].into(), certificates, ..Served::default() };
        assert!(served.orders("a.com"));
        for other in ["A.com", "b.com", "www.a.com", "", "*"] {
            assert!(!served.orders(other), "{other}");
        }
    }
}
