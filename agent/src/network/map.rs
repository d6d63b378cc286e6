//! The network map as this node knows it: pushed by the server, kept on disk, the same while the server is away.

use crate::pods::desired;
use longshore_api::name_servers::NameServers;
use longshore_api::network::{Cluster, Endpoints, Frame, Key, Name, Node, Service};
use longshore_api::network_policy::{Part, Peers, Policy};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often what has changed is written to disk, at most.
const KEPT_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    pub cluster: Cluster,
    pub nodes: BTreeMap<String, Node>,
    pub services: BTreeMap<Name, Service>,
    /// The slices of each Service, by their own names.
    slices: HashMap<Name, BTreeMap<String, Endpoints>>,
    /// Which Service a slice belongs to.
    owners: HashMap<Name, String>,
    pub policies: BTreeMap<Name, Policy>,
    /// The parts of each set of peers.
    peers: HashMap<String, BTreeMap<IpAddr, Peers>>,
    /// Those that the cluster's users chose.
    pub name_servers: Option<Arc<NameServers>>,
}

impl Map {
    #[cfg(test)]
    pub fn of(frames: impl IntoIterator<Item = Frame>) -> Self {
        let mut map = Self::default();
        frames.into_iter().for_each(|frame| map.apply(frame, &mut Touched::default()));
        map
    }

    /// Whether the server has ever told it.
    pub fn is_known(&self) -> bool {
        !self.cluster.service_range.is_empty()
    }

    pub fn slices<'a>(&'a self, service: &Name) -> impl Iterator<Item = &'a Endpoints> + use<'a> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    pub fn policies_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = (&'a Name, &'a Policy)> + use<'a> {
        let first = Name::new(namespace, "");
        self.policies.range(first.clone()..).take_while(move |(name, _)| name.namespace == first.namespace)
    }

    /// The parts of a set.
    pub fn peers(&self, set: &str) -> impl Iterator<Item = &Peers> + Clone {
        self.peers.get(set).into_iter().flat_map(BTreeMap::values)
    }

    fn apply(&mut self, frame: Frame, touched: &mut Touched) {
        match frame {
            Frame::Cluster(cluster) => self.cluster = cluster,
            Frame::Node(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Frame::Service(service) => {
                touched.services.insert(service.key());
                self.services.insert(service.key(), service);
            }
            Frame::Endpoints(slice) => {
                self.forget_slice(&slice.key(), touched);
                let service = Name::new(&slice.namespace, &slice.service);
                touched.services.insert(service.clone());
                self.owners.insert(slice.key(), slice.service.clone());
                self.slices.entry(service).or_default().insert(slice.name.clone(), slice);
            }
            Frame::Removed(Key::Node(name)) => drop(self.nodes.remove(&name)),
            Frame::Removed(Key::Service(name)) => {
                self.services.remove(&name);
                touched.services.insert(name);
            }
            Frame::Removed(Key::Endpoints(name)) => self.forget_slice(&name, touched),
            Frame::Policy(policy) => {
                touched.policies = true;
                self.policies.insert(policy.key(), policy);
            }
            Frame::Removed(Key::Policy(name)) => {
                touched.policies = true;
                self.policies.remove(&name);
            }
            Frame::Peers(peers) => {
                touched.sets.insert(peers.part.set.clone());
                self.peers.entry(peers.part.set.clone()).or_default().insert(peers.part.of, peers);
            }
            Frame::Removed(Key::Peers(part)) => self.forget_peers(part, touched),
            Frame::NameServers(chosen) => self.name_servers = Some(Arc::new(chosen)),
            Frame::Removed(Key::NameServers) => self.name_servers = None,
            Frame::Removed(Key::Cluster) | Frame::Unread(_) | Frame::Synced => {}
        }
    }

    fn forget_slice(&mut self, slice: &Name, touched: &mut Touched) {
        let Some(service) = self.owners.remove(slice) else { return };
        let service = Name::new(&slice.namespace, service);
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&slice.name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        touched.services.insert(service);
    }

    fn forget_peers(&mut self, part: Part, touched: &mut Touched) {
        if let Some(parts) = self.peers.get_mut(&part.set) {
            parts.remove(&part.of);
            if parts.is_empty() {
                self.peers.remove(&part.set);
            }
        }
        touched.sets.insert(part.set);
    }

    /// All units, as they could be sent again.
    fn frames(&self) -> Vec<Frame> {
        let nodes = self.nodes.values().cloned().map(Frame::Node);
        let services = self.services.values().cloned().map(Frame::Service);
        let slices = self.slices.values().flat_map(BTreeMap::values).cloned().map(Frame::Endpoints);
        let policies = self.policies.values().cloned().map(Frame::Policy);
        let peers = self.peers.values().flat_map(BTreeMap::values).cloned().map(Frame::Peers);
        let chosen = self.name_servers.iter().map(|chosen| Frame::NameServers((**chosen).clone()));
        let cluster = std::iter::once(Frame::Cluster(self.cluster.clone()));
        cluster.chain(chosen).chain(nodes).chain(services).chain(slices).chain(peers).chain(policies).collect()
    }
}

/// What may be other than when it was last looked at.
#[derive(Default)]
struct Touched {
    /// They, or endpoints of theirs.
    services: BTreeSet<Name>,
    policies: bool,
    /// Sets of peers.
    sets: BTreeSet<String>,
}

/// What of policies may be other than when that was last asked.
pub struct TouchedPolicies {
    /// Any policy.
    pub policies: bool,
    pub sets: BTreeSet<String>,
}

/// The map as it is now. Whoever acts on it waits for changes and takes what was touched.
pub struct Known {
    path: PathBuf,
    map: RwLock<Map>,
    touched: Mutex<Touched>,
    changes: watch::Sender<u64>,
    /// The map of a stream that hasn't told the whole yet.
    coming: Mutex<Option<Map>>,
}

impl Known {
    /// As it was last kept at `path`.
    pub fn open(path: PathBuf) -> Arc<Self> {
        let (mut map, mut touched) = (Map::default(), Touched::default());
        for frame in desired::read::<Vec<Frame>>(&path).into_iter().flatten() {
            map.apply(frame, &mut touched);
        }
        Arc::new(Self {
            path,
            map: RwLock::new(map),
            touched: Mutex::new(touched),
            changes: watch::Sender::new(0),
            coming: Mutex::default(),
        })
    }

    /// Takes lines of a stream in; none begin a new stream, whose map replaces the old one once it is whole.
    pub fn take(&self, lines: &[u8]) {
        if lines.is_empty() {
            *self.coming.lock() = Some(Map::default());
            return;
        }
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(frame) => self.apply(frame),
                // A server that is newer than this agent may know more kinds of units.
                Err(error) => tracing::debug!(%error, "a line of the network map is not understood"),
            }
        }
        self.changes.send_modify(|count| *count += 1);
    }

    fn apply(&self, frame: Frame) {
        let mut coming = self.coming.lock();
        if frame != Frame::Synced {
            match &mut *coming {
                // Of all units this one alone may be unread.
                Some(map) if frame == Frame::Unread(Key::NameServers) => {
                    map.name_servers = self.map.read().name_servers.clone();
                }
                Some(map) => map.apply(frame, &mut Touched::default()),
                None => self.map.write().apply(frame, &mut self.touched.lock()),
            }
            return;
        }
        let Some(new) = coming.take() else { return };
        let mut map = self.map.write();
        let mut touched = self.touched.lock();
        touched.services.extend(map.services.keys().chain(new.services.keys()).cloned());
        touched.policies = true;
        touched.sets.extend(map.peers.keys().chain(new.peers.keys()).cloned());
        *map = new;
    }

    pub fn read<T>(&self, look: impl FnOnce(&Map) -> T) -> T {
        look(&self.map.read())
    }

    /// The services touched since this was last asked: for the one who acts on them.
    pub fn touched_services(&self) -> BTreeSet<Name> {
        std::mem::take(&mut self.touched.lock().services)
    }

    /// As [`Known::touched_services`], of policies.
    pub fn touched_policies(&self) -> TouchedPolicies {
        let mut touched = self.touched.lock();
        TouchedPolicies { policies: std::mem::take(&mut touched.policies), sets: std::mem::take(&mut touched.sets) }
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keeps it on disk. Runs until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut changes = self.changes();
        while changes.changed().await.is_ok() {
            tokio::time::sleep(KEPT_EVERY).await;
            changes.mark_unchanged();
            let this = self.clone();
            desired::keep("the network map", move || desired::write(&this.path, &this.read(Map::frames))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(frames: &[Frame]) -> Vec<u8> {
        frames.iter().flat_map(|f| [serde_json::to_vec(f).unwrap(), b"\n".to_vec()].concat()).collect()
    }

    fn service(name: &str) -> Frame {
        Frame::Service(Service { namespace: "a".into(), name: name.into(), ..Service::default() })
    }

    fn slice(name: &str, service: &str) -> Frame {
        let (namespace, name, service) = ("a".into(), name.into(), service.into());
        Frame::Endpoints(Endpoints { namespace, name, service, ..Endpoints::default() })
    }

    #[test]
    fn a_new_stream_replaces_the_map_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let known = Known::open(dir.path().join("map.json"));
        known.take(b"");
        known.take(&lines(&[service("one"), service("two"), slice("one-1", "one")]));
        assert!(known.read(|m| m.services.is_empty()), "not before it is whole");
        known.take(&lines(&[Frame::Synced, slice("two-1", "two")]));
        assert_eq!(known.read(|m| (m.services.len(), m.slices(&Name::new("a", "two")).count())), (2, 1));
        assert_eq!(known.touched_services().len(), 2);

        known.take(b"");
        known.take(&lines(&[service("two"), Frame::Synced]));
        assert_eq!(known.read(|m| m.services.keys().cloned().collect::<Vec<_>>()), [Name::new("a", "two")]);
        assert_eq!(known.read(|m| m.slices(&Name::new("a", "one")).count()), 0);
        assert!(known.touched_services().contains(&Name::new("a", "one")), "what went is touched, too");
    }

    #[test]
    fn endpoints_move_with_their_slice() {
        let (mut map, mut touched) = (Map::default(), Touched::default());
        for frame in [slice("s", "one"), slice("s", "two")] {
            map.apply(frame, &mut touched);
        }
        assert_eq!(map.slices(&Name::new("a", "one")).count(), 0);
        assert_eq!(map.slices(&Name::new("a", "two")).count(), 1);
        map.apply(Frame::Removed(Key::Endpoints(Name::new("a", "s"))), &mut touched);
        assert_eq!(map, Map::default());
        assert_eq!(touched.services.len(), 2);
    }

    #[test]
    fn policies_and_their_peers_come_and_go_and_are_kept() {
        let (mut map, mut touched) = (Map::default(), Touched::default());
        let policy = Policy { namespace: "a".into(), name: "p".into(), ..Policy::default() };
        let peers = |ip: [u8; 4]| {
            let address = IpAddr::from(ip);
            Peers { part: Part::new("s", address), addresses: vec![address], ports: Vec::new() }
        };
        let (one, two) = (peers([10, 0, 0, 1]), peers([10, 0, 1, 1]));
        for frame in [Frame::Policy(policy.clone()), Frame::Peers(one.clone()), Frame::Peers(two.clone())] {
            map.apply(frame, &mut touched);
        }
        assert_eq!((map.policies_in("a").count(), map.policies_in("b").count(), map.peers("s").count()), (1, 0, 2));
        assert_eq!(Map::of(map.frames()), map);
        assert_eq!((touched.policies, touched.sets.len()), (true, 1));
        for key in [Key::Peers(one.part), Key::Peers(two.part), Key::Policy(policy.key())] {
            map.apply(Frame::Removed(key), &mut touched);
        }
        assert_eq!(map, Map::default());
    }

    #[test]
    fn name_servers_that_cannot_be_read_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let known = Known::open(dir.path().join("map.json"));
        let chosen = NameServers { upstreams: vec!["10.0.0.1:53".parse().unwrap()], ..NameServers::default() };
        let of = |known: &Known| known.read(|map| map.name_servers.as_deref().cloned());
        for (frames, then) in [
            (vec![Frame::Unread(Key::NameServers), Frame::Synced], None),
            (vec![Frame::NameServers(chosen.clone()), Frame::Synced], Some(&chosen)),
            (vec![Frame::Unread(Key::NameServers), Frame::Synced], Some(&chosen)),
            (vec![Frame::Synced], None),
            (vec![Frame::Synced, Frame::NameServers(chosen.clone())], Some(&chosen)),
            (vec![Frame::NameServers(chosen.clone()), Frame::Synced, Frame::Removed(Key::NameServers)], None),
        ] {
            known.take(b"");
            known.take(&lines(&frames));
            assert_eq!(of(&known).as_ref(), then, "{frames:?}");
        }
        known.take(&lines(&[Frame::NameServers(chosen.clone())]));
        assert_eq!(Map::of(known.read(Map::frames)).name_servers.as_deref(), Some(&chosen), "it is kept on disk");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_started_again_goes_on_with_what_it_knew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.json");
        let known = Known::open(path.clone());
        let keeping = tokio::spawn(known.clone().keep());
        tokio::task::yield_now().await;
        known.take(b"");
        known.take(&lines(&[service("one"), slice("one-1", "one"), Frame::Synced]));
        while !path.exists() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        keeping.abort();
        let again = Known::open(path);
        assert_eq!(again.read(Map::clone), known.read(Map::clone));
        assert_eq!(again.touched_services().len(), 1, "and acts on it");
    }
}
