//! Binding a pod to a node, and evicting one: writes to a pod that stand behind names of their own.

use super::api::{self, Api, Context, Deleted};
use super::metadata;
use super::options::DeleteOptions;
use crate::resources::{Resource, registry};
use crate::store::{Object, Write, WriteError};
use longshore_api::Status;
use longshore_api::field::{Error, Path};
use longshore_api::meta::GroupResource;
use serde_json::{Value, json};

/// A pod and the node it is to run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    pub namespace: String,
    pub name: String,
    /// Refused when the pod is another one by now; empty for whichever it is.
    pub uid: String,
    pub node: String,
    /// Added to the pod's own.
    pub annotations: serde_json::Map<String, Value>,
}

impl Binding {
    /// Reads a `v1` Binding; `namespace` and `name` are those of the path (the name may stand in the body alone).
    pub fn read(namespace: &str, name: &str, body: &Value) -> Result<Self, Status> {
        let given = metadata::text(body, "name");
        let name = if name.is_empty() { given } else { name };
        if !given.is_empty() && given != name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let target = &body["target"];
        let text = |field: &str| target[field].as_str().unwrap_or_default();
        let mut problems = Vec::new();
        let at = Path::new("target");
        if !matches!(text("kind"), "" | "Node") {
            problems.push(Error::not_supported(&at.child("kind"), text("kind"), &["Node", "<empty>"]));
        }
        if text("name").is_empty() {
            problems.push(Error::required(&at.child("name"), ""));
        }
        if !problems.is_empty() {
            return Err(Status::invalid("", "Binding", name, &problems));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
            uid: metadata::text(body, "uid").into(),
            node: text("name").into(),
            annotations: body["metadata"]["annotations"].as_object().cloned().unwrap_or_default(),
        })
    }
}

/// How often bindings that met another write are judged anew.
const ROUNDS: usize = 8;

impl Api {
    /// Binds pods to nodes, all in one batch of the log; each answer is its binding's own.
    pub async fn bind(&self, cx: &Context, bindings: &[Binding]) -> Vec<Result<(), Status>> {
        let Some(pods) = registry().by_name("pods") else {
            return bindings.iter().map(|_| Err(Status::no_such_path())).collect();
        };
        let mut answers: Vec<Option<Result<(), Status>>> = bindings.iter().map(|_| None).collect();
        for _ in 0..ROUNDS {
            let (mut places, mut writes, mut waits) = (Vec::new(), Vec::new(), Vec::new());
            for (i, binding) in bindings.iter().enumerate() {
                if answers[i].is_some() {
                    continue;
                }
                let key = api::key(pods, &binding.namespace, &binding.name);
                let newest = match cx.cluster.newest(&key) {
                    Ok(newest) => newest,
                    Err(error) => {
                        answers[i] = Some(Err(super::errors::store(error)));
                        continue;
                    }
                };
                match newest.object.as_deref().map(|pod| bound(cx, pods, binding, pod)) {
                    Some(Ok(write)) => {
                        places.push(i);
                        writes.push(write);
                    }
                    Some(Err(refusal)) => waits.push((i, newest.commit, refusal)),
                    None => waits.push((i, newest.commit, Status::not_found(&pods.group_resource(), &binding.name))),
                }
            }
            for (i, commit, refusal) in waits {
                let settled = match commit {
                    Some(commit) => commit.wait().await.is_ok(),
                    None => true,
                };
                answers[i] = settled.then_some(Err(refusal));
            }
            for (i, outcome) in places.iter().zip(cx.cluster.commit_all(writes).await) {
                answers[*i] = match outcome {
                    Ok(_) => Some(Ok(())),
                    Err(WriteError::Conflict | WriteError::NotFound) => None,
                    Err(error) => Some(Err(super::errors::write(error, pods, &bindings[*i].name))),
                };
            }
            if answers.iter().all(Option::is_some) {
                break;
            }
        }
        let unsettled = |binding: &Binding| Err(Status::modified(&pods.group_resource(), &binding.name));
        answers
            .into_iter()
            .zip(bindings)
            .map(|(answer, binding)| answer.unwrap_or_else(|| unsettled(binding)))
            .collect()
    }

    /// Deletes a pod because it has to leave. Disruption budgets will have their say here.
    pub async fn evict(&self, cx: &Context, namespace: &str, name: &str, body: &Value) -> Result<Deleted, Status> {
        let pods = registry().by_name("pods").ok_or_else(Status::no_such_path)?;
        let given = metadata::text(body, "name");
        if !given.is_empty() && given != name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = DeleteOptions::from_body(&body["deleteOptions"])?;
        self.delete(cx, pods, namespace, name, &options).await
    }
}

/// The pod, bound.
fn bound(cx: &Context, pods: &'static Resource, binding: &Binding, pod: &Object) -> Result<Write, Status> {
    let name = &binding.name;
    let conflict = |why: String| Status::conflict(&GroupResource::new("", "pods/binding"), name, &why);
    if !binding.uid.is_empty() && *binding.uid != *pod.uid {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", binding.uid, pod.uid);
        return Err(Status::conflict(&pods.group_resource(), name, &why));
    }
    let mut tree = pod.tree();
    if metadata::is_set(&tree, "deletionTimestamp") {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    if let Some(node) = tree["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return Err(conflict(format!("pod {name} is already assigned to node {node:?}")));
    }
    tree["spec"]["nodeName"] = binding.node.as_str().into();
    if !binding.annotations.is_empty() {
        let annotations = metadata::of(&mut tree).entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.extend(binding.annotations.clone());
        }
    }
    set_scheduled(&mut tree, cx);
    if let Some(status) = tree["status"].as_object_mut() {
        // It is where it was to be, or elsewhere: either way the room that was kept for it is free again.
        status.remove("nominatedNodeName");
    }
    let key = pod.key.clone();
    Ok(Write::Update { draft: api::draft(pods, key, &tree), expected: pod.revision })
}

fn set_scheduled(pod: &mut Value, cx: &Context) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": metadata::time(cx.now),
    });
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(there) => *there = condition,
        None => conditions.push(condition),
    }
}
