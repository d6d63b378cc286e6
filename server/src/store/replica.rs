//! The store of one replica: loads clusters on first use, lets go of them when they are idle, keeps the lease and the
//! house.

use super::clock::DatabaseClock;
use super::cluster::{Cluster, ClusterInfo};
use super::error::StoreError;
use super::flusher::{self, FlushQueue};
use super::history::HistoryLimits;
use super::lease::{self, LEASE, Lease};
use super::log::{Compacted, Fence, Founding, Loaded, Log, Text};
use super::object::{Key, Object, Revision};
use super::postgres::PostgresLog;
use super::seal::{DataKey, KeyRing, MasterKey};
use super::sequencer::{Batch, QueueLimits};
use super::volatile::VolatileLog;
use super::watch::Ended;
use futures::future::BoxFuture;
use longshore_api::ids::{ClusterId, OrganizationId};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

/// What the store must know of kinds, to make objects out of rows. The registry of resources implements it.
pub trait Kinds: Send + Sync + 'static {
    /// The selectable fields of an object (`spec.nodeName` → node).
    fn fields(&self, resource: &str, tree: &Value) -> BTreeMap<&'static str, String>;
    /// Whether objects of this resource are sealed at rest.
    fn sealed(&self, resource: &str) -> bool;
}

/// Told when a cluster comes and goes: the driver of controllers and scheduler.
pub trait ClusterHook: Send + Sync + 'static {
    /// The cluster is loaded; nobody else has it until this returns. An error fails the load.
    fn loaded<'a>(&'a self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), StoreError>>;
    /// The cluster was let go of. Whoever keeps its `Arc` gets `Unavailable` from now on. Must not block.
    fn unloading(&self, cluster: &ClusterId);
}

/// A cluster to be made.
#[derive(Clone, Debug)]
pub struct NewCluster {
    pub organization: OrganizationId,
    pub name: String,
    pub service_range: String,
    pub pod_range: String,
    pub service_range_v6: Option<String>,
    pub pod_range_v6: Option<String>,
}

impl NewCluster {
    /// With the ranges that most clusters use, and ranges of IPv6 that are nobody else's.
    pub fn new(organization: OrganizationId, name: &str) -> Self {
        let (service_range, pod_range) = ("10.96.0.0/16".into(), "10.244.0.0/14".into());
        let (service_range_v6, pod_range_v6) = (Some(random_range(112)), Some(random_range(48)));
        Self { organization, name: name.into(), service_range, pod_range, service_range_v6, pod_range_v6 }
    }
}

/// How much of a cluster's log is kept for watches: what is younger than `age` or among the newest `revisions`.
/// Postgres drops what is older than a day in any case. Events are deleted after an hour.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub age: Duration,
    pub revisions: i64,
    pub events: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(600), revisions: 100_000, events: Duration::from_secs(3600) }
    }
}

/// How a replica's store behaves.
#[derive(Clone)]
pub struct StoreOptions {
    pub kinds: Arc<dyn Kinds>,
    /// Where the other replicas reach this one.
    pub advertise: String,
    pub lease: Duration,
    /// The caller has proof (a lock on the data directory) that no other replica runs on this database: whatever leases
    /// there are belong to the dead and are not waited for.
    pub alone: bool,
    /// A cluster without watch, hold or request is unloaded after so long.
    pub idle: Duration,
    pub history: HistoryLimits,
    pub queue: QueueLimits,
    pub retention: Retention,
    /// A watcher may fall behind by so many bytes of changes. They are shared with history and other watchers, so this
    /// bounds what a stuck one can keep from being freed.
    pub watch_bytes: usize,
}

impl StoreOptions {
    pub fn new(kinds: Arc<dyn Kinds>) -> Self {
        Self {
            kinds,
            advertise: String::new(),
            lease: LEASE,
            alone: false,
            idle: Duration::from_secs(600),
            history: HistoryLimits::default(),
            queue: QueueLimits::default(),
            retention: Retention::default(),
            watch_bytes: 16 << 20,
        }
    }
}

/// What the clusters, the flusher and the lease of one replica share.
pub(super) struct Shared {
    pub log: Arc<dyn Log>,
    pub keys: Arc<dyn KeyRing>,
    pub kinds: Arc<dyn Kinds>,
    pub options: StoreOptions,
    pub lease: Lease,
    pub clock: DatabaseClock,
    pub flusher: FlushQueue,
    clusters: RwLock<HashMap<ClusterId, Arc<Cluster>>>,
    /// One load at a time for each cluster.
    loading: Mutex<HashMap<ClusterId, Arc<tokio::sync::Mutex<()>>>>,
    hooks: RwLock<Vec<Arc<dyn ClusterHook>>>,
    /// Up to where clusters that were let go of were surely committed.
    known: Mutex<HashMap<ClusterId, Revision>>,
}

/// How far a cluster's revision jumps after its log was rolled back: other replicas and their clients may have seen more
/// than this one knows of.
const LEAP: i64 = 1_000_000;

/// A cluster of fewer objects is read where it is: a millisecond's work, and one thread less to wait for.
const READ_AT_ONCE: usize = 32;

impl Shared {
    fn new(log: Arc<dyn Log>, keys: Arc<dyn KeyRing>, options: StoreOptions, lease: Lease) -> Arc<Self> {
        Arc::new(Self {
            log,
            keys,
            kinds: options.kinds.clone(),
            options,
            lease,
            clock: DatabaseClock::new(),
            flusher: FlushQueue::default(),
            clusters: RwLock::default(),
            loading: Mutex::default(),
            hooks: RwLock::default(),
            known: Mutex::default(),
        })
    }

    /// Makes an object of what lies in the log.
    pub fn object(&self, data_key: &DataKey, key: Key, revision: Revision, text: &Text) -> Result<Object, StoreError> {
        let damaged = |why: String| StoreError::Damaged(format!("{key:?} at revision {}: {why}", revision.0));
        let json = match text.sealed {
            true => data_key.open(&key, revision, &text.bytes).map_err(|e| damaged(e.to_string()))?.into(),
            false => text.bytes.clone(),
        };
        let fields = |tree: &Value| self.kinds.fields(&key.resource, tree);
        Object::read(key.clone(), revision, json, fields).map_err(|e| damaged(e.to_string()))
    }

    /// Stops a cluster and forgets it: the next use loads it anew.
    pub fn let_go(&self, cluster: &Arc<Cluster>, reason: Ended, taken: Option<Batch>) {
        cluster.stop(reason, taken);
        self.note(cluster.id(), cluster.revision());
        self.forget(cluster);
    }

    pub fn let_go_of_all(&self, reason: Ended) {
        self.all().iter().for_each(|cluster| self.let_go(cluster, reason, None));
    }

    /// A revision of a cluster that is surely committed.
    pub fn note(&self, id: &ClusterId, committed: Revision) {
        let mut known = self.known.lock();
        let last = known.entry(id.clone()).or_default();
        *last = committed.max(*last);
    }

    /// Revisions never go back. A log that has less than this replica saw committed was rolled back (a standby that lagged
    /// was promoted, a backup restored): what it lost is lost, but its revisions must not come a second time with other
    /// contents. So the cluster goes on far ahead, and whoever watches from before lists again (410).
    async fn never_back(&self, mut loaded: Loaded) -> Result<Loaded, StoreError> {
        let id = loaded.info.id.clone();
        let known = self.known.lock().get(&id).copied().unwrap_or_default();
        if loaded.revision >= known {
            return Ok(loaded);
        }
        let new = Revision(known.0 + LEAP);
        let (from, to) = (loaded.revision.0, known.0);
        tracing::error!(
            cluster = %id,
            "the log of cluster {id} was rolled back: revisions {from} to {to} are lost; it goes on at {}", new.0
        );
        let fence = Fence { cluster: id, epoch: loaded.epoch, expected: loaded.revision, new };
        if !self.log.leap(&fence).await? {
            return Err(StoreError::Unavailable(super::MOVED.into()));
        }
        loaded.revision = new;
        loaded.compacted = Compacted { changes: new, events: new };
        Ok(loaded)
    }

    pub fn all(&self) -> Vec<Arc<Cluster>> {
        self.clusters.read().values().cloned().collect()
    }

    pub fn is_loaded(&self, id: &ClusterId) -> bool {
        self.clusters.read().contains_key(id)
    }

    fn forget(&self, cluster: &Arc<Cluster>) {
        let mut clusters = self.clusters.write();
        let known = clusters.get(cluster.id()).is_some_and(|c| Arc::ptr_eq(c, cluster));
        if known {
            clusters.remove(cluster.id());
        }
        drop(clusters);
        if known {
            self.hooks.read().iter().for_each(|hook| hook.unloading(cluster.id()));
        }
    }

    fn loaded(&self, id: &ClusterId) -> Option<Arc<Cluster>> {
        let cluster = self.clusters.read().get(id).cloned()?;
        cluster.touch();
        Some(cluster)
    }

    pub async fn load(self: Arc<Self>, id: ClusterId) -> Result<Arc<Cluster>, StoreError> {
        let turn = self.loading.lock().entry(id.clone()).or_default().clone();
        let guard = turn.lock().await;
        let result = match self.loaded(&id) {
            Some(cluster) => Ok(cluster),
            None => self.load_now(&id).await,
        };
        drop(guard);
        let mut loading = self.loading.lock();
        // Two: the map's and ours. A third waits for its turn and cleans up after itself.
        if Arc::strong_count(&turn) <= 2 {
            loading.remove(&id);
        }
        result
    }

    async fn load_now(self: &Arc<Self>, id: &ClusterId) -> Result<Arc<Cluster>, StoreError> {
        let losses = self.lease.losses();
        let loaded = self.never_back(self.log.take(id).await?).await?;
        let shared = self.clone();
        let cluster = match loaded.rows.len() {
            0..READ_AT_ONCE => Cluster::load(loaded, shared)?,
            // Parsing a big cluster takes a while: not on the reactor.
            _ => {
                let built = crate::offload::run(move || Cluster::load(loaded, shared)).await;
                built.map_err(|e| StoreError::Damaged(format!("loading cluster {id} failed: {e}")))??
            }
        };
        let hooks = self.hooks.read().clone();
        for hook in hooks {
            if let Err(error) = hook.loaded(&cluster).await {
                cluster.stop(Ended::Unloaded, None);
                return Err(error);
            }
        }
        self.clusters.write().insert(id.clone(), cluster.clone());
        // A loss either found the cluster in the map and stopped it, or is seen here.
        if self.lease.losses() != losses {
            self.let_go(&cluster, Ended::Moved, None);
            return Err(StoreError::Unavailable(super::MOVED.into()));
        }
        tracing::info!(cluster = %id, objects = cluster.size().0, "cluster {id} is loaded");
        Ok(cluster)
    }
}

/// The store of one replica. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

impl Store {
    /// A replica's store on a migrated Postgres. The pool serves loads and replays; the flusher and the lease have
    /// connections of their own, made with the pool's options.
    pub async fn open(pool: sqlx::PgPool, keys: Arc<dyn KeyRing>, options: StoreOptions) -> Result<Self, StoreError> {
        let log = PostgresLog::open(pool, &options).await?;
        Self::sharing(Arc::new(log), keys, options).await
    }

    /// On a log that other replicas may share, where this one is known by a lease.
    pub(super) async fn sharing(
        log: Arc<dyn Log>,
        keys: Arc<dyn KeyRing>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let shared = Shared::new(log, keys, options, Lease::new());
        // Before anything else: reads want a lease, writes want partitions.
        lease::renew(&shared).await;
        shared.log.maintain(shared.clock.now()).await?;
        let renewing = tokio::spawn(lease::run(shared.clone())).abort_handle();
        Ok(Self::start(shared, vec![renewing]))
    }

    /// A store that forgets everything at its end: for pure tests. Needs a tokio runtime.
    pub fn in_memory() -> Self {
        Self::on(Arc::new(VolatileLog::default()), StoreOptions::new(Arc::new(super::testing::PlainKinds)))
    }

    /// On a log that nobody shares: its lease is endless.
    pub(super) fn on(log: Arc<dyn Log>, options: StoreOptions) -> Self {
        let (_, master) = MasterKey::random();
        Self::start(Shared::new(log, Arc::new(master), options, Lease::endless()), Vec::new())
    }

    fn start(shared: Arc<Shared>, mut tasks: Vec<tokio::task::AbortHandle>) -> Self {
        tasks.push(tokio::spawn(flusher::run(shared.clone())).abort_handle());
        tasks.push(tokio::spawn(super::house::run(shared.clone())).abort_handle());
        Self(Arc::new(Inner { shared, tasks }))
    }

    /// Makes an empty cluster.
    pub async fn create_cluster(&self, new: NewCluster) -> Result<ClusterId, StoreError> {
        let id = random_cluster_id();
        let wrapped = self.0.shared.keys.wrap(&id, &DataKey::generate());
        let data_key = wrapped.map_err(|e| StoreError::Damaged(e.to_string()))?;
        let NewCluster { organization, name, service_range, pod_range, service_range_v6, pod_range_v6 } = new;
        let info = ClusterInfo {
            id: id.clone(),
            organization,
            name,
            service_range,
            pod_range,
            service_range_v6,
            pod_range_v6,
        };
        self.0.shared.log.found(Founding { info, data_key }).await?;
        Ok(id)
    }

    /// The cluster, loaded on first use. Counts as a use.
    pub async fn cluster(&self, id: &ClusterId) -> Result<Arc<Cluster>, StoreError> {
        if let Some(cluster) = self.0.shared.loaded(id) {
            return Ok(cluster);
        }
        // A task of its own: a caller that goes away must not leave a cluster half loaded.
        let load = tokio::spawn(self.0.shared.clone().load(id.clone()));
        load.await.unwrap_or_else(|e| Err(StoreError::Unavailable(format!("loading cluster {id} failed: {e}"))))
    }

    /// Drops what is loaded, as when another replica takes it over.
    #[cfg(test)]
    pub(super) fn hand_over(&self) {
        self.0.shared.let_go_of_all(Ended::Moved);
    }

    /// The clusters that are loaded now.
    pub fn loaded(&self) -> Vec<Arc<Cluster>> {
        self.0.shared.all()
    }

    /// Calls `hook` for every cluster that is loaded from now on.
    pub fn on_load(&self, hook: Arc<dyn ClusterHook>) {
        self.0.shared.hooks.write().push(hook);
    }

    /// Whether Postgres answers and the lease holds: readiness.
    pub fn is_ready(&self) -> bool {
        self.0.shared.lease.holds() && !self.0.shared.flusher.is_away()
    }

    /// The end of a process that is killed: nothing is waited for and nothing is given back. For simulations, where the
    /// tasks of a dead replica would live on.
    pub(super) fn abandon(&self) {
        let shared = &self.0.shared;
        self.0.tasks.iter().for_each(|task| task.abort());
        shared.lease.end();
        shared.let_go_of_all(Ended::Moved);
    }

    /// A clean end: what is in flight is waited for, clusters and lease are given back, so that another replica (or this
    /// one's next start) takes them without waiting. Watches end as moved.
    pub async fn close(&self) {
        let shared = &self.0.shared;
        let flushed = async {
            while !shared.flusher.is_idle() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(5), flushed).await.is_ok();
        shared.let_go_of_all(Ended::Moved);
        shared.lease.end();
        self.0.tasks.iter().for_each(|task| task.abort());
        if let Err(error) = shared.log.release().await {
            tracing::warn!(%error, in_time, "the lease could not be given back: {error}");
        }
    }
}

/// The beginning of a unique local prefix (RFC 4193: `fd` and 40 random bits), so many bits of it.
fn random_range(bits: u8) -> String {
    let random = rand::random::<u64>() & ((1 << 40) - 1);
    let network = Ipv6Addr::from((0xfd << 120) | (u128::from(random) << 80));
    format!("{network}/{bits}")
}

/// `c-` and ten characters: 50 bits, and the database refuses a second one.
fn random_cluster_id() -> ClusterId {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let random = (0..10).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]));
    ClusterId::new(format!("c-{}", random.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_has_ranges_of_ipv6_that_no_other_has() {
        let [one, other] = [(); 2].map(|()| NewCluster::new(OrganizationId::new("o-1"), "a"));
        let ranges =
            [&one, &other].map(|new| [new.service_range_v6.clone().unwrap(), new.pod_range_v6.clone().unwrap()]);
        for [services, pods] in &ranges {
            let (services, pods): (ipnet::Ipv6Net, ipnet::Ipv6Net) = (services.parse().unwrap(), pods.parse().unwrap());
            assert_eq!((services.prefix_len(), pods.prefix_len()), (112, 48));
            assert!(services.trunc() == services && pods.trunc() == pods);
            assert!([services, pods].iter().all(|range| range.addr().octets()[0] == 0xfd), "{services} {pods}");
            assert!(!pods.contains(&services.addr()));
        }
        assert!(ranges.as_flattened().iter().collect::<std::collections::BTreeSet<_>>().len() == 4);
    }
}
