//! One cluster's network map, kept up while at least one of its nodes asks for it.
//!
//! Units are rendered once, when they change, and numbered in the order of their last change. A reader is a place in that
//! order and nothing else: it takes what has a higher number. So nothing queues up for a slow node, which just skips what
//! was superseded meanwhile, and a thousand nodes share the same bytes.

use super::units::{self, unit};
use crate::store::{Change, ChangeKind, Cluster, ListQuery, StoreError, Watch, WatchFilter, WatchItem};
use bytes::{Bytes, BytesMut};
use longshore_api::network::{self, Frame, Key};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// Removals that are remembered for readers who haven't heard of them; whoever is further behind begins anew.
const REMOVALS: usize = 10_000;
/// What a reader takes at once, about.
const TAKEN_BYTES: usize = 4 * 1024;

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
        let reader = Self { newest: map.newest.subscribe(), map: map.clone(), place: 0, synced: false };
        *current = Arc::downgrade(&map);
        tokio::spawn(map.follow(watches));
        Ok(reader)
    }

    /// The next lines. None: the cluster has left this replica, or the reader was too slow; it may ask again.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.newest.borrow_and_update();
            if let Some(lines) = self.map.state.lock().after(&mut self.place, self.synced)? {
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
        let ranges = network::Cluster { pod_range: info.pod_range.clone(), service_range: info.service_range.clone() };
        let mut state = State::default();
        state.set(Key::Cluster, Some(&Frame::Cluster(ranges)));
        let mut watches = Vec::new();
        for resource in units::RESOURCES {
            let listing = cluster.list(&ListQuery { resource: resource.into(), ..ListQuery::default() })?;
            let filter = WatchFilter { resource: Some(resource.into()), internal: true, ..WatchFilter::default() };
            watches.push(cluster.watch(Some(listing.revision), filter)?);
            for object in &listing.items {
                let (key, frame) = unit(object);
                state.set(key, frame.as_ref());
            }
        }
        let newest = watch::Sender::new(state.newest);
        Ok((Arc::new(Self { state: Mutex::new(state), newest }), watches))
    }

    /// None once it has ended.
    fn reader(self: Arc<Self>) -> Option<Reader> {
        let newest = {
            let state = self.state.lock();
            (!state.ended).then(|| self.newest.subscribe())?
        };
        Some(Reader { map: self, newest, place: 0, synced: false })
    }

    /// Keeps it up until nobody reads it or the cluster goes.
    async fn follow(self: Arc<Self>, mut watches: Vec<Watch>) {
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
                WatchItem::Changes(changes) => self.take_in(&changes),
                WatchItem::Progress(_) => {}
                WatchItem::Ended(_) => {
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

    fn take_in(&self, changes: &[Arc<Change>]) {
        let newest = {
            let mut state = self.state.lock();
            for change in changes {
                let (key, frame) = unit(&change.object);
                state.set(key, frame.as_ref().filter(|_| change.kind != ChangeKind::Deleted));
            }
            state.newest
        };
        self.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
    }
}

impl State {
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

    /// What comes after `place`, which moves behind it. `Some(None)`: nothing yet; `None`: nothing ever. Who doesn't know
    /// the whole yet is not told of removals.
    fn after(&self, place: &mut u64, synced: bool) -> Option<Option<Bytes>> {
        if self.ended || (synced && *place < self.forgotten) {
            return None;
        }
        let mut lines = BytesMut::new();
        let mut first: Option<Bytes> = None;
        for (number, key) in self.order.range(*place + 1..) {
            if lines.len() + first.as_ref().map_or(0, Bytes::len) >= TAKEN_BYTES {
                break;
            }
            *place = *number;
            let Some(unit) = self.units.get(key).filter(|u| synced || !u.removed) else { continue };
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
    use longshore_api::network::Name;
    use longshore_control::Projection;
    use serde_json::{Value, json};

    async fn put(cluster: &Cluster, resource: &str, name: &str, tree: Option<Value>) {
        let namespace = if resource == "nodes" { "" } else { "d" };
        let key = StoreKey { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        let old = cluster.newest(&key).unwrap().object;
        let draft = |tree: &Value| Draft::new(key.clone(), tree, BTreeMap::new(), Projection::None);
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
        state.after(&mut behind, true);
        for n in 0..=REMOVALS {
            let key = Key::Node(format!("n{n}"));
            state.set(key.clone(), Some(&Frame::Node(network::Node { name: n.to_string(), ..Default::default() })));
            state.set(key, None);
        }
        assert_eq!(state.after(&mut behind, true), None);
        assert!(state.after(&mut new, false).is_some());
        assert_eq!((state.units.len(), state.order.len()), (REMOVALS + 1, REMOVALS + 1));
    }
}
