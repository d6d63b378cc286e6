//! `metadata.managedFields`: who has set which fields of an object.

use super::fields::Fields;
use serde_json::{Map, Value, json};

/// Of those who update an object, as in Kubernetes. Those who apply aren't counted: each of them may want to go on.
const MOST_UPDATERS: usize = 10;
/// Who has what those had set that are no longer told apart.
const ANCIENT: &str = "ancient-changes";

/// What a manager has set, by one way of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    pub who: Who,
    /// The version in which it wrote: `apps/v1`.
    pub api_version: String,
    pub time: String,
    pub fields: Fields,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub name: String,
    /// By apply, so that what it leaves out the next time goes; otherwise by any other write.
    pub applies: bool,
    pub subresource: String,
}

impl Manager {
    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_string();
        let applies = match entry["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let who = Who { name: text("manager"), applies, subresource: text("subresource") };
        let fields = Fields::from_json(&entry["fieldsV1"]);
        Some(Self { who, api_version: text("apiVersion"), time: text("time"), fields })
    }

    fn write(&self) -> Value {
        let mut entry = Map::new();
        let operation = if self.who.applies { "Apply" } else { "Update" };
        entry.insert("manager".into(), self.who.name.clone().into());
        entry.insert("operation".into(), operation.into());
        entry.insert("apiVersion".into(), self.api_version.clone().into());
        if !self.time.is_empty() {
            entry.insert("time".into(), self.time.clone().into());
        }
        entry.insert("fieldsType".into(), "FieldsV1".into());
        entry.insert("fieldsV1".into(), self.fields.to_json());
        if !self.who.subresource.is_empty() {
            entry.insert("subresource".into(), self.who.subresource.clone().into());
        }
        entry.into()
    }

    /// The same manager writes: for an update its version counts, too.
    pub fn is(&self, who: &Who, api_version: &str) -> bool {
        self.who == *who && (who.applies || self.api_version == api_version)
    }

    /// As a conflict names it.
    pub fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.who.name);
        if !self.who.subresource.is_empty() {
            shown += &format!(" with subresource {:?}", self.who.subresource);
        }
        if !self.who.applies {
            shown += &format!(" using {}", self.api_version);
        }
        shown
    }
}

/// Of an object, or of its `managedFields` that a client sends back.
pub fn read(tree: &Value) -> Vec<Manager> {
    tree["metadata"]["managedFields"].as_array().into_iter().flatten().filter_map(Manager::read).collect()
}

/// Those who have nothing are left out; none at all is no list. Where there are too many who update, the oldest of each version
/// become one.
pub fn write(mut managers: Vec<Manager>) -> Option<Value> {
    managers.retain(|manager| !manager.fields.is_empty());
    bound(&mut managers);
    let order = |m: &Manager| {
        (!m.who.applies, m.time.clone(), m.who.name.clone(), m.api_version.clone(), m.who.subresource.clone())
    };
    managers.sort_by_cached_key(order);
    (!managers.is_empty()).then(|| managers.iter().map(Manager::write).collect())
}

/// The first of a version stays as it is for as long as no other of its version has to give way.
fn bound(managers: &mut Vec<Manager>) {
    let mut over = managers.iter().filter(|manager| !manager.who.applies).count().saturating_sub(MOST_UPDATERS);
    if over == 0 {
        return;
    }
    let (mut updaters, others): (Vec<_>, Vec<_>) = managers.drain(..).partition(|manager| !manager.who.applies);
    updaters.sort_by_cached_key(|manager| (manager.time.clone(), manager.who.name.clone()));
    let mut left: Vec<Manager> = Vec::new();
    for manager in updaters {
        match left.iter_mut().find(|first| first.api_version == manager.api_version) {
            Some(first) if over > 0 => {
                first.who = Who { name: ANCIENT.into(), applies: false, subresource: String::new() };
                first.time = manager.time;
                first.fields.add(&manager.fields);
                over -= 1;
            }
            _ => left.push(manager),
        }
    }
    managers.extend(others.into_iter().chain(left));
}

/// Whether a client asks to forget them all: a list with one empty entry.
pub fn is_reset(managed: &Value) -> bool {
    *managed == json!([{}])
}
