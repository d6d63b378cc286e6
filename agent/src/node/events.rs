//! Events: what the node has to say about its pods, in the kubelet's words.
//!
//! Saying must never hold up doing: a bounded queue, one writer, what doesn't fit is dropped (and logged); and where many
//! pods begin at once, what they are comes before what happened to them ([`Recorder::precede`]). A sentence said again is
//! counted on the Event that exists, and an object that says too much is cut off, as client-go does it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How many sentences may wait for the server.
const QUEUE: usize = 512;
/// How many sentences are remembered for counting.
const REMEMBERED: usize = 4096;
/// One object may say this much at once, then one more each five minutes.
const BURST: f64 = 25.0;
const REFILL: SignedDuration = SignedDuration::from_mins(5);
/// How long a sentence lets others precede it.
const COURTESY: Duration = Duration::from_secs(1);
/// Where something urgent was just said, more of it is likely to come.
const CALM: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Said>,
    urgent: watch::Sender<Urgent>,
    _writer: std::sync::Arc<AbortOnDropHandle<()>>,
}

/// What is on its way to the server that events let pass.
struct Urgent {
    count: usize,
    /// When that became more or less.
    changed: Instant,
}

impl Urgent {
    /// Waits until nothing urgent is on its way, nor was a moment ago.
    async fn passed(urgent: &mut watch::Receiver<Urgent>) {
        loop {
            // It ends with the recorder, which ends the writer, too.
            let Ok(calm) = urgent.wait_for(|urgent| urgent.count == 0).await.map(|none| none.changed + CALM) else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(calm) => return,
                _ = urgent.changed() => {}
            }
        }
    }
}

/// While it lives, something is on its way to the server that events let pass.
pub struct Precedence(watch::Sender<Urgent>);

impl Precedence {
    fn new(urgent: &watch::Sender<Urgent>) -> Self {
        urgent.send_modify(|urgent| *urgent = Urgent { count: urgent.count + 1, changed: Instant::now() });
        Self(urgent.clone())
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        self.0.send_modify(|urgent| *urgent = Urgent { count: urgent.count - 1, changed: Instant::now() });
    }
}

/// A sentence and when it was said.
struct Said {
    sentence: Sentence,
    at: Timestamp,
    waits_until: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sentence {
    namespace: String,
    about: About,
    warning: bool,
    reason: String,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct About {
    kind: &'static str,
    name: String,
    uid: String,
    field: Option<String>,
}

impl Recorder {
    pub fn start(client: kube::Client, node: &str) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let urgent = watch::Sender::new(Urgent { count: 0, changed: Instant::now() });
        let writer = Writer { client, node: node.to_owned(), written: HashMap::new(), budgets: HashMap::new() };
        let writer = tokio::spawn(writer.run(receiver, urgent.subscribe()));
        Self { queue, urgent, _writer: std::sync::Arc::new(AbortOnDropHandle::new(writer)) }
    }

    /// For what is more urgent than any event: none begins its way to the server, for a second at most, until it is dropped
    /// and a moment has passed.
    pub fn precede(&self) -> Precedence {
        Precedence::new(&self.urgent)
    }

    /// About a pod, or with `container` about a part of it. `Warning` events are the bad ones.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<(&str, bool)>,
        warning: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        let field = container
            .map(|(name, init)| format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" }));
        let meta = &pod.metadata;
        self.say(Sentence {
            namespace: meta.namespace.clone().unwrap_or_default(),
            about: About {
                kind: "Pod",
                name: meta.name.clone().unwrap_or_default(),
                uid: meta.uid.clone().unwrap_or_default(),
                field,
            },
            warning,
            reason: reason.into(),
            message: message.into(),
        });
    }

    /// About this node itself; its uid is its name, as the kubelet has it.
    pub fn node(&self, name: &str, warning: bool, reason: &str, message: impl Into<String>) {
        self.say(Sentence {
            namespace: "default".into(),
            about: About { kind: "Node", name: name.into(), uid: name.into(), field: None },
            warning,
            reason: reason.into(),
            message: message.into(),
        });
    }

    fn say(&self, mut sentence: Sentence) {
        // The API's own limit for messages.
        if sentence.message.len() > 1024 {
            let mut end = 1021;
            while !sentence.message.is_char_boundary(end) {
                end -= 1;
            }
            sentence.message.truncate(end);
            sentence.message.push_str("...");
        }
        let said = Said { sentence, at: Timestamp::now(), waits_until: Instant::now() + COURTESY };
        if self.queue.try_send(said).is_err() {
            tracing::debug!("the queue of events is full; one was dropped");
        }
    }
}

struct Writer {
    client: kube::Client,
    node: String,
    written: HashMap<Sentence, Written>,
    budgets: HashMap<String, Budget>,
}

struct Written {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Budget {
    left: f64,
    at: Timestamp,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Said>, mut urgent: watch::Receiver<Urgent>) {
        while let Some(Said { sentence, at, waits_until }) = queue.recv().await {
            let _ = tokio::time::timeout_at(waits_until, Urgent::passed(&mut urgent)).await;
            self.forget(at);
            if !self.within_budget(&sentence, at) {
                continue;
            }
            if let Err(e) = self.write(sentence, at).await {
                tracing::debug!(error = %e, "an event was not written");
            }
        }
    }

    fn within_budget(&mut self, sentence: &Sentence, now: Timestamp) -> bool {
        let key = format!("{}/{}", sentence.about.uid, sentence.about.name);
        let budget = self.budgets.entry(key).or_insert(Budget { left: BURST, at: now });
        let earned = now.duration_since(budget.at).as_secs_f64() / REFILL.as_secs_f64();
        budget.left = (budget.left + earned).min(BURST);
        budget.at = now;
        if budget.left < 1.0 {
            return false;
        }
        budget.left -= 1.0;
        true
    }

    fn forget(&mut self, now: Timestamp) {
        if self.written.len() > REMEMBERED {
            self.written.retain(|_, written| now.duration_since(written.last) < SignedDuration::from_mins(10));
            if self.written.len() > REMEMBERED {
                self.written.clear();
            }
        }
        if self.budgets.len() > REMEMBERED {
            self.budgets.clear();
        }
    }

    async fn write(&mut self, sentence: Sentence, at: Timestamp) -> Result<(), kube::Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &sentence.namespace);
        let time = Time(Timestamp::from_second(at.as_second()).unwrap_or(at));
        if let Some(written) = self.written.get_mut(&sentence) {
            written.count += 1;
            written.last = at;
            let patch = json!({"count": written.count, "lastTimestamp": time});
            match api.patch(&written.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(()),
                // It has expired: said anew below.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(e) => return Err(e),
            }
        }
        let about = &sentence.about;
        // Two sentences of one moment are written at two.
        let name = format!("{}.{:x}", about.name, Timestamp::now().as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(sentence.namespace.clone()),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some(about.kind.into()),
                name: Some(about.name.clone()),
                namespace: (about.kind == "Pod").then(|| sentence.namespace.clone()),
                uid: Some(about.uid.clone()),
                field_path: about.field.clone(),
                ..Default::default()
            },
            type_: Some(if sentence.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(sentence.reason.clone()),
            message: Some(sentence.message.clone()),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(self.node.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            count: Some(1),
            ..Default::default()
        };
        api.create(&PostParams::default(), &event).await?;
        self.written.insert(sentence, Written { name, count: 1, last: at });
        Ok(())
    }
}
