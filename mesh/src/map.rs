//! Who is in the network: what the caller says, ordered for the questions that packets ask.

use crate::keys::{PublicKey, Tag};
use crate::peer::{Live, Peer};
use ipnet::IpNet;
use longshore_api::ids::NodeId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Newest first: a node that changes its key stands here with both for a while.
    pub keys: Vec<PublicKey>,
    /// The addresses that are behind it; it may send from no other.
    pub slices: Vec<IpNet>,
    /// Where it may be reached directly.
    pub candidates: Vec<SocketAddr>,
    /// Bytes of the largest packet that it takes over the relay; 0: no larger one than anybody.
    pub relayed: u16,
    /// From then on it is as if it weren't there.
    pub expires: SystemTime,
}

#[derive(Default)]
pub struct Table {
    ids: BTreeMap<NodeId, Arc<Peer>>,
    keys: HashMap<PublicKey, Arc<Peer>>,
    tags: HashMap<Tag, PublicKey>,
    /// By their slices' first address.
    slices: BTreeMap<IpAddr, (IpNet, Arc<Peer>)>,
}

impl Table {
    /// Those whose time has come are left out. What lives of a peer goes over to the new table.
    pub fn new(peers: BTreeMap<NodeId, PeerInfo>, before: &Table, now: SystemTime) -> Self {
        let mut table = Table::default();
        for (id, info) in peers.into_iter().filter(|(_, info)| info.expires > now) {
            let live = before
                .ids
                .get(&id)
                .map_or_else(|| Arc::new(Mutex::<Option<Live>>::default()), |peer| peer.live.clone());
            let peer = Arc::new(Peer { id: id.clone(), info, live });
            for key in &peer.info.keys {
                table.keys.insert(*key, peer.clone());
                table.tags.insert(key.tag(), *key);
            }
            for slice in peer.info.slices.iter().map(IpNet::trunc) {
                table.slices.insert(slice.network(), (slice, peer.clone()));
            }
            table.ids.insert(id, peer);
        }
        table
    }

    /// The same without those whose time has come; None where there are none.
    pub fn without_expired(&self, now: SystemTime) -> Option<Self> {
        if self.ids.values().all(|peer| peer.info.expires > now) {
            return None;
        }
        let peers = self.ids.values().map(|peer| (peer.id.clone(), peer.info.clone())).collect();
        Some(Self::new(peers, self, now))
    }

    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.ids.values()
    }

    pub fn peer(&self, id: &NodeId) -> Option<&Arc<Peer>> {
        self.ids.get(id)
    }

    pub fn of_key(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.keys.get(key)
    }

    pub fn of_tag(&self, tag: &Tag) -> Option<(PublicKey, &Arc<Peer>)> {
        let key = self.tags.get(tag)?;
        Some((*key, self.keys.get(key)?))
    }

    /// Behind whom an address is. Slices don't overlap.
    pub fn behind(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        let (_, (slice, peer)) = self.slices.range(..=address).next_back()?;
        slice.contains(&address).then_some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;
    use std::time::Duration;

    fn peer(slices: &[&str], expires: SystemTime) -> PeerInfo {
        PeerInfo {
            keys: vec![PrivateKey::generate().public()],
            slices: slices.iter().map(|slice| slice.parse().unwrap()).collect(),
            candidates: vec![],
            relayed: 0,
            expires,
        }
    }

    #[test]
    fn addresses_lead_to_the_peer_behind_which_they_are() {
        let now = SystemTime::now();
        let later = now + Duration::from_secs(60);
        let (a, b) = (NodeId::new("n-a"), NodeId::new("n-b"));
        let peers =
            [(a.clone(), peer(&["10.1.1.0/24", "fd00:1::/64"], later)), (b.clone(), peer(&["10.1.2.128/25"], later))];
        let table = Table::new(peers.into(), &Table::default(), now);
        let behind = |address: &str| table.behind(address.parse().unwrap()).map(|peer| peer.id.clone());
        assert_eq!(behind("10.1.1.0"), Some(a.clone()));
        assert_eq!(behind("10.1.1.255"), Some(a.clone()));
        assert_eq!(behind("fd00:1::7"), Some(a));
        assert_eq!(behind("10.1.2.128"), Some(b));
        for nobody in ["10.1.0.255", "10.1.2.127", "10.1.3.0", "0.0.0.0", "255.255.255.255", "::", "fd00:1:0:1::"] {
            assert_eq!(behind(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn whose_time_has_come_is_gone() {
        let now = SystemTime::now();
        let info = peer(&["10.1.1.0/24"], now + Duration::from_secs(60));
        let key = info.keys[0];
        let table = Table::new([(NodeId::new("n-a"), info)].into(), &Table::default(), now);
        assert!(table.without_expired(now).is_none() && table.of_key(&key).is_some());
        let later = table.without_expired(now + Duration::from_secs(60)).unwrap();
        assert!(later.of_key(&key).is_none() && later.of_tag(&key.tag()).is_none() && later.peers().next().is_none());
    }
}
