//! What runs on one machine: containers that take their time to start and to stop, crash, and are there after their agent
//! was away. It outlives the agent, as Docker does.
//!
//! An image's name says how its containers behave (`web:2`, `crash:1` ends soon after its start, `flaky:1` now and then,
//! `slow:1` takes long to pull, `missing:1` can't be pulled).

use crate::dice::Dice;
use crate::witness::Witness;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use longshore_agent::runtime::{
    Answer, Change, ContainerSpec, Credentials, ExecSpec, Exit, ImageRecord, Info, LogOptions, Output, Record, Role,
    Runtime, RuntimeError, SandboxSpec, Session, State, Usage,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast;

pub struct Containers {
    this: Weak<Self>,
    node: String,
    witness: Witness,
    state: Mutex<Inside>,
    changes: broadcast::Sender<Change>,
}

struct Inside {
    dice: Dice,
    records: BTreeMap<String, Record>,
    images: BTreeSet<String>,
    made: u64,
    trouble: Trouble,
}

/// What goes wrong on the machine now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Nobody answers.
    pub unreachable: bool,
    /// Pulls fail.
    pub registry_away: bool,
    /// Everything takes seconds.
    pub slow: bool,
}

impl Containers {
    pub fn new(node: &str, dice: Dice, witness: Witness) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            node: node.into(),
            witness,
            state: Mutex::new(Inside {
                dice,
                records: BTreeMap::new(),
                images: BTreeSet::new(),
                made: 0,
                trouble: Trouble::default(),
            }),
            changes: broadcast::channel(256).0,
        })
    }

    pub fn set_trouble(&self, change: impl FnOnce(&mut Trouble)) {
        change(&mut self.state.lock().trouble);
    }

    /// Power is lost: everything that ran has ended; with `disk`, nothing is left of it.
    pub fn lose_power(&self, disk: bool) {
        let running = self.running();
        running.iter().for_each(|id| self.exit(id, 137, "Error"));
        if disk {
            let mut state = self.state.lock();
            state.records.clear();
            state.images.clear();
        }
    }

    /// One of the running containers, a sandbox perhaps, is killed from outside.
    pub fn kill_one(&self) -> Option<String> {
        let running = self.running();
        let id = (!running.is_empty()).then(|| self.state.lock().dice.pick(&running).clone())?;
        self.exit(&id, 137, "OOMKilled");
        Some(id)
    }

    fn running(&self) -> Vec<String> {
        self.state.lock().records.values().filter(|r| r.is_running()).map(|r| r.id.clone()).collect()
    }

    /// What every call to the daemon goes through.
    async fn work(&self, low: u64, high: u64) -> Result<(), RuntimeError> {
        let (pause, away) = {
            let mut state = self.state.lock();
            let factor = if state.trouble.slow { 50 } else { 1 };
            (state.dice.millis(low * factor, high * factor), state.trouble.unreachable)
        };
        let refused = || Err(RuntimeError::Unreachable("connection refused".into()));
        if away {
            return refused();
        }
        tokio::time::sleep(pause).await;
        if self.state.lock().trouble.unreachable { refused() } else { Ok(()) }
    }

    fn id(state: &mut Inside, node: &str) -> String {
        state.made += 1;
        format!("{node}{:060x}", state.made)
    }

    fn runs(&self, record: &Record) {
        let Record { pod_uid, id, name, .. } = record;
        let found = self.witness.model(|model| model.starts(&self.node, pod_uid, id, name));
        if let Err((sentence, detail)) = found {
            self.witness.check(sentence, Err(detail));
        }
        self.witness.tell(format!("{}: {} of {} runs ({})", self.node, words(name), record.pod_name, record.image));
        let _ = self.changes.send(Change::Pod(pod_uid.clone()));
    }

    fn is_of_a_deleted_pod(&self, id: &str) -> bool {
        let pod = self.state.lock().records.get(id).map(|record| record.pod_uid.clone());
        pod.is_some_and(|pod| self.witness.model(|model| model.is_being_deleted(&pod)))
    }

    /// Its node ends what still runs, whether or not it is done. A container whose sandbox was lost is ended as the kubelet
    /// does it, within its pod's own grace: a node that is cut off knows of no other.
    fn kills(&self, id: &str) {
        let pod = {
            let state = self.state.lock();
            let Some(record) = state.records.get(id) else { return };
            let sandbox = state.records.get(&record.sandbox);
            let judged = record.is_running() && record.role != Role::Sandbox && sandbox.is_some_and(Record::is_running);
            judged.then(|| record.pod_uid.clone())
        };
        let Some(pod) = pod else { return };
        let now = Timestamp::now();
        let found = self.witness.model(|model| model.no_container_is_killed_before_its_grace_is_over(&pod, now));
        self.witness.check("no_container_is_killed_before_its_grace_is_over", found);
    }

    /// The container ends by itself or by force.
    fn exit(&self, id: &str, code: i32, reason: &str) {
        let mut state = self.state.lock();
        let Some(record) = state.records.get_mut(id) else { return };
        let State::Running { started_at, .. } = record.state else { return };
        record.state = State::Exited(Exit {
            code,
            reason: reason.into(),
            message: String::new(),
            started_at: Some(started_at),
            finished_at: Timestamp::now(),
        });
        let record = record.clone();
        drop(state);
        self.ended(&record);
    }

    fn ended(&self, record: &Record) {
        self.witness.model(|model| model.stops(&self.node, &record.pod_uid, &record.id));
        self.witness.tell(format!("{}: {} of {} ended", self.node, words(&record.name), record.pod_name));
        let _ = self.changes.send(Change::Pod(record.pod_uid.clone()));
    }

    /// What becomes of a container that has just started.
    fn live(&self, record: &Record) {
        let (life, code) = {
            let mut state = self.state.lock();
            match (record.role, record.image.split(':').next().unwrap_or_default()) {
                (Role::Init, _) => (state.dice.millis(100, 2000), 0),
                (_, "crash") => (state.dice.millis(200, 3000), 1),
                (_, "flaky") => (state.dice.seconds(15, 200), 1),
                _ => return,
            }
        };
        let (this, id) = (self.this.clone(), record.id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(life).await;
            if let Some(this) = this.upgrade() {
                this.exit(&id, code, if code == 0 { "Completed" } else { "Error" });
            }
        });
    }
}

fn words(name: &str) -> &str {
    if name.is_empty() { "the sandbox" } else { name }
}

fn not_found(id: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("no such container: {id}"))
}

fn unsupported<T>() -> Result<T, RuntimeError> {
    Err(RuntimeError::Other("there is nothing in simulated containers".into()))
}

impl Runtime for Containers {
    fn info(&self) -> Answer<'_, Info> {
        async {
            self.work(1, 5).await?;
            Ok(Info {
                name: "docker".into(),
                version: "simulated".into(),
                kernel: "simulated".into(),
                os: "simulated".into(),
                arch: "x86_64".into(),
                cpus: 8,
                memory: 16 << 30,
                root: "/nonexistent".into(),
            })
        }
        .boxed()
    }

    /// No volumes are written, no references fetched, no probes made.
    fn is_real(&self) -> bool {
        false
    }

    fn containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<Record>> {
        async move {
            self.work(1, 8).await?;
            let state = self.state.lock();
            let found = state.records.values().filter(|r| pod_uid.is_none_or(|uid| r.pod_uid == uid));
            Ok(found.cloned().collect())
        }
        .boxed()
    }

    fn run_sandbox<'a>(&'a self, spec: &'a SandboxSpec) -> Answer<'a, Record> {
        async move {
            self.work(20, 300).await?;
            let record = {
                let mut state = self.state.lock();
                let (id, now) = (Self::id(&mut state, &self.node), Timestamp::now());
                let record = Record::of_sandbox(id.clone(), spec, now);
                state.records.insert(id, record.clone());
                record
            };
            self.runs(&record);
            Ok(record)
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> Answer<'a, String> {
        async move {
            self.work(5, 60).await?;
            let mut state = self.state.lock();
            let id = Self::id(&mut state, &self.node);
            let record = Record::of_container(id.clone(), spec, Timestamp::now());
            state.records.insert(id.clone(), record);
            Ok(id)
        }
        .boxed()
    }

    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        async move {
            self.work(20, 200).await?;
            let record = {
                let mut state = self.state.lock();
                let record = state.records.get_mut(id).ok_or_else(|| not_found(id))?;
                if record.is_running() {
                    return Ok(());
                }
                record.state = State::Running { started_at: Timestamp::now(), pid: 0 };
                record.clone()
            };
            self.runs(&record);
            self.live(&record);
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()> {
        async move {
            self.work(5, 20).await?;
            // One that begins before the deletion has a grace of its own.
            let deleted = self.is_of_a_deleted_pod(id);
            let (listens, takes) = {
                let mut state = self.state.lock();
                (state.dice.percent(70), state.dice.millis(20, 1500))
            };
            tokio::time::sleep(if listens { takes.min(grace) } else { grace }).await;
            let (code, reason) = if listens && takes <= grace { (0, "Completed") } else { (137, "Error") };
            if code != 0 && deleted {
                self.kills(id);
            }
            self.exit(id, code, reason);
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        async move {
            self.work(5, 80).await?;
            self.kills(id);
            let removed = self.state.lock().records.remove(id);
            if let Some(record) = removed.filter(Record::is_running) {
                self.ended(&record);
            }
            Ok(())
        }
        .boxed()
    }

    fn images(&self) -> Answer<'_, Vec<ImageRecord>> {
        async {
            self.work(2, 20).await?;
            Ok(self.state.lock().images.iter().map(|name| image(name)).collect())
        }
        .boxed()
    }

    fn image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ImageRecord>> {
        async move {
            self.work(1, 8).await?;
            Ok(self.state.lock().images.get(name).map(|name| image(name)))
        }
        .boxed()
    }

    fn pull<'a>(&'a self, name: &'a str, _: Option<Credentials>) -> Answer<'a, ()> {
        async move {
            let pause = {
                let mut state = self.state.lock();
                let slow = name.starts_with("slow") || name.contains("/slow");
                if slow { state.dice.seconds(8, 60) } else { state.dice.millis(200, 6000) }
            };
            tokio::time::sleep(pause).await;
            self.work(1, 10).await?;
            let mut state = self.state.lock();
            if state.trouble.registry_away {
                return Err(RuntimeError::Other("the registry is away".into()));
            }
            if name.contains("missing") {
                return Err(RuntimeError::NotFound(format!("no such image: {name}")));
            }
            state.images.insert(name.to_string());
            Ok(())
        }
        .boxed()
    }

    fn exec<'a>(&'a self, _: &'a str, _: &'a ExecSpec) -> Answer<'a, Session> {
        async { unsupported() }.boxed()
    }

    fn attach<'a>(&'a self, _: &'a str, _: &'a ExecSpec) -> Answer<'a, Session> {
        async { unsupported() }.boxed()
    }

    fn logs<'a>(&'a self, _: &'a str, _: &'a LogOptions) -> Answer<'a, BoxStream<'static, std::io::Result<Output>>> {
        async { unsupported() }.boxed()
    }

    fn usage<'a>(&'a self, _: &'a str) -> Answer<'a, Usage> {
        async { Ok(Usage::default()) }.boxed()
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let receiver = self.changes.subscribe();
        let later = futures::stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(change) => Some((change, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Change::Relist, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        futures::stream::iter([Change::Relist]).chain(later).boxed()
    }
}

fn image(name: &str) -> ImageRecord {
    ImageRecord { id: format!("sha256:{name}"), names: vec![name.to_string()], size: 1 << 20, ..Default::default() }
}
