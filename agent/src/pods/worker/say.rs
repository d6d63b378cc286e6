//! What the worker says of its pod, and what it hears: the object's status, there and back.

use super::Worker;
use crate::node::events::Precedence;
use crate::pods::plan::{Ending, Plan};
use crate::pods::told::Told;
use crate::pods::{spec, status};
use crate::runtime::Record;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::Value;
use std::time::Duration;

/// A server that takes longer is told again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A status on its way.
pub struct Word {
    api: Api<Pod>,
    name: String,
    patch: Value,
    /// What the server knew before it, and knows after.
    before: PodStatus,
    status: PodStatus,
    precedence: Precedence,
}

/// What became of it.
pub enum Answer {
    /// The server has it; with the object that came of it, unless that is gone.
    Taken {
        before: PodStatus,
        status: PodStatus,
        object: Option<Box<Pod>>,
    },
    NotTaken,
}

impl Word {
    pub async fn say(self) -> Answer {
        let Self { api, name, patch, before, status, precedence } = self;
        let (params, patch) = (PatchParams::default(), Patch::Strategic(&patch));
        let answered = tokio::time::timeout(PATIENCE, api.patch_status(&name, &params, &patch)).await;
        drop(precedence);
        match answered {
            Ok(Ok(object)) => Answer::Taken { before, status, object: Some(Box::new(object)) },
            // Gone: there is nobody to tell. (A conflict may pass; where another pod has the name, we hear of it soon.)
            Ok(Err(kube::Error::Api(refusal))) if refusal.code == 404 => Answer::Taken { before, status, object: None },
            Ok(Err(error)) => {
                tracing::debug!(pod = name, %error, "a status was not written");
                Answer::NotTaken
            }
            Err(_) => Answer::NotTaken,
        }
    }
}

impl Worker {
    /// What there is to say, as things stand; none where the server knows it, or nobody is there to hear.
    pub(super) fn word(
        &mut self,
        pod: &Pod,
        records: &[Record],
        plan: &Plan,
        ending: Option<Ending>,
        now: Timestamp,
    ) -> Option<Word> {
        let hosts = self.context.machine.read().addresses.clone();
        let health = self.probes.health();
        let status = status::status(&status::Input {
            pod,
            last: &self.last,
            records,
            health: &health,
            memory: &self.memory,
            crash_loops: &plan.crash_loops,
            messages: &self.findings.messages,
            image_ids: &self.findings.image_ids,
            ips: &self.ips,
            host_ips: &hosts,
            ending,
            refusal: self.refusal.as_ref().filter(|_| ending == Some(Ending::Refused)),
            finished: plan.finished,
            now,
        });
        self.last = status;
        self.context.pods.said(spec::uid(pod), &self.last);
        let removed = self.wanted.borrow().removed;
        let Some(patch) = status::patch(spec::uid(pod), self.told.said(), &self.last).filter(|_| !removed) else {
            self.unsaid = false;
            return None;
        };
        let api = Api::namespaced(self.context.client.clone(), spec::namespace(pod));
        let precedence = self.context.events.precede();
        let (before, status) = (self.told.said().clone(), self.last.clone());
        Some(Word { api, name: spec::name(pod).to_owned(), patch, before, status, precedence })
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        self.unsaid = matches!(answer, Answer::NotTaken);
        if let Answer::Taken { before, status, object } = answer {
            match object {
                Some(pod) => {
                    self.told.taken(&before, status, pod.status.as_ref().unwrap_or(&PodStatus::default()));
                    // What others wrote before it is in there, too, also where the watch was faster.
                    if version(&pod) >= self.heard {
                        self.compare(&pod);
                    }
                }
                None => self.told = Told::new(status),
            }
        }
    }

    /// Compares what the server has with what was said, unless it was heard already.
    pub(super) fn hear(&mut self, pod: &Pod) {
        if version(pod) > self.heard {
            self.compare(pod);
        }
    }

    fn compare(&mut self, pod: &Pod) {
        let Some(status) = &pod.status else { return };
        self.heard = version(pod);
        status::overruled(&mut self.last, status);
        if self.told.hear(status) {
            self.wake.notify_one();
        }
    }
}

/// Resource versions are ordered numbers.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
