//! What everything of one node of one cluster is called on its host. Interface names hold 15 bytes, so they carry a
//! hash; the ids stand in full in the alias of the host's interface.

use longshore_api::ids::{ClusterId, NodeId};
use sha2::{Digest, Sha256};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Ten hexadecimal digits of cluster and node.
    id: String,
    /// Both ids, for people who look at the host.
    pub alias: String,
}

impl Names {
    pub fn new(cluster: &ClusterId, node: &NodeId) -> Self {
        let id = short(&format!("{cluster}/{node}"), 5);
        Self { id, alias: format!("longshore cluster {cluster}, node {node}") }
    }

    /// The interface on the host that leads into the cluster's namespace.
    pub fn uplink(&self) -> String {
        format!("ls-{}", self.id)
    }

    /// The nftables table, on the host and inside; also the comment of rules in chains that aren't ours.
    pub fn table(&self) -> String {
        format!("longshore-{}", self.id)
    }

    /// Where in the host's transfer range this node looks first.
    pub fn seed(&self) -> u32 {
        u32::from_str_radix(&self.id[..8], 16).unwrap_or_default()
    }
}

/// The end of a pod's cable in the cluster's namespace.
pub fn pod_link(uid: &str) -> String {
    format!("{POD_LINK}{}", short(uid, 5))
}

/// How all of them begin.
pub const POD_LINK: &str = "pod-";

fn short(text: &str, bytes: usize) -> String {
    hex::encode(&Sha256::digest(text)[..bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ_by_cluster_and_node() {
        let of = |cluster: &str, node: &str| Names::new(&ClusterId::new(cluster), &NodeId::new(node)).uplink();
        let all = [of("c-a", "n-a"), of("c-a", "n-b"), of("c-b", "n-a"), pod_link("x"), pod_link("y")];
        assert!(all.iter().all(|n| n.len() <= 15), "{all:?}");
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        assert_eq!(of("c-a", "n-a"), all[0], "the same after a restart");
    }
}
