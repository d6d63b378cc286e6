//! What the store keeps and what it is asked to keep.

use bytes::Bytes;
use longshore_control::Projection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A cluster's revision: gap-free, ordered, the `resourceVersion` of what was written at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// `pods`, `deployments.apps`, `widgets.example.com`: a group and a resource, one string.
pub type ResourceName = Arc<str>;

/// Where an object lives within its cluster. `namespace` is empty for cluster-scoped kinds. Ordered as lists are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub resource: ResourceName,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A committed object: ready bytes, shared by every reader and watcher, and what indexes and controllers need of it.
#[derive(Debug)]
pub struct Object {
    pub key: Key,
    pub uid: Arc<str>,
    pub revision: Revision,
    /// The whole object as JSON in its storage version, `resourceVersion` included.
    pub json: Bytes,
    pub labels: BTreeMap<String, String>,
    /// The fields its kind can be selected by, beside `metadata.name` and `metadata.namespace` (`spec.nodeName` → node).
    pub fields: BTreeMap<&'static str, String>,
    /// The uids of its owners.
    pub owners: Vec<Arc<str>>,
    pub projection: Projection,
}

/// The longest JSON of an object: that of the longest request. Patches may not make one grow beyond it either.
pub const MOST_BYTES: usize = 3 * 1024 * 1024;

/// An object on its way into the log: everything but its revision, which the sequencer assigns and splices in.
#[derive(Debug)]
pub struct Draft {
    pub key: Key,
    pub uid: Arc<str>,
    /// JSON up to the digits of `metadata.resourceVersion`, and from there on.
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
    pub labels: BTreeMap<String, String>,
    pub fields: BTreeMap<&'static str, String>,
    pub owners: Vec<Arc<str>>,
    pub projection: Projection,
}

impl Draft {
    /// Serializes `tree` (whatever `resourceVersion` it carries is replaced) and takes labels, uid and owners from its
    /// metadata. `fields` and `projection` are what the kind declares.
    pub fn new(key: Key, tree: &Value, fields: BTreeMap<&'static str, String>, projection: Projection) -> Self {
        let empty = serde_json::Map::new();
        let object = tree.as_object().unwrap_or(&empty);
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let (mut head, mut tail) = (Vec::with_capacity(512), Vec::with_capacity(1024));
        head.push(b'{');
        for field in ["kind", "apiVersion"] {
            if let Some(value) = object.get(field) {
                write_entry(&mut head, field, value);
                head.push(b',');
            }
        }
        head.extend_from_slice(b"\"metadata\":{");
        if let Some(name) = metadata.get("name") {
            write_entry(&mut head, "name", name);
            head.push(b',');
        }
        head.extend_from_slice(b"\"resourceVersion\":\"");
        tail.push(b'"');
        for (field, value) in metadata.iter().filter(|(f, _)| *f != "resourceVersion" && *f != "name") {
            tail.push(b',');
            write_entry(&mut tail, field, value);
        }
        tail.push(b'}');
        for (field, value) in object.iter().filter(|(f, _)| !matches!(f.as_str(), "kind" | "apiVersion" | "metadata")) {
            tail.push(b',');
            write_entry(&mut tail, field, value);
        }
        tail.push(b'}');
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
        let labels = metadata
            .get("labels")
            .and_then(Value::as_object)
            .map(|all| all.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string())).collect());
        let owners = metadata
            .get("ownerReferences")
            .and_then(Value::as_array)
            .map(|all| all.iter().filter_map(|o| o.get("uid").and_then(Value::as_str)).map(Arc::from).collect());
        let uid = Arc::from(text("uid"));
        let (labels, owners) = (labels.unwrap_or_default(), owners.unwrap_or_default());
        Self { key, uid, head, tail, labels, fields, owners, projection }
    }

    /// The object as it is, to be written once more (a deletion without a final change): only its revision will differ.
    /// None for JSON that a draft did not write.
    pub fn again(object: &Object) -> Option<Self> {
        // A quote inside a string is escaped, so the first match is the field itself.
        let field = b"\"resourceVersion\":\"";
        let start = object.json.windows(field.len()).position(|w| w == field)? + field.len();
        let digits = object.json[start..].iter().position(|b| *b == b'"')?;
        Some(Self {
            key: object.key.clone(),
            uid: object.uid.clone(),
            head: object.json[..start].to_vec(),
            tail: object.json[start + digits..].to_vec(),
            labels: object.labels.clone(),
            fields: object.fields.clone(),
            owners: object.owners.clone(),
            projection: object.projection.clone(),
        })
    }

    /// The object as it will be at `revision`.
    pub fn at(self, revision: Revision) -> Object {
        let digits = revision.0.to_string();
        let mut json = self.head;
        json.reserve_exact(digits.len() + self.tail.len());
        json.extend_from_slice(digits.as_bytes());
        json.extend_from_slice(&self.tail);
        Object {
            key: self.key,
            uid: self.uid,
            revision,
            json: json.into(),
            labels: self.labels,
            fields: self.fields,
            owners: self.owners,
            projection: self.projection,
        }
    }
}

/// What the store takes from every object's metadata.
struct Known {
    uid: Arc<str>,
    labels: BTreeMap<String, String>,
    owners: Vec<Arc<str>>,
}

impl Known {
    fn of(metadata: &serde_json::Map<String, Value>) -> Self {
        let labels = metadata.get("labels").and_then(Value::as_object).into_iter().flatten();
        let owners = metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten();
        Self {
            uid: Arc::from(metadata.get("uid").and_then(Value::as_str).unwrap_or_default()),
            labels: labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string())).collect(),
            owners: owners.filter_map(|o| o.get("uid").and_then(Value::as_str)).map(Arc::from).collect(),
        }
    }
}

fn write_entry(out: &mut Vec<u8>, field: &str, value: &Value) {
    serde_json::to_writer(&mut *out, field).expect("a string serializes into memory");
    out.push(b':');
    serde_json::to_writer(out, value).expect("a tree serializes into memory");
}

impl Object {
    /// An object as the log has it. `fields` says which of its fields can be selected by.
    pub fn read(
        key: Key,
        revision: Revision,
        json: Bytes,
        fields: impl FnOnce(&Value) -> BTreeMap<&'static str, String>,
    ) -> Result<Self, serde_json::Error> {
        let tree: Value = serde_json::from_slice(&json)?;
        let empty = serde_json::Map::new();
        let Known { uid, labels, owners } = Known::of(tree["metadata"].as_object().unwrap_or(&empty));
        let projection = Projection::of(&key.resource, &tree);
        Ok(Self { key, uid, revision, json, labels, fields: fields(&tree), owners, projection })
    }

    /// The value of a field that can be selected by.
    pub fn field(&self, field: &str) -> Option<&str> {
        match field {
            "metadata.name" => Some(&self.key.name),
            "metadata.namespace" => Some(&self.key.namespace),
            other => self.fields.get(other).map(String::as_str),
        }
    }

    /// The object as a tree, for those who change it.
    pub fn tree(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Created,
    Updated,
    Deleted,
}

/// One entry of the log, as watchers and controllers see it.
#[derive(Clone, Debug)]
pub struct Change {
    pub kind: ChangeKind,
    /// The new state; for a deletion the last one, at the deletion's revision.
    pub object: Arc<Object>,
    /// What was there before: whether an object entered or left a selector shows only against it.
    pub previous: Option<Arc<Object>>,
}
