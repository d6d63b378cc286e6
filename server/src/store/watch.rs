//! Watches: each change once, in order, pushed to those it concerns.
//!
//! A watch has a queue of shared changes. Publishing puts a change only into the queues whose filter it passes (found by
//! index: a thousand agents that each watch their own node's pods cost a pod change two lookups, not a thousand
//! comparisons) and wakes each watcher once for a whole batch. A watcher that lets more than its bound gather is dropped
//! and told so: it lists again, nobody else waits for it, and memory stays bounded.

use super::audience::{Round, Turn};
use super::history::weight;
use super::object::{Change, ResourceName, Revision};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Which changes a watch is told. The finer filters (selectors) are the caller's.
#[derive(Clone, Debug, Default)]
pub struct WatchFilter {
    /// None watches every resource.
    pub resource: Option<ResourceName>,
    pub namespace: Option<Arc<str>>,
    /// Only changes of objects where this field has or had this value: `metadata.name`, `spec.nodeName`,
    /// `involvedObject.uid` or `involvedObject.name`. Needs `resource`.
    pub field: Option<(&'static str, String)>,
    /// A watch of the server's own (controllers): it alone does not keep the cluster loaded.
    pub internal: bool,
}

/// Fields that `WatchFilter::field` can name.
pub const WATCHABLE_FIELDS: [&str; 4] = ["metadata.name", "spec.nodeName", "involvedObject.uid", "involvedObject.name"];

impl WatchFilter {
    /// The server's own, and those of one object or one node's pods: few are told of one change.
    fn is_narrow(&self) -> bool {
        self.internal || self.field.is_some()
    }

    pub fn passes(&self, change: &Change) -> bool {
        let key = &change.object.key;
        self.resource.as_ref().is_none_or(|r| *r == key.resource)
            && self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
            && self.field.as_ref().is_none_or(|(field, value)| {
                let had = change.previous.as_ref().and_then(|o| o.field(field));
                [change.object.field(field), had].contains(&Some(value))
            })
    }
}

/// What a watch yields.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// Changes in order, at least one.
    Changes(Vec<Arc<Change>>),
    /// Everything up to this revision has been yielded: a bookmark may say so.
    Progress(Revision),
    /// The watch is over; it yields nothing else any more.
    Ended(Ended),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The watcher took too long to take what was queued for it.
    Slow,
    /// The cluster is served by another replica now (or must be loaded anew): end cleanly, the client resumes.
    Moved,
    /// The cluster was unloaded: end cleanly, too.
    Unloaded,
    /// What the watch was still reading has been compacted: 410.
    Compacted,
    /// Older changes could not be read from Postgres: end cleanly, the client resumes.
    Unavailable,
}

/// What a watcher takes from its queue at once. Whoever has taken something makes bytes of its own from it, and a thousand
/// slow readers must not each hold all that a queue may hold.
const TAKEN_BYTES: usize = 64 * 1024;

/// One watcher's queue.
#[derive(Debug)]
pub(super) struct Feed {
    pub filter: WatchFilter,
    limit: usize,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    changes: Vec<Arc<Change>>,
    bytes: usize,
    ended: Option<Ended>,
    /// The round in which the watcher was woken for what is here.
    turn: Option<Turn>,
}

impl Feed {
    pub fn new(filter: WatchFilter, limit: usize, queued: Vec<Arc<Change>>) -> Self {
        let bytes = queued.iter().map(|c| weight(c)).sum();
        let queue = Queue { changes: queued, bytes, ..Queue::default() };
        Self { filter, limit: limit.max(bytes), queue: Mutex::new(queue), wake: Notify::new() }
    }

    /// Queues a change. True when it is the first since the watcher last looked, so that it has to be woken.
    fn push(&self, change: &Arc<Change>) -> bool {
        let mut queue = self.queue.lock();
        if queue.ended.is_some() {
            return false;
        }
        queue.bytes += weight(change);
        if queue.bytes > self.limit {
            *queue = Queue { ended: Some(Ended::Slow), ..Queue::default() };
            return true;
        }
        queue.changes.push(change.clone());
        queue.changes.len() == 1
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Wakes it as one of many. Who has looked by itself meanwhile has had its turn.
    pub fn wake_in(&self, turn: Turn) {
        let mut queue = self.queue.lock();
        queue.turn = (!queue.changes.is_empty()).then_some(turn);
        drop(queue);
        self.wake.notify_one();
    }

    /// Ends the watch after what is queued.
    pub fn end(&self, reason: Ended) {
        self.queue.lock().ended.get_or_insert(reason);
        self.wake.notify_one();
    }

    /// Ends the watch at once: what is queued is forgotten.
    pub fn cut(&self, reason: Ended) {
        *self.queue.lock() = Queue { ended: Some(reason), ..Queue::default() };
    }

    pub fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.changes.is_empty() && queue.ended.is_none()
    }

    /// What is queued, at most about `TAKEN_BYTES` of it: the rest stays where it counts.
    pub fn take(&self) -> Option<WatchItem> {
        let turn = self.queue.lock().turn.take();
        if let Some(turn) = turn {
            turn.taken();
        }
        let mut queue = self.queue.lock();
        if queue.changes.is_empty() {
            return queue.ended.map(WatchItem::Ended);
        }
        if queue.bytes <= TAKEN_BYTES {
            queue.bytes = 0;
            return Some(WatchItem::Changes(std::mem::take(&mut queue.changes)));
        }
        let (mut count, mut bytes) = (0, 0);
        while bytes < TAKEN_BYTES && count < queue.changes.len() {
            bytes += weight(&queue.changes[count]);
            count += 1;
        }
        queue.bytes -= bytes;
        Some(WatchItem::Changes(queue.changes.drain(..count).collect()))
    }

    /// Waits until something may be there.
    pub async fn ready(&self) {
        self.wake.notified().await;
    }
}

/// Who is watching what in one cluster.
#[derive(Debug, Default)]
pub(super) struct Hub {
    everything: Vec<Arc<Feed>>,
    resources: HashMap<ResourceName, Interest>,
    external: usize,
}

#[derive(Debug, Default)]
struct Interest {
    whole: Vec<Arc<Feed>>,
    namespaces: HashMap<Arc<str>, Vec<Arc<Feed>>>,
    fields: HashMap<(&'static str, String), Vec<Arc<Feed>>>,
}

impl Interest {
    fn by_field<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = &'a Arc<Feed>> {
        let fields = if self.fields.is_empty() { &[][..] } else { &WATCHABLE_FIELDS[..] };
        fields.iter().flat_map(move |field| {
            let now = change.object.field(field);
            let before = change.previous.as_ref().and_then(|o| o.field(field)).filter(|v| Some(*v) != now);
            let values = now.into_iter().chain(before);
            values.filter_map(|v| self.fields.get(&(*field, v.to_string()))).flatten()
        })
    }

    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.namespaces.is_empty() && self.fields.is_empty()
    }
}

impl Hub {
    /// Watches, those of the server's own not counted.
    pub fn external(&self) -> usize {
        self.external
    }

    pub fn join(&mut self, feed: Arc<Feed>) {
        self.external += usize::from(!feed.filter.internal);
        let filter = &feed.filter;
        let Some(resource) = &filter.resource else { return self.everything.push(feed) };
        let interest = self.resources.entry(resource.clone()).or_default();
        match (&filter.field, &filter.namespace) {
            (Some(field), _) => interest.fields.entry(field.clone()).or_default().push(feed),
            (None, Some(namespace)) => interest.namespaces.entry(namespace.clone()).or_default().push(feed),
            (None, None) => interest.whole.push(feed),
        }
    }

    pub fn leave(&mut self, feed: &Arc<Feed>) {
        let filter = &feed.filter;
        let found = match &filter.resource {
            None => remove(&mut self.everything, feed),
            Some(resource) => {
                let Some(interest) = self.resources.get_mut(resource) else { return };
                let found = match (&filter.field, &filter.namespace) {
                    (Some(field), _) => remove_from(&mut interest.fields, field, feed),
                    (None, Some(namespace)) => remove_from(&mut interest.namespaces, namespace, feed),
                    (None, None) => remove(&mut interest.whole, feed),
                };
                if interest.is_empty() {
                    self.resources.remove(resource);
                }
                found
            }
        };
        if found {
            self.external -= usize::from(!filter.internal);
        }
    }

    /// Puts a batch into the queues it concerns, in order, then wakes their watchers. Some: those are many, and the writers
    /// wait until a part of them has heard.
    pub fn publish(&mut self, changes: &[Arc<Change>]) -> Option<Arc<Round>> {
        let Self { everything, resources, .. } = self;
        let mut woken: Vec<&Arc<Feed>> = Vec::new();
        for change in changes {
            let concerned = everything.iter().chain(concerned(resources, change));
            woken.extend(concerned.filter(|feed| feed.filter.passes(change) && feed.push(change)));
        }
        let (few, many): (Vec<_>, Vec<_>) = woken.into_iter().partition(|feed| feed.filter.is_narrow());
        few.iter().for_each(|feed| feed.wake());
        Round::begin(many.into_iter())
    }

    /// Ends all watches.
    pub fn end(&mut self, reason: Ended) {
        let interests = self.resources.values();
        let narrow = interests
            .flat_map(|i| i.whole.iter().chain(i.namespaces.values().flatten()).chain(i.fields.values().flatten()));
        self.everything.iter().chain(narrow).for_each(|feed| feed.end(reason));
        *self = Self::default();
    }
}

/// The feeds of the change's resource that may want it, each once.
fn concerned<'a>(
    resources: &'a HashMap<ResourceName, Interest>,
    change: &'a Change,
) -> impl Iterator<Item = &'a Arc<Feed>> {
    let interest = resources.get(&change.object.key.resource);
    interest.into_iter().flat_map(move |interest| {
        let namespace = interest.namespaces.get(&change.object.key.namespace).into_iter().flatten();
        interest.whole.iter().chain(namespace).chain(interest.by_field(change))
    })
}

fn remove(feeds: &mut Vec<Arc<Feed>>, feed: &Arc<Feed>) -> bool {
    let at = feeds.iter().position(|f| Arc::ptr_eq(f, feed));
    at.map(|at| feeds.swap_remove(at)).is_some()
}

fn remove_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Arc<Feed>>>, key: &K, feed: &Arc<Feed>) -> bool {
    let Some(feeds) = map.get_mut(key) else { return false };
    let found = remove(feeds, feed);
    if feeds.is_empty() {
        map.remove(key);
    }
    found
}
