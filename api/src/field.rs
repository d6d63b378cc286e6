//! Validation errors as Kubernetes words them (`apimachinery/pkg/util/validation/field`).

use crate::status::StatusCause;
use serde_json::Value;
use std::fmt;

/// A path into an object: `spec.containers[0].ports[1].name`, `metadata.labels[a/b]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn new(root: &str) -> Self {
        Self(root.into())
    }
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.into()) } else { Self(format!("{}.{name}", self.0)) }
    }
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field. The variant decides the cause's reason and the wording of the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    Required,
    Invalid(Value),
    NotSupported(Value, Vec<String>),
    Duplicate(Value),
    Forbidden,
    TooLong { max: usize },
    TooMany { actual: usize, max: usize },
    TypeInvalid(Value),
    NotFound(Value),
    Internal,
}

/// One violated rule of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub path: Path,
    pub problem: Problem,
    pub detail: String,
}

impl Error {
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self { path: path.clone(), problem: Problem::Required, detail: detail.into() }
    }
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { path: path.clone(), problem: Problem::Invalid(value.into()), detail: detail.into() }
    }
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| s.to_string()).collect();
        Self { path: path.clone(), problem: Problem::NotSupported(value.into(), supported), detail: String::new() }
    }
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self { path: path.clone(), problem: Problem::Duplicate(value.into()), detail: String::new() }
    }
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self { path: path.clone(), problem: Problem::Forbidden, detail: detail.into() }
    }
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self { path: path.clone(), problem: Problem::TooLong { max }, detail: String::new() }
    }
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        Self { path: path.clone(), problem: Problem::TooMany { actual, max }, detail: String::new() }
    }

    fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Required => "FieldValueRequired",
            Problem::Invalid(_) => "FieldValueInvalid",
            Problem::NotSupported(..) => "FieldValueNotSupported",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::Forbidden => "FieldValueForbidden",
            Problem::TooLong { .. } => "FieldValueTooLong",
            Problem::TooMany { .. } => "FieldValueTooMany",
            Problem::TypeInvalid(_) => "FieldValueTypeInvalid",
            Problem::NotFound(_) => "FieldValueNotFound",
            Problem::Internal => "InternalError",
        }
    }

    /// The message without the path: `Invalid value: "x": must be …`.
    pub fn body(&self) -> String {
        let head = match &self.problem {
            Problem::Required => "Required value".to_string(),
            Problem::Invalid(v) => format!("Invalid value: {}", shown(v)),
            Problem::NotSupported(v, supported) => {
                let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
                return format!("Unsupported value: {}: supported values: {list}", shown(v));
            }
            Problem::Duplicate(v) => format!("Duplicate value: {}", shown(v)),
            Problem::Forbidden => "Forbidden".to_string(),
            Problem::TooLong { max } => {
                let unit = if *max == 1 { "byte" } else { "bytes" };
                return format!("Too long: may not be more than {max} {unit}");
            }
            Problem::TooMany { actual, max } => {
                let unit = if *max == 1 { "item" } else { "items" };
                return format!("Too many: {actual}: must have at most {max} {unit}");
            }
            Problem::TypeInvalid(v) => format!("Invalid value: {}", shown(v)),
            Problem::NotFound(v) => format!("Not found: {}", shown(v)),
            Problem::Internal => "Internal error".to_string(),
        };
        if self.detail.is_empty() { head } else { format!("{head}: {}", self.detail) }
    }

    pub fn cause(&self) -> StatusCause {
        StatusCause { reason: self.reason().into(), message: self.body(), field: self.path.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

fn shown(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
