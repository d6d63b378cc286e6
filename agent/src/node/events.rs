//! Events: what the node has to say about its pods, in the kubelet's words.
//!
//! Saying must never hold up doing: a bounded queue, one writer, what doesn't fit is dropped (and logged). A sentence
//! said again is counted on the Event that exists, and an object that says too much is cut off, as client-go does it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// How many sentences may wait for the server.
const QUEUE: usize = 512;
/// How many sentences are remembered for counting.
const REMEMBERED: usize = 4096;
/// One object may say this much at once, then one more each five minutes.
const BURST: f64 = 25.0;
const REFILL: SignedDuration = SignedDuration::from_mins(5);

#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Sentence>,
    _writer: std::sync::Arc<AbortOnDropHandle<()>>,
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
        let writer = Writer { client, node: node.to_owned(), said: HashMap::new(), budgets: HashMap::new() };
        Self { queue, _writer: std::sync::Arc::new(AbortOnDropHandle::new(tokio::spawn(writer.run(receiver)))) }
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
        if self.queue.try_send(sentence).is_err() {
            tracing::debug!("the queue of events is full; one was dropped");
        }
    }
}

struct Writer {
    client: kube::Client,
    node: String,
    said: HashMap<Sentence, Said>,
    budgets: HashMap<String, Budget>,
}

struct Said {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Budget {
    left: f64,
    at: Timestamp,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Sentence>) {
        while let Some(sentence) = queue.recv().await {
            let now = Timestamp::now();
            self.forget(now);
            if !self.within_budget(&sentence, now) {
                continue;
            }
            if let Err(e) = self.write(sentence, now).await {
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
        if self.said.len() > REMEMBERED {
            self.said.retain(|_, said| now.duration_since(said.last) < SignedDuration::from_mins(10));
            if self.said.len() > REMEMBERED {
                self.said.clear();
            }
        }
        if self.budgets.len() > REMEMBERED {
            self.budgets.clear();
        }
    }

    async fn write(&mut self, sentence: Sentence, now: Timestamp) -> Result<(), kube::Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &sentence.namespace);
        let time = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        if let Some(said) = self.said.get_mut(&sentence) {
            said.count += 1;
            said.last = now;
            let patch = json!({"count": said.count, "lastTimestamp": time});
            match api.patch(&said.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(()),
                // It has expired: said anew below.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(e) => return Err(e),
            }
        }
        let about = &sentence.about;
        let name = format!("{}.{:x}", about.name, now.as_nanosecond());
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
        self.said.insert(sentence, Said { name, count: 1, last: now });
        Ok(())
    }
}
