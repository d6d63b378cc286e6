//! The witness: sees every commit in its order, keeps the whole history, and says which sentence was broken first.

use crate::checks::{self, Model, Step};
use crate::clockwork;
use longshore_api::ids::ClusterId;
use longshore_server::store::simulated::{Committed, Observer};
use longshore_server::store::{ChangeKind, Key};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How many of the last events are told of a world that broke.
const TOLD: usize = 120;

/// How many writes to one path in [`WINDOW`] are too many: an agent that says again what it has said, a retry without a
/// pause.
const TOO_MANY: u32 = 300;
const WINDOW: Duration = Duration::from_secs(10);

/// One change of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: ChangeKind,
    pub key: Key,
    pub revision: i64,
    /// None for what is sealed.
    pub object: Option<Arc<Value>>,
}

/// What was found to be wrong.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The name of the function that is the sentence.
    pub sentence: &'static str,
    pub detail: String,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Witness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    broken: Notify,
}

#[derive(Default)]
struct State {
    log: Vec<Entry>,
    model: Model,
    digest: Sha256,
    told: VecDeque<String>,
    loud: bool,
    broken: Option<Broken>,
    /// The highest revision that anyone was told is written.
    acknowledged: i64,
    acknowledgements: u64,
    /// Writes asked for by path, since when.
    asked: BTreeMap<String, u32>,
    asked_since: Duration,
    /// When the log last grew by something that is neither an Event nor a node's heartbeat.
    moved: Duration,
}

impl Witness {
    /// Tells everything at once, on standard error, instead of the end only.
    pub fn be_loud(&self) {
        self.0.state.lock().loud = true;
    }

    /// Something that happened.
    pub fn tell(&self, what: impl AsRef<str>) {
        self.0.state.lock().tell(what.as_ref());
    }

    /// Notes what a check found; the first finding counts.
    pub fn check(&self, sentence: &'static str, found: Result<(), String>) {
        if let Err(detail) = found {
            let mut state = self.0.state.lock();
            state.fail(sentence, detail);
            drop(state);
            self.0.broken.notify_one();
        }
    }

    /// Returns once a sentence is broken.
    pub async fn broken(&self) -> Broken {
        loop {
            if let Some(broken) = self.0.state.lock().broken.clone() {
                return broken;
            }
            self.0.broken.notified().await;
        }
    }

    pub fn finding(&self) -> Option<Broken> {
        self.0.state.lock().broken.clone()
    }

    pub fn last_events(&self) -> Vec<String> {
        self.0.state.lock().told.iter().cloned().collect()
    }

    /// A digest of the whole history, as hex.
    pub fn digest(&self) -> String {
        hex::encode(&self.0.state.lock().digest.clone().finalize()[..16])
    }

    pub fn revision(&self) -> i64 {
        self.0.state.lock().log.last().map_or(0, |entry| entry.revision)
    }

    pub fn changes(&self) -> usize {
        self.0.state.lock().log.len()
    }

    pub fn acknowledgements(&self) -> u64 {
        self.0.state.lock().acknowledgements
    }

    /// When something other than Events and heartbeats was last written.
    pub fn moved(&self) -> Duration {
        self.0.state.lock().moved
    }

    /// Looks at (and notes in) the state of all objects.
    pub fn model<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.0.state.lock().model)
    }

    /// Someone was told that `key` is written at `revision`.
    pub fn acknowledged(&self, revision: i64, uid: &str) {
        let mut state = self.0.state.lock();
        let found = state.nothing_acknowledged_is_lost(revision, uid);
        state.acknowledged = state.acknowledged.max(revision);
        state.acknowledgements += 1;
        drop(state);
        self.check("nothing_acknowledged_is_lost", found);
    }

    /// Somebody asks for a write.
    pub fn asked(&self, path: &str) {
        let found = self.0.state.lock().nobody_repeats_himself_without_end(path);
        self.check("nobody_repeats_himself_without_end", found);
    }

    /// What a fresh read that begins now must include.
    pub fn floor(&self) -> i64 {
        self.0.state.lock().acknowledged
    }

    /// The first change of `resource` after `revision`.
    pub fn next(&self, resource: &str, revision: i64) -> Option<Entry> {
        let state = self.0.state.lock();
        let begin = state.log.partition_point(|entry| entry.revision <= revision);
        state.log[begin..].iter().find(|entry| *entry.key.resource == *resource).cloned()
    }

    /// Revisions of all objects of `resource` as they were at `revision`, by namespace and name.
    pub fn at(&self, resource: &str, revision: i64) -> BTreeMap<(String, String), i64> {
        let state = self.0.state.lock();
        let mut objects = BTreeMap::new();
        let until = state.log.partition_point(|entry| entry.revision <= revision);
        for entry in state.log[..until].iter().filter(|entry| *entry.key.resource == *resource) {
            let place = (entry.key.namespace.to_string(), entry.key.name.to_string());
            match entry.kind {
                ChangeKind::Deleted => drop(objects.remove(&place)),
                _ => drop(objects.insert(place, entry.revision)),
            }
        }
        objects
    }
}

impl State {
    fn tell(&mut self, what: &str) {
        let at = clockwork::elapsed().as_secs_f64();
        let line = format!("{at:10.3}  {what}");
        if self.loud {
            eprintln!("{line}");
        }
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        self.told.push_back(line);
    }

    fn fail(&mut self, sentence: &'static str, detail: String) {
        if self.broken.is_none() {
            self.tell(&format!("BROKEN {sentence}: {detail}"));
            self.broken = Some(Broken { sentence, detail });
        }
    }

    fn nobody_repeats_himself_without_end(&mut self, path: &str) -> Result<(), String> {
        let now = clockwork::elapsed();
        if now - self.asked_since > WINDOW {
            self.asked_since = now;
            self.asked.clear();
        }
        let times = self.asked.entry(path.to_string()).or_default();
        *times += 1;
        match *times > TOO_MANY {
            true => Err(format!("{path} was to be written {times} times in {} s", WINDOW.as_secs())),
            false => Ok(()),
        }
    }

    /// Every acknowledged write is in the log, with its revision.
    fn nothing_acknowledged_is_lost(&self, revision: i64, uid: &str) -> Result<(), String> {
        let found = self.log.binary_search_by_key(&revision, |entry| entry.revision);
        let entry = found.ok().map(|at| &self.log[at]).ok_or(format!("revision {revision} is not in the log"))?;
        match &entry.object {
            Some(object) if object["metadata"]["uid"] != uid => {
                Err(format!("revision {revision} is another object's: {:?}", entry.key))
            }
            _ => Ok(()),
        }
    }

    /// Revisions are given upwards, each once, whoever owns the cluster.
    fn revisions_never_go_back(&self, revision: i64) -> Result<(), String> {
        match self.log.last() {
            Some(last) if last.revision >= revision => Err(format!("{revision} after {}", last.revision)),
            _ => Ok(()),
        }
    }

    fn take_in(&mut self, change: &Committed) {
        let revision = change.revision.0;
        if let Err(detail) = self.revisions_never_go_back(revision) {
            self.fail("revisions_never_go_back", detail);
        }
        let object = change.json.as_ref().and_then(|json| serde_json::from_slice(json).ok()).map(Arc::new);
        let entry = Entry { kind: change.kind, key: change.key.clone(), revision, object };
        self.digest.update(format!("{revision} {:?} {:?}\n", change.kind, change.key));
        self.digest.update(change.json.as_deref().unwrap_or_default());
        self.log.push(entry.clone());
        let step = Step { entry, before: self.model.get(&change.key), at: clockwork::elapsed() };
        if !matches!(&*change.key.resource, "events" | "nodes") {
            self.moved = step.at;
        }
        if *change.key.resource != *"events" || self.loud {
            self.tell(&checks::words(&step, &change.replica));
        }
        for (sentence, holds) in checks::SAFETY {
            if let Err(detail) = holds(&self.model, &step) {
                self.fail(sentence, detail);
            }
        }
        self.model.apply(&step);
    }
}

impl Observer for Witness {
    fn committed(&self, _: &ClusterId, changes: &[Committed]) {
        let mut state = self.0.state.lock();
        changes.iter().for_each(|change| state.take_in(change));
        let broken = state.broken.is_some();
        drop(state);
        if broken {
            self.0.broken.notify_one();
        }
    }
}
