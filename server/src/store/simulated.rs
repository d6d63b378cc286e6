//! One database in memory that several replicas share, for the simulator: it keeps clusters, leases and the log as
//! Postgres does, and what befalls each statement on its way is decided by a [`Fate`].
//!
//! It is the model that the store is held against, so it is as plain as can be: a statement is atomic, whatever happens
//! to its question and its answer. (`volatile` is a log for one replica that fails on command; the two differ in what they
//! are for.) Retention is the server's: the log itself forgets nothing, so that everything can be checked at the end.

use super::error::StoreError;
use super::lease::{MARGIN, Renewal};
use super::log::{Fence, Flight, FlushError, Founding, Loaded, Log, Replay, Replayed, Row, Settled};
use super::object::{ChangeKind, Key, Revision};
use super::replica::{Store, StoreOptions};
use super::seal::KeyRing;
use super::written::Written;
use super::{AWAY, clock};
use bytes::Bytes;
use futures::future::BoxFuture;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a replica asks of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    Connect,
    Renew,
    Take,
    Flush,
    Settle,
    Ping,
    Replay,
    Other,
}

/// What becomes of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It never arrived.
    Away,
    /// It arrived and was rolled back; the replica only sees its connection break.
    LostBefore,
    /// It is done, and the replica only sees its connection break.
    LostAfter,
    /// The connection breaks, and the statement is done so much later: it stood in somebody's buffer.
    Late(Duration),
}

/// A statement's way: how long until it arrives, what then, how long until the answer is back.
#[derive(Clone, Copy, Debug)]
pub struct Fortune {
    pub there: Duration,
    pub outcome: Outcome,
    pub back: Duration,
}

/// Decides what befalls the statements of one replica.
pub trait Fate: Send + Sync + 'static {
    fn befall(&self, statement: Statement) -> Fortune;
}

/// A change at the moment of its commit.
#[derive(Clone, Debug)]
pub struct Committed {
    pub kind: ChangeKind,
    pub key: Key,
    pub revision: Revision,
    /// None for what is sealed.
    pub json: Option<Bytes>,
    /// By whom: the replica's name in the database.
    pub replica: String,
}

/// Told of every commit, in their order, before anyone else can know of it.
pub trait Observer: Send + Sync + 'static {
    fn committed(&self, cluster: &ClusterId, changes: &[Committed]);
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct SimulatedDatabase(Arc<Database>);

struct Database {
    tables: Mutex<Tables>,
    observer: Arc<dyn Observer>,
}

#[derive(Default)]
struct Tables {
    clusters: BTreeMap<ClusterId, Written>,
    owners: BTreeMap<ClusterId, String>,
    /// Until when each replica's lease is good.
    replicas: BTreeMap<String, (String, i64)>,
    named: u64,
}

impl SimulatedDatabase {
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self(Arc::new(Database { tables: Mutex::default(), observer }))
    }

    /// The store of a replica that has just started. [`abandon`] is its end.
    pub async fn open(
        &self,
        fate: Arc<dyn Fate>,
        keys: Arc<dyn KeyRing>,
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        let connection = Connection {
            database: self.clone(),
            fate,
            advertise: options.advertise.clone(),
            lease: clock::millis(options.lease),
            me: Mutex::default(),
        };
        connection.statement(Statement::Connect, || connection.register()).await.map_err(unavailable)?;
        Store::sharing(Arc::new(connection), keys, options).await
    }

    /// What is there now: each object's revision and bytes (none of what is sealed), by key.
    pub fn objects(&self, cluster: &ClusterId) -> BTreeMap<Key, (Revision, Option<Bytes>)> {
        let tables = self.0.tables.lock();
        let objects = tables.clusters.get(cluster).map(|c| &c.objects);
        objects.into_iter().flatten().map(|(key, row)| (key.clone(), (row.revision, plain(row)))).collect()
    }

    pub fn revision(&self, cluster: &ClusterId) -> Revision {
        self.0.tables.lock().clusters.get(cluster).map(|c| c.revision).unwrap_or_default()
    }

    /// The replica that owns the cluster, and since which epoch.
    pub fn owner(&self, cluster: &ClusterId) -> Option<(String, i64)> {
        let tables = self.0.tables.lock();
        Some((tables.owners.get(cluster)?.clone(), tables.clusters.get(cluster)?.epoch))
    }
}

/// Kills a replica's store.
pub fn abandon(store: &Store) {
    store.abandon();
}

/// One replica's way to the database.
struct Connection {
    database: SimulatedDatabase,
    fate: Arc<dyn Fate>,
    advertise: String,
    lease: i64,
    me: Mutex<String>,
}

/// How a statement failed, where it did.
enum Broken {
    Away,
    Unknown,
}

impl Connection {
    fn me(&self) -> String {
        self.me.lock().clone()
    }

    fn register(&self) {
        let mut tables = self.database.0.tables.lock();
        tables.named += 1;
        let me = format!("r-{}", tables.named);
        tables.replicas.insert(me.clone(), (self.advertise.clone(), now() + self.lease));
        *self.me.lock() = me;
    }

    /// Does `work` at the database, as fate has it.
    async fn statement<T: Send>(&self, statement: Statement, work: impl FnOnce() -> T + Send) -> Result<T, Broken> {
        let Fortune { there, outcome, back } = self.fate.befall(statement);
        tokio::time::sleep(there).await;
        let done = match outcome {
            Outcome::Away => Err(Broken::Away),
            Outcome::LostBefore | Outcome::Late(_) => Err(Broken::Unknown),
            Outcome::Done => Ok(work()),
            Outcome::LostAfter => {
                work();
                Err(Broken::Unknown)
            }
        };
        tokio::time::sleep(back).await;
        done
    }
}

impl SimulatedDatabase {
    fn fly(&self, me: &str, flights: &[Flight]) -> Vec<bool> {
        let mut tables = self.0.tables.lock();
        let mut land = |flight: &Flight| {
            let fence = &flight.fence;
            let Some(written) = tables.clusters.get_mut(&fence.cluster) else { return false };
            let held = written.land(flight);
            if held {
                let committed: Vec<Committed> = flight.rows.iter().map(|row| committed(row, me)).collect();
                self.0.observer.committed(&fence.cluster, &committed);
            }
            held
        };
        flights.iter().map(&mut land).collect()
    }
}

fn committed(row: &Row, me: &str) -> Committed {
    let (kind, key, revision) = (row.kind, row.key.clone(), row.revision);
    Committed { kind, key, revision, json: plain(row), replica: me.into() }
}

fn plain(row: &Row) -> Option<Bytes> {
    (!row.text.sealed).then(|| row.text.bytes.clone())
}

impl Tables {
    /// As `PostgresLog::try_take`. `Err(Ok(left))`: someone else's lease is good for so many milliseconds.
    fn take(&mut self, id: &ClusterId, me: &str) -> Result<Loaded, Result<(String, i64), StoreError>> {
        let written = self.clusters.get_mut(id).ok_or(Err(StoreError::NotFound))?;
        if let Some(owner) = self.owners.get(id).filter(|owner| *owner != me)
            && let Some((advertise, until)) = self.replicas.get(owner)
        {
            let left = until - now() + clock::millis(MARGIN);
            if left > 0 {
                return Err(Ok((advertise.clone(), left)));
            }
            self.replicas.remove(owner);
        }
        self.owners.insert(id.clone(), me.to_string());
        Ok(written.take())
    }
}

impl Log for Connection {
    fn found(&self, founding: Founding) -> BoxFuture<'_, Result<(), StoreError>> {
        let id = founding.info.id.clone();
        self.database.0.tables.lock().clusters.insert(id, Written::new(founding));
        Box::pin(async { Ok(()) })
    }

    fn renew(&self) -> BoxFuture<'_, Result<Renewal, String>> {
        Box::pin(async move {
            let renewed = self.statement(Statement::Renew, || {
                let mut tables = self.database.0.tables.lock();
                let lease = tables.replicas.get_mut(&*self.me.lock())?;
                lease.1 = now() + self.lease;
                Some(now())
            });
            match renewed.await.map_err(words)? {
                Some(now) => Ok(Renewal::Renewed { now }),
                None => {
                    self.register();
                    Ok(Renewal::Lost)
                }
            }
        })
    }

    fn take<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let mut patience: Option<i64> = None;
            loop {
                let me = self.me();
                let taken = self.statement(Statement::Take, || self.database.0.tables.lock().take(cluster, &me));
                match taken.await.map_err(unavailable)? {
                    Ok(loaded) => return Ok(loaded),
                    Err(Err(error)) => return Err(error),
                    Err(Ok((advertise, left))) => {
                        if now() > *patience.get_or_insert(now() + left) {
                            return Err(StoreError::NotOwner { advertise });
                        }
                        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
                        tokio::time::sleep(left.min(Duration::from_millis(100))).await;
                    }
                }
            }
        })
    }

    fn flush<'a>(&'a self, flights: &'a [Flight]) -> BoxFuture<'a, Result<Vec<bool>, FlushError>> {
        Box::pin(async move {
            let me = self.me();
            let Fortune { there, outcome, back } = self.fate.befall(Statement::Flush);
            tokio::time::sleep(there).await;
            let lost = || FlushError::Unknown("the connection broke".into());
            let flown = match outcome {
                Outcome::Done => Ok(self.database.fly(&me, flights)),
                Outcome::Away => Err(FlushError::Away("the database can't be reached".into())),
                Outcome::LostBefore => Err(lost()),
                Outcome::LostAfter => {
                    self.database.fly(&me, flights);
                    Err(lost())
                }
                Outcome::Late(late) => {
                    let (database, flights) = (self.database.clone(), flights.to_vec());
                    tokio::spawn(async move {
                        tokio::time::sleep(late).await;
                        database.fly(&me, &flights);
                    });
                    Err(lost())
                }
            };
            tokio::time::sleep(back).await;
            flown
        })
    }

    fn settle<'a>(&'a self, fences: &'a [Fence]) -> BoxFuture<'a, Result<Vec<Settled>, String>> {
        Box::pin(async move {
            let me = self.me();
            let settled = self.statement(Statement::Settle, || {
                let mut tables = self.database.0.tables.lock();
                let Tables { clusters, owners, .. } = &mut *tables;
                let mut settle = |fence: &Fence| match clusters.get_mut(&fence.cluster) {
                    Some(written) if owners.get(&fence.cluster) == Some(&me) => {
                        written.epoch += 1;
                        Settled::Ours { epoch: written.epoch, revision: written.revision }
                    }
                    _ => Settled::Lost,
                };
                fences.iter().map(&mut settle).collect()
            });
            settled.await.map_err(words)
        })
    }

    fn revisions<'a>(
        &'a self,
        clusters: &'a [ClusterId],
    ) -> BoxFuture<'a, Result<Vec<(ClusterId, Revision)>, StoreError>> {
        Box::pin(async move {
            let read = self.statement(Statement::Other, || {
                let tables = self.database.0.tables.lock();
                clusters.iter().filter_map(|id| Some((id.clone(), tables.clusters.get(id)?.revision))).collect()
            });
            read.await.map_err(unavailable)
        })
    }

    fn leap<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let leapt = self.statement(Statement::Other, || {
                let mut tables = self.database.0.tables.lock();
                tables.clusters.get_mut(&fence.cluster).is_some_and(|written| written.leap(fence))
            });
            leapt.await.map_err(unavailable)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.statement(Statement::Ping, || ()).await.map_err(words) })
    }

    fn replay<'a>(&'a self, replay: &'a Replay) -> BoxFuture<'a, Result<Replayed, StoreError>> {
        Box::pin(async move {
            let replayed = self.statement(Statement::Replay, || {
                let tables = self.database.0.tables.lock();
                Some(tables.clusters.get(&replay.cluster)?.replay(replay))
            });
            replayed.await.map_err(unavailable)?.ok_or(StoreError::NotFound)
        })
    }

    fn set_wake_at<'a>(
        &'a self,
        cluster: &'a ClusterId,
        wake_at: Option<i64>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let set = self.statement(Statement::Other, || {
                if let Some(written) = self.database.0.tables.lock().clusters.get_mut(cluster) {
                    written.wake_at = wake_at;
                }
            });
            set.await.map_err(unavailable)
        })
    }

    fn due(&self, now: i64) -> BoxFuture<'_, Result<Vec<ClusterId>, StoreError>> {
        Box::pin(async move {
            let due = self.statement(Statement::Other, || {
                let tables = self.database.0.tables.lock();
                let me = self.me();
                let free = |id: &ClusterId| {
                    let Some(owner) = tables.owners.get(id) else { return true };
                    *owner == me || tables.replicas.get(owner).is_none_or(|(_, until)| *until < now)
                };
                let due = tables.clusters.iter().filter(|(_, c)| c.wake_at.is_some_and(|at| at <= now));
                due.filter(|(id, _)| free(id)).map(|(id, _)| id.clone()).collect()
            });
            due.await.map_err(unavailable)
        })
    }

    fn maintain(&self, _now: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn release(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let me = self.me();
            let released = self.statement(Statement::Other, || {
                let mut tables = self.database.0.tables.lock();
                tables.owners.retain(|_, owner| *owner != me);
                tables.replicas.remove(&me);
            });
            released.await.map_err(unavailable)
        })
    }
}

/// The database's clock, in milliseconds.
fn now() -> i64 {
    clock::millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn words(_: Broken) -> String {
    "the database can't be reached".into()
}

fn unavailable(_: Broken) -> StoreError {
    StoreError::Unavailable(AWAY.into())
}
