//! A store on a log that fails, clients, watchers and hand-overs all at once; what they did and saw is recorded and judged
//! against what the log holds in the end.

use super::linearizable::{Did, Operation, check_all};
use super::*;
use crate::store::log::Row;
use crate::store::volatile::{Script, VolatileLog};
use longshore_api::ids::{ClusterId, OrganizationId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What one client does, step by step.
#[derive(Clone, Debug)]
pub enum Act {
    Create(u8),
    /// Replaces or removes the object as it was seen: the newest, in-flight writes included; the committed one; or the one
    /// that this client saw last, however old.
    Update(u8, Sight),
    Delete(u8, Sight),
    /// Creates several keys in one go.
    Batch(Vec<u8>),
    /// Begins to create and doesn't wait for the answer.
    Abandon(u8),
    Get(u8),
    List(u8),
    Pause(u8),
}

#[derive(Clone, Copy, Debug)]
pub enum Sight {
    Newest,
    Committed,
    Remembered,
}

/// What the operator and the other replicas do meanwhile.
#[derive(Clone, Debug)]
pub enum Upset {
    HandOver,
    /// Retention drops all but the newest so many revisions.
    Compact(u8),
    Pause(u8),
}

/// How one watcher watches.
#[derive(Clone, Debug)]
pub struct Look {
    /// Only this key.
    pub key: Option<u8>,
    /// Turns of the scheduler that it takes over each item.
    pub pace: Vec<u8>,
    /// After so many items it begins anew where it was.
    pub patience: u8,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub clients: Vec<Vec<Act>>,
    pub watchers: Vec<Look>,
    pub upsets: Vec<Upset>,
    pub script: Script,
}

pub struct World {
    log: Arc<VolatileLog>,
    store: Store,
    id: ClusterId,
    time: AtomicU64,
    numbers: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    history: HashMap<u8, Vec<Operation>>,
    acknowledged: Vec<(Revision, ChangeKind, u64)>,
    /// Writes that were surely not applied.
    refused: Vec<u64>,
    lists: Vec<(Revision, BTreeMap<String, u64>)>,
    watched: Vec<Watched>,
}

/// What one watch yielded: everything after `from` up to `to`.
struct Watched {
    key: Option<u8>,
    from: Revision,
    to: Revision,
    changes: Vec<(Revision, ChangeKind, u64)>,
}

fn name(key: u8) -> String {
    format!("k{key}")
}

fn number(object: &Object) -> u64 {
    text(object).parse().unwrap_or(0)
}

/// What the log says of itself.
fn written(row: &Row) -> (Revision, ChangeKind, u64) {
    let tree: Value = serde_json::from_slice(&row.text.bytes).expect("the log holds JSON");
    assert_eq!(tree["metadata"]["resourceVersion"], row.revision.0.to_string(), "a torn row");
    assert_eq!(tree["metadata"]["name"], *row.key.name, "a torn row");
    (row.revision, row.kind, tree["data"]["text"].as_str().unwrap_or_default().parse().unwrap_or(0))
}

impl World {
    async fn new(script: Script) -> Arc<Self> {
        let log = Arc::new(VolatileLog::default());
        let options = StoreOptions {
            // Small enough that all of them are reached.
            history: HistoryLimits { changes: 4, bytes: 1 << 20, age: Duration::from_secs(3600) },
            queue: QueueLimits { writes: 6, bytes: 1 << 20 },
            watch_bytes: 6 * 1024,
            ..options()
        };
        let store = Store::on(log.clone(), options);
        let id = store.create_cluster(NewCluster::new(OrganizationId::new("o-1"), "test")).await.unwrap();
        log.expect(script);
        let (time, numbers) = (AtomicU64::new(0), AtomicU64::new(1));
        Arc::new(Self { log, store, id, time, numbers, seen: Mutex::default() })
    }

    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::Relaxed)
    }

    /// A value that nobody has written before.
    fn fresh_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    async fn cluster(&self) -> Arc<Cluster> {
        self.store.cluster(&self.id).await.expect("the log in memory is always there to be loaded")
    }

    fn note(&self, key: u8, called: u64, did: Did) {
        let operation = Operation { called, answered: self.tick(), did };
        self.seen.lock().history.entry(key).or_default().push(operation);
    }

    /// Notes how a write ended. `from` is what the writer said was there.
    fn answered(&self, key: u8, called: u64, what: What, answer: Result<Arc<Object>, WriteError>) {
        let (number, from) = (what.number, what.from);
        let did = match (answer, what.kind) {
            (Ok(object), kind) => {
                // The last state of a deleted object is the one that it had.
                let said = if kind == ChangeKind::Deleted { from.unwrap_or(0) } else { number };
                assert_eq!(super::text(&object), said.to_string(), "the answer is what was written");
                self.seen.lock().acknowledged.push((object.revision, kind, said));
                match kind {
                    ChangeKind::Created => Did::Created(number),
                    ChangeKind::Updated => Did::Updated { from, to: number },
                    ChangeKind::Deleted => Did::Deleted { from },
                }
            }
            (Err(WriteError::Unknown), ChangeKind::Created) => Did::MayHaveCreated(number),
            (Err(WriteError::Unknown), ChangeKind::Updated) => Did::MayHaveUpdated { from, to: number },
            (Err(WriteError::Unknown), ChangeKind::Deleted) => Did::MayHaveDeleted { from },
            (Err(error), _) => {
                self.seen.lock().refused.push(number);
                match error {
                    WriteError::AlreadyExists => Did::WasThere,
                    WriteError::NotFound => Did::WasNotThere,
                    WriteError::Conflict => Did::WasNot(from.expect("only those who say what was there conflict")),
                    WriteError::Busy { .. } | WriteError::Unavailable(_) | WriteError::Full => return,
                    WriteError::TooLarge | WriteError::Unknown => unreachable!("matched above, and all are small"),
                }
            }
        };
        self.note(key, called, did);
    }

    async fn create(&self, key: u8) {
        let cluster = self.cluster().await;
        let what = What { kind: ChangeKind::Created, number: self.fresh_number(), from: None };
        let called = self.tick();
        let answer = cluster.commit(create(&name(key), &what.number.to_string())).await;
        self.answered(key, called, what, answer);
    }

    async fn amend(&self, key: u8, sight: Sight, kind: ChangeKind, remembered: &mut HashMap<u8, Arc<Object>>) {
        let cluster = self.cluster().await;
        let at = super::key("configmaps", &name(key));
        let object = match sight {
            Sight::Newest => cluster.newest(&at).ok().and_then(|newest| newest.object),
            Sight::Committed => cluster.get(&at).ok().flatten(),
            Sight::Remembered => remembered.get(&key).cloned(),
        };
        let Some(object) = object else { return self.create(key).await };
        // Only what is committed may be used with a cluster that was loaded since: revisions of writes that came to nothing are
        // given again by the next load, and nobody outside has seen them.
        if !matches!(sight, Sight::Newest) {
            remembered.insert(key, object.clone());
        }
        let what = What { kind, number: self.fresh_number(), from: Some(number(&object)) };
        let write = match kind {
            ChangeKind::Deleted => delete(&object),
            _ => update(&object, &what.number.to_string()),
        };
        let called = self.tick();
        let answer = cluster.commit(write).await;
        self.answered(key, called, what, answer);
    }

    async fn batch(&self, keys: Vec<u8>) {
        let cluster = self.cluster().await;
        let whats: Vec<What> =
            keys.iter().map(|_| What { kind: ChangeKind::Created, number: self.fresh_number(), from: None }).collect();
        let writes = keys.iter().zip(&whats).map(|(key, what)| create(&name(*key), &what.number.to_string()));
        let called = self.tick();
        let answers = cluster.commit_all(writes.collect()).await;
        for ((key, what), answer) in keys.into_iter().zip(whats).zip(answers) {
            self.answered(key, called, what, answer);
        }
    }

    /// Asks once and goes away.
    async fn abandon(&self, key: u8) {
        let cluster = self.cluster().await;
        let number = self.fresh_number();
        let called = self.tick();
        let commit = cluster.commit(create(&name(key), &number.to_string()));
        tokio::select! {
            biased;
            answer = commit => {
                let what = What { kind: ChangeKind::Created, number, from: None };
                self.answered(key, called, what, answer);
            }
            () = std::future::ready(()) => self.note(key, called, Did::MayHaveCreated(number)),
        }
    }

    async fn get(&self, key: u8, remembered: &mut HashMap<u8, Arc<Object>>) {
        let cluster = self.cluster().await;
        let called = self.tick();
        let Ok(found) = cluster.get(&super::key("configmaps", &name(key))) else { return };
        self.note(key, called, Did::Saw(found.as_deref().map(number)));
        if let Some(object) = found {
            remembered.insert(key, object);
        }
    }

    /// A list in pages, of the state that its first page is from.
    async fn list(&self, limit: u8) {
        let cluster = self.cluster().await;
        let before = self.seen.lock().acknowledged.iter().map(|(revision, ..)| *revision).max().unwrap_or_default();
        let mut query = ListQuery { resource: "configmaps".into(), limit: Some(limit.into()), ..Default::default() };
        let mut items = BTreeMap::new();
        loop {
            let Ok(page) = cluster.list(&query) else { return };
            assert!(page.revision >= before, "a list of {:?} after {before:?} was acknowledged", page.revision);
            items.extend(page.items.iter().map(|o| (o.key.name.to_string(), number(o))));
            query.at = Some(page.revision);
            match page.next {
                Some(next) => query.after = Some(next),
                None => {
                    self.seen.lock().lists.push((page.revision, items));
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    async fn client(self: Arc<Self>, acts: Vec<Act>) {
        let mut remembered = HashMap::new();
        for act in acts {
            match act {
                Act::Create(key) => self.create(key).await,
                Act::Update(key, sight) => self.amend(key, sight, ChangeKind::Updated, &mut remembered).await,
                Act::Delete(key, sight) => self.amend(key, sight, ChangeKind::Deleted, &mut remembered).await,
                Act::Batch(keys) => self.batch(keys).await,
                Act::Abandon(key) => self.abandon(key).await,
                Act::Get(key) => self.get(key, &mut remembered).await,
                Act::List(limit) => self.list(limit).await,
                Act::Pause(turns) => pause(turns).await,
            }
        }
    }

    async fn upset(self: Arc<Self>, upsets: Vec<Upset>) {
        for upset in upsets {
            match upset {
                Upset::HandOver => self.store.hand_over(),
                Upset::Compact(kept) => {
                    let newest = self.log.revision(&self.id);
                    self.log.compact(&self.id, Revision(newest.0 - i64::from(kept)));
                }
                Upset::Pause(turns) => pause(turns).await,
            }
        }
    }

    /// Watches until everything up to `finish`'s revision was told, beginning anew wherever it is cut off.
    async fn watcher(self: Arc<Self>, look: Look, finish: tokio::sync::watch::Receiver<Option<Revision>>) {
        let mut from = Revision(0);
        let mut pace = look.pace.iter().copied().cycle();
        for attempt in 0.. {
            assert!(attempt < 10_000, "a watch gets nowhere from {from:?} on");
            let cluster = self.cluster().await;
            let filter = WatchFilter {
                resource: Some("configmaps".into()),
                field: look.key.map(|key| ("metadata.name", name(key))),
                ..Default::default()
            };
            let mut watch = match cluster.watch(Some(from), filter) {
                Ok(watch) => watch,
                Err(StoreError::Compacted { oldest }) => {
                    assert!(from < oldest, "{from:?} is kept, and was refused: the oldest is {oldest:?}");
                    assert!(oldest <= self.log.revision(&self.id), "nobody compacted {oldest:?}");
                    from = oldest;
                    continue;
                }
                // Retention here is quicker than the news of a commit.
                Err(StoreError::Future { .. }) if from == self.log.compacted(&self.id) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                // It was handed over this very moment.
                Err(StoreError::Unavailable(_)) => continue,
                Err(error) => panic!("a watch from {from:?} is refused: {error}"),
            };
            let mut watched = Watched { key: look.key, from, to: from, changes: Vec::new() };
            for _ in 0..=look.patience {
                if finish.borrow().is_some_and(|end| watch.progress() >= end) {
                    break;
                }
                pause(pace.next().unwrap_or(0)).await;
                // Given up again and again: dropping the future must lose nothing.
                let Ok(item) = tokio::time::timeout(Duration::from_secs(1), watch.next()).await else { continue };
                match item {
                    WatchItem::Changes(changes) => {
                        watched.changes.extend(changes.iter().map(|c| (c.object.revision, c.kind, number(&c.object))));
                        watched.to = changes.last().expect("at least one").object.revision;
                    }
                    WatchItem::Progress(revision) => watched.to = revision,
                    WatchItem::Ended(Ended::Compacted) => {
                        let oldest = self.log.compacted(&self.id);
                        assert!(watched.to < oldest, "{:?} is kept, and the watch ended as compacted", watched.to);
                        break;
                    }
                    WatchItem::Ended(_) => break,
                }
            }
            // An empty queue says that nothing is missing up to now.
            watched.to = watched.to.max(watch.progress());
            from = watched.to;
            self.seen.lock().watched.push(watched);
            if finish.borrow().is_some_and(|end| from >= end) {
                return;
            }
        }
    }

    /// Writes until a write is acknowledged: whatever went wrong, the store must come back.
    async fn recover(&self) -> Revision {
        for _ in 0..100 {
            if let Ok(object) = self.cluster().await.commit(create("last", "0")).await {
                return object.revision;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("the store does not recover");
    }

    /// All the promises, against what the log holds.
    fn judge(&self) {
        let seen = self.seen.lock();
        let rows: Vec<_> = self.log.rows(&self.id).iter().map(|row| (name_of(row), written(row))).collect();
        let mut states: Vec<(Revision, BTreeMap<String, u64>)> = vec![(Revision(0), BTreeMap::new())];
        for (name, (revision, kind, number)) in &rows {
            let (last, mut state) = states.last().cloned().expect("begins with one");
            assert!(*revision > last, "revision {revision:?} comes after {last:?}");
            match kind {
                ChangeKind::Created => assert!(state.insert(name.clone(), *number).is_none(), "{name} was there"),
                ChangeKind::Updated => assert!(state.insert(name.clone(), *number).is_some(), "{name} was not there"),
                ChangeKind::Deleted => assert!(state.remove(name).is_some(), "{name} was not there"),
            }
            states.push((*revision, state));
        }
        for acknowledged in &seen.acknowledged {
            assert!(rows.iter().any(|(_, row)| row == acknowledged), "acknowledged and lost: {acknowledged:?}");
        }
        for refused in &seen.refused {
            // A deletion carries the number of what it deletes.
            let applied = rows.iter().find(|(_, row)| row.2 == *refused && row.1 != ChangeKind::Deleted);
            assert!(applied.is_none(), "refused and applied: {refused}, {applied:?}");
        }
        for (revision, items) in &seen.lists {
            let at = states.iter().rev().find(|(r, _)| r <= revision).expect("begins with nought");
            assert_eq!(*items, at.1, "the list of {revision:?}");
        }
        for watched in &seen.watched {
            let wanted: Vec<_> = rows
                .iter()
                .filter(|(n, row)| {
                    row.0 > watched.from && row.0 <= watched.to && watched.key.is_none_or(|key| *n == name(key))
                })
                .map(|(_, row)| *row)
                .collect();
            assert_eq!(watched.changes, wanted, "a watch from {:?} to {:?}", watched.from, watched.to);
        }
        check_all(&seen.history).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// What a client is about to do.
struct What {
    kind: ChangeKind,
    number: u64,
    from: Option<u64>,
}

fn name_of(row: &Row) -> String {
    row.key.name.to_string()
}

async fn pause(turns: u8) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// Plays a case to its end and judges it.
pub fn play(case: Case) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // Hours of virtual time: only what waits for nothing runs into it.
        let played = tokio::time::timeout(Duration::from_secs(24 * 3600), run(case)).await;
        played.expect("the world stands still");
    });
}

async fn run(case: Case) {
    let world = World::new(case.script).await;
    let (finish, finished) = tokio::sync::watch::channel(None);
    let clients: Vec<_> = case.clients.into_iter().map(|acts| tokio::spawn(world.clone().client(acts))).collect();
    let watchers: Vec<_> =
        case.watchers.into_iter().map(|look| tokio::spawn(world.clone().watcher(look, finished.clone()))).collect();
    let upset = tokio::spawn(world.clone().upset(case.upsets));
    for client in clients {
        client.await.unwrap();
    }
    upset.await.unwrap();
    finish.send_replace(Some(world.recover().await));
    for watcher in watchers {
        watcher.await.unwrap();
    }
    // What is in memory is what is in the log, before and after it is read again.
    for _ in 0..2 {
        world.list(2).await;
        assert_eq!(world.cluster().await.revision(), world.log.revision(&world.id));
        world.store.hand_over();
    }
    world.judge();
}
