//! Request bodies → one tree, whatever their encoding.
//!
//! JSON, YAML and protobuf end as the same `serde_json::Value` with Kubernetes's JSON names, pruned to the fields the
//! type has, its scalars in canonical form, zero values left out where Kubernetes leaves them out. Everything behind
//! this room (admission, defaults, validation, the store) sees only such trees.
//!
//! What bounds a hostile body: its bytes (the listener's limit and `MAX_BODY`), nesting and objects (`bounds`), and
//! for YAML what aliases multiply.

pub(crate) mod any;
pub(crate) mod bounds;
mod golang;
mod json;
mod protobuf;
mod scalars;
mod typed;
mod yaml;

use super::FieldValidation;
use super::schema::{Message, schema};
use longshore_api::Status;
use longshore_api::meta::GroupVersion;
use serde_json::Value;

/// Kubernetes's own limit for a request body.
pub const MAX_BODY: usize = crate::store::MOST_BYTES;

/// What a body should hold: the kind that the path asks for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// In the table of types: `io.k8s.api.apps.v1.Deployment`.
    pub type_name: &'a str,
}

impl Target<'static> {
    /// `DeleteOptions`, which clients may send under any group's version.
    pub const DELETE_OPTIONS: Self = Self {
        group: "meta.k8s.io",
        version: "v1",
        kind: "DeleteOptions",
        type_name: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    };
    pub const SCALE: Self =
        Self { group: "autoscaling", version: "v1", kind: "Scale", type_name: "io.k8s.api.autoscaling.v1.Scale" };
    pub const BINDING: Self =
        Self { group: "", version: "v1", kind: "Binding", type_name: "io.k8s.api.core.v1.Binding" };
    pub const EVICTION: Self =
        Self { group: "policy", version: "v1", kind: "Eviction", type_name: "io.k8s.api.policy.v1.Eviction" };
    pub const TOKEN_REQUEST: Self = Self {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        type_name: "io.k8s.api.authentication.v1.TokenRequest",
    };
}

impl<'a> From<&'a crate::resources::Resource> for Target<'a> {
    fn from(r: &'a crate::resources::Resource) -> Self {
        Self { group: r.group, version: r.version, kind: r.kind, type_name: r.type_name }
    }
}

impl Target<'_> {
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group, self.version)
    }

    pub(crate) fn message(&self) -> Result<&'static Message, Status> {
        schema().find(self.type_name).ok_or_else(|| Status::internal(format!("no type {}", self.type_name)))
    }

    fn is_delete_options(&self) -> bool {
        self.kind == Target::DELETE_OPTIONS.kind
    }
}

/// A body as a tree. `kind` and `apiVersion` are those of the target.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub tree: Value,
    /// For the `Warning` header: `unknown field "spec.foo"`.
    pub warnings: Vec<String>,
}

/// The media types of bodies, as a 415 lists them.
pub const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    /// A body without a content type is JSON, as in Kubernetes.
    fn of(content_type: Option<&str>) -> Result<Self, Status> {
        match media_type(content_type).as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" => Ok(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            _ => Err(Status::unsupported_media_type(&ACCEPTED)),
        }
    }
}

/// Of a `Content-Type` header, in lower case. Parameters (`charset=utf-8`) don't count.
pub(crate) fn media_type(content_type: Option<&str>) -> String {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Decodes a request's body.
///
/// `apiVersion` and `kind` that the body leaves out are those of the target; others than the target's are errors in
/// Kubernetes's words: 400 for whatever can't be read, doesn't fit the type or fails strict validation, 413 for a body
/// that is too large, 415 for an encoding nobody speaks.
pub fn body(
    content_type: Option<&str>,
    bytes: &[u8],
    target: &Target<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    bounded(bytes)?;
    match Encoding::of(content_type)? {
        Encoding::Json => json::body(bytes, target, validation),
        Encoding::Yaml => yaml::body(bytes, target, validation).map(|(decoded, _)| decoded),
        Encoding::Protobuf => protobuf::body(bytes, target, validation),
    }
}

/// A YAML (or JSON) body, and the same as it is written, which says more than its decoded form: that a field was set to
/// nothing.
pub(crate) fn with_written(
    bytes: &[u8],
    target: &Target<'_>,
    validation: FieldValidation,
) -> Result<(Decoded, Value), Status> {
    bounded(bytes)?;
    yaml::body(bytes, target, validation)
}

pub(crate) fn bounded(bytes: &[u8]) -> Result<(), Status> {
    match bytes.len() > MAX_BODY {
        true => Err(too_large()),
        false => Ok(()),
    }
}

/// Of a body, and of an object that would become as large.
pub fn too_large() -> Status {
    Status::too_large(format!("Request entity too large: limit is {MAX_BODY}"))
}

/// A tree that was changed since it was decoded (by a patch, by a controller) → as `body` would have it. The error is
/// the bare sentence, which callers put into theirs.
pub(crate) fn tree(value: &Value, target: &Target<'_>, validation: FieldValidation) -> Result<Strict, String> {
    let message = schema().find(target.type_name).ok_or_else(|| format!("no type {}", target.type_name))?;
    let read = typed::read(message, value, validation != FieldValidation::Ignore).map_err(|e| e.to_string())?;
    let (mut tree, complaints) = read?;
    head(&mut tree, target);
    Ok(Strict { tree, complaints })
}

/// A decoded tree and what strict validation has against it.
#[derive(Debug)]
pub(crate) struct Strict {
    pub tree: Value,
    pub complaints: Vec<String>,
}

/// The kind and group version that a body says it has, with those of the target where it says nothing.
struct Head {
    api_version: String,
    kind: String,
}

impl Head {
    fn new(api_version: &str, kind: &str, target: &Target<'_>) -> Self {
        // A kind without a version (and the other way round) takes only what is missing.
        let api_version =
            if api_version.is_empty() { target.group_version().to_string() } else { api_version.to_string() };
        Self { api_version, kind: if kind.is_empty() { target.kind.into() } else { kind.into() } }
    }

    /// The message to decode by. A kind that is known but another one than the target's fails here as Kubernetes's
    /// conversion does, an unknown one as its scheme does.
    fn message(&self, target: &Target<'_>) -> Result<&'static Message, String> {
        let at = GroupVersion::parse(&self.api_version)?;
        let wanted = schema().find(target.type_name).ok_or_else(|| format!("no type {}", target.type_name))?;
        if self.kind == target.kind && (at == target.group_version() || target.is_delete_options()) {
            return Ok(wanted);
        }
        match schema().find_kind(&at.group, &at.version, &self.kind) {
            Some(found) if self.kind == target.kind => Ok(found),
            Some(found) => Err(format!(
                "converting ({}) to ({}.{}): unknown conversion",
                found.go_type(),
                wanted.internal_package(),
                target.kind
            )),
            None if schema().knows_version(&at.group, &at.version) || !self.kind.is_empty() => Err(format!(
                "no kind {:?} is registered for version {:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
                self.kind, self.api_version
            )),
            None => Err(format!("no version {:?} has been registered", self.api_version)),
        }
    }

    /// After decoding: a version of the right kind that the path doesn't serve.
    fn check_version(&self, target: &Target<'_>) -> Result<(), Status> {
        let expected = target.group_version().to_string();
        if self.api_version == expected || target.is_delete_options() {
            return Ok(());
        }
        Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({expected})",
            self.api_version
        )))
    }

    /// What Kubernetes says about a body whose head could be read and whose rest could not.
    fn refuse(&self, target: &Target<'_>, why: &str) -> Status {
        let version = self.api_version.rsplit('/').next().unwrap_or_default();
        Status::bad_request(format!(
            "{} in version {version:?} cannot be handled as a {}: {why}",
            self.kind, target.kind
        ))
    }
}

/// What Kubernetes says about a body of which not even the kind could be read.
fn unrecognized(target: &Target<'_>, why: &str, bytes: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        target.kind,
        golang::summary(bytes)
    ))
}

/// Complaints → an error or warnings.
fn judge(strict: Strict, validation: FieldValidation, refuse: impl FnOnce(&str) -> Status) -> Result<Decoded, Status> {
    let Strict { tree, complaints } = strict;
    match validation {
        _ if complaints.is_empty() => Ok(Decoded { tree, warnings: Vec::new() }),
        FieldValidation::Ignore => Ok(Decoded { tree, warnings: Vec::new() }),
        FieldValidation::Warn => Ok(Decoded { tree, warnings: complaints }),
        FieldValidation::Strict => Err(refuse(&strict_error(&complaints))),
    }
}

pub(crate) fn strict_error(complaints: &[String]) -> String {
    format!("strict decoding error: {}", complaints.join(", "))
}

/// Writes the target's kind and version over whatever stands there.
fn head(tree: &mut Value, target: &Target<'_>) {
    if let Some(object) = tree.as_object_mut() {
        object.insert("kind".into(), target.kind.into());
        object.insert("apiVersion".into(), target.group_version().to_string().into());
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
