//! The patches: JSON patch, JSON merge patch and strategic merge patch, each a function from tree and body to tree.
//!
//! All end the same way: what comes out is decoded as if it had been a body, so that a patch can't bring in what a
//! body couldn't. Server-side apply, the fourth, takes other inputs (managed fields, a manager) and will stand beside
//! them; until then its content type is answered 415 with the list of those that are spoken.

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
use serde_json::Value;

/// How a patch's body is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

/// The media types of patches, as a 415 lists them.
pub const ACCEPTED: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

impl PatchKind {
    /// Parameters of the content type don't count.
    pub fn of(content_type: Option<&str>) -> Result<Self, Status> {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
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
    current: &Value,
    body: &[u8],
    target: &Target<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if body.len() > decode::MAX_BODY {
        return Err(Status::too_large(format!("Request entity too large: limit is {}", decode::MAX_BODY)));
    }
    let strict = validation != FieldValidation::Ignore;
    let (patch, duplicates) = any::document(body).map_err(|why| unreadable(kind, strict, &why))?;
    // A patch's duplicates are complaints like those of the outcome.
    let mut complaints = match kind {
        PatchKind::Json => duplicates.into_iter().map(|d| format!("json patch {d}")).collect(),
        PatchKind::Merge | PatchKind::Strategic => duplicates,
    };
    let (patched, shown) = match kind {
        PatchKind::Json => {
            let patched = json::apply(current.clone(), json_operations(patch, strict)?)?;
            (patched, None)
        }
        PatchKind::Merge => {
            let Value::Object(_) = patch else { return Err(not_a_map(kind, strict, &patch)) };
            (merge::apply(current.clone(), patch), None)
        }
        PatchKind::Strategic => {
            let Value::Object(patch) = patch else { return Err(not_a_map(kind, strict, &patch)) };
            let shown = golang::shown(&Value::Object(patch.clone()));
            let original = current.as_object().cloned().unwrap_or_default();
            (Value::Object(strategic::apply(original, patch, target.message()?)?), Some(shown))
        }
    };
    // What the error shows: the outcome, or for a strategic merge patch the patch.
    let invalid = |why: String| {
        let shown = shown.clone().unwrap_or_else(|| patched.to_string());
        Status::invalid("", "", "", &[field::Error::invalid(&field::Path::new("patch"), shown, why)])
    };
    let outcome = decode::tree(&patched, target, validation).map_err(&invalid)?;
    complaints.extend(outcome.complaints);
    match validation {
        FieldValidation::Strict if !complaints.is_empty() => Err(invalid(decode::strict_error(&complaints))),
        FieldValidation::Warn => Ok(Decoded { tree: outcome.tree, warnings: complaints }),
        _ => Ok(Decoded { tree: outcome.tree, warnings: Vec::new() }),
    }
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
