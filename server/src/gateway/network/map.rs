//! One cluster's network map, kept up while at least one of its nodes asks for it.
//!
//! Units are rendered once, when they change, and numbered in the order of their last change. A reader is a place in that
//! order and nothing else: it takes what has a higher number. So nothing queues up for a slow node, which just skips what
//! was superseded meanwhile, and a thousand nodes share the same bytes.
//!
//! Pods and namespaces matter only to policies: while the cluster has none, they are neither read nor watched. Of ConfigMaps
//! one is, whether it is there or not: it wakes nobody while it isn't written.

use super::policies::Policies;
use super::units::{self, unit};
use crate::store::{Change, ChangeKind, Cluster, Object, StoreError, Watch, WatchItem};
use bytes::{Bytes, BytesMut};
use longshore_api::name_servers::{self, NameServers};
use longshore_api::network::{self, Frame, Key, Name};
use longshore_control::Projection;
use longshore_control::projection::{ConfigMap, Pod};
use longshore_control::view::Kind;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// Removals that are remembered for readers who haven't heard of them; whoever is further behind begins anew.
const REMOVALS: usize = 10_000;
/// What a reader takes at once, about.
const TAKEN_BYTES: usize = 4 * 1024;

/// Its name among the pods of its namespace, which none of these can have.
const NAME_SERVER: &str = "Service/kube-dns";

/// The map of a loaded cluster: one of its companions.
#[derive(Default)]
struct Current(Mutex<Weak<Map>>);

struct Map {
    state: Mutex<State>,
    /// The highest number. Its receivers are the readers.
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    units: HashMap<Key, Unit>,
    /// Who changed when, the last change of each.
    order: BTreeMap<u64, Key>,
    newest: u64,
    /// Removals by their numbers.
    removals: BTreeMap<u64, Key>,
    /// Up to here removals are forgotten.
    forgotten: u64,
    ended: bool,
    /// While there is any.
    policies: Option<Box<Policies>>,
    /// What policies select as the name server.
    name_server: Option<Arc<Pod>>,
}

struct Unit {
    number: u64,
    line: Bytes,
    removed: bool,
}

/// One node's reading of the map.
pub struct Reader {
    map: Arc<Map>,
    newest: watch::Receiver<u64>,
    place: u64,
    /// The newest number when it began: it never heard of what was removed by then.
    since: u64,
    synced: bool,
}

impl Reader {
    /// From the beginning.
    pub fn open(cluster: &Arc<Cluster>) -> Result<Self, StoreError> {
        let current = cluster.companion::<Current>();
        let mut current = current.0.lock();
        if let Some(reader) = current.upgrade().and_then(|map| map.reader()) {
            return Ok(reader);
        }
        let (map, watches) = Map::load(cluster)?;
        let newest = map.newest.subscribe();
        let since = *newest.borrow();
        let reader = Self { newest, map: map.clone(), place: 0, since, synced: false };
        *current = Arc::downgrade(&map);
        tokio::spawn(map.follow(cluster.clone(), watches));
        Ok(reader)
    }

    /// The next lines. None: the cluster has left this replica, or the reader was too slow; it may ask again.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.newest.borrow_and_update();
            if let Some(lines) = self.map.state.lock().after(&mut self.place, self.since)? {
                return Some(lines);
            }
            if !self.synced {
                self.synced = true;
                return Some(line(&Frame::Synced));
            }
            self.newest.changed().await.ok()?;
        }
    }
}

impl Map {
    fn load(cluster: &Arc<Cluster>) -> Result<(Arc<Self>, Vec<Watch>), StoreError> {
        let info = cluster.info();
        let ranges = network::Cluster {
            pod_range: info.pod_range.clone(),
            service_range: info.service_range.clone(),
            pod_range_v6: info.pod_range_v6.clone().unwrap_or_default(),
            service_range_v6: info.service_range_v6.clone().unwrap_or_default(),
        };
        let mut state = State::default();
        state.set(Key::Cluster, Some(&Frame::Cluster(ranges)));
        let mut watches = Vec::new();
        for resource in units::RESOURCES.into_iter().chain([units::POLICIES]) {
            watches.push(cluster.follow(resource, |object| state.take(object, false))?);
        }
        let chosen = (ConfigMap::RESOURCE, name_servers::NAMESPACE, name_servers::NAME);
        watches.push(cluster.follow_one(chosen, |object| state.take(object, false))?);
        state.judge(cluster, &mut watches)?;
        let newest = watch::Sender::new(state.newest);
        Ok((Arc::new(Self { state: Mutex::new(state), newest }), watches))
    }

    /// None once it has ended.
    fn reader(self: Arc<Self>) -> Option<Reader> {
        let (newest, since) = {
            let state = self.state.lock();
            (!state.ended).then(|| (self.newest.subscribe(), state.newest))?
        };
        Some(Reader { map: self, newest, place: 0, since, synced: false })
    }

    /// Keeps it up until nobody reads it or the cluster goes.
    async fn follow(self: Arc<Self>, cluster: Arc<Cluster>, mut watches: Vec<Watch>) {
        loop {
            let next = futures::future::select_all(watches.iter_mut().map(|watch| Box::pin(watch.next())));
            let item = tokio::select! {
                (item, _, _) = next => item,
                () = self.newest.closed() => match self.end(false) {
                    true => return,
                    false => continue,
                },
            };
            match item {
                WatchItem::Changes(changes) if self.take_in(&cluster, &changes, &mut watches).is_ok() => {}
                WatchItem::Progress(_) => {}
                WatchItem::Changes(_) | WatchItem::Ended(_) => {
                    self.end(true);
                    return;
                }
            }
        }
    }

    /// Lets nobody in any more; unless it must, not while somebody reads.
    fn end(&self, must: bool) -> bool {
        let mut state = self.state.lock();
        state.ended = must || self.newest.receiver_count() == 0;
        let ended = state.ended;
        drop(state);
        self.newest.send_modify(|_| {});
        ended
    }

    fn take_in(
        &self,
        cluster: &Arc<Cluster>,
        changes: &[Arc<Change>],
        watches: &mut Vec<Watch>,
    ) -> Result<(), StoreError> {
        let newest = {
            let mut state = self.state.lock();
            for change in changes {
                state.take(&change.object, change.kind == ChangeKind::Deleted);
            }
            state.judge(cluster, watches)?;
            state.newest
        };
        self.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
        Ok(())
    }
}

impl State {
    /// An object as it is now, or as it was last.
    fn take(&mut self, object: &Object, deleted: bool) {
        let (namespace, name) = (&*object.key.namespace, &*object.key.name);
        match (&*object.key.resource, &object.projection) {
            (units::POLICIES, _) => {
                let policy = units::policy(object).filter(|_| !deleted);
                if policy.is_some() || self.policies.is_some() {
                    self.policies.get_or_insert_default().set_policy(Name::new(namespace, name), policy);
                }
            }
            (_, Projection::Pod(pod)) => {
                if let Some(policies) = &mut self.policies {
                    policies.set_pod(namespace, name, Some(pod.clone()).filter(|_| !deleted));
                }
            }
            (_, Projection::Namespace(it)) => {
                if let Some(policies) = &mut self.policies {
                    policies.set_namespace(name, Some(&it.meta.labels).filter(|_| !deleted));
                }
            }
            (_, Projection::ConfigMap(map)) => self.choose(map.name_servers.as_ref().filter(|_| !deleted)),
            _ => {
                let (key, frame) = unit(object);
                let frame = frame.filter(|_| !deleted);
                if (namespace, name, &*object.key.resource) == ("kube-system", "kube-dns", "services") {
                    self.name_server = match &frame {
                        Some(Frame::Service(service)) => units::name_server(service),
                        _ => None,
                    };
                    if let Some(policies) = &mut self.policies {
                        policies.set_pod(namespace, NAME_SERVER, self.name_server.clone());
                    }
                }
                self.set(key, frame.as_ref());
            }
        }
    }

    /// What can't be read changes nothing; nor does it for nodes when this begins with it.
    fn choose(&mut self, chosen: Option<&Result<Arc<NameServers>, String>>) {
        match chosen {
            None => self.set(Key::NameServers, None),
            Some(Ok(chosen)) => self.set(Key::NameServers, Some(&Frame::NameServers((**chosen).clone()))),
            Some(Err(_)) if self.units.contains_key(&Key::NameServers) => {}
            Some(Err(_)) => self.set(Key::NameServers, Some(&Frame::Unread(Key::NameServers))),
        }
    }

    /// What follows from policies; of what they select it reads all when the first one comes, and forgets all with the
    /// last.
    fn judge(&mut self, cluster: &Arc<Cluster>, watches: &mut Vec<Watch>) -> Result<(), StoreError> {
        let Some(mut policies) = self.policies.take() else { return Ok(()) };
        let own = units::RESOURCES.len() + 2;
        if policies.is_empty() {
            watches.truncate(own);
        } else if watches.len() == own {
            policies.set_pod("kube-system", NAME_SERVER, self.name_server.clone());
            self.policies = Some(policies);
            for resource in units::SELECTED {
                watches.push(cluster.follow(resource, |object| self.take(object, false))?);
            }
            policies = self.policies.take().unwrap_or_default();
        }
        for (key, frame) in policies.changes() {
            self.set(key, frame.as_ref());
        }
        self.policies = Some(policies).filter(|policies| !policies.is_empty());
        Ok(())
    }

    /// Makes `frame` the unit of `key`, or removes it.
    fn set(&mut self, key: Key, frame: Option<&Frame>) {
        let old = self.units.get(&key);
        let text = match frame {
            Some(frame) => line(frame),
            None if old.is_none_or(|u| u.removed) => return,
            None => line(&Frame::Removed(key.clone())),
        };
        // Nodes say much about themselves that isn't in the map.
        if old.is_some_and(|u| u.line == text) {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&old.number);
            self.removals.remove(&old.number);
        }
        self.newest += 1;
        let (number, removed) = (self.newest, frame.is_none());
        if removed {
            self.removals.insert(number, key.clone());
        }
        self.order.insert(number, key.clone());
        self.units.insert(key, Unit { number, line: text, removed });
        while self.removals.len() > REMOVALS
            && let Some((number, key)) = self.removals.pop_first()
        {
            self.order.remove(&number);
            self.units.remove(&key);
            self.forgotten = number;
        }
    }

    /// What comes after `place`, which moves behind it. `Some(None)`: nothing yet; `None`: nothing ever. Who began at `since`
    /// is not told of removals before.
    fn after(&self, place: &mut u64, since: u64) -> Option<Option<Bytes>> {
        if self.ended || (*place).max(since) < self.forgotten {
            return None;
        }
        let mut lines = BytesMut::new();
        let mut first: Option<Bytes> = None;
        for (number, key) in self.order.range(*place + 1..) {
            if lines.len() + first.as_ref().map_or(0, Bytes::len) >= TAKEN_BYTES {
                break;
            }
            *place = *number;
            let Some(unit) = self.units.get(key).filter(|u| !u.removed || u.number > since) else { continue };
            match (&first, lines.is_empty()) {
                (None, _) => first = Some(unit.line.clone()),
                (Some(first), true) => {
                    lines.extend_from_slice(first);
                    lines.extend_from_slice(&unit.line);
                }
                (Some(_), false) => lines.extend_from_slice(&unit.line),
            }
        }
        Some(if lines.is_empty() { first } else { Some(lines.freeze()) })
    }
}

fn line(frame: &Frame) -> Bytes {
    let mut line = serde_json::to_vec(frame).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Draft, Key as StoreKey, Write, testing};
    use serde_json::{Value, json};

    async fn put(cluster: &Cluster, resource: &str, name: &str, tree: Option<Value>) {
        let namespace = if ["nodes", "namespaces"].contains(&resource) { "" } else { "d" };
        let key = StoreKey { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        let old = cluster.newest(&key).unwrap().object;
        let draft = |tree: &Value| Draft::new(key.clone(), tree, BTreeMap::new(), Projection::of(resource, tree));
        let write = match (tree, old) {
            (Some(tree), None) => Write::Create(draft(&tree)),
            (Some(tree), Some(old)) => Write::Update { draft: draft(&tree), expected: old.revision },
            (None, old) => {
                let old = old.unwrap();
                Write::Delete { draft: Draft::again(&old).unwrap(), expected: old.revision }
            }
        };
        cluster.commit(write).await.unwrap();
    }

    fn service(ip: &str) -> Option<Value> {
        Some(json!({"metadata": {"name": "web"}, "spec": {"clusterIPs": [ip], "ports": [{"port": 80}]}}))
    }

    fn node(range: &str, heartbeat: &str) -> Option<Value> {
        Some(json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": range}, "status": {"phase": heartbeat}}))
    }

    async fn frames(reader: &mut Reader) -> Vec<Frame> {
        let lines = reader.next().await.unwrap();
        lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    #[tokio::test]
    async fn first_the_whole_then_what_changes_and_only_that() {
        let cluster = testing::cluster().await;
        put(&cluster, "services", "web", service("10.96.0.9")).await;
        put(&cluster, "nodes", "n1", node("10.244.0.0/24", "a")).await;
        let mut reader = Reader::open(&cluster).unwrap();
        let keys: Vec<_> = frames(&mut reader).await.iter().filter_map(Frame::key).collect();
        assert_eq!(keys, [Key::Cluster, Key::Node("n1".into()), Key::Service(Name::new("d", "web"))]);
        assert_eq!(frames(&mut reader).await, [Frame::Synced]);

        // A heartbeat is no news, nor is a pod.
        put(&cluster, "nodes", "n1", node("10.244.0.0/24", "b")).await;
        put(&cluster, "pods", "p", Some(json!({"metadata": {"name": "p"}}))).await;
        put(&cluster, "services", "web", service("10.96.0.10")).await;
        let told = frames(&mut reader).await;
        assert!(matches!(&told[..], [Frame::Service(s)] if s.addresses == [std::net::IpAddr::from([10, 96, 0, 10])]));
        put(&cluster, "services", "web", None).await;
        let gone = Key::Service(Name::new("d", "web"));
        assert_eq!(frames(&mut reader).await, [Frame::Removed(gone)]);

        // Whoever comes later doesn't hear of what is gone.
        let mut later = Reader::open(&cluster).unwrap();
        assert!(Arc::ptr_eq(&later.map, &reader.map));
        assert_eq!(frames(&mut later).await.len(), 2);
        assert_eq!(frames(&mut later).await, [Frame::Synced]);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_of_the_newest_alone() {
        let cluster = testing::cluster().await;
        let (mut slow, mut quick) = (Reader::open(&cluster).unwrap(), Reader::open(&cluster).unwrap());
        for reader in [&mut slow, &mut quick] {
            frames(reader).await;
            assert_eq!(frames(reader).await, [Frame::Synced]);
        }
        for last in 1..=20 {
            put(&cluster, "services", "web", service(&format!("10.96.1.{last}"))).await;
            let told = frames(&mut quick).await;
            assert!(
                matches!(&told[..], [Frame::Service(s)] if s.addresses[0].to_string().ends_with(&format!(".{last}")))
            );
        }
        let told = frames(&mut slow).await;
        assert!(matches!(&told[..], [Frame::Service(s)] if s.addresses[0].to_string().ends_with(".20")), "{told:?}");
    }

    #[tokio::test]
    async fn pods_are_looked_at_while_there_is_a_policy() {
        let cluster = testing::cluster().await;
        let pod = |ip: &str| Some(json!({"metadata": {"labels": {"app": "web"}}, "status": {"podIP": ip}}));
        put(&cluster, "pods", "first", pod("10.0.0.1")).await;
        let mut reader = Reader::open(&cluster).unwrap();
        frames(&mut reader).await;
        assert_eq!(frames(&mut reader).await, [Frame::Synced]);
        assert!(reader.map.state.lock().policies.is_none());

        let spec = json!({"policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]});
        put(&cluster, units::POLICIES, "all", Some(json!({"metadata": {}, "spec": spec}))).await;
        let told = frames(&mut reader).await;
        let [Frame::Peers(peers), Frame::Policy(policy)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((policy.key(), peers.addresses.len()), (Name::new("d", "all"), 1));
        put(&cluster, "pods", "second", pod("10.0.0.2")).await;
        let told = frames(&mut reader).await;
        assert!(matches!(&told[..], [Frame::Peers(peers)] if peers.addresses.len() == 2), "{told:?}");

        // Who comes later is told of it with the whole.
        let mut later = Reader::open(&cluster).unwrap();
        let told: Vec<_> = frames(&mut later).await.iter().filter_map(Frame::key).collect();
        assert_eq!(told, [Key::Cluster, Key::Policy(policy.key()), Key::Peers(peers.part.clone())]);

        put(&cluster, units::POLICIES, "all", None).await;
        let gone = frames(&mut reader).await;
        assert_eq!(gone, [Key::Peers(peers.part.clone()), Key::Policy(policy.key())].map(Frame::Removed));
        assert!(reader.map.state.lock().policies.is_none());
        put(&cluster, "pods", "third", pod("10.0.0.3")).await;
        put(&cluster, "services", "web", service("10.96.0.9")).await;
        assert!(matches!(&frames(&mut reader).await[..], [Frame::Service(_)]), "of pods it hears no more");
    }

    #[tokio::test]
    async fn the_name_server_is_selected_as_a_pod_at_its_services_address() {
        let cluster = testing::cluster().await;
        let key = StoreKey { resource: "services".into(), namespace: "kube-system".into(), name: "kube-dns".into() };
        let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]);
        let service = json!({"metadata": {"name": "kube-dns"}, "spec": {"clusterIPs": ["10.96.0.10"], "ports": ports}});
        cluster.commit(Write::Create(Draft::new(key, &service, BTreeMap::new(), Projection::None))).await.unwrap();
        let named = json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "kube-system"}}});
        put(&cluster, "namespaces", "kube-system", Some(named)).await;
        let to = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]);
        let spec =
            json!({"policyTypes": ["Egress"], "egress": [{"to": to, "ports": [{"port": "dns", "protocol": "UDP"}]}]});
        put(&cluster, units::POLICIES, "dns", Some(json!({"metadata": {}, "spec": spec}))).await;
        let mut reader = Reader::open(&cluster).unwrap();
        let told = frames(&mut reader).await;
        let sets: Vec<_> = told
            .iter()
            .filter_map(|frame| match frame {
                Frame::Peers(peers) => Some((peers.addresses.clone(), peers.ports.clone())),
                _ => None,
            })
            .collect();
        let (address, port) = ("10.96.0.10".parse().unwrap(), "10.96.0.10:53".parse().unwrap());
        assert!(sets.contains(&(vec![address], vec![])) && sets.contains(&(vec![], vec![port])), "{sets:?}");
    }

    /// Writes the ConfigMap of this name into `kube-system`; none: deletes it.
    async fn choose(cluster: &Cluster, name: &str, stubs: Option<&str>) {
        let resource = ConfigMap::RESOURCE;
        let key = StoreKey { resource: resource.into(), namespace: "kube-system".into(), name: name.into() };
        let old = cluster.newest(&key).unwrap().object;
        let draft = stubs.map(|stubs| {
            let metadata = json!({"name": name, "namespace": "kube-system"});
            let tree = json!({"metadata": metadata, "data": {"stubDomains": stubs}});
            Draft::new(key, &tree, BTreeMap::new(), Projection::of(resource, &tree))
        });
        let write = match (draft, old) {
            (Some(draft), None) => Write::Create(draft),
            (Some(draft), Some(old)) => Write::Update { draft, expected: old.revision },
            (None, old) => {
                let old = old.unwrap();
                Write::Delete { draft: Draft::again(&old).unwrap(), expected: old.revision }
            }
        };
        cluster.commit(write).await.unwrap();
    }

    #[tokio::test]
    async fn chosen_name_servers_come_and_go_and_stay_while_they_cannot_be_read() {
        const GOOD: &str = r#"{"acme.local": ["10.0.0.1"]}"#;
        let cluster = testing::cluster().await;
        let mut reader = Reader::open(&cluster).unwrap();
        assert_eq!(frames(&mut reader).await.len(), 1);
        assert_eq!(frames(&mut reader).await, [Frame::Synced]);
        let is = |frame: &Frame, server: &str| matches!(frame, Frame::NameServers(chosen) if chosen.of("www.acme.local") == Some(&vec![server.parse().unwrap()]));
        choose(&cluster, "other", Some(GOOD)).await;
        choose(&cluster, "kube-dns", Some(GOOD)).await;
        let told = frames(&mut reader).await;
        assert!(matches!(&told[..], [frame] if is(frame, "10.0.0.1:53")), "{told:?}");

        choose(&cluster, "kube-dns", Some("{")).await;
        choose(&cluster, "kube-dns", Some(r#"{"acme.local": ["10.0.0.2:54"]}"#)).await;
        let told = frames(&mut reader).await;
        assert!(matches!(&told[..], [frame] if is(frame, "10.0.0.2:54")), "{told:?}");
        choose(&cluster, "kube-dns", None).await;
        assert_eq!(frames(&mut reader).await, [Frame::Removed(Key::NameServers)]);

        // Whoever begins with what can't be read tells nodes to keep what they have.
        choose(&cluster, "kube-dns", Some("{")).await;
        let map = Arc::downgrade(&reader.map);
        drop(reader);
        while map.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        let mut again = Reader::open(&cluster).unwrap();
        assert_eq!(frames(&mut again).await[1..], [Frame::Unread(Key::NameServers)]);
        choose(&cluster, "kube-dns", Some("{}")).await;
        // What was told goes, also for who hasn't heard the whole yet.
        while !again.map.state.lock().units[&Key::NameServers].removed {
            tokio::task::yield_now().await;
        }
        assert_eq!(frames(&mut again).await, [Frame::Removed(Key::NameServers)]);
        assert_eq!(frames(&mut again).await, [Frame::Synced]);
    }

    #[tokio::test]
    async fn nothing_is_kept_for_nobody() {
        let cluster = testing::cluster().await;
        let reader = Reader::open(&cluster).unwrap();
        let map = Arc::downgrade(&reader.map);
        drop(reader);
        while map.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        let mut again = Reader::open(&cluster).unwrap();
        assert_eq!(frames(&mut again).await.len(), 1);
    }

    #[test]
    fn who_missed_a_forgotten_removal_begins_anew() {
        let mut state = State::default();
        let (mut behind, mut new) = (0, 0);
        state.set(Key::Node("first".into()), Some(&Frame::Node(network::Node::default())));
        state.after(&mut behind, 0);
        for n in 0..=REMOVALS {
            let key = Key::Node(format!("n{n}"));
            state.set(key.clone(), Some(&Frame::Node(network::Node { name: n.to_string(), ..Default::default() })));
            state.set(key, None);
        }
        assert_eq!(state.after(&mut behind, 0), None);
        assert!(state.after(&mut new, state.newest).is_some());
        assert_eq!((state.units.len(), state.order.len()), (REMOVALS + 1, REMOVALS + 1));
    }
}
