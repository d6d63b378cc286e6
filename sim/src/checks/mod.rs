//! What must always hold, as sentences: each a function of its name, asked at every commit.
//!
//! They read the log's own state, not a controller's view, so each leaves room for what nobody can know yet: a decision
//! rests on a state that was true a moment ago. How much room is said at each.

pub mod end;
mod model;
mod rollout;
mod services;
#[cfg(test)]
mod tests;

pub use model::{Model, Step};

use longshore_server::store::ChangeKind;
use rollout::{
    never_asks_for_more_than_replicas_plus_surge, never_fewer_available_than_allowed,
    never_more_pods_than_their_replica_set_wants,
};
use serde_json::Value;
use services::services_name_as_ready_what_was_ready_of_late;

/// A sentence: Err says how it was broken. The model is the state before the step.
pub type Sentence = fn(&Model, &Step) -> Result<(), String>;

macro_rules! sentences {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as Sentence)),*] };
}

/// All that is checked at each commit.
pub const SAFETY: &[(&str, Sentence)] = sentences![
    a_pod_is_bound_once,
    an_objects_identity_never_changes,
    a_deletion_is_never_taken_back,
    nothing_goes_while_finalizers_stand,
    a_deleted_pods_object_stays_until_its_node_confirms,
    never_asks_for_more_than_replicas_plus_surge,
    never_more_pods_than_their_replica_set_wants,
    never_fewer_available_than_allowed,
    services_name_as_ready_what_was_ready_of_late,
];

/// As `Value::pointer`, without its escapes: sentences look at every object at every commit.
fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').skip(1).try_fold(object, |value, field| value.get(field))
}

pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub fn is_terminating(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The uid of the owner that controls it.
pub fn controller(object: &Value) -> Option<&str> {
    let owners = at(object, "/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|o| o["controller"] == true)?["uid"].as_str()
}

/// Whether a pod counts as one of its controller's: neither finished nor on its way out.
pub fn is_active(pod: &Value) -> bool {
    !is_terminating(pod) && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = at(pod, "/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A pod that has a node keeps it for life.
fn a_pod_is_bound_once(_: &Model, step: &Step) -> Result<(), String> {
    let Some((before, after)) = step.update("pods") else { return Ok(()) };
    let (old, new) = (text(before, "/spec/nodeName"), text(after, "/spec/nodeName"));
    match uid(before) == uid(after) && !old.is_empty() && old != new {
        true => Err(format!("{} was on {old} and is bound to {new:?}", step.name())),
        false => Ok(()),
    }
}

/// An update never makes an object another one.
fn an_objects_identity_never_changes(_: &Model, step: &Step) -> Result<(), String> {
    let (Some(before), Some(after)) = (&step.before, &step.entry.object) else { return Ok(()) };
    match step.entry.kind {
        ChangeKind::Updated if uid(before) != uid(after) => {
            Err(format!("{} was {} and is {}", step.name(), uid(before), uid(after)))
        }
        ChangeKind::Created => Err(format!("{} is created and is there already", step.name())),
        _ => Ok(()),
    }
}

/// What is marked for deletion stays marked.
fn a_deletion_is_never_taken_back(_: &Model, step: &Step) -> Result<(), String> {
    let (Some(before), Some(after)) = (&step.before, &step.entry.object) else { return Ok(()) };
    match step.entry.kind == ChangeKind::Updated && is_terminating(before) && !is_terminating(after) {
        true => Err(format!("{} was marked for deletion and is not any more", step.name())),
        false => Ok(()),
    }
}

/// An object with finalizers is there until the last of them is taken away.
fn nothing_goes_while_finalizers_stand(_: &Model, step: &Step) -> Result<(), String> {
    let Some(last) = step.entry.object.as_ref().filter(|_| step.entry.kind == ChangeKind::Deleted) else {
        return Ok(());
    };
    let finalizers = last.pointer("/metadata/finalizers").and_then(Value::as_array);
    match finalizers.filter(|f| !f.is_empty()) {
        Some(finalizers) => Err(format!("{} goes with {finalizers:?}", step.name())),
        None => Ok(()),
    }
}

/// The object of a pod that runs somewhere goes only when its node says that it runs no more; or when somebody with the
/// right to do so took it away by force.
fn a_deleted_pods_object_stays_until_its_node_confirms(model: &Model, step: &Step) -> Result<(), String> {
    if step.entry.kind != ChangeKind::Deleted || *step.entry.key.resource != *"pods" {
        return Ok(());
    }
    let Some(before) = &step.before else { return Ok(()) };
    let uid = uid(before);
    // A grace of nothing, in the spec, is such a right.
    let forced = model.is_forced(uid) || before.pointer("/spec/terminationGracePeriodSeconds") == Some(&0.into());
    match model.running(uid).first().filter(|_| !forced) {
        Some((node, container)) => Err(format!("{} ({uid}) is gone, and {container} runs on {node}", step.name())),
        None => Ok(()),
    }
}

/// A change in words.
pub fn words(step: &Step, replica: &str) -> String {
    let what = match step.entry.kind {
        ChangeKind::Created => "+",
        ChangeKind::Updated => "~",
        ChangeKind::Deleted => "-",
    };
    let mut words = format!("{:>6} {what} {} by {replica}", step.entry.revision, step.name());
    if let Some(object) = &step.entry.object {
        words.push_str(&model::summary(&step.entry.key.resource, object));
    }
    words
}
