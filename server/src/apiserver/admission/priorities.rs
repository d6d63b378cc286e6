//! Priority: every pod gets the number and policy of its class, so that what reads pods needs no classes; and only one
//! class is everybody's.

use super::{Admission, Operation, newest};
use crate::apiserver::{errors, metadata};
use crate::resources::priority_class::{PREEMPT, RESOURCE, SYSTEM};
use crate::resources::tree::child;
use crate::store::{Cluster, ListQuery, Object, Revision};
use longshore_api::Status;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;

/// What a class says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    name: String,
    value: i64,
    policy: String,
    is_default: bool,
}

impl Class {
    fn of(tree: &Value) -> Self {
        Self {
            name: metadata::text(tree, "name").into(),
            value: tree["value"].as_i64().unwrap_or_default(),
            policy: tree["preemptionPolicy"].as_str().filter(|p| !p.is_empty()).unwrap_or(PREEMPT).into(),
            is_default: tree["globalDefault"] == true,
        }
    }

    /// What pods get where nobody says anything.
    fn none() -> Self {
        Self { name: String::new(), value: 0, policy: PREEMPT.into(), is_default: false }
    }
}

/// The default class as it was last read, and the classes' revisions then: classes hardly change, pods come all the time.
#[derive(Default)]
struct Known(Mutex<(Vec<Revision>, Option<Class>)>);

/// The class that is everybody's; the smallest, should there be two after all.
fn default_class(cluster: &Arc<Cluster>) -> Result<Option<Class>, Status> {
    let query = ListQuery { resource: RESOURCE.store_name().into(), ..ListQuery::default() };
    let classes: Vec<Arc<Object>> = cluster.list(&query).map_err(errors::store)?.items;
    let revisions: Vec<Revision> = classes.iter().map(|c| c.revision).collect();
    let known = cluster.companion::<Known>();
    let mut known = known.0.lock();
    if known.0 != revisions {
        let defaults = classes.iter().map(|c| Class::of(&c.tree())).filter(|c| c.is_default);
        *known = (revisions, defaults.min_by_key(|c| c.value));
    }
    Ok(known.1.clone())
}

/// Fills a new pod's priority in; what it says itself must be the same.
pub fn pod(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    let name = metadata::text(pod, "name").to_string();
    let wanted = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let class = if wanted.is_empty() {
        default_class(admission.cluster)?.unwrap_or_else(Class::none)
    } else {
        let found = newest(admission.cluster, &RESOURCE, "", wanted)?;
        let missing = || admission.forbidden(&name, &format!("no PriorityClass with name {wanted} was found"));
        Class::of(&found.ok_or_else(missing)?.tree())
    };
    let differs = |what: &str, given: &str, computed: &str| {
        let why = format!(
            "the {what} ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        );
        Err(admission.forbidden(&name, &why))
    };
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != class.value) {
        return differs("integer value of priority", &given.to_string(), &class.value.to_string());
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != class.policy) {
        return differs("string value of PreemptionPolicy", given, &class.policy);
    }
    if let Some(spec) = child(pod, "spec") {
        spec.insert("priority".into(), class.value.into());
        spec.insert("preemptionPolicy".into(), class.policy.into());
        if wanted_none(spec) && !class.name.is_empty() {
            spec.insert("priorityClassName".into(), class.name.into());
        }
    }
    Ok(())
}

fn wanted_none(spec: &serde_json::Map<String, Value>) -> bool {
    spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().is_empty()
}

/// There is one default at most, and the system's classes stay.
pub fn class(admission: &Admission<'_>, tree: &Value) -> Result<(), Status> {
    let name = metadata::text(tree, "name");
    match admission.operation {
        Operation::Delete if SYSTEM.iter().any(|(system, ..)| *system == name) => {
            Err(admission.forbidden(name, "this is a system priority class and cannot be deleted"))
        }
        Operation::Delete => Ok(()),
        Operation::Create | Operation::Update => {
            if tree["globalDefault"] != true {
                return Ok(());
            }
            match default_class(admission.cluster)? {
                Some(there) if admission.operation == Operation::Create || there.name != name => {
                    let why = format!(
                        "PriorityClass {} is already marked as default. Only one default can exist",
                        there.name
                    );
                    Err(admission.forbidden(name, &why))
                }
                _ => Ok(()),
            }
        }
    }
}
