//! What services name while things happen; what they name at rest is asked at the end.

use super::{Model, Step, is_active, is_ready, text, uid};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long ago a pod may have been ready that is named now: what was decided may wait for the store for 25 seconds, and be
/// committed late. Kubernetes promises no bound; one that names a pod that has never been ready breaks any.
const STALE: Duration = Duration::from_secs(60);

/// Whether a service sends something to the pod.
fn serves(pod: &Value) -> bool {
    is_active(pod) && is_ready(pod)
}

/// When pods that are not ready any more were so last, by uid.
#[derive(Default)]
pub struct Readiness(BTreeMap<String, Duration>);

impl Readiness {
    pub fn note(&mut self, step: &Step) {
        if let Some(before) = step.before.as_deref().filter(|pod| serves(pod)) {
            self.0.insert(uid(before).to_string(), step.at);
        }
    }

    fn was_ready(&self, pod: &str, at: Duration) -> bool {
        self.0.get(pod).is_some_and(|last| *last + STALE >= at)
    }
}

/// The references to pods that a slice or an Endpoints object calls ready.
fn named<'a>(resource: &str, object: &'a Value) -> Vec<&'a Value> {
    let list = |value: &'a Value| value.as_array().into_iter().flatten();
    let all: Vec<&Value> = match resource {
        "endpointslices.discovery.k8s.io" => {
            list(&object["endpoints"]).filter(|e| e["conditions"]["ready"] == true).collect()
        }
        "endpoints" => list(&object["subsets"]).flat_map(|subset| list(&subset["addresses"])).collect(),
        _ => Vec::new(),
    };
    all.into_iter().map(|endpoint| &endpoint["targetRef"]).filter(|pod| pod["kind"] == "Pod").collect()
}

/// Who is written down as ready is so, or was a moment ago: nothing is sent to a pod that isn't ready yet, or isn't any more.
pub fn services_name_as_ready_what_was_ready_of_late(model: &Model, step: &Step) -> Result<(), String> {
    let Some(after) = step.after() else { return Ok(()) };
    for pod in named(&step.entry.key.resource, after) {
        let (id, name) = (text(pod, "/uid"), text(pod, "/name"));
        let now = model.named("pods", text(pod, "/namespace"), name).filter(|pod| uid(pod) == id);
        if !now.is_some_and(|pod| serves(&pod)) && !model.readiness.was_ready(id, step.at) {
            return Err(format!("{} names {name} ({id}) as ready, which it has not been for {STALE:?}", step.name()));
        }
    }
    Ok(())
}
