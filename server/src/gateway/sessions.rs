//! Who is connected, and when each node was last heard of.
//!
//! The latest session of a node wins: an agent that reconnects may be back before its old link is known to be dead
//! (a machine that changed networks), and its old session must not answer for it any more.

use jiff::Timestamp;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_tunnel::Opener;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::watch;

/// What is known of a node's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    pub connected: bool,
    /// When something last arrived from the node.
    pub last: Timestamp,
}

/// The sessions of all clusters whose nodes connect to this replica. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<ClusterId, Cluster>>>);

/// Who came and went in a cluster; what is remembered of those who left is given back with the last of these.
pub struct Changes {
    sessions: Sessions,
    cluster: ClusterId,
    /// None only while this is dropped.
    receiver: Option<watch::Receiver<u64>>,
}

impl Changes {
    /// Waits for the next connect or disconnect that was not seen yet.
    pub async fn changed(&mut self) {
        let known = match &mut self.receiver {
            Some(receiver) => receiver.changed().await,
            None => Ok(()),
        };
        if known.is_err() {
            // The sender lives as long as this does: nobody else removes a cluster that is watched.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.receiver = None;
        let mut clusters = self.sessions.0.lock();
        self.sessions.sweep(&mut clusters, &self.cluster);
    }
}

struct Cluster {
    nodes: BTreeMap<String, Entry>,
    /// Counts connects and disconnects.
    changes: watch::Sender<u64>,
}

struct Entry {
    node: NodeId,
    /// None once the link is gone.
    opener: Option<Opener>,
    last: Timestamp,
}

impl Entry {
    fn contact(&self) -> Contact {
        match &self.opener {
            Some(opener) => {
                let ago = jiff::SignedDuration::try_from(opener.last_contact().elapsed()).unwrap_or_default();
                Contact { connected: true, last: Timestamp::now() - ago }
            }
            None => Contact { connected: false, last: self.last },
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self { nodes: BTreeMap::new(), changes: watch::channel(0).0 }
    }
}

impl Cluster {
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Sessions {
    /// Makes `opener` the way to the node until it ends or a newer session takes its place; an older one is closed.
    pub fn attach(&self, cluster: &ClusterId, node: &NodeId, name: &str, opener: Opener) {
        let older = {
            let mut clusters = self.0.lock();
            let entry = Entry { node: node.clone(), opener: Some(opener.clone()), last: Timestamp::now() };
            let known = clusters.entry(cluster.clone()).or_default();
            let older = known.nodes.insert(name.to_string(), entry);
            known.changed();
            older.and_then(|entry| entry.opener)
        };
        if let Some(older) = older {
            older.close();
        }
        let (sessions, cluster, name) = (self.clone(), cluster.clone(), name.to_string());
        tokio::spawn(async move {
            opener.ended().await;
            sessions.detach(&cluster, &name, &opener);
        });
    }

    /// Keeps when the node was last heard of, for those who judge its silence; where nobody watches the cluster any more
    /// and its last node is gone, nothing is kept.
    fn detach(&self, cluster: &ClusterId, name: &str, opener: &Opener) {
        let mut clusters = self.0.lock();
        let Some(known) = clusters.get_mut(cluster) else { return };
        if let Some(entry) = known.nodes.get_mut(name)
            && entry.opener.as_ref().is_some_and(|current| current.same_tunnel(opener))
        {
            entry.last = entry.contact().last;
            entry.opener = None;
            known.changed();
        }
        self.sweep(&mut clusters, cluster);
    }

    fn sweep(&self, clusters: &mut HashMap<ClusterId, Cluster>, cluster: &ClusterId) {
        let unused = |c: &Cluster| c.changes.receiver_count() == 0 && c.nodes.values().all(|n| n.opener.is_none());
        if clusters.get(cluster).is_some_and(unused) {
            clusters.remove(cluster);
        }
    }

    /// The way to a connected node.
    pub fn opener(&self, cluster: &ClusterId, name: &str) -> Option<Opener> {
        self.0.lock().get(cluster)?.nodes.get(name)?.opener.clone()
    }

    /// None for a node that was never heard of by this process.
    pub fn contact(&self, cluster: &ClusterId, name: &str) -> Option<Contact> {
        Some(self.0.lock().get(cluster)?.nodes.get(name)?.contact())
    }

    /// All nodes of the cluster that this process has heard of, by name.
    pub fn contacts(&self, cluster: &ClusterId) -> BTreeMap<String, Contact> {
        let clusters = self.0.lock();
        let Some(known) = clusters.get(cluster) else { return BTreeMap::new() };
        known.nodes.iter().map(|(name, entry)| (name.clone(), entry.contact())).collect()
    }

    /// Changes with each connect and disconnect of the cluster's nodes (not with each beat). Held by the cluster's
    /// driver for as long as the cluster is loaded: that is also what keeps the memory of nodes that left.
    pub fn changes(&self, cluster: &ClusterId) -> Changes {
        let receiver = self.0.lock().entry(cluster.clone()).or_default().changes.subscribe();
        Changes { sessions: self.clone(), cluster: cluster.clone(), receiver: Some(receiver) }
    }

    /// Whether any node of the cluster is connected.
    pub fn is_connected(&self, cluster: &ClusterId) -> bool {
        self.0.lock().get(cluster).is_some_and(|c| c.nodes.values().any(|n| n.opener.is_some()))
    }

    /// Nodes connected to this replica, of all clusters.
    pub fn connected(&self) -> usize {
        let clusters = self.0.lock();
        clusters.values().flat_map(|c| c.nodes.values()).filter(|n| n.opener.is_some()).count()
    }

    /// Ends the session of an identity that was revoked, and forgets it.
    pub fn revoke(&self, cluster: &ClusterId, node: &NodeId) {
        let mut clusters = self.0.lock();
        if let Some(known) = clusters.get_mut(cluster) {
            for (_, entry) in known.nodes.extract_if(.., |_, entry| entry.node == *node) {
                if let Some(opener) = entry.opener {
                    opener.close();
                }
            }
            known.changed();
        }
        self.sweep(&mut clusters, cluster);
    }

    /// Closes the tunnels of a cluster's nodes, who are free to come again.
    pub fn close(&self, cluster: &ClusterId) {
        let clusters = self.0.lock();
        let nodes = clusters.get(cluster).into_iter().flat_map(|known| known.nodes.values());
        nodes.filter_map(|entry| entry.opener.as_ref()).for_each(Opener::close);
    }

    /// Closes all tunnels: for a clean stop of the server.
    pub fn close_all(&self) {
        for opener in self.0.lock().values().flat_map(|c| c.nodes.values()).filter_map(|n| n.opener.as_ref()) {
            opener.close();
        }
    }
}
