//! The other nodes of the map as peers of the mesh. Pure.

use crate::network::{Slices, map::Map};
use longshore_api::ids::NodeId;
use longshore_api::network::Node;
use longshore_mesh::{LARGEST_RELAYED, PeerInfo};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Whether there is anybody to have a mesh with.
pub fn any(map: &Map, own: &str) -> bool {
    map.nodes.values().any(|node| node.name != own && peer(node, SystemTime::UNIX_EPOCH).is_some())
}

/// All others that can be talked to, trusted until `expires`.
pub fn of(map: &Map, own: &str, expires: SystemTime) -> BTreeMap<NodeId, PeerInfo> {
    let others = map.nodes.values().filter(|node| node.name != own);
    others.filter_map(|node| Some((NodeId::new(&node.id), peer(node, expires)?))).collect()
}

/// What a node says among its endpoints of the relay. Agents from before take it for no endpoint, and drop it when they start.
pub fn over_relay() -> String {
    format!("{RELAY}{LARGEST_RELAYED}")
}

const RELAY: &str = "relay:";

fn relayed(endpoint: &str) -> Option<u16> {
    endpoint.strip_prefix(RELAY)?.parse().ok().map(|bytes: u16| bytes.min(LARGEST_RELAYED))
}

/// None for one that has no key or no slice yet.
fn peer(node: &Node, expires: SystemTime) -> Option<PeerInfo> {
    let info = PeerInfo {
        // What isn't one was written by a person.
        keys: node.mesh_keys.iter().filter_map(|key| key.parse().ok()).collect(),
        slices: Slices::of_node(node)?.all(),
        candidates: node.mesh_endpoints.iter().filter_map(|endpoint| endpoint.parse().ok()).collect(),
        relayed: node.mesh_endpoints.iter().find_map(|endpoint| relayed(endpoint)).unwrap_or_default(),
        expires,
    };
    (!info.keys.is_empty() && !node.id.is_empty()).then_some(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_api::network::Frame;
    use longshore_mesh::PrivateKey;

    #[test]
    fn who_can_be_talked_to_is_a_peer() {
        let key = PrivateKey::generate().public().to_string();
        let node = |name: &str, pod_range: &str, keys: &[&str]| {
            Frame::Node(Node {
                name: name.into(),
                id: format!("id-{name}"),
                pod_range: pod_range.into(),
                mesh_keys: keys.iter().map(|key| key.to_string()).collect(),
                mesh_endpoints: vec!["192.0.2.1:5".into(), "nonsense".into(), over_relay()],
                ..Node::default()
            })
        };
        let own = node("own", "10.1.0.0/24", &[&key]);
        let map = Map::of([own.clone(), node("no-key", "10.1.1.0/24", &[]), node("no-range", "", &[&key])]);
        assert!(!any(&map, "own"));
        let map = Map::of([own, node("bad", "10.1.1.0/24", &["?"]), node("good", "10.1.2.0/24", &["?", &key])]);
        assert!(any(&map, "own"));
        let peers = of(&map, "own", SystemTime::UNIX_EPOCH);
        assert_eq!(peers.keys().map(NodeId::as_str).collect::<Vec<_>>(), ["id-good"]);
        let good = &peers[&NodeId::new("id-good")];
        assert_eq!((good.keys.len(), good.candidates.len(), good.relayed), (1, 1, LARGEST_RELAYED));
    }
}
