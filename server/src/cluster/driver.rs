//! One cluster's driver: changes in, actions out.
//!
//! One task owns the view; controllers and scheduler are pure and quick, so they run on it directly, and only carrying out
//! what they want goes elsewhere, bounded in number. A panic of a controller costs that look (it is told, and tried again
//! with back-off); one of the driver itself costs a fresh start from the log.
//!
//! A driver that has nothing to do and plans nothing rests: it lets go of the view and all that belongs to it, some 50 kB
//! even for a cluster with nothing in it, until something changes, and then starts anew from the log.

use super::RootCa;
use super::events::{Recorder, recorder};
use super::execute::{Ending, Executor};
use super::queue::Queue;
use super::scheduling::Scheduling;
use crate::apiserver::Api;
use crate::gateway::{Changes, Sessions};
use crate::resources::registry;
use crate::store::{self, ChangeKind, Cluster, Ended, ListQuery, Revision, StoreError, Watch, WatchFilter, WatchItem};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use longshore_api::ids::ClusterId;
use longshore_control::contacts::Contacts;
use longshore_control::controllers::{self, Controller};
use longshore_control::projection::Node;
use longshore_control::view::{Applied, Change, Failure, KindInfo, Settings};
use longshore_control::{Action, ObjectKey, Outcome, View, scheduler};
use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Looks whose actions are under way at once. Enough that their writes fill batches, few enough that one cluster's storm
/// leaves the store's queue to its users.
const RUNNING: usize = 48;
/// Looks taken before changes are taken in again.
const LOOKS_IN_A_ROW: usize = 64;
/// Before a fresh start.
const RESTART: Duration = Duration::from_secs(1);
/// The longest sleep: wall clocks can jump.
const NAP: SignedDuration = SignedDuration::from_secs(30);
/// A run that had nothing to do for so long, and knows of nothing that will have to be done, ends in a rest. Not after one of
/// a big cluster: making the view anew takes a thousand objects some ten milliseconds.
const QUIET: Duration = Duration::from_secs(30);
const MOST_OBJECTS: usize = 1000;
/// Length of a node's slice of the pod range, as Kubernetes has it.
const NODE_MASK: u8 = 24;
/// The same of IPv6, as Kubernetes has it.
const NODE_MASK_V6: u8 = 64;

pub(super) struct Driver {
    pub api: Api,
    pub sessions: Sessions,
    pub authority: Arc<dyn RootCa>,
    /// Weak between two runs: a driver never keeps a cluster from being dropped.
    pub cluster: Weak<Cluster>,
    pub id: ClusterId,
}

/// Why a run ended.
enum End {
    /// The cluster isn't ours any more, or nobody's.
    Stop,
    /// From the beginning.
    Restart,
}

/// Why a run is over.
enum Over {
    End(End),
    /// There is nothing to do until something changes. These nodes had tunnels.
    Quiet {
        connected: HashSet<String>,
    },
}

impl Driver {
    /// Runs until `stop`, or until the cluster is gone from here.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let Some(cluster) = self.cluster.upgrade() else { return };
            let run = AssertUnwindSafe(self.once(cluster)).catch_unwind();
            let end = tokio::select! {
                () = stop.cancelled() => return,
                end = run => end,
            };
            match end {
                Ok(Ok(End::Stop)) => return,
                Ok(Ok(End::Restart)) => {}
                Ok(Err(StoreError::NotOwner { .. } | StoreError::NotFound)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(cluster = %self.id, "driving cluster {}: {error}; starting anew", self.id)
                }
                Err(_) => {
                    tracing::error!(cluster = %self.id, "the driver of cluster {} panicked; starting anew", self.id)
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART) => {}
            }
        }
    }

    async fn once(&self, cluster: Arc<Cluster>) -> Result<End, StoreError> {
        let mut watch = cluster.watch(None, WatchFilter { internal: true, ..WatchFilter::default() })?;
        let mut tunnels = self.sessions.changes(&self.id);
        let mut connected = HashSet::new();
        loop {
            // Boxed, so that a driver at rest doesn't keep its place.
            match Box::pin(self.drive(&cluster, &mut watch, &mut tunnels, connected)).await {
                Ok(Over::End(end)) => return Ok(end),
                Ok(Over::Quiet { connected: still }) => connected = still,
                // A cluster that is let go of is no failure, also where something else was heard of first.
                Err(error) => return watch.ready().and_then(|item| End::of(&item)).ok_or(error),
            }
            if let Some(end) = rest(&mut watch, &mut tunnels).await {
                return Ok(end);
            }
        }
    }

    /// One run, from everything there is. `connected` are nodes whose tunnels it is to know of, also if they have gone.
    async fn drive(
        &self,
        cluster: &Arc<Cluster>,
        watch: &mut Watch,
        tunnels: &mut Changes,
        connected: HashSet<String>,
    ) -> Result<Over, StoreError> {
        let authority = self.authority.root_ca(&self.id).await;
        let root_ca = authority.map_err(|status| StoreError::Unavailable(status.message))?;
        let (recorder, writer) = recorder(self.api.clone(), cluster.clone());
        let mut events = JoinSet::new();
        events.spawn(writer);
        let mut run = Run::new(self, cluster.clone(), recorder, root_ca, connected);
        let loaded = run.load()?;
        run.take_contacts();
        let mut quiet_since = Instant::now();
        loop {
            // What was listed may be newer than where the watch began: nothing is decided before the view is a state that
            // really was.
            let whole = run.seen >= loaded.last;
            if whole {
                run.work();
            }
            let busy = whole && run.can_work();
            let mut sleep = run.sleep(whole);
            if whole && run.may_rest() {
                let left = QUIET.saturating_sub(quiet_since.elapsed());
                if left.is_zero() {
                    return Ok(Over::Quiet { connected: run.connected });
                }
                sleep = sleep.min(left);
            } else {
                quiet_since = Instant::now();
            }
            tokio::select! {
                biased;
                // Before changes: what a node that is back says is not to be judged by its tunnel's having been gone.
                () = tunnels.changed() => {
                    quiet_since = Instant::now();
                    run.take_contacts();
                }
                item = watch.next() => match item {
                    WatchItem::Changes(changes) => {
                        quiet_since = Instant::now();
                        changes.iter().for_each(|c| run.take_in(c, &loaded));
                    }
                    item => if let Some(end) = End::of(&item) { return Ok(Over::End(end)) },
                },
                Some(finished) = run.running.join_next() => run.finish(finished),
                () = tokio::time::sleep(sleep), if !busy => {}
                () = tokio::task::yield_now(), if busy => {}
            }
        }
    }
}

/// Waits until something has changed; some when the watch is over. What came is in what the next run lists.
async fn rest(watch: &mut Watch, tunnels: &mut Changes) -> Option<End> {
    loop {
        tokio::select! {
            item = watch.next() => match item {
                WatchItem::Changes(_) => return None,
                item => if let Some(end) = End::of(&item) { return Some(end) },
            },
            () = tunnels.changed() => return None,
        }
    }
}

impl End {
    /// None while the watch goes on.
    fn of(item: &WatchItem) -> Option<Self> {
        match item {
            WatchItem::Ended(Ended::Moved | Ended::Unloaded) => Some(Self::Stop),
            WatchItem::Ended(_) => Some(Self::Restart),
            WatchItem::Changes(_) | WatchItem::Progress(_) => None,
        }
    }
}

/// What the first listing gave: up to where each resource's objects are in the view.
struct Loaded {
    revisions: BTreeMap<String, i64>,
    last: i64,
}

/// A controller, by its place, and a key; the scheduler has a place of its own.
type Task = (usize, ObjectKey);

enum Finished {
    Look { task: Task, ending: Ending, wrote: i64 },
    Batch { ending: Ending, wrote: i64 },
}

struct Run<'a> {
    driver: &'a Driver,
    cluster: Arc<Cluster>,
    recorder: Recorder,
    controllers: Vec<Arc<dyn Controller>>,
    view: View,
    /// Up to here the view holds everything.
    seen: i64,
    queue: Queue<Task>,
    running: JoinSet<Finished>,
    connected: HashSet<String>,
    scheduling: Scheduling,
}

impl<'a> Run<'a> {
    fn new(
        driver: &'a Driver,
        cluster: Arc<Cluster>,
        recorder: Recorder,
        root_ca: String,
        connected: HashSet<String>,
    ) -> Self {
        let kinds = registry().all().filter(|r| r.stored.is_none()).map(|r| {
            let name = if r.group.is_empty() { r.kind.to_string() } else { format!("{}.{}", r.kind, r.group) };
            (name, KindInfo { resource: r.store_name(), namespaced: r.namespaced })
        });
        let mut view = View::default();
        let now = Timestamp::now();
        view.contacts = Contacts::new(now);
        connected.iter().for_each(|node| view.contacts.connected(node, now));
        let info = cluster.info();
        let v6 = info.pod_range_v6.clone().map(|range| (range, NODE_MASK_V6));
        let pod_ranges = std::iter::once((info.pod_range.clone(), NODE_MASK)).chain(v6).collect();
        view.settings = Settings { root_ca, pod_ranges, kinds: kinds.collect(), ..Settings::default() };
        let scheduling = Scheduling::of(&cluster);
        Self {
            driver,
            cluster,
            recorder,
            controllers: controllers::all(),
            view,
            seen: 0,
            queue: Queue::default(),
            running: JoinSet::new(),
            connected,
            scheduling,
        }
    }

    /// Everything there is, as if it had just been created.
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded { revisions: BTreeMap::new(), last: 0 };
        let mut all = Vec::new();
        for resource in registry().all().filter(|r| r.stored.is_none()) {
            let name = resource.store_name();
            let query = ListQuery { resource: name.as_str().into(), ..ListQuery::default() };
            let listing = self.cluster.list(&query)?;
            loaded.last = loaded.last.max(listing.revision.0);
            loaded.revisions.insert(name, listing.revision.0);
            all.extend(listing.items);
        }
        let now = Timestamp::now();
        let applied: Vec<Applied> = all
            .into_iter()
            .filter_map(|object| {
                let projection = Some(object.projection.clone());
                self.view.apply(Change { key: key_of(&object.key), revision: object.revision.0, projection }, now)
            })
            .collect();
        let Revision(current) = self.cluster.revision();
        if current == loaded.last {
            // Nothing came in between: the listing is a whole state.
            self.seen = loaded.last;
        }
        applied.iter().for_each(|a| self.concern(a));
        self.scheduling.begin(&self.view, now);
        Ok(loaded)
    }

    fn take_in(&mut self, change: &store::Change, loaded: &Loaded) {
        let object = &change.object;
        let Revision(revision) = object.revision;
        self.seen = self.seen.max(revision);
        if loaded.revisions.get(&*object.key.resource).is_some_and(|listed| revision <= *listed) {
            return;
        }
        let projection = (change.kind != ChangeKind::Deleted).then(|| object.projection.clone());
        let change = Change { key: key_of(&object.key), revision, projection };
        let now = Timestamp::now();
        if let Some(applied) = self.view.apply(change, now) {
            self.concern(&applied);
            self.scheduling.apply(&self.view, &applied, now);
        }
    }

    /// Wakes whom a change concerns.
    fn concern(&mut self, applied: &Applied) {
        let revision = self.seen;
        for (place, controller) in self.controllers.iter().enumerate() {
            let keys = std::panic::catch_unwind(AssertUnwindSafe(|| controller.keys(&self.view, applied)));
            match keys {
                Ok(keys) => keys.into_iter().for_each(|key| self.queue.add((place, key), revision)),
                Err(_) => tracing::error!(cluster = %self.driver.id, "{} panicked over a change", controller.name()),
            }
        }
    }

    /// Tunnels that came or went.
    fn take_contacts(&mut self) {
        let now = Timestamp::now();
        let contacts = self.driver.sessions.contacts(&self.driver.id);
        let mut touched = Vec::new();
        for (node, contact) in &contacts {
            if contact.connected && self.connected.insert(node.clone()) {
                self.view.contacts.connected(node, now);
                touched.push(node.clone());
            }
        }
        let gone: Vec<String> =
            self.connected.iter().filter(|n| !contacts.get(*n).is_some_and(|c| c.connected)).cloned().collect();
        for node in gone {
            self.connected.remove(&node);
            self.view.contacts.disconnected(&node, contacts.get(&node).map_or(now, |c| c.last));
            touched.push(node);
        }
        let revision = self.seen;
        for node in touched {
            for (place, controller) in self.controllers.iter().enumerate() {
                let keys = controller.contact_keys(&self.view, &node);
                keys.into_iter().for_each(|key| self.queue.add((place, key), revision));
            }
        }
    }

    /// Whether there is nothing to do, nor anything planned, and a fresh start later would know as much: silence of nodes
    /// without a tunnel is counted here alone.
    fn may_rest(&self) -> bool {
        self.running.is_empty()
            && self.queue.is_idle()
            && self.scheduling.is_idle()
            && self.view.list::<Node>().all(|node| self.connected.contains(&node.meta.name))
            && self.cluster.size().0 <= MOST_OBJECTS
    }

    fn can_work(&self) -> bool {
        self.queue.is_ready() && self.running.len() < RUNNING
    }

    fn sleep(&self, whole: bool) -> Duration {
        let now = Timestamp::now();
        let mut next = [self.queue.next_timer(), self.scheduling.next(self.seen)].into_iter().flatten().min();
        if !whole {
            next = None;
        }
        let nap = next.map_or(NAP, |at| at.duration_since(now)).clamp(SignedDuration::from_millis(1), NAP);
        nap.try_into().unwrap_or(RESTART)
    }

    /// Looks at what is due.
    fn work(&mut self) {
        let now = Timestamp::now();
        self.queue.advance(self.seen, now);
        for _ in 0..LOOKS_IN_A_ROW {
            if self.running.len() >= RUNNING {
                break;
            }
            let Some(task) = self.queue.take() else { break };
            self.look(task, now);
        }
        self.schedule(now);
    }

    fn look(&mut self, task: Task, now: Timestamp) {
        let controller = self.controllers[task.0].clone();
        let looked = std::panic::catch_unwind(AssertUnwindSafe(|| controller.reconcile(&self.view, &task.1, now)));
        let Ok(Outcome { actions, again_at }) = looked else {
            tracing::error!(cluster = %self.driver.id, key = ?task.1, "{} panicked over {:?}", controller.name(), task.1);
            self.queue.failed(&task, 0, now);
            return;
        };
        if let Some(at) = again_at {
            self.queue.add_at(task.clone(), at);
        }
        if actions.is_empty() {
            let revision = self.seen;
            self.view.set_failure(controller.name(), &task.1, None);
            self.queue.done(&task, 0, revision);
            return;
        }
        tracing::debug!(cluster = %self.driver.id, key = ?task.1, actions = actions.len(), "{} acts", controller.name());
        let executor = self.executor(controller.account());
        self.running.spawn(async move {
            let (ending, wrote) = carry_out(executor, actions).await;
            Finished::Look { task, ending, wrote }
        });
    }

    fn executor(&self, account: &'static str) -> Executor {
        let (api, cluster, recorder) = (self.driver.api.clone(), self.cluster.clone(), self.recorder.clone());
        Executor { api, cluster, recorder, account }
    }

    fn finish(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        let now = Timestamp::now();
        let revision = self.seen;
        match finished {
            Ok(Finished::Look { task, ending, wrote }) => {
                let name = self.controllers[task.0].name();
                match ending {
                    Ending::Done => {
                        self.view.set_failure(name, &task.1, None);
                        self.queue.done(&task, wrote, revision);
                    }
                    Ending::Stale => {
                        self.queue.failed(&task, wrote, now);
                    }
                    Ending::Failed(failure) => {
                        self.told(name, &task.1, &failure);
                        self.view.set_failure(name, &task.1, Some(failure));
                        self.queue.failed(&task, wrote, now);
                    }
                }
            }
            Ok(Finished::Batch { ending, wrote }) => {
                if let Ending::Failed(failure) = &ending {
                    self.told(scheduler::NAME, &ObjectKey::all_of("pods"), failure);
                }
                self.scheduling.finish(&ending, wrote, now);
            }
            // `carry_out` catches panics; only an abort ends here, and then the whole run ends.
            Err(error) => tracing::error!(cluster = %self.driver.id, "an action was lost: {error}"),
        }
    }

    fn told(&self, who: &str, key: &ObjectKey, failure: &Failure) {
        let Failure { verb, resource, message, .. } = failure;
        tracing::warn!(cluster = %self.driver.id, key = ?key, "{who} could not {verb} {resource}: {message}");
    }

    fn schedule(&mut self, now: Timestamp) {
        let actions = self.scheduling.decide(&self.view, self.seen, now);
        if actions.is_empty() {
            return;
        }
        let executor = self.executor(scheduler::ACCOUNT);
        self.running.spawn(async move {
            let (ending, wrote) = carry_out(executor, actions).await;
            Finished::Batch { ending, wrote }
        });
    }
}

/// Carries actions out and says up to which revision the view must come before the next look. A panic is a failure.
async fn carry_out(executor: Executor, actions: Vec<Action>) -> (Ending, i64) {
    let cluster = executor.cluster.clone();
    let ran = AssertUnwindSafe(executor.run(actions)).catch_unwind().await;
    let ending = ran.unwrap_or_else(|_| {
        tracing::error!(cluster = %cluster.id(), "carrying out actions panicked");
        let message = "carrying out actions panicked".to_string();
        Ending::Failed(Failure { verb: "do", resource: String::new(), reason: "InternalError".into(), message })
    });
    (ending, cluster.revision().0)
}

fn key_of(key: &store::Key) -> ObjectKey {
    ObjectKey::new(key.resource.to_string(), &*key.namespace, &*key.name)
}
