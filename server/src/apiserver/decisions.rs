//! Why pods are where they are: the scheduler's last decisions, for whoever may read the pod.
//!
//! `GET /apis/longshore.dev/v1/namespaces/{namespace}/pods/{name}/scheduling` is no Kubernetes resource and stands in no
//! discovery document: Kubernetes's clients see Kubernetes. To the authorizer it is a `get` of the pod. `docs/scheduling.md`
//! says what it answers. What is kept is bounded and lives as long as the cluster is loaded; a pod of which nothing is
//! known any more (decided long ago, by another scheduler, or before a restart) is answered 404.

use super::api::{Api, Context};
use super::authorize::Attributes;
use super::options::GetOptions;
use crate::resources::registry;
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::meta::GroupResource;
use longshore_control::ObjectKey;
use longshore_control::scheduler::{Decision, Explanation, Explanations};
use parking_lot::Mutex;
use serde_json::{Value, json};

const GROUP: &str = "longshore.dev";
const VERSION: &str = "v1";
/// Pods of which the last decision is kept.
const KEPT: usize = 1000;

/// A cluster's last decisions.
pub struct Decisions(Mutex<Explanations>);

impl Default for Decisions {
    fn default() -> Self {
        Self(Mutex::new(Explanations::new(KEPT)))
    }
}

impl Decisions {
    /// Takes over what is news; and, after a restart, what isn't known yet.
    pub fn note(&self, decisions: &[Decision], now: Timestamp) {
        let mut all = self.0.lock();
        // Of a thousand that wait for the same reason, again and again, the newest are not worth more than those known.
        let room = KEPT.saturating_sub(all.len());
        let mut unknown = 0;
        for decision in decisions {
            let key = &decision.pod.key;
            let known = all.get(key).is_some_and(|e| e.uid == decision.pod.meta.uid);
            if decision.is_news() || (!known && unknown < room) {
                unknown += usize::from(!known);
                all.put((**key).clone(), decision.explanation(now));
            }
        }
    }

    fn get(&self, pod: &ObjectKey, uid: &str) -> Option<Explanation> {
        self.0.lock().get(pod).filter(|e| e.uid == uid).cloned()
    }
}

/// A question about a pod's scheduling, as the authorizer is to see it; none for any other request.
pub fn as_pod(asked: &Attributes) -> Option<Attributes> {
    let ours = asked.group == GROUP && asked.version == VERSION;
    let about = asked.resource == "pods" && asked.subresource == "scheduling" && !asked.namespace.is_empty();
    (ours && about).then(|| Attributes {
        group: String::new(),
        version: "v1".into(),
        subresource: String::new(),
        ..asked.clone()
    })
}

impl Api {
    /// The last decision about a pod.
    pub async fn scheduling(&self, cx: &Context, namespace: &str, name: &str) -> Result<Value, Status> {
        let pods = registry().by_name("pods").ok_or_else(Status::no_such_path)?;
        let pod = self.get(cx, pods, namespace, name, &GetOptions::default()).await?;
        let found = cx.cluster.companion::<Decisions>().get(&ObjectKey::new("pods", namespace, name), &pod.uid);
        let missing = || Status::not_found(&GroupResource::new(GROUP, "pods/scheduling"), name);
        Ok(shown(namespace, name, found.ok_or_else(missing)?))
    }
}

fn shown(namespace: &str, name: &str, explanation: Explanation) -> Value {
    let Explanation { uid, at, node, message, nominated, victims, profile, why } = explanation;
    let parts = |parts: &[(&'static str, i64)]| -> Vec<Value> {
        parts.iter().map(|(name, points)| json!({"name": name, "score": points})).collect()
    };
    let best = why.best.iter().map(|s| json!({"node": s.node, "score": s.total, "parts": parts(&s.parts)}));
    let refused = why.refused.iter().map(|(reason, nodes)| json!({"reason": reason, "nodes": nodes}));
    json!({
        "kind": "PodScheduling",
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {"name": name, "namespace": namespace},
        "podUID": uid,
        "time": super::metadata::time(at),
        "schedulerName": profile,
        "nodeName": node.unwrap_or_default(),
        "message": message.as_deref().unwrap_or_default(),
        "nominatedNodeName": nominated.unwrap_or_default(),
        "victims": victims,
        "nodes": why.nodes,
        "feasibleNodes": why.feasible,
        "refused": refused.collect::<Vec<Value>>(),
        "best": best.collect::<Vec<Value>>(),
    })
}
