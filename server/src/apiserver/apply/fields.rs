//! Sets of fields, as `managedFields` has them (`FieldsV1`): a tree of path elements.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// One step of a path, in the form that `FieldsV1` writes: `f:spec`, `k:{"name":"c"}` (a list's item by its keys),
/// `v:"x"` (a set's item), `i:0`.
pub type Element = String;

/// Deeper trees than any object's are refused.
const DEPTH: usize = 128;

/// A set of fields: the ones at or below a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The place itself.
    pub itself: bool,
    pub below: BTreeMap<Element, Fields>,
}

impl Fields {
    pub fn one() -> Self {
        Self { itself: true, below: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.itself && self.below.is_empty()
    }

    /// Puts what is below `element` there; nothing where there is nothing.
    pub fn put(&mut self, element: Element, fields: Self) {
        if !fields.is_empty() {
            self.below.entry(element).or_default().add(&fields);
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.itself |= other.itself;
        for (element, fields) in &other.below {
            self.below.entry(element.clone()).or_default().add(fields);
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.itself &= !other.itself;
        for (element, fields) in &other.below {
            if let Some(mine) = self.below.get_mut(element) {
                mine.subtract(fields);
                if mine.is_empty() {
                    self.below.remove(element);
                }
            }
        }
    }

    pub fn without(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    pub fn common(&self, other: &Self) -> Self {
        let mut common = Self { itself: self.itself && other.itself, below: BTreeMap::new() };
        for (element, fields) in &self.below {
            if let Some(theirs) = other.below.get(element) {
                common.put(element.clone(), fields.common(theirs));
            }
        }
        common
    }

    /// Takes out a field and all below it.
    pub fn cut(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let Some(next) = self.below.get_mut(*first) else { return };
        match rest {
            [] => *next = Self::default(),
            rest => next.cut(rest),
        }
        if next.is_empty() {
            self.below.remove(*first);
        }
    }

    /// Each field as messages name it: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut String, paths: &mut Vec<String>) {
        if self.itself {
            paths.push(at.clone());
        }
        for (element, fields) in &self.below {
            let length = at.len();
            show(element, at);
            fields.collect(at, paths);
            at.truncate(length);
        }
    }

    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.itself && !self.below.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        map.extend(self.below.iter().map(|(element, fields)| (element.clone(), fields.to_json())));
        Value::Object(map)
    }

    /// What no server has written is skipped: it can't be anybody's.
    pub fn from_json(value: &Value) -> Self {
        Self::read(value, DEPTH)
    }

    fn read(value: &Value, depth: usize) -> Self {
        let mut fields = Self::default();
        let Some(map) = value.as_object().filter(|_| depth > 0) else { return fields };
        for (element, below) in map {
            match element.as_str() {
                "." => fields.itself = true,
                _ if !["f:", "k:", "v:", "i:"].iter().any(|kind| element.starts_with(kind)) => {}
                _ => {
                    let mut below = Self::read(below, depth - 1);
                    below.itself |= below.below.is_empty();
                    fields.put(element.clone(), below);
                }
            }
        }
        fields
    }
}

/// An item of a set, or one that is told by its keys.
pub fn item(kind: &str, value: &Value) -> Element {
    // A map's keys are sorted: the same item has the same name, whoever wrote it.
    format!("{kind}{value}")
}

pub fn field(name: &str) -> Element {
    format!("f:{name}")
}

fn show(element: &str, at: &mut String) {
    let (kind, text) = element.split_at(2);
    let value = || serde_json::from_str::<Value>(text).unwrap_or_default();
    let _ = match kind {
        "f:" => write!(at, ".{text}"),
        "v:" => write!(at, "[={}]", value()),
        "i:" => write!(at, "[{text}]"),
        _ => {
            let value = value();
            let keys = value.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
            write!(at, "[{}]", keys.collect::<Vec<_>>().join(","))
        }
    };
}
