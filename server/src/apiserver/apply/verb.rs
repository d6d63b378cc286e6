//! The verb: a patch of the media type [`MEDIA_TYPE`], which makes what isn't there.

use super::shape::Shape;
use super::{MEDIA_TYPE, Note};
use crate::apiserver::FieldValidation;
use crate::apiserver::api::{self, Api, Context, Written};
use crate::apiserver::decode::{self, Target};
use crate::apiserver::metadata;
use crate::apiserver::options::{CreateOptions, PatchOptions};
use crate::apiserver::patch;
use crate::apiserver::write::{Owners, Part, same_object, same_place};
use crate::resources::Resource;
use longshore_api::Status;
use longshore_api::field::{Error, Path};
use serde_json::Value;

/// How often the object may come and go while it is applied.
const ATTEMPTS: usize = 8;

impl PatchOptions {
    /// Whether they fit a patch of this media type, in Kubernetes's words.
    pub(in crate::apiserver) fn check(&self, applies: bool) -> Result<(), Status> {
        let problem = match (applies, self.force) {
            (true, _) if self.field_manager.is_empty() => {
                Error::required(&Path::new("fieldManager"), "is required for apply patch")
            }
            (false, Some(_)) => Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"),
            _ => return Ok(()),
        };
        Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[problem]))
    }
}

/// Whether a content type is apply's.
pub fn is_spoken(content_type: Option<&str>) -> bool {
    decode::media_type(content_type) == MEDIA_TYPE
}

impl Api {
    /// Applies `body` (YAML or JSON) to an object or to its status.
    pub async fn apply(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        body: &[u8],
        options: &PatchOptions,
    ) -> Result<Written, Status> {
        let part = Part::of(subresource)?;
        if !matches!(part, Part::Main | Part::Status) {
            return Err(Status::unsupported_media_type(&patch::ACCEPTED[..3]));
        }
        let (decoded, written) = decode::with_written(body, &Target::from(resource), options.field_validation)?;
        if metadata::is_set(&decoded.tree, "managedFields") {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let (kind, api_version, now) = (api::stored(resource), resource.api_version(), metadata::time(cx.now));
        let whole = Shape::Struct(Target::from(resource).message()?);
        let mut wanted = api::to_storage(resource, whole.as_written(&written, decoded.tree));
        let place = metadata::of(&mut wanted);
        for (field, value) in [("name", name), ("namespace", namespace)] {
            if !value.is_empty() && place.get(field).is_none_or(|given| given.is_null() || given == "") {
                place.insert(field.into(), value.into());
            }
        }
        same_place(&wanted, namespace, name)?;
        let note = Note {
            message: Target::from(kind).message()?,
            manager: &options.field_manager,
            api_version: &api_version,
            subresource: subresource.unwrap_or_default(),
            now: &now,
        };
        let force = options.force == Some(true);
        let shown = || format!("{namespace}/{name}; {api_version}, Kind={}", resource.kind);
        let apply = |live: Option<&Value>| {
            let mut new = note.applied(live, &wanted, force).map_err(|refusal| refusal.status(&shown()))?;
            let managed = metadata::of(&mut new).remove("managedFields");
            let new = decode::tree(&new, &Target::from(kind), FieldValidation::Ignore).map_err(Status::bad_request)?;
            Ok::<_, Status>((new.tree, managed))
        };
        for _ in 0..ATTEMPTS {
            let mut warnings = decoded.warnings.clone();
            let amended = self
                .amend(cx, resource, api::key(kind, namespace, name), options.dry_run, |old, object| {
                    let (new, managed) = apply(Some(old))?;
                    same_object(resource, &new, object)?;
                    let (step, said) = self.judge_update(cx, resource, part, new, old, Owners::Are(managed))?;
                    warnings = decoded.warnings.iter().cloned().chain(said).collect();
                    Ok(step)
                })
                .await;
            match amended {
                Ok(amended) => return Ok(Written { object: amended.object(), warnings, created: false }),
                Err(status) if status.code == 404 && part == Part::Main => {}
                Err(status) => return Err(status),
            }
            let uid = metadata::text(&wanted, "uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Status::conflict(&resource.group_resource(), name, &why));
            }
            let (new, managed) = apply(None)?;
            let create = CreateOptions { dry_run: options.dry_run, field_manager: options.field_manager.clone() };
            let body = api::from_storage(resource, new);
            match self.make(cx, resource, namespace, body, &create, managed).await {
                // Somebody else was quicker.
                Err(status) if status.reason == "AlreadyExists" => {}
                Err(status) => return Err(status),
                Ok(mut written) => {
                    written.warnings.splice(..0, decoded.warnings);
                    return Ok(written);
                }
            }
        }
        Err(Status::modified(&resource.group_resource(), name))
    }
}
