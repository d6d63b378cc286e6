//! Strategic merge patch: maps merge, lists merge by their declared key or are replaced, and directives in the patch
//! say the rest.
//!
//! | directive | means |
//! |---|---|
//! | `$patch: replace` / `delete` / `merge` | of a map, or of an item of a merged list |
//! | `$retainKeys: [a, b]` | of a union: only these keys stay |
//! | `$deleteFromPrimitiveList/finalizers: [x]` | takes items out of a merged list of scalars |
//! | `$setElementOrder/containers: [{name: a}, …]` | the order of a merged list; what only the server has keeps its place |
//!
//! The algorithm and its order of effects are those of Kubernetes's `strategicpatch` package. Items are found through
//! indexes rather than by walking, so that long lists cost no square.

use super::golang::shown;
use crate::apiserver::schema::{Field, Kind, Label, Message, schema};
use longshore_api::Status;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

type Tree = Map<String, Value>;

pub fn apply(original: Tree, patch: Tree, message: &'static Message) -> Result<Tree, Status> {
    merge_map(original, patch, Some(message))
}

fn bad(why: impl Into<String>) -> Status {
    Status::bad_request(why)
}

fn unknown_directive(directive: &Value, map: &Tree) -> Status {
    bad(format!("unknown patch type: {} in map: {}", shown(directive), shown(&Value::Object(map.clone()))))
}

fn no_merge_key(item: &Value, key: &str) -> Status {
    bad(format!("map: {} does not contain declared merge key: {key}", shown(item)))
}

/// How a field is merged: the declared rule and the type of its value or items. A field nobody declared (a label, a
/// key of a raw value) has neither.
#[derive(Clone, Copy, Default)]
struct Rule {
    merge: bool,
    replace: bool,
    key: &'static str,
    message: Option<&'static Message>,
}

impl Rule {
    fn of(message: Option<&'static Message>, key: &str) -> Self {
        let Some(field) = message.and_then(|m| m.member(key)) else { return Self::default() };
        let Field { patch, label, kind, .. } = field;
        let message = match (label, kind) {
            // The values of a map of messages are reached through one more map, which has no type of its own.
            (Label::Map, _) => None,
            (_, Kind::Message(id)) => Some(schema().message(*id)),
            _ => None,
        };
        Self { merge: patch.merge, replace: patch.replace, key: patch.key, message }
    }
}

fn merge_map(mut original: Tree, mut patch: Tree, message: Option<&'static Message>) -> Result<Tree, Status> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(&mut original, &mut patch, message)?;
    for (name, value) in patch {
        let (key, deletes) = match name.strip_prefix(DELETE_FROM) {
            Some(key) => (key.to_string(), true),
            None => (name, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (None, value) if !deletes => without_directives(value),
            (None, _) => continue,
            (Some(Value::Object(old)), Value::Object(new)) => {
                let rule = Rule::of(message, &key);
                if rule.replace { Value::Object(new) } else { Value::Object(merge_map(old, new, rule.message)?) }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                Value::Array(merge_list(old, new, Rule::of(message, &key), deletes)?)
            }
            (Some(old), _) if deletes => old,
            (Some(_), value) => without_directives(value),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn retain_keys(original: &mut Tree, patch: &mut Tree) -> Result<(), Status> {
    const WRONG: &str = "invalid patch format of retainKeys";
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(bad(WRONG)) };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(ORDER);
    if patch.iter().any(|(k, v)| !v.is_null() && !is_directive(k) && !retained.contains(k.as_str())) {
        return Err(bad(WRONG));
    }
    original.retain(|key, _| retained.contains(key.as_str()));
    Ok(())
}

/// Lists whose order the patch says, merged and ordered in one go and taken out of the patch.
fn ordered_lists(original: &mut Tree, patch: &mut Tree, message: Option<&'static Message>) -> Result<(), Status> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER)).cloned().collect();
    for directive in directives {
        let key = &directive[ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(bad("invalid patch format of setElementOrder list"));
        };
        let rule = Rule::of(message, key);
        let old = list_at(original, key)?;
        let new = list_at(patch, key)?;
        if let Some(new) = &new {
            check_order(new, &order, rule.key)?;
        }
        let before = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(item_without_directives).collect(),
            (Some(old), Some(new)) => merge_list(old, new, rule, false)?,
        };
        let ordered = in_order(merged, &order, &before, rule.key)?;
        original.insert(key.into(), Value::Array(ordered));
    }
    Ok(())
}

/// Takes a list out of a tree; null counts as none.
fn list_at(tree: &mut Tree, key: &str) -> Result<Option<Vec<Value>>, Status> {
    match tree.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(bad(format!("expected a list for {key:?}, got {}", shown(&other)))),
    }
}

/// The patch's items must stand in the order that it says itself.
fn check_order(items: &[Value], order: &[Value], key: &str) -> Result<(), Status> {
    let mut steps = order.iter().map(|item| identity(item, key));
    for item in items.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = identity(item, key);
        if wanted.is_none() && !key.is_empty() {
            return Err(no_merge_key(item, key));
        }
        if !steps.any(|step| step == wanted) {
            let (items, order) = (shown(&items.to_vec().into()), shown(&order.to_vec().into()));
            return Err(bad(format!("The order in patch list:\n{items}\n doesn't match {ORDER} list:\n{order}\n")
                .replace(ORDER, ORDER.trim_end_matches('/'))));
        }
    }
    Ok(())
}

fn merge_list(old: Vec<Value>, new: Vec<Value>, rule: Rule, deletes: bool) -> Result<Vec<Value>, Status> {
    if !rule.merge && !deletes {
        return Ok(new);
    }
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    if old.iter().chain(&new).any(Value::is_array) {
        return Err(bad("lists of lists are not supported"));
    }
    let maps = old.iter().chain(&new).filter(|v| v.is_object()).count();
    if maps > 0 && maps < old.len() + new.len() {
        return Err(bad("list element types are not identical"));
    }
    if maps == 0 {
        return merge_scalars(old, new, deletes);
    }
    if rule.key.is_empty() {
        let name = rule.message.map_or("list", Message::go_name);
        return Err(bad(format!("cannot merge lists without merge key for {name}")));
    }
    merge_items(old, new, rule)
}

fn merge_scalars(old: Vec<Value>, new: Vec<Value>, deletes: bool) -> Result<Vec<Value>, Status> {
    let named: HashSet<String> = new.iter().map(Value::to_string).collect();
    if deletes {
        return Ok(old.into_iter().filter(|item| !named.contains(&item.to_string())).collect());
    }
    let mut seen = HashSet::new();
    let before = old.clone();
    let merged = old.into_iter().chain(new.iter().cloned()).filter(|item| seen.insert(item.to_string())).collect();
    in_order(merged, &new, &before, "")
}

fn merge_items(mut old: Vec<Value>, new: Vec<Value>, rule: Rule) -> Result<Vec<Value>, Status> {
    let key = rule.key;
    let (mut changes, mut deleted, mut replace) = (Vec::with_capacity(new.len()), HashSet::new(), false);
    for item in new {
        match item.get(DIRECTIVE).map(|d| (d.as_str().unwrap_or_default(), d)) {
            None => changes.push(item),
            Some(("delete", _)) => {
                deleted.insert(identity(&item, key).ok_or_else(|| no_merge_key(&item, key))?);
            }
            Some(("replace", _)) => replace = true,
            Some(("merge", _)) => return Err(bad("merging lists cannot yet be specified in the patch")),
            Some((_, directive)) => {
                return Err(unknown_directive(directive, item.as_object().unwrap_or(&Map::new())));
            }
        }
    }
    if replace {
        return Ok(changes);
    }
    if !deleted.is_empty() {
        old.retain(|item| identity(item, key).is_none_or(|id| !deleted.contains(&id)));
    }
    let before = old.clone();
    // The first item of a key is the one that is merged, where a list has the key twice.
    let mut places: HashMap<String, usize> = HashMap::with_capacity(old.len());
    for (at, item) in old.iter().enumerate() {
        let id = identity(item, key).ok_or_else(|| no_merge_key(item, key))?;
        places.entry(id).or_insert(at);
    }
    let order = changes.clone();
    for change in changes {
        let id = identity(&change, key).ok_or_else(|| no_merge_key(&change, key))?;
        match (places.get(&id), change) {
            (Some(at), Value::Object(change)) => {
                let item = old[*at].take();
                let item = if let Value::Object(item) = item { item } else { Map::new() };
                old[*at] = Value::Object(merge_map(item, change, rule.message)?);
            }
            (_, change) => {
                places.insert(id, old.len());
                old.push(without_directives(change));
            }
        }
    }
    in_order(old, &order, &before, key)
}

/// Items that `order` names come in its order; the others stand among them where they stood in `before`.
fn in_order(merged: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Result<Vec<Value>, Status> {
    let (wanted, had) = (places(order, key)?, places(before, key)?);
    let place = |all: &HashMap<String, usize>, item: &Value| identity(item, key).and_then(|id| all.get(&id).copied());
    let (mut named, mut others): (Vec<_>, Vec<_>) = merged.into_iter().partition(|item| place(&wanted, item).is_some());
    named.sort_by_key(|item| place(&wanted, item));
    others.sort_by_key(|item| place(&had, item).unwrap_or(usize::MAX));
    let mut ordered = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    for other in others {
        // Unless both stood in the list before and this one first, the named one goes ahead.
        while let Some(next) =
            named.next_if(|next| !matches!((place(&had, &other), place(&had, next)), (Some(o), Some(n)) if o < n))
        {
            ordered.push(next);
        }
        ordered.push(other);
    }
    ordered.extend(named);
    Ok(ordered)
}

fn places(items: &[Value], key: &str) -> Result<HashMap<String, usize>, Status> {
    let mut places = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let id = identity(item, key).ok_or_else(|| no_merge_key(item, key))?;
        places.entry(id).or_insert(at);
    }
    Ok(places)
}

/// What tells an item from others: the value under the merge key, or a scalar itself.
fn identity(item: &Value, key: &str) -> Option<String> {
    if key.is_empty() { Some(item.to_string()) } else { item.get(key).map(Value::to_string) }
}

/// A value of the patch that meets nothing to merge with: taken as it is, less its directives and nulls.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            if entries.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                return Value::Object(Map::new());
            }
            let is_directive = |key: &str| {
                key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ORDER)
            };
            let kept = entries.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Value::Object(kept.map(|(key, value)| (key, without_directives(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().filter_map(item_without_directives).collect()),
        scalar => scalar,
    }
}

fn item_without_directives(item: Value) -> Option<Value> {
    let directive = item.get(DIRECTIVE).and_then(Value::as_str);
    let only_a_directive = directive == Some("replace") && item.as_object().is_some_and(|o| o.len() == 1);
    if directive == Some("delete") || only_a_directive { None } else { Some(without_directives(item)) }
}
