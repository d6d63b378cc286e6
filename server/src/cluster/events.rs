//! The recorder: what controllers tell becomes Events, repeated ones folded into one with a count, as client-go does it.
//!
//! Telling must never hold up doing: the way to the recorder is a bounded queue, and what doesn't fit is dropped. An object
//! that causes more than a burst of different events is cut down to one in five minutes.

use crate::apiserver::patch::PatchKind;
use crate::apiserver::{Api, Context, CreateOptions, Patch, PatchOptions};
use crate::resources::registry;
use crate::store::Cluster;
use futures::future::join_all;
use jiff::Timestamp;
use longshore_api::Status;
use longshore_control::{Event, EventType, ObjectKey};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Events waiting to be written. A thousand pods' worth.
const QUEUE: usize = 4096;
/// Written side by side: a thousand pods' worth is a few flushes.
const AT_ONCE: usize = 256;
/// Kinds of events remembered for folding, and objects for their rate; the oldest half goes when there are more.
const REMEMBERED: usize = 4096;
/// Different events of one component about one object, at once (client-go's spam filter) …
const BURST: f64 = 25.0;
/// … and one more after so many seconds.
const REFILL_SECONDS: f64 = 300.0;

#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Event>);

impl Recorder {
    /// Never waits; with a full queue the event is lost, which is said once it is written about again by its count.
    pub fn record(&self, event: Event) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("the event queue is full, an event is dropped");
        }
    }
}

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Sameness {
    about: ObjectKey,
    uid: String,
    kind: EventType,
    reason: &'static str,
    message: String,
    component: &'static str,
}

struct Known {
    name: String,
    count: i64,
    last: Timestamp,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

/// The recorder's memory; bounded, and nothing is lost but folding when it forgets.
#[derive(Default)]
struct Memory {
    known: HashMap<Sameness, Known>,
    buckets: HashMap<(&'static str, String), Bucket>,
}

/// What becomes of one kind of event in a batch.
#[derive(Debug, PartialEq)]
enum Step {
    Create {
        count: i64,
    },
    /// Seen before: the event of this name now counts so many.
    Raise {
        name: String,
        count: i64,
    },
    Drop,
}

impl Memory {
    fn judge(&mut self, event: &Sameness, times: i64, now: Timestamp) -> Step {
        let bucket =
            self.buckets.entry((event.component, event.uid.clone())).or_insert(Bucket { tokens: BURST, filled: now });
        let elapsed = now.duration_since(bucket.filled).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed / REFILL_SECONDS).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return Step::Drop;
        }
        bucket.tokens -= 1.0;
        match self.known.get_mut(event) {
            Some(known) => {
                known.count += times;
                known.last = now;
                Step::Raise { name: known.name.clone(), count: known.count }
            }
            None => Step::Create { count: times },
        }
    }

    fn remember(&mut self, event: Sameness, name: String, count: i64, now: Timestamp) {
        self.known.insert(event, Known { name, count, last: now });
        if self.known.len() > REMEMBERED {
            let mut times: Vec<Timestamp> = self.known.values().map(|k| k.last).collect();
            times.sort();
            let middle = times[times.len() / 2];
            self.known.retain(|_, k| k.last > middle);
        }
        if self.buckets.len() > REMEMBERED {
            let mut times: Vec<Timestamp> = self.buckets.values().map(|b| b.filled).collect();
            times.sort();
            let middle = times[times.len() / 2];
            self.buckets.retain(|_, b| b.filled > middle);
        }
    }
}

/// Starts a recorder that lives until all its handles are gone.
pub(crate) fn recorder(api: Api, cluster: Arc<Cluster>) -> (Recorder, impl Future<Output = ()> + Send) {
    let (send, mut receive) = mpsc::channel(QUEUE);
    let write = async move {
        let mut memory = Memory::default();
        // As large as what came at once: thousands of clusters have a recorder each, and most have nothing to say.
        let mut batch = Vec::new();
        while receive.recv_many(&mut batch, AT_ONCE).await > 0 {
            let now = Timestamp::now();
            let mut folded: BTreeMap<Sameness, i64> = BTreeMap::new();
            for event in std::mem::take(&mut batch) {
                let Event { about, uid, kind, reason, message, component } = event;
                *folded.entry(Sameness { about, uid, kind, reason, message, component }).or_default() += 1;
            }
            let steps = folded.into_iter().map(|(event, times)| {
                let step = memory.judge(&event, times, now);
                (event, step)
            });
            let steps: Vec<_> = steps.collect();
            let writes = steps.into_iter().map(|(event, step)| write(&api, &cluster, event, step, now));
            for (event, name, count) in join_all(writes).await.into_iter().flatten() {
                memory.remember(event, name, count, now);
            }
        }
    };
    (Recorder(send), write)
}

/// Writes one event; answers with what to remember of it.
async fn write(
    api: &Api,
    cluster: &Arc<Cluster>,
    event: Sameness,
    step: Step,
    now: Timestamp,
) -> Option<(Sameness, String, i64)> {
    let outcome = match step {
        Step::Drop => return None,
        Step::Create { count } => create(api, cluster, &event, count, now).await.map(|name| (name, count)),
        Step::Raise { name, count } => match raise(api, cluster, &event, &name, count, now).await {
            Ok(()) => Ok((name, count)),
            // An event lives an hour: this one is over.
            Err(status) if status.code == 404 => create(api, cluster, &event, 1, now).await.map(|name| (name, 1)),
            Err(status) => Err(status),
        },
    };
    match outcome {
        Ok((name, count)) => Some((event, name, count)),
        Err(status) => {
            tracing::debug!(reason = event.reason, about = ?event.about, "an event was not written: {}", status.message);
            None
        }
    }
}

fn namespace_of(about: &ObjectKey) -> &str {
    if about.namespace.is_empty() { "default" } else { &about.namespace }
}

async fn create(
    api: &Api,
    cluster: &Arc<Cluster>,
    event: &Sameness,
    count: i64,
    now: Timestamp,
) -> Result<String, Status> {
    let (events, about) = kinds(event)?;
    let cx = Context::system(cluster.clone(), event.component, now);
    let time = whole_seconds(now);
    let name = format!("{}.{:x}", event.about.name, now.as_nanosecond() as i64 ^ i64::from(rand::random::<u16>()));
    let namespace = namespace_of(&event.about);
    let body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "kind": about.kind,
            "apiVersion": about.api_version(),
            "namespace": event.about.namespace,
            "name": event.about.name,
            "uid": event.uid,
        },
        "reason": event.reason,
        "message": event.message,
        "source": {"component": event.component},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": count,
        "type": event.kind.as_str(),
        "reportingComponent": event.component,
        "reportingInstance": "",
    });
    let written = api.create(&cx, events, namespace, body, &CreateOptions::default()).await?;
    Ok(written.object.key.name.to_string())
}

async fn raise(
    api: &Api,
    cluster: &Arc<Cluster>,
    event: &Sameness,
    name: &str,
    count: i64,
    now: Timestamp,
) -> Result<(), Status> {
    let (events, _) = kinds(event)?;
    let cx = Context::system(cluster.clone(), event.component, now);
    let body = json!({"count": count, "lastTimestamp": whole_seconds(now)}).to_string();
    let patch = Patch { kind: PatchKind::Merge, body: body.as_bytes() };
    api.patch(&cx, events, namespace_of(&event.about), name, None, patch, &PatchOptions::default()).await?;
    Ok(())
}

fn kinds(
    event: &Sameness,
) -> Result<(&'static crate::resources::Resource, &'static crate::resources::Resource), Status> {
    let find = |name: &str| registry().by_name(name).ok_or_else(Status::no_such_path);
    Ok((find("events")?, find(&event.about.resource)?))
}

fn whole_seconds(at: Timestamp) -> Value {
    crate::apiserver::metadata::time(at).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Sameness {
        let about = ObjectKey::new("pods", "d", "p");
        let (uid, kind, component) = ("u".to_string(), EventType::Normal, "c");
        Sameness { about, uid, kind, reason: "R", message: message.into(), component }
    }

    #[test]
    fn repeated_events_are_counted() {
        let (mut memory, now) = (Memory::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(memory.judge(&event("m"), 1, now), Step::Create { count: 1 });
        memory.remember(event("m"), "p.1".into(), 1, now);
        assert_eq!(memory.judge(&event("m"), 2, now), Step::Raise { name: "p.1".into(), count: 3 });
        assert_eq!(memory.judge(&event("other"), 1, now), Step::Create { count: 1 });
    }

    #[test]
    fn a_flood_is_cut_down() {
        let (mut memory, now) = (Memory::default(), Timestamp::UNIX_EPOCH);
        let passed = (0..100).filter(|i| memory.judge(&event(&format!("m{i}")), 1, now) != Step::Drop).count();
        assert_eq!(passed, 25);
        let later = now + jiff::SignedDuration::from_secs(301);
        assert_ne!(memory.judge(&event("x"), 1, later), Step::Drop);
        assert_eq!(memory.judge(&event("y"), 1, later), Step::Drop);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for i in 0..3 * REMEMBERED as i64 {
            let now = Timestamp::from_second(i).unwrap();
            memory.remember(event(&i.to_string()), "n".into(), 1, now);
            assert!(memory.known.len() <= REMEMBERED);
        }
    }
}
