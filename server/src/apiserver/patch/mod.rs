//! The patches: JSON patch, JSON merge patch and strategic merge patch, each a function from tree and body to tree.
//!
//! All end the same way: what comes out is decoded as if it had been a body, so that a patch can't bring in what a
//! body couldn't. Server-side apply, the fourth, takes other inputs (managed fields, a manager): [`super::apply`].

#[cfg(test)]
mod cases;
mod golang;
mod json;
mod merge;
#[cfg(test)]
mod properties;
mod strategic;
#[cfg(test)]
mod tests;

use super::FieldValidation;
use super::decode::{self, Decoded, Target, any};
use longshore_api::{Status, field};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// How a patch's body is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

/// The media types of patches, as a 415 lists them.
pub const ACCEPTED: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    super::apply::MEDIA_TYPE,
];

impl PatchKind {
    pub fn of(content_type: Option<&str>) -> Result<Self, Status> {
        match decode::media_type(content_type).as_str() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            _ => Err(Status::unsupported_media_type(&ACCEPTED)),
        }
    }
}

/// Applies a patch to `current` (the object in the target's version) and decodes what comes out.
///
/// Pure: a writer whose update meets a conflict calls it again with the newer object. Errors are 400 for a body that is
/// no such patch, 413 for too many operations, 422 for one that can't be applied or whose outcome doesn't fit the type.
pub fn apply(
    kind: PatchKind,
    current: Value,
    body: &[u8],
    target: &Target<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    decode::bounded(body)?;
    let strict = validation != FieldValidation::Ignore;
    let (patch, duplicates) = any::document(body).map_err(|why| unreadable(kind, strict, &why))?;
    // A patch's duplicates are complaints like those of the outcome.
    let mut complaints = match kind {
        PatchKind::Json => duplicates.into_iter().map(|d| format!("json patch {d}")).collect(),
        PatchKind::Merge | PatchKind::Strategic => duplicates,
    };
    let (mut patched, touched) = match kind {
        PatchKind::Json => (json::apply(current, json_operations(patch, strict)?)?, None),
        PatchKind::Merge | PatchKind::Strategic => {
            let Value::Object(patch) = patch else { return Err(not_a_map(kind, strict, &patch)) };
            let touched = touched(&patch);
            let patched = match kind {
                PatchKind::Merge => merge::apply(current, patch.into()),
                _ => strategic::apply(as_map(current), patch, target.message()?)?.into(),
            };
            (patched, touched)
        }
    };
    let untouched = touched.map_or_else(Map::new, |touched| take_untouched(&mut patched, &touched));
    // What the error shows: the outcome, or for a strategic merge patch the patch.
    let invalid = |patched: Value, untouched: Map<String, Value>, why: String| {
        let shown = match kind {
            PatchKind::Strategic => any::document(body).map_or_else(|why| why, |(patch, _)| golang::shown(&patch)),
            PatchKind::Json | PatchKind::Merge => Value::Object(together(patched, untouched)).to_string(),
        };
        Status::invalid("", "", "", &[field::Error::invalid(&field::Path::new("patch"), shown, why)])
    };
    let outcome = match decode::tree(&patched, target, validation) {
        Ok(outcome) => outcome,
        Err(why) => return Err(invalid(patched, untouched, why)),
    };
    complaints.extend(outcome.complaints);
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        return Err(invalid(patched, untouched, decode::strict_error(&complaints)));
    }
    let tree = Value::Object(together(outcome.tree, untouched));
    let warnings = if validation == FieldValidation::Warn { complaints } else { Vec::new() };
    Ok(Decoded { tree, warnings })
}

/// The members that a patch changes; none where that can't be told without applying it.
fn touched(patch: &Map<String, Value>) -> Option<HashSet<String>> {
    let directive = patch.keys().any(|key| key.starts_with('$'));
    (!directive).then(|| patch.keys().cloned().collect())
}

/// Takes out what a patch has left as it was: the store's own, which needs no decoding. (A status is a small part of its pod.)
fn take_untouched(patched: &mut Value, touched: &HashSet<String>) -> Map<String, Value> {
    let all = as_map(patched.take());
    let is_touched = |key: &String| touched.contains(key) || matches!(key.as_str(), "kind" | "apiVersion");
    let (changed, untouched) = all.into_iter().partition::<Map<_, _>, _>(|(key, _)| is_touched(key));
    *patched = Value::Object(changed);
    untouched
}

fn together(tree: Value, untouched: Map<String, Value>) -> Map<String, Value> {
    let mut tree = as_map(tree);
    tree.extend(untouched);
    tree
}

fn as_map(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// A body that is no JSON.
fn unreadable(kind: PatchKind, strict: bool, why: &str) -> Status {
    match (kind, strict) {
        (PatchKind::Strategic, _) | (PatchKind::Json, false) => Status::bad_request(why),
        (PatchKind::Merge, false) => Status::bad_request("Invalid JSON Patch"),
        (_, true) => Status::bad_request(format!("error decoding patch: {why}")),
    }
}

fn not_a_map(kind: PatchKind, strict: bool, patch: &Value) -> Status {
    let what = any::go_kind(patch);
    unreadable(kind, strict, &format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"))
}

fn json_operations(patch: Value, strict: bool) -> Result<Vec<Value>, Status> {
    let r#type = if strict { "[]map[string]interface {}" } else { "jsonpatch.Patch" };
    match patch {
        Value::Array(operations) => match operations.iter().find(|o| !o.is_object()) {
            None => Ok(operations),
            Some(other) => {
                let (what, r#type) = (any::go_kind(other), r#type.trim_start_matches("[]"));
                let why = format!("json: cannot unmarshal {what} into Go value of type {type}");
                Err(unreadable(PatchKind::Json, strict, &why))
            }
        },
        other => {
            let what = any::go_kind(&other);
            Err(unreadable(
                PatchKind::Json,
                strict,
                &format!("json: cannot unmarshal {what} into Go value of type {type}"),
            ))
        }
    }
}
