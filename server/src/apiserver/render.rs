//! How stored objects become the bytes of an answer: as they are, as another version, as a Table, as metadata alone.
//!
//! Stored bytes are ready to send, so the usual answer copies nothing it need not: a list is its head, the stored bytes of
//! each item without `kind` and `apiVersion` (as Kubernetes's typed lists have it), and a tail. Only transformations parse.

use super::metadata;
use super::negotiate::{Include, Transform};
use crate::resources::Resource;
use crate::store::{Object, Revision};
use bytes::Bytes;
use jiff::Timestamp;
use longshore_api::Status;
use serde_json::{Value, json};
use std::sync::Arc;

/// What `meta.k8s.io/v1` says of the column that every table begins with.
const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const RESOURCE_VERSION: &[u8] = b"\"resourceVersion\":\"";

/// How one client wants the objects of one kind.
#[derive(Clone, Copy)]
pub struct View {
    pub resource: &'static Resource,
    pub transform: Transform,
    /// Ages in tables are counted up to here.
    pub now: Timestamp,
}

/// One event of a watch, before it is rendered.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    /// Nothing to tell up to here; `initial_end` marks the end of the state that was sent first.
    Bookmark {
        revision: Revision,
        initial_end: bool,
    },
    /// The last event of a watch.
    Error(Status),
}

impl WatchEvent {
    /// About how many bytes its plain frame has.
    pub fn size(&self) -> usize {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => object.json.len() + 32,
            Self::Bookmark { .. } | Self::Error(_) => 256,
        }
    }
}

/// What a list says beside its items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListMeta {
    pub revision: Revision,
    pub r#continue: String,
    pub remaining: Option<u64>,
}

impl View {
    /// The object as this client wants it.
    pub fn object(&self, object: &Object) -> Bytes {
        match self.transform {
            Transform::None => self.versioned(object),
            Transform::PartialMetadata => to_bytes(&partial(&object.tree())),
            Transform::Table(include) => {
                let table = self.table(&[self.row(object, include)], &meta_of(object.revision), true);
                Bytes::from(table)
            }
        }
    }

    /// A tree of this kind's storage version that was never stored (a dry run's): the same as `object`.
    pub fn tree(&self, tree: &Value) -> Value {
        match self.resource.stored {
            Some(stored) => (stored.from_storage)(tree.clone()),
            None => tree.clone(),
        }
    }

    /// A list in pieces: their concatenation is the answer's body.
    pub fn list(&self, meta: &ListMeta, items: &[Arc<Object>]) -> Vec<Bytes> {
        let list_meta = list_meta(meta);
        match self.transform {
            Transform::Table(include) => {
                let rows: Vec<Vec<u8>> = items.iter().map(|object| self.row(object, include)).collect();
                vec![Bytes::from(self.table(&rows, &list_meta, true))]
            }
            Transform::PartialMetadata => {
                let head = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"});
                framed(&head, &list_meta, items.iter().map(|o| (Bytes::new(), to_bytes(&partial(&o.tree())))))
            }
            Transform::None => {
                let head = json!({"kind": self.resource.list_kind, "apiVersion": self.resource.api_version()});
                framed(&head, &list_meta, items.iter().map(|object| self.item(object)))
            }
        }
    }

    /// One line of a watch. `first` is whether no event came before: only the first table carries its columns.
    pub fn frame(&self, event: &WatchEvent, first: bool) -> Bytes {
        let (kind, body) = match event {
            WatchEvent::Added(object) => ("ADDED", self.event_object(object, first)),
            WatchEvent::Modified(object) => ("MODIFIED", self.event_object(object, first)),
            WatchEvent::Deleted(object) => ("DELETED", self.event_object(object, first)),
            WatchEvent::Bookmark { revision, initial_end } => ("BOOKMARK", self.bookmark(*revision, *initial_end)),
            WatchEvent::Error(status) => ("ERROR", to_bytes(status)),
        };
        // Exactly as long as it will be: shared bytes that had to shrink would be copied once more.
        let mut frame = Vec::with_capacity(9 + kind.len() + 11 + body.len() + 2);
        frame.extend_from_slice(b"{\"type\":\"");
        frame.extend_from_slice(kind.as_bytes());
        frame.extend_from_slice(b"\",\"object\":");
        frame.extend_from_slice(&body);
        frame.extend_from_slice(b"}\n");
        frame.into()
    }

    fn event_object(&self, object: &Object, first: bool) -> Bytes {
        match self.transform {
            Transform::Table(include) => {
                Bytes::from(self.table(&[self.row(object, include)], &meta_of(object.revision), first))
            }
            _ => self.object(object),
        }
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let (kind, api_version) = match self.transform {
            Transform::None => (self.resource.kind, self.resource.api_version()),
            Transform::Table(_) => ("Table", "meta.k8s.io/v1".into()),
            Transform::PartialMetadata => ("PartialObjectMetadata", "meta.k8s.io/v1".into()),
        };
        let mut metadata = json!({"resourceVersion": revision.0.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if let Transform::Table(_) = self.transform {
            object["columnDefinitions"] = Value::Null;
            object["rows"] = json!([]);
        }
        to_bytes(&object)
    }

    /// Whether rendering an event costs more than a copy, so that watchers should share the result.
    pub fn is_costly(&self) -> bool {
        self.transform != Transform::None || self.resource.stored.is_some()
    }

    fn versioned(&self, object: &Object) -> Bytes {
        match self.resource.stored {
            None => object.json.clone(),
            Some(stored) => to_bytes(&(stored.from_storage)(object.tree())),
        }
    }

    /// An item of a list: what stands before the rest of its bytes, and those. Its kind is the list's to say.
    fn item(&self, object: &Object) -> (Bytes, Bytes) {
        if let Some(stored) = self.resource.stored {
            let mut tree = (stored.from_storage)(object.tree());
            if let Some(fields) = tree.as_object_mut() {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            return (Bytes::new(), to_bytes(&tree));
        }
        let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", self.resource.kind, self.resource.api_version());
        match object.json.starts_with(head.as_bytes()) {
            true => (Bytes::from_static(b"{"), object.json.slice(head.len()..)),
            false => (Bytes::new(), object.json.clone()),
        }
    }

    fn row(&self, object: &Object, include: Include) -> Vec<u8> {
        let tree = object.tree();
        let mut cells = (self.resource.cells)(&tree, self.now);
        if self.resource.name_column {
            cells.insert(0, metadata::text(&tree, "name").into());
        }
        let mut row = Vec::with_capacity(512);
        row.extend_from_slice(b"{\"cells\":");
        write(&mut row, &cells);
        let conditions = (self.resource.row_conditions)(&tree);
        if !conditions.is_empty() {
            row.extend_from_slice(b",\"conditions\":");
            write(&mut row, &conditions);
        }
        match include {
            Include::None => {}
            Include::Metadata => {
                row.extend_from_slice(b",\"object\":");
                write(&mut row, &partial(&tree));
            }
            Include::Object => {
                row.extend_from_slice(b",\"object\":");
                row.extend_from_slice(&self.versioned(object));
            }
        }
        row.push(b'}');
        row
    }

    fn table(&self, rows: &[Vec<u8>], list_meta: &Value, with_columns: bool) -> Vec<u8> {
        let size = rows.iter().map(|r| r.len() + 1).sum::<usize>();
        let mut out = Vec::with_capacity(size + 4096);
        out.extend_from_slice(b"{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":");
        write(&mut out, list_meta);
        out.extend_from_slice(b",\"columnDefinitions\":");
        match with_columns {
            true => write(&mut out, &self.columns()),
            false => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"rows\":[");
        for (i, row) in rows.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(row);
        }
        out.extend_from_slice(b"]}");
        out
    }

    fn columns(&self) -> Vec<Value> {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "description": NAME_DESCRIPTION, "priority": 0,
        });
        let own = self.resource.columns.iter().map(|c| {
            json!({
                "name": c.name, "type": c.r#type, "format": c.format, "description": c.description,
                "priority": c.priority,
            })
        });
        self.resource.name_column.then_some(name).into_iter().chain(own).collect()
    }
}

fn partial(tree: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": tree["metadata"]})
}

fn meta_of(revision: Revision) -> Value {
    json!({"resourceVersion": revision.0.to_string()})
}

fn list_meta(meta: &ListMeta) -> Value {
    let mut value = meta_of(meta.revision);
    if !meta.r#continue.is_empty() {
        value["continue"] = meta.r#continue.as_str().into();
        if let Some(remaining) = meta.remaining {
            value["remainingItemCount"] = remaining.into();
        }
    }
    value
}

fn framed(head: &Value, list_meta: &Value, items: impl Iterator<Item = (Bytes, Bytes)>) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(items.size_hint().0 * 3 + 2);
    let open = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{list_meta},\"items\":[",
        head["kind"], head["apiVersion"]
    );
    out.push(Bytes::from(open));
    for (i, (before, item)) in items.enumerate() {
        if i > 0 {
            out.push(Bytes::from_static(b","));
        }
        if !before.is_empty() {
            out.push(before);
        }
        out.push(item);
    }
    out.push(Bytes::from_static(b"]}"));
    out
}

/// The same object with another `resourceVersion`: what a watcher gets of an object that left its selector is the state
/// in which it last matched, at the revision at which it left.
pub fn at_revision(object: &Object, revision: Revision) -> Object {
    let json = &object.json;
    let json = match find(json, RESOURCE_VERSION) {
        Some(at) => {
            let digits = at + RESOURCE_VERSION.len();
            let end = json[digits..].iter().position(|b| *b == b'"').map_or(json.len(), |n| digits + n);
            [&json[..digits], revision.0.to_string().as_bytes(), &json[end..]].concat().into()
        }
        None => json.clone(),
    };
    Object {
        key: object.key.clone(),
        uid: object.uid.clone(),
        revision,
        json,
        labels: object.labels.clone(),
        fields: object.fields.clone(),
        owners: object.owners.clone(),
        projection: object.projection.clone(),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn to_bytes(value: &impl serde::Serialize) -> Bytes {
    let mut out = Vec::with_capacity(512);
    write(&mut out, value);
    out.into()
}

fn write(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("a tree serializes into memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::registry;
    use crate::store::{Draft, Key};
    use longshore_control::Projection;
    use std::collections::BTreeMap;

    fn stored(resource: &'static Resource, tree: Value) -> Arc<Object> {
        let key = Key {
            resource: resource.store_name().into(),
            namespace: metadata::text(&tree, "namespace").into(),
            name: metadata::text(&tree, "name").into(),
        };
        Arc::new(Draft::new(key, &tree, BTreeMap::new(), Projection::None).at(Revision(42)))
    }

    fn view(path: (&str, &str), transform: Transform) -> View {
        let resource = registry().by_path(path.0, "v1", path.1).unwrap();
        View { resource, transform, now: "2024-01-01T00:00:00Z".parse().unwrap() }
    }

    fn config_map() -> Arc<Object> {
        let tree = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"resourceVersion": "7"},
            "metadata": {"name": "a", "namespace": "n", "uid": "u"},
        });
        stored(registry().by_path("", "v1", "configmaps").unwrap(), tree)
    }

    fn joined(pieces: Vec<Bytes>) -> Value {
        serde_json::from_slice(&pieces.concat()).unwrap()
    }

    #[test]
    fn a_list_is_its_items_bytes() {
        let meta = ListMeta { revision: Revision(50), r#continue: "c".into(), remaining: Some(3) };
        let list = joined(view(("", "configmaps"), Transform::None).list(&meta, &[config_map(), config_map()]));
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(list["metadata"], json!({"resourceVersion": "50", "continue": "c", "remainingItemCount": 3}));
        assert_eq!(list["items"][1]["metadata"]["resourceVersion"], "42");
        assert!(list["items"][0].get("kind").is_none());
        let empty = joined(view(("", "configmaps"), Transform::None).list(&ListMeta::default(), &[]));
        assert_eq!(empty["items"], json!([]));
    }

    #[test]
    fn a_table_has_a_cell_for_each_column() {
        for r in registry().all() {
            let view = View { resource: r, transform: Transform::Table(Include::Metadata), now: Timestamp::UNIX_EPOCH };
            let tree = json!({"apiVersion": "v1", "kind": r.kind, "metadata": {"name": "a", "uid": "u"}});
            let object = stored(r.stored.map_or(r, |s| s.resource), tree);
            let table: Value = serde_json::from_slice(&view.object(&object)).unwrap();
            let columns = table["columnDefinitions"].as_array().unwrap().len();
            assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns, "{}", r.kind);
            assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        }
    }

    #[test]
    fn only_the_first_table_of_a_watch_carries_columns() {
        let view = view(("", "configmaps"), Transform::Table(Include::None));
        let read = |bytes: Bytes| serde_json::from_slice::<Value>(&bytes).unwrap();
        let event = WatchEvent::Added(config_map());
        assert!(read(view.frame(&event, true))["object"]["columnDefinitions"].is_array());
        assert!(read(view.frame(&event, false))["object"]["columnDefinitions"].is_null());
    }

    #[test]
    fn bookmarks_are_of_the_kind_that_is_watched() {
        let event = WatchEvent::Bookmark { revision: Revision(9), initial_end: true };
        let frame = view(("events.k8s.io", "events"), Transform::None).frame(&event, false);
        let expected = "{\"type\":\"BOOKMARK\",\"object\":{\"apiVersion\":\"events.k8s.io/v1\",\"kind\":\"Event\",\"metadata\":{\"annotations\":{\"k8s.io/initial-events-end\":\"true\"},\"resourceVersion\":\"9\"}}}\n";
        assert_eq!(std::str::from_utf8(&frame).unwrap(), expected);
    }

    #[test]
    fn an_object_that_left_carries_the_revision_at_which_it_left() {
        let moved = at_revision(&config_map(), Revision(100));
        assert_eq!(moved.tree()["metadata"]["resourceVersion"], "100");
        assert_eq!(moved.tree()["data"]["resourceVersion"], "7");
    }

    #[test]
    fn an_event_is_shown_in_the_version_that_is_asked_for() {
        let core = registry().by_path("", "v1", "events").unwrap();
        let object =
            stored(core, json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m"}));
        let shown: Value =
            serde_json::from_slice(&view(("events.k8s.io", "events"), Transform::None).object(&object)).unwrap();
        assert_eq!((&shown["apiVersion"], &shown["note"]), (&json!("events.k8s.io/v1"), &json!("m")));
    }
}
