//! Any JSON as it stands, within bounds: what `RawExtension` holds, and patches before they are applied.

use super::bounds::Bounds;
use super::golang;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Duplicates that are reported, as in Kubernetes.
const MAX_DUPLICATES: usize = 100;
const MAX_PATH: usize = 1024;

/// Reads one value.
pub fn read<'de, D: Deserializer<'de>>(source: D, bounds: &mut Bounds) -> Result<Value, D::Error> {
    Any::within(bounds).deserialize(source)
}

/// A whole body and its duplicate fields (`duplicate field "spec.replicas"`). The error is Go's.
pub fn document(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let text = String::from_utf8_lossy(bytes);
    let mut source = serde_json::Deserializer::from_str(&text);
    let (mut bounds, mut duplicates) = (Bounds::default(), Duplicates::default());
    let tree = Any { bounds: &mut bounds, duplicates: Some(&mut duplicates) }.deserialize(&mut source);
    let tree = tree.and_then(|tree| source.end().map(|()| tree)).map_err(|e| golang::json_error(&e, &text))?;
    Ok((tree, duplicates.found))
}

/// What Go's decoder calls a value of this kind.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[derive(Default)]
struct Duplicates {
    path: String,
    found: Vec<String>,
}

impl Duplicates {
    fn push(&mut self, step: fmt::Arguments<'_>) -> usize {
        let before = self.path.len();
        if before < MAX_PATH {
            self.path.push_str(&step.to_string());
        }
        before
    }

    fn note(&mut self) {
        let complaint = format!("duplicate field {:?}", self.path.trim_start_matches('.'));
        if self.found.len() < MAX_DUPLICATES && complaint.len() < MAX_PATH && !self.found.contains(&complaint) {
            self.found.push(complaint);
        }
    }
}

/// A seed and visitor for any value.
pub struct Any<'s> {
    bounds: &'s mut Bounds,
    duplicates: Option<&'s mut Duplicates>,
}

impl<'s> Any<'s> {
    pub fn within(bounds: &'s mut Bounds) -> Self {
        Self { bounds, duplicates: None }
    }

    fn inner(&mut self) -> Any<'_> {
        Any { bounds: &mut *self.bounds, duplicates: self.duplicates.as_deref_mut() }
    }

    fn push(&mut self, step: fmt::Arguments<'_>) -> usize {
        self.duplicates.as_mut().map_or(0, |d| d.push(step))
    }

    fn truncate(&mut self, len: usize) {
        if let Some(duplicates) = self.duplicates.as_mut() {
            duplicates.path.truncate(len);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        self.bounds.enter().map_err(A::Error::custom)?;
        let mut items = Vec::new();
        loop {
            let before = self.push(format_args!("[{}]", items.len()));
            let item = seq.next_element_seed(self.inner())?;
            self.truncate(before);
            match item {
                Some(item) => items.push(item),
                None => break,
            }
        }
        self.bounds.leave();
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        self.bounds.objects(1).and_then(|()| self.bounds.enter()).map_err(A::Error::custom)?;
        let mut entries = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let before = self.push(format_args!(".{key}"));
            if entries.contains_key(&key)
                && let Some(duplicates) = self.duplicates.as_mut()
            {
                duplicates.note();
            }
            let value = map.next_value_seed(self.inner())?;
            self.truncate(before);
            entries.insert(key, value);
        }
        self.bounds.leave();
        Ok(Value::Object(entries))
    }
}
