//! JSON patch (RFC 6902) with the leniences of the library that Kubernetes uses: negative indexes count from the end,
//! and a member that isn't there equals null in a test.
//!
//! Own code rather than a crate for the bounds: a few `copy` operations double an object each, a few thousand inserts
//! at the front of a long list move it each time, and copies into themselves nest without end.

use crate::apiserver::decode::MAX_BODY;
use crate::apiserver::decode::bounds::MAX_DEPTH;
use longshore_api::Status;
use serde_json::Value;

/// As in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that copies may add together; Kubernetes allows a body's worth, too.
const MAX_COPIED: usize = MAX_BODY;
/// List items that inserts and removals may shift together: a second's work.
const MAX_SHIFTED: usize = 50_000_000;

/// Why an operation doesn't apply. Clients only learn that one doesn't, as from Kubernetes.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    UnknownOperation,
    BadPath,
    Missing,
    OutOfBounds,
    TestFailed,
    TooMuch,
}

pub fn apply(mut tree: Value, operations: Vec<Value>) -> Result<Value, Status> {
    if operations.len() > MAX_OPERATIONS {
        return Err(Status::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut work = Work::default();
    for operation in operations {
        work.apply(&mut tree, operation).map_err(|_| {
            Status::failure(422, "Invalid", "the server rejected our request due to an error in our request")
        })?;
    }
    Ok(tree)
}

/// What was spent so far.
#[derive(Default)]
struct Work {
    copied: usize,
    shifted: usize,
}

impl Work {
    fn apply(&mut self, tree: &mut Value, mut operation: Value) -> Result<(), Refused> {
        let text = |field: &str| operation.get(field).and_then(Value::as_str).map(str::to_string);
        let kind = text("op").ok_or(Refused::UnknownOperation)?;
        let path = pointer(&text("path").ok_or(Refused::BadPath)?)?;
        let from = text("from");
        let value = operation.get_mut("value").map(Value::take);
        match kind.as_str() {
            "add" => self.add(tree, &path, value.unwrap_or_default()),
            "remove" => self.remove(tree, &path).map(|_| ()),
            "replace" => replace(tree, &path, value.unwrap_or_default()),
            "move" => {
                let from = pointer(&from.ok_or(Refused::BadPath)?)?;
                let value = self.remove(tree, &from)?;
                self.add(tree, &path, value)
            }
            "copy" => {
                let from = pointer(&from.ok_or(Refused::BadPath)?)?;
                let value = get(tree, &from)?.ok_or(Refused::Missing)?;
                self.copied += weight(value);
                if self.copied > MAX_COPIED {
                    return Err(Refused::TooMuch);
                }
                let value = value.clone();
                self.add(tree, &path, value)
            }
            "test" => {
                let found = get(tree, &path)?.unwrap_or(&Value::Null);
                if *found == value.unwrap_or_default() { Ok(()) } else { Err(Refused::TestFailed) }
            }
            _ => Err(Refused::UnknownOperation),
        }
    }

    fn add(&mut self, tree: &mut Value, path: &[String], value: Value) -> Result<(), Refused> {
        fits(path, &value)?;
        let (last, parent) = parent(tree, path)?;
        match parent {
            Value::Object(entries) => {
                entries.insert(last.clone(), value);
                Ok(())
            }
            Value::Array(items) => {
                // Counted in the list as it will be, so that -1 appends.
                let at = if last == "-" { items.len() } else { index(last, items.len() + 1)? };
                self.shift(items.len() - at)?;
                items.insert(at, value);
                Ok(())
            }
            _ => Err(Refused::Missing),
        }
    }

    fn remove(&mut self, tree: &mut Value, path: &[String]) -> Result<Value, Refused> {
        let (last, parent) = parent(tree, path)?;
        match parent {
            Value::Object(entries) => entries.remove(last).ok_or(Refused::Missing),
            Value::Array(items) => {
                let at = index(last, items.len())?;
                self.shift(items.len() - at)?;
                Ok(items.remove(at))
            }
            _ => Err(Refused::Missing),
        }
    }

    fn shift(&mut self, items: usize) -> Result<(), Refused> {
        self.shifted += items;
        if self.shifted > MAX_SHIFTED { Err(Refused::TooMuch) } else { Ok(()) }
    }
}

fn replace(tree: &mut Value, path: &[String], value: Value) -> Result<(), Refused> {
    fits(path, &value)?;
    let (last, parent) = parent(tree, path)?;
    let slot = match parent {
        Value::Object(entries) => entries.get_mut(last),
        Value::Array(items) => {
            let at = index(last, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    };
    *slot.ok_or(Refused::Missing)? = value;
    Ok(())
}

/// `/spec/containers/0` → its steps. The whole document can't be named, as with Kubernetes's library.
fn pointer(text: &str) -> Result<Vec<String>, Refused> {
    let steps = text.strip_prefix('/').ok_or(Refused::BadPath)?;
    let steps: Vec<_> = steps.split('/').take(MAX_DEPTH + 1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    if steps.len() > MAX_DEPTH { Err(Refused::TooMuch) } else { Ok(steps) }
}

fn parent<'t, 'p>(tree: &'t mut Value, path: &'p [String]) -> Result<(&'p String, &'t mut Value), Refused> {
    let (last, steps) = path.split_last().ok_or(Refused::BadPath)?;
    let mut at = tree;
    for step in steps {
        at = match at {
            Value::Object(entries) => entries.get_mut(step),
            Value::Array(items) => {
                let i = index(step, items.len())?;
                items.get_mut(i)
            }
            _ => None,
        }
        .ok_or(Refused::Missing)?;
    }
    Ok((last, at))
}

/// `None` for a member that isn't there in a container that is.
fn get<'t>(tree: &'t Value, path: &[String]) -> Result<Option<&'t Value>, Refused> {
    let (last, steps) = path.split_last().ok_or(Refused::BadPath)?;
    let step_into = |at: &'t Value, step: &String| match at {
        Value::Object(entries) => Ok(entries.get(step)),
        Value::Array(items) => index(step, items.len()).map(|i| items.get(i)),
        _ => Err(Refused::Missing),
    };
    let mut at = tree;
    for step in steps {
        at = step_into(at, step)?.ok_or(Refused::Missing)?;
    }
    step_into(at, last)
}

fn index(step: &str, len: usize) -> Result<usize, Refused> {
    let at: i64 = step.parse().map_err(|_| Refused::BadPath)?;
    let at = if at < 0 { at + len as i64 } else { at };
    usize::try_from(at).ok().filter(|at| *at < len).ok_or(Refused::OutOfBounds)
}

/// Nesting stays what a body may have, whatever is put where.
fn fits(path: &[String], value: &Value) -> Result<(), Refused> {
    if path.len() + depth(value) > MAX_DEPTH { Err(Refused::TooMuch) } else { Ok(()) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// About its bytes as JSON, objects at some more for what they cost in memory.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 2 + text.len(),
        Value::Array(items) => 2 + items.iter().map(|i| 1 + weight(i)).sum::<usize>(),
        Value::Object(entries) => 32 + entries.iter().map(|(k, v)| 4 + k.len() + weight(v)).sum::<usize>(),
        _ => 4,
    }
}
