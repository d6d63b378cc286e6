//! Live collections: what a watch has told so far, keyed, in order.
//!
//! A list arrives in pages while the old rows stay on screen; they are swapped at its last page, so that a resumed
//! connection never flashes an empty table. Rows are shared (`Arc`), so that a change costs one row and not a copy of all.

use crate::kube::{self, Meta};
use crate::read::{Read, field, shape};
use crate::state::State;
use crate::time;
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Namespace and name: what a row is known by, and the order lists have.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// What a collection can hold.
pub trait Item: Sized {
    fn meta(&self) -> &Meta;
    /// Reads a list's body.
    fn list(list: Value) -> (Vec<Column>, Vec<Self>);
    /// Reads a watch event's `object`.
    fn object(object: Value) -> Vec<Self>;
}

macro_rules! items {
    ($($type:ty),*) => { $(impl Item for $type {
        fn meta(&self) -> &Meta {
            &self.metadata
        }
        fn list(list: Value) -> (Vec<Column>, Vec<Self>) {
            (Vec::new(), field(&list, "items"))
        }
        fn object(object: Value) -> Vec<Self> {
            vec![Self::read(&object)]
        }
    })* };
}
items!(
    kube::Deployment,
    kube::ReplicaSet,
    kube::Pod,
    kube::Node,
    kube::Service,
    kube::EndpointSlice,
    kube::Event,
    kube::Any
);

/// A whole object as it came, for YAML: kept as a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    pub metadata: Meta,
    pub tree: Value,
}

impl Whole {
    pub fn new(tree: Value) -> Self {
        Self { metadata: field(&tree, "metadata"), tree }
    }
}

impl Item for Whole {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn list(mut list: Value) -> (Vec<Column>, Vec<Self>) {
        // The items of a list don't carry what they are; the list does.
        let kind = list["kind"].as_str().and_then(|k| k.strip_suffix("List")).map(str::to_string);
        let version = list["apiVersion"].as_str().map(str::to_string);
        let items = list["items"].take();
        let Value::Array(items) = items else { return (Vec::new(), Vec::new()) };
        let whole = items.into_iter().map(|mut item| {
            if let (Some(object), Some(kind), Some(version)) = (item.as_object_mut(), &kind, &version) {
                object.entry("kind").or_insert_with(|| kind.clone().into());
                object.entry("apiVersion").or_insert_with(|| version.clone().into());
            }
            Self::new(item)
        });
        (Vec::new(), whole.collect())
    }
    fn object(object: Value) -> Vec<Self> {
        vec![Self::new(object)]
    }
}

shape!(Column { name: String, r#type: String, format: String, description: String, priority: i64 });

/// A row of a Table: what the server prints, and the object's metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub metadata: Meta,
    pub cells: Vec<Value>,
}

shape!(
    /// A Table, or (`items`) the plain list that a server sends where it has no table for the kind.
    WireTable { kind: String, column_definitions: Vec<Column>, rows: Vec<WireRow>, items: Vec<kube::Any>, metadata: Meta }
);
shape!(WireRow { cells: Vec<Value>, object: kube::Any });

impl Row {
    fn plain(metadata: Meta) -> Self {
        Self { cells: vec![metadata.name.clone().into(), "".into()], metadata }
    }
}

impl Item for Row {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn list(list: Value) -> (Vec<Column>, Vec<Self>) {
        let table = WireTable::read(&list);
        if table.kind == "Table" {
            let rows = table.rows.into_iter().map(|row| Self { metadata: row.object.metadata, cells: row.cells });
            return (table.column_definitions, rows.collect());
        }
        let column = |name: &str| Column { name: name.into(), r#type: "string".into(), ..Column::default() };
        let rows = table.items.into_iter().map(|item| Self::plain(item.metadata)).collect();
        (vec![column("Name"), column("Age")], rows)
    }
    fn object(object: Value) -> Vec<Self> {
        if object["kind"] == "Table" { Self::list(object).1 } else { vec![Self::plain(field(&object, "metadata"))] }
    }
}

/// A collection that a watch keeps. `Default` is: nothing was heard yet.
#[derive(Clone, Debug)]
pub struct Collection<T> {
    pub columns: Arc<Vec<Column>>,
    pub items: BTreeMap<Key, Arc<T>>,
    incoming: Option<BTreeMap<Key, Arc<T>>>,
    /// A whole list has been seen: no rows means that there are none.
    pub loaded: bool,
}

impl<T> Default for Collection<T> {
    fn default() -> Self {
        Self { columns: Arc::default(), items: BTreeMap::new(), incoming: None, loaded: false }
    }
}

fn key(meta: &Meta) -> Key {
    Key { namespace: meta.namespace.clone(), name: meta.name.clone() }
}

impl<T: Item> Collection<T> {
    /// Takes a page of a list. While nothing was loaded pages show as they come, later ones swap at `last`.
    pub fn page(&mut self, first: bool, last: bool, body: &str) -> Result<(), serde_json::Error> {
        let (columns, items) = T::list(serde_json::from_str(body)?);
        if !columns.is_empty() && *self.columns != columns {
            self.columns = Arc::new(columns);
        }
        if first {
            self.incoming = None;
            if !self.loaded {
                self.items.clear();
            }
        }
        let into = if self.loaded { self.incoming.get_or_insert_with(BTreeMap::new) } else { &mut self.items };
        into.extend(items.into_iter().map(|item| (key(item.meta()), Arc::new(item))));
        if last {
            if let Some(incoming) = self.incoming.take() {
                self.items = incoming;
            } else if self.loaded && first {
                self.items.clear();
            }
            self.loaded = true;
        }
        Ok(())
    }

    /// Takes a watch event.
    pub fn change(&mut self, body: &str) -> Result<(), serde_json::Error> {
        let mut event: Value = serde_json::from_str(body)?;
        let deleted = event["type"] == "DELETED";
        for item in T::object(event["object"].take()).into_iter().filter(|item| !item.meta().name.is_empty()) {
            if deleted {
                self.items.remove(&key(item.meta()));
            } else {
                self.items.insert(key(item.meta()), Arc::new(item));
            }
        }
        Ok(())
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.items.get(&Key { namespace: namespace.into(), name: name.into() })
    }
}

/// A cell as text. Ages are counted by the page from the object's creation, so that they go on; a count that carries a
/// frozen age (`3 (5m ago)`) loses it.
pub fn cell(row: &Row, index: usize, column: &Column, now: i64) -> String {
    if column.name == "Age" {
        return time::parse(&row.metadata.creation_timestamp).map(|made| time::short(now - made)).unwrap_or_default();
    }
    let text = match row.cells.get(index) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match text.split_once(" (") {
        Some((count, age)) if age.ends_with("ago)") => count.to_string(),
        _ => text,
    }
}

/// The text of the column of that name.
pub fn named<'a>(row: &'a Row, columns: &[Column], name: &str) -> Option<&'a Value> {
    row.cells.get(columns.iter().position(|c| c.name == name)?)
}

fn named_text<'a>(row: &'a Row, columns: &[Column], name: &str) -> &'a str {
    named(row, columns, name).and_then(Value::as_str).unwrap_or_default()
}

/// `2/3` as numbers.
pub fn ratio(text: &str) -> Option<(i64, i64)> {
    let (ready, wanted) = text.split_once('/')?;
    Some((ready.trim().parse().ok()?, wanted.trim().parse().ok()?))
}

/// Whether it was made in the last minute: then it may still be on its way.
fn is_new(row: &Row, now: i64) -> bool {
    time::parse(&row.metadata.creation_timestamp).is_some_and(|made| now - made < 60_000)
}

/// How well a row is, judged by the columns its kind prints. `None` for kinds that have no state (a ConfigMap).
pub fn row_state(kind: &str, row: &Row, columns: &[Column], now: i64) -> Option<State> {
    let text = |name| named_text(row, columns, name);
    if row.metadata.deletion_timestamp.is_some() {
        return Some(State::Progressing);
    }
    match kind {
        "Pod" => Some(pod_state(text("Status"), ratio(text("Ready")))),
        "Deployment" | "StatefulSet" => {
            let (ready, wanted) = ratio(text("Ready"))?;
            let updated = named(row, columns, "Up-to-date").and_then(Value::as_i64).unwrap_or(wanted);
            Some(match (ready, wanted) {
                (_, 0) => State::Idle,
                (ready, wanted) if ready >= wanted && updated >= wanted => State::Good,
                (0, _) if updated >= wanted && !is_new(row, now) => State::Failing,
                (_, _) if is_new(row, now) => State::Progressing,
                (ready, wanted) if ready >= wanted => State::Progressing,
                _ => State::Degraded,
            })
        }
        "ReplicaSet" => {
            let number = |name| named(row, columns, name).and_then(Value::as_i64).unwrap_or(0);
            Some(match (number("Ready"), number("Desired")) {
                (_, 0) => State::Idle,
                (ready, wanted) if ready >= wanted => State::Good,
                _ => State::Degraded,
            })
        }
        "Node" => Some(match text("Status").split(',').next().unwrap_or_default() {
            "Ready" if text("Status").contains("SchedulingDisabled") => State::Idle,
            "Ready" => State::Good,
            "NotReady" => State::Failing,
            _ => State::Unknown,
        }),
        "Namespace" => Some(if text("Status") == "Active" { State::Good } else { State::Progressing }),
        "Ingress" => Some(if text("Address").is_empty() { State::Unknown } else { State::Good }),
        "Event" => Some(if text("Type") == "Warning" { State::Degraded } else { State::Idle }),
        _ => None,
    }
}

/// What kubectl's STATUS column of a pod means.
pub fn pod_state(status: &str, ready: Option<(i64, i64)>) -> State {
    let status = status.strip_prefix("Init:").unwrap_or(status);
    match status {
        "Running" => match ready {
            Some((ready, wanted)) if ready >= wanted => State::Good,
            Some((0, _)) => State::Degraded,
            Some(_) => State::Degraded,
            None => State::Unknown,
        },
        "Completed" | "Succeeded" => State::Idle,
        "Pending" | "ContainerCreating" | "PodInitializing" | "Terminating" => State::Progressing,
        "SchedulingGated" => State::Idle,
        "Unknown" | "NodeLost" => State::Unknown,
        // `Init:0/1` while init containers run.
        other if ratio(other).is_some() => State::Progressing,
        _ => State::Failing,
    }
}

/// Whether a row has all words of a filter, anywhere in what it shows; `key=value` asks for a label.
pub fn matches(row: &Row, filter: &str) -> bool {
    filter.split_whitespace().all(|word| {
        if let Some((key, value)) = word.split_once('=') {
            return row.metadata.labels.get(key).is_some_and(|v| v == value);
        }
        let word = word.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&word);
        has(&row.metadata.name)
            || has(&row.metadata.namespace)
            || row.cells.iter().any(|cell| cell.as_str().is_some_and(has))
    })
}

/// What a list is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    pub column: String,
    pub descending: bool,
}

impl Sort {
    /// As the address has it: `Age`, `-Restarts`.
    pub fn parse(text: &str) -> Option<Self> {
        let (column, descending) = match text.strip_prefix('-') {
            Some(column) => (column, true),
            None => (text, false),
        };
        (!column.is_empty()).then(|| Self { column: column.into(), descending })
    }
    pub fn text(&self) -> String {
        format!("{}{}", if self.descending { "-" } else { "" }, self.column)
    }
}

/// Sorts rows; ties keep namespace and name order.
pub fn sort(rows: &mut [Arc<Row>], columns: &[Column], by: &Sort) {
    let index = columns.iter().position(|c| c.name == by.column);
    rows.sort_by(|a, b| {
        let order = match by.column.as_str() {
            // The youngest has the smallest age.
            "Age" => b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp),
            "Namespace" => natural(&a.metadata.namespace, &b.metadata.namespace),
            _ => index.map_or(Ordering::Equal, |i| compare_cells(a.cells.get(i), b.cells.get(i))),
        };
        if by.descending { order.reverse() } else { order }
    });
}

fn compare_cells(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => natural(a, b),
        (a, b) => a.map(Value::to_string).cmp(&b.map(Value::to_string)),
    }
}

/// `node-2` before `node-10`.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.chars().peekable(), b.chars().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (x, y) = (digits(&mut a), digits(&mut b));
                let order = x.len().cmp(&y.len()).then_with(|| x.cmp(&y));
                if order != Ordering::Equal {
                    return order;
                }
            }
            (Some(x), Some(y)) => {
                let order = x.cmp(y);
                if order != Ordering::Equal {
                    return order;
                }
                a.next();
                b.next();
            }
        }
    }
}

/// A run of digits without leading zeros: longer means larger.
fn digits(from: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut run = String::new();
    while let Some(c) = from.next_if(char::is_ascii_digit) {
        if !(run.is_empty() && c == '0') {
            run.push(c);
        }
    }
    run
}

/// The part of `count` rows of `height` pixels that a window of `view` pixels, scrolled to `top`, shows: first and one
/// past the last, with some more on both sides so that quick scrolling stays filled.
pub fn window(count: usize, height: f64, top: f64, view: f64) -> (usize, usize) {
    const MORE: usize = 12;
    let first = (top.max(0.0) / height) as usize;
    let shown = (view.max(0.0) / height).ceil() as usize + 1;
    let start = first.saturating_sub(MORE).min(count);
    (start, (first + shown + MORE).min(count).max(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pods(rows: &[(&str, &str, &str)]) -> String {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, ready, status)| json!({"cells": [name, ready, status, "3 (5m ago)", "9m"], "object": {"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}}}}))
            .collect();
        let columns: Vec<_> =
            ["Name", "Ready", "Status", "Restarts", "Age"].map(|n| json!({"name": n, "type": "string"})).into();
        json!({"kind": "Table", "columnDefinitions": columns, "rows": rows}).to_string()
    }

    fn names(collection: &Collection<Row>) -> Vec<&str> {
        collection.items.keys().map(|k| k.name.as_str()).collect()
    }

    #[test]
    fn a_second_list_swaps_only_when_it_is_whole() {
        let mut live = Collection::<Row>::default();
        live.page(true, false, &pods(&[("a", "1/1", "Running")])).unwrap();
        assert!(!live.loaded && names(&live) == ["a"], "the first list shows as it comes");
        live.page(false, true, &pods(&[("b", "1/1", "Running")])).unwrap();
        assert!(live.loaded && names(&live) == ["a", "b"]);
        live.page(true, false, &pods(&[("c", "1/1", "Running")])).unwrap();
        assert_eq!(names(&live), ["a", "b"]);
        live.page(false, true, &pods(&[("d", "1/1", "Running")])).unwrap();
        assert_eq!(names(&live), ["c", "d"]);
        live.page(true, true, &pods(&[])).unwrap();
        assert!(live.loaded && live.items.is_empty());
    }

    #[test]
    fn events_insert_replace_and_remove() {
        let mut live = Collection::<Row>::default();
        live.page(true, true, &pods(&[("a", "0/1", "Pending")])).unwrap();
        let event = |r#type: &str, rows: &str| format!(r#"{{"type":"{}","object":{rows}}}"#, r#type);
        live.change(&event("MODIFIED", &pods(&[("a", "1/1", "Running")]))).unwrap();
        live.change(&event("ADDED", &pods(&[("b", "0/1", "Pending")]))).unwrap();
        assert_eq!(live.get("default", "a").unwrap().cells[1], "1/1");
        live.change(&event("DELETED", &pods(&[("a", "1/1", "Running")]))).unwrap();
        assert_eq!(names(&live), ["b"]);
        assert!(live.change("{").is_err());
        live.change("{}").unwrap();
        assert_eq!(names(&live), ["b"], "a broken event changes nothing");
    }

    #[test]
    fn whole_objects_know_what_they_are() {
        let mut live = Collection::<Whole>::default();
        let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "items": [{"metadata": {"name": "a"}, "data": {"x": "1"}}]});
        live.page(true, true, &list.to_string()).unwrap();
        assert_eq!(live.get("", "a").unwrap().tree["kind"], "ConfigMap");
        assert_eq!(live.get("", "a").unwrap().tree["apiVersion"], "v1");
    }

    #[test]
    fn a_plain_list_has_names_and_ages() {
        let mut live = Collection::<Row>::default();
        live.page(true, true, r#"{"kind":"WidgetList","items":[{"metadata":{"name":"w"}}]}"#).unwrap();
        assert_eq!(live.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["Name", "Age"]);
        assert_eq!(names(&live), ["w"]);
    }

    #[test]
    fn rows_are_judged_by_what_is_printed() {
        let mut live = Collection::<Row>::default();
        live.page(
            true,
            true,
            &pods(&[
                ("a", "1/1", "Running"),
                ("b", "0/1", "Running"),
                ("c", "0/1", "CrashLoopBackOff"),
                ("d", "0/1", "ContainerCreating"),
                ("e", "0/1", "Completed"),
                ("f", "0/2", "Init:1/2"),
                ("g", "0/2", "Init:CrashLoopBackOff"),
                ("h", "1/1", "Unknown"),
            ]),
        )
        .unwrap();
        let states: Vec<_> =
            live.items.values().map(|row| row_state("Pod", row, &live.columns, i64::MAX).unwrap()).collect();
        use State::*;
        assert_eq!(states, [Good, Degraded, Failing, Progressing, Idle, Progressing, Failing, Unknown]);
        let row = live.get("default", "a").unwrap();
        assert_eq!(cell(row, 3, &live.columns[3], 0), "3", "a frozen age is not shown");
        assert!(matches(row, "RUNN app=web") && !matches(row, "app=api") && !matches(row, "zzz"));
    }

    #[test]
    fn sorts_numbers_as_numbers_and_names_naturally() {
        assert_eq!(natural("node-2", "node-10"), Ordering::Less);
        assert_eq!(natural("a01", "a1"), Ordering::Equal);
        assert_eq!(natural("a", "ab"), Ordering::Less);
        let row = |name: &str, made: &str| {
            let metadata = Meta { name: name.into(), creation_timestamp: made.into(), ..Meta::default() };
            Arc::new(Row { cells: vec![name.into()], metadata })
        };
        let columns = vec![Column { name: "Name".into(), ..Column::default() }];
        let mut rows = vec![row("p-10", "2026-01-01T00:00:00Z"), row("p-9", "2026-01-02T00:00:00Z")];
        sort(&mut rows, &columns, &Sort::parse("Name").unwrap());
        assert_eq!(rows[0].metadata.name, "p-9");
        sort(&mut rows, &columns, &Sort::parse("-Age").unwrap());
        assert_eq!(rows[0].metadata.name, "p-10", "the oldest first");
    }

    proptest! {
        #[test]
        fn natural_order_is_an_order(a in "[a0-9]{0,6}", b in "[a0-9]{0,6}", c in "[a0-9]{0,6}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            if natural(&a, &b) != Ordering::Greater && natural(&b, &c) != Ordering::Greater {
                prop_assert_ne!(natural(&a, &c), Ordering::Greater);
            }
        }

        #[test]
        fn the_window_covers_what_is_seen(count in 0usize..20_000, top in 0f64..900_000.0, view in 0f64..3_000.0) {
            let (start, end) = window(count, 40.0, top, view);
            prop_assert!(start <= end && end <= count);
            prop_assert!(end - start < 24 + 78);
            let seen = ((top / 40.0) as usize).min(count)..(((top + view) / 40.0).ceil() as usize).min(count);
            prop_assert!(seen.is_empty() || (start <= seen.start && seen.end <= end));
        }
    }
}
