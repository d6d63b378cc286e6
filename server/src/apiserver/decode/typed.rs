//! Anything that serde can walk → a tree of one type, by the table.
//!
//! One pass in the document's order: what the type doesn't have is skipped, what it has twice is noticed, scalars are
//! checked and made canonical, zero values are left out where Kubernetes leaves them out, and messages that Go keeps
//! by value appear even when empty. A value of the wrong type doesn't end the pass: as in Go the first one is the error
//! and the rest is read, so that syntax errors and others are found in the same order.

use super::any;
use super::bounds::Bounds;
use super::scalars;
use crate::apiserver::schema::{Field, Kind, Label, Message, Schema, Shape, schema};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// As in Kubernetes: more complaints than this help nobody.
const MAX_COMPLAINTS: usize = 100;
/// Their bytes together: paths can be as long as the keys in the body.
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;

/// The tree and what strict validation has against it; `Err` inside when something doesn't fit the type, outside when
/// the source can't be read at all.
type Read = Result<(Value, Vec<String>), String>;

pub fn read<'de, D: Deserializer<'de>>(message: &'static Message, source: D, validate: bool) -> Result<Read, D::Error> {
    let mut session = Session {
        schema: schema(),
        validate,
        complaints: Vec::new(),
        complaint_bytes: 0,
        path: String::new(),
        names: Vec::new(),
        owner: None,
        wrong: None,
        bounds: Bounds::default(),
    };
    let visitor = Struct { session: &mut session, message };
    let tree = source.deserialize_any(visitor)?;
    Ok(match session.wrong {
        Some(why) => Err(why),
        None => Ok((tree, session.complaints)),
    })
}

struct Session {
    schema: &'static Schema,
    validate: bool,
    complaints: Vec<String>,
    complaint_bytes: usize,
    /// Where we are, as strict validation names it: `spec.containers[0].image`.
    path: String,
    /// Where we are, as Go's decoder names it: without indexes and map keys.
    names: Vec<&'static str>,
    /// The innermost struct's type.
    owner: Option<&'static str>,
    /// The first thing that doesn't fit its type.
    wrong: Option<String>,
    bounds: Bounds,
}

impl Session {
    fn complain(&mut self, what: &str, path_len: usize, key: &str) {
        if !self.validate || self.complaints.len() >= MAX_COMPLAINTS {
            return;
        }
        let path = &self.path[..path_len];
        let dot = if path.is_empty() { "" } else { "." };
        let complaint = format!("{what} field \"{path}{dot}{key}\"");
        self.complaint_bytes += complaint.len();
        if self.complaint_bytes <= MAX_COMPLAINT_BYTES && !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// Notes a value of another type than wanted.
    fn mismatch(&mut self, what: &str, wanted: &str) {
        if self.wrong.is_some() {
            return;
        }
        self.wrong = Some(match self.owner {
            Some(owner) => format!(
                "json: cannot unmarshal {what} into Go struct field {owner}.{} of type {wanted}",
                self.names.join(".")
            ),
            None => format!("json: cannot unmarshal {what} into Go value of type {wanted}"),
        });
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.bounds.enter().map_err(E::custom)
    }

    fn enter_object<E: Error>(&mut self) -> Result<(), E> {
        self.bounds.objects(1).map_err(E::custom)?;
        self.enter()
    }

    /// Adds what Go keeps by value and so always writes.
    fn complete<E: Error>(&mut self, tree: &mut Map<String, Value>, message: &'static Message) -> Result<(), E> {
        let added = complete(tree, message, self.schema);
        self.bounds.objects(added).map_err(E::custom)
    }

    /// What a null among a map's values or a list's items becomes: Go's zero value.
    fn zero<E: Error>(&mut self, kind: Kind) -> Result<Value, E> {
        Ok(match kind {
            Kind::String | Kind::Bytes => Value::String(String::new()),
            Kind::Bool => Value::Bool(false),
            Kind::Int32 | Kind::Int64 | Kind::Double => 0.into(),
            Kind::Message(id) => match self.schema.message(id) {
                message if message.shape == Shape::Struct => self.empty(message)?,
                message if message.shape == Shape::Quantity => "0".into(),
                _ => Value::Null,
            },
        })
    }

    fn empty<E: Error>(&mut self, message: &'static Message) -> Result<Value, E> {
        let mut tree = Map::new();
        self.bounds.objects(1).map_err(E::custom)?;
        self.complete(&mut tree, message)?;
        Ok(Value::Object(tree))
    }

    fn push_key(&mut self, key: &str) -> usize {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        before
    }
}

/// What a value should be.
#[derive(Clone, Copy)]
struct Want {
    label: Label,
    kind: Kind,
}

impl Want {
    fn go_type(self, schema: &Schema) -> String {
        let item = self.kind.go_type(schema);
        match self.label {
            Label::One => item.to_string(),
            Label::List => format!("[]{item}"),
            Label::Map => format!("map[string]{item}"),
        }
    }
}

/// Reads one value; `None` for null, which is the same as absent.
struct Slot<'s> {
    session: &'s mut Session,
    want: Want,
}

impl<'s> Slot<'s> {
    fn shape(&self) -> Option<(Shape, &'static Message)> {
        match (self.want.label, self.want.kind) {
            (Label::One, Kind::Message(id)) => {
                let message = self.session.schema.message(id);
                Some((message.shape, message))
            }
            _ => None,
        }
    }

    fn mismatch(self, what: &str) -> Option<Value> {
        let wanted = self.want.go_type(self.session.schema);
        self.session.mismatch(what, &wanted);
        None
    }

    /// A value whose own decoder refuses it: its sentence stands alone, as Go reports such.
    fn refuse(self, why: String) -> Option<Value> {
        self.session.wrong.get_or_insert(why);
        None
    }

    fn settle(self, result: Result<Option<Value>, String>) -> Option<Value> {
        match result {
            Ok(value) => value,
            Err(why) => self.refuse(why),
        }
    }

    fn number(self, number: Number) -> Option<Value> {
        let literal = scalars::literal(&number);
        if let Some((shape, _)) = self.shape() {
            return match shape {
                Shape::Raw => Some(Value::Number(number)),
                Shape::Quantity => self.settle(scalars::quantity(&literal)),
                Shape::IntOrString => self.settle(scalars::int_or_string(&number)),
                Shape::Time | Shape::MicroTime | Shape::Duration => {
                    self.refuse("json: cannot unmarshal number into Go value of type string".into())
                }
                _ => self.mismatch("number"),
            };
        }
        match (self.want.label, self.want.kind) {
            (Label::One, Kind::Int64) if number.is_i64() => Some(Value::Number(number)),
            (Label::One, Kind::Int32) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                Some(Value::Number(number))
            }
            (Label::One, Kind::Double) => Some(Value::Number(number)),
            (Label::One, Kind::Int64 | Kind::Int32) => self.mismatch(&format!("number {literal}")),
            _ => self.mismatch("number"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = Option<Value>;
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Option<Value>, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Value>, E> {
        Ok(match (self.want.label, self.want.kind, self.shape().map(|s| s.0)) {
            (Label::One, Kind::Bool, _) | (_, _, Some(Shape::Raw | Shape::SchemaOrBool)) => Some(Value::Bool(value)),
            (_, _, Some(Shape::Quantity)) => self.settle(scalars::quantity(if value { "true" } else { "false" })),
            (_, _, Some(Shape::IntOrString)) => {
                self.refuse("json: cannot unmarshal bool into Go value of type int32".into())
            }
            (_, _, Some(Shape::Time | Shape::MicroTime | Shape::Duration)) => {
                self.refuse("json: cannot unmarshal bool into Go value of type string".into())
            }
            _ => self.mismatch("bool"),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Value>, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Value>, E> {
        Ok(match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => self.mismatch("number"),
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Value>, E> {
        let result = match (self.want.label, self.want.kind, self.shape().map(|s| s.0)) {
            (Label::One, Kind::String, _) => Ok(Some(text.into())),
            (_, _, Some(Shape::Raw | Shape::IntOrString)) => Ok(Some(text.into())),
            (Label::One, Kind::Bytes, _) => scalars::base64(text),
            (_, _, Some(Shape::Time)) => scalars::time(text),
            (_, _, Some(Shape::MicroTime)) => scalars::micro_time(text),
            (_, _, Some(Shape::Duration)) => scalars::duration(text),
            (_, _, Some(Shape::Quantity)) => scalars::quantity(text),
            _ => return Ok(self.mismatch("string")),
        };
        Ok(self.settle(result))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Value>, A::Error> {
        let kind = match (self.want.label, self.want.kind, self.shape()) {
            (Label::List, kind, _) => kind,
            (_, _, Some((Shape::Raw, _))) => {
                return any::Any::within(&mut self.session.bounds).visit_seq(seq).map(Some);
            }
            (_, _, Some((Shape::Items, message))) => message.fields.first().map_or(Kind::String, |f| f.kind),
            (_, _, Some((Shape::SchemaOrArray | Shape::SchemaOrStrings, message))) => {
                message.fields.get(1).map_or(Kind::String, |f| f.kind)
            }
            _ => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(self.mismatch("array"));
            }
        };
        self.session.enter()?;
        let mut items = Vec::new();
        let before = self.session.path.len();
        loop {
            self.session.path.push_str(&format!("[{}]", items.len()));
            let slot = Slot { session: &mut *self.session, want: Want { label: Label::One, kind } };
            let item = seq.next_element_seed(slot)?;
            self.session.path.truncate(before);
            match item {
                Some(Some(item)) => items.push(item),
                Some(None) => items.push(self.session.zero(kind)?),
                None => break,
            }
        }
        self.session.bounds.leave();
        Ok(Some(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        if let (Label::Map, kind) = (self.want.label, self.want.kind) {
            return read_map(self.session, kind, map).map(Some);
        }
        match self.shape() {
            Some((Shape::Raw, _)) => any::Any::within(&mut self.session.bounds).visit_map(map).map(Some),
            Some((Shape::Struct, message)) => Struct { session: self.session, message }.visit_map(map).map(Some),
            Some((Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, choice)) => {
                let schema = self.session.schema;
                let props = choice.member("schema").and_then(|f| match f.kind {
                    Kind::Message(id) => Some(schema.message(id)),
                    _ => None,
                });
                match props {
                    Some(message) => Struct { session: self.session, message }.visit_map(map).map(Some),
                    None => any::Any::within(&mut self.session.bounds).visit_map(map).map(Some),
                }
            }
            shape => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(match shape {
                    Some((Shape::Quantity, _)) => self.settle(scalars::quantity("{}")),
                    Some((Shape::IntOrString, _)) => {
                        self.refuse("json: cannot unmarshal object into Go value of type int32".into())
                    }
                    Some((Shape::Time | Shape::MicroTime | Shape::Duration, _)) => {
                        self.refuse("json: cannot unmarshal object into Go value of type string".into())
                    }
                    _ => self.mismatch("object"),
                })
            }
        }
    }
}

fn read_map<'de, A: MapAccess<'de>>(session: &mut Session, kind: Kind, mut map: A) -> Result<Value, A::Error> {
    session.enter_object()?;
    let mut entries = Map::new();
    while let Some(key) = map.next_key::<String>()? {
        let before = session.push_key(&key);
        let slot = Slot { session: &mut *session, want: Want { label: Label::One, kind } };
        let value = match map.next_value_seed(slot)? {
            Some(value) => value,
            None => session.zero(kind)?,
        };
        session.path.truncate(before);
        if entries.contains_key(&key) {
            session.complain("duplicate", before, &key);
        }
        entries.insert(key, value);
    }
    session.bounds.leave();
    Ok(Value::Object(entries))
}

/// Reads one message that is an object in JSON.
struct Struct<'s> {
    session: &'s mut Session,
    message: &'static Message,
}

impl Struct<'_> {
    fn wrong<E>(self, what: &str) -> Result<Value, E> {
        self.session.mismatch(what, self.message.go_type());
        Ok(Value::Null)
    }
}

impl<'de> Visitor<'de> for Struct<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Self { session, message } = self;
        session.enter_object()?;
        let outer = session.owner.replace(message.go_name());
        let (mut tree, mut seen) = (Map::new(), Vec::<&'static str>::new());
        while let Some(key) = map.next_key::<String>()? {
            let before = session.path.len();
            let type_meta = message.root && matches!(key.as_str(), "kind" | "apiVersion");
            let field = message.member(&key);
            let (name, want, omit_zero) = match field {
                Some(field) => (field.json, Want { label: field.label, kind: field.kind }, field.omit_zero),
                None if type_meta => {
                    let name = if key == "kind" { "kind" } else { "apiVersion" };
                    (name, Want { label: Label::One, kind: Kind::String }, true)
                }
                None => {
                    session.complain("unknown", before, &key);
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if seen.contains(&name) {
                session.complain("duplicate", before, &key);
            } else {
                seen.push(name);
            }
            session.push_key(&key);
            session.names.push(name);
            let value = map.next_value_seed(Slot { session: &mut *session, want })?;
            session.names.pop();
            session.path.truncate(before);
            match value {
                Some(value) if !(omit_zero && is_zero(&value, want)) => {
                    tree.insert(key, value);
                }
                // Null, or a later zero over an earlier value: as Go's struct would end up.
                Some(_) => {
                    tree.remove(&key);
                }
                None => {}
            }
        }
        session.owner = outer;
        session.bounds.leave();
        session.complete(&mut tree, message)?;
        Ok(Value::Object(tree))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.wrong("array")
    }
    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        self.wrong("string")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        self.wrong("bool")
    }
    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        self.wrong("number")
    }
    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        self.wrong("number")
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        self.wrong("number")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.session.empty(self.message)
    }
}

/// Whether Go's `omitempty` leaves the value out. Messages are never empty to it.
pub fn is_zero(value: &Value, kind_is: impl Into<Zero>) -> bool {
    match (kind_is.into(), value) {
        (Zero::Collection, Value::Array(items)) => items.is_empty(),
        (Zero::Collection, Value::Object(entries)) => entries.is_empty(),
        (Zero::Scalar, Value::String(text)) => text.is_empty(),
        (Zero::Scalar, Value::Bool(value)) => !value,
        (Zero::Scalar, Value::Number(number)) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

/// Which values of a field count as zero.
pub enum Zero {
    Scalar,
    Collection,
    Message,
}

impl From<Want> for Zero {
    fn from(want: Want) -> Self {
        match (want.label, want.kind) {
            (Label::One, Kind::Message(_)) => Self::Message,
            (Label::One, _) => Self::Scalar,
            _ => Self::Collection,
        }
    }
}

impl From<&Field> for Zero {
    fn from(field: &Field) -> Self {
        Want { label: field.label, kind: field.kind }.into()
    }
}

/// Adds what Go keeps by value and so always writes: `resources: {}`, `status: {"loadBalancer": {}}`. Returns how many
/// objects that made.
pub fn complete(tree: &mut Map<String, Value>, message: &'static Message, schema: &'static Schema) -> usize {
    let mut added = 0;
    for field in message.members() {
        let Kind::Message(id) = field.kind else { continue };
        if !field.omit_zero || field.label != Label::One || tree.contains_key(field.json) {
            continue;
        }
        let value = match schema.message(id) {
            inner if inner.shape == Shape::Struct => {
                let mut value = Map::new();
                added += 1 + complete(&mut value, inner, schema);
                Value::Object(value)
            }
            inner if inner.shape == Shape::Quantity => "0".into(),
            _ => continue,
        };
        tree.insert(field.json.into(), value);
    }
    added
}
