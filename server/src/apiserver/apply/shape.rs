//! How apply sees values: which places are one value, and which are taken apart into fields and items.
//!
//! The table of types says it ([`crate::apiserver::schema`]): lists are one value unless they declare how their items are
//! told apart; maps and messages are taken apart unless they are atomic.

use super::fields::{Element, Fields, field, item};
use crate::apiserver::schema::{self, Field, Kind, Label, Merge, Message, schema};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How a place is merged.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// As a whole.
    One,
    Struct(&'static Message),
    /// Field names of the user's own; what lies at each.
    Map(Inner),
    /// Items that are their own names.
    Set,
    /// Items that are told apart by these fields.
    List(&'static [&'static str], Inner),
}

/// What lies in a map or list.
#[derive(Clone, Copy, Debug)]
pub enum Inner {
    One,
    Struct(&'static Message),
}

impl Inner {
    fn of(kind: Kind) -> Self {
        let Kind::Message(id) = kind else { return Self::One };
        let message = schema().message(id);
        match message.shape == schema::Shape::Struct && !message.atomic {
            true => Self::Struct(message),
            false => Self::One,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::One => Shape::One,
            Self::Struct(message) => Shape::Struct(message),
        }
    }
}

/// An item of a list can't be told from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error("associative list with keys has an element that omits key field {0:?} (and doesn't have default value)")]
    NoKey(String),
    #[error("duplicate entries for key {0}")]
    Twice(String),
}

/// Where each item stands first.
fn places<'a>(items: &'a [(Option<Element>, Shape, &Value)]) -> HashMap<&'a Element, usize> {
    let named = items.iter().enumerate().filter_map(|(at, (name, ..))| Some((name.as_ref()?, at)));
    named.rev().collect()
}

fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

impl Shape {
    fn of(field: &'static Field) -> Self {
        match (field.label, &field.merge) {
            (_, Merge::Atomic) | (Label::List, Merge::Undeclared) => Self::One,
            (Label::One, _) => Inner::of(field.kind).shape(),
            (Label::Map, _) => Self::Map(Inner::of(field.kind)),
            (Label::List, Merge::Set) => Self::Set,
            (Label::List, Merge::Keys(keys)) => Self::List(keys, Inner::of(field.kind)),
        }
    }

    fn member(self, name: &str) -> Self {
        match self {
            Self::Struct(message) => message.member(name).map_or(Self::One, Self::of),
            Self::Map(inner) => inner.shape(),
            _ => Self::One,
        }
    }

    /// An item's name, and how it is merged.
    fn item(self, value: &Value) -> Result<(Element, Self), Unclear> {
        match self {
            Self::List(keys, inner) => {
                let mut named = BTreeMap::new();
                for key in keys {
                    let given = value.get(*key).filter(|value| !value.is_null()).cloned();
                    // The one default that keys have: a port's protocol.
                    let default = (*key == "protocol").then(|| Value::from("TCP"));
                    let value = given.or(default).ok_or_else(|| Unclear::NoKey((*key).into()))?;
                    named.insert((*key).to_string(), value);
                }
                Ok((item("k:", &named.into_iter().collect::<Map<_, _>>().into()), inner.shape()))
            }
            _ => Ok((item("v:", value), Self::One)),
        }
    }

    /// The items of a stored list that have a name, in order.
    fn items(self, list: &[Value]) -> Vec<(Option<Element>, Self, &Value)> {
        let named = list.iter().map(|value| match self.item(value) {
            Ok((element, shape)) => (Some(element), shape, value),
            Err(_) => (None, Self::One, value),
        });
        named.collect()
    }

    /// The fields that a value has.
    pub fn fields(self, value: &Value) -> Fields {
        let mut fields = Fields::default();
        match (self, value) {
            (Self::One, _) => fields.itself = true,
            (Self::Struct(_) | Self::Map(_), Value::Object(map)) => {
                for (name, value) in map {
                    let mut found = self.member(name).fields(value);
                    found.itself |= is_blank(value) || matches!(self, Self::Map(_));
                    fields.put(field(name), found);
                }
            }
            (Self::Set | Self::List(..), Value::Array(list)) => {
                for (element, shape, value) in self.items(list) {
                    let Some(element) = element else { continue };
                    let mut found = shape.fields(value);
                    found.itself = true;
                    fields.put(element, found);
                }
            }
            _ => {}
        }
        fields
    }

    /// Whether each item of each list is clear: what somebody applies must be.
    pub fn check(self, value: &Value) -> Result<(), (String, Unclear)> {
        self.look(value, &mut String::new())
    }

    fn look(self, value: &Value, at: &mut String) -> Result<(), (String, Unclear)> {
        let length = at.len();
        match (self, value) {
            (Self::Struct(_) | Self::Map(_), Value::Object(map)) => {
                for (name, value) in map {
                    at.push('.');
                    at.push_str(name);
                    self.member(name).look(value, at)?;
                    at.truncate(length);
                }
            }
            (Self::Set | Self::List(..), Value::Array(list)) => {
                let mut seen = HashSet::new();
                for value in list {
                    let (element, shape) = self.item(value).map_err(|why| (at.clone(), why))?;
                    let name = Fields { itself: false, below: [(element.clone(), Fields::one())].into() };
                    let shown = name.paths().concat();
                    if !seen.insert(element) {
                        return Err((at.clone(), Unclear::Twice(shown)));
                    }
                    at.push_str(&shown);
                    shape.look(value, at)?;
                    at.truncate(length);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `decoded` with just the fields that were `written`: without those that Go's types add, with those that they leave
    /// out for being zero.
    pub fn as_written(self, written: &Value, mut decoded: Value) -> Value {
        match (self, written, &mut decoded) {
            (Self::Struct(_) | Self::Map(_), Value::Object(written), Value::Object(map)) => {
                map.retain(|name, _| written.contains_key(name));
                for (name, written) in written {
                    let known = match self {
                        Self::Struct(message) => message.member(name).is_some(),
                        _ => true,
                    };
                    match map.remove(name) {
                        Some(value) => drop(map.insert(name.clone(), self.member(name).as_written(written, value))),
                        None if known && !written.is_null() => drop(map.insert(name.clone(), written.clone())),
                        None => {}
                    }
                }
            }
            (Self::List(..), Value::Array(written), Value::Array(list)) if written.len() == list.len() => {
                for (written, value) in written.iter().zip(list) {
                    let (Self::List(_, inner), given) = (self, value.take()) else { continue };
                    *value = inner.shape().as_written(written, given);
                }
            }
            _ => {}
        }
        decoded
    }

    /// The fields that both have, and have otherwise.
    pub fn changed(self, old: &Value, new: &Value) -> Fields {
        let mut fields = Fields::default();
        match (self, old, new) {
            (Self::Struct(_) | Self::Map(_), Value::Object(old), Value::Object(new)) => {
                for (name, new) in new {
                    if let Some(old) = old.get(name).filter(|old| *old != new) {
                        fields.put(field(name), self.member(name).changed(old, new));
                    }
                }
            }
            (Self::Set, ..) => {}
            (Self::List(..), Value::Array(old), Value::Array(new)) => {
                let items = self.items(old);
                let places = places(&items);
                for (element, shape, new) in self.items(new) {
                    let Some(element) = element else { continue };
                    if let Some(at) = places.get(&element) {
                        fields.put(element, shape.changed(&old[*at], new));
                    }
                }
            }
            _ => fields.itself = old != new,
        }
        fields
    }

    /// `applied` over `live`: what it has wins, what it leaves out stays.
    pub fn merge(self, live: &Value, applied: &Value) -> Value {
        match (self, live, applied) {
            (Self::Struct(_) | Self::Map(_), Value::Object(live), Value::Object(applied)) => {
                let mut merged = live.clone();
                for (name, value) in applied {
                    let value = match live.get(name) {
                        Some(live) => self.member(name).merge(live, value),
                        None => value.clone(),
                    };
                    merged.insert(name.clone(), value);
                }
                merged.into()
            }
            (Self::Set | Self::List(..), Value::Array(live), Value::Array(applied)) => {
                self.merge_lists(live, applied).into()
            }
            _ => applied.clone(),
        }
    }

    /// The applied order counts; items of others stand where they stood between the shared ones.
    fn merge_lists(self, live: &[Value], applied: &[Value]) -> Vec<Value> {
        let (live, applied) = (self.items(live), self.items(applied));
        let places = places(&live);
        let find = |element: &Option<Element>| element.as_ref().and_then(|name| places.get(name).copied());
        let wanted: HashSet<&Element> = applied.iter().filter_map(|(name, ..)| name.as_ref()).collect();
        let others = |name: &Option<Element>| name.as_ref().is_none_or(|name| !wanted.contains(name));
        let mut shared = applied.iter().filter(|(name, ..)| find(name).is_some()).peekable();
        let (mut merged, mut next) = (Vec::with_capacity(live.len() + applied.len()), 0);
        for (element, shape, value) in &applied {
            while let Some((name, _, other)) = live.get(next) {
                if others(name) {
                    merged.push((*other).clone());
                } else if shared.peek().is_some_and(|(wanted, ..)| wanted == name) {
                    break;
                }
                next += 1;
            }
            match find(element) {
                Some(at) => {
                    merged.push(shape.merge(live[at].2, value));
                    next += usize::from(at == next);
                    shared.next();
                }
                None => merged.push((*value).clone()),
            }
        }
        merged.extend(live[next..].iter().filter(|(name, ..)| others(name)).map(|(.., value)| (*value).clone()));
        merged
    }

    /// Takes out of `value` what is among `last` and, with all below it, among nobody's `owned`.
    pub fn prune(self, value: &mut Value, last: &Fields, owned: &Fields) {
        match (self, value) {
            (Self::Struct(_) | Self::Map(_), Value::Object(map)) => {
                for (element, last) in &last.below {
                    let Some(name) = element.strip_prefix("f:") else { continue };
                    let (shape, Some(value)) = (self.member(name), map.get_mut(name)) else { continue };
                    match owned.below.get(element) {
                        Some(owned) => shape.prune(value, last, owned),
                        // An empty list has no field that could go.
                        None if shape.fields(value).is_empty() && !is_blank(value) => {}
                        None => drop(map.remove(name)),
                    }
                }
            }
            (Self::Set | Self::List(..), Value::Array(list)) => list.retain_mut(|value| {
                let Ok((element, shape)) = self.item(value) else { return true };
                let Some(last) = last.below.get(&element) else { return true };
                let Some(owned) = owned.below.get(&element) else { return false };
                shape.prune(value, last, owned);
                true
            }),
            _ => {}
        }
    }
}
