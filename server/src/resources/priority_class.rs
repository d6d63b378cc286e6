//! PriorityClass: how much pods matter, by a name.

use super::age::age;
use super::findings::{Findings, text};
use super::tree::{bool_at, child, int_at, str_at};
use super::*;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use longshore_api::field::Path;
use serde::Deserialize;
use serde_json::json;

pub static RESOURCE: Resource = Resource {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    list_kind: "PriorityClassList",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    type_name: "io.k8s.api.scheduling.v1.PriorityClass",
    columns: &[
        Column::new("Value", "integer", VALUE),
        Column::new("Global-Default", "boolean", GLOBAL_DEFAULT),
        Column::AGE,
        Column::new("PreemptionPolicy", "string", PREEMPTION_POLICY),
    ],
    cells,
    default,
    prepare_create: |_, tree| set_generation(tree, 1),
    prepare_update: |_, tree, old| count_generation(tree, old, true),
    validate,
    validate_update,
    ..BASE
};

/// The classes that every cluster has: name, value, what they are for. Their names can't be taken for anything else.
pub const SYSTEM: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];
const SYSTEM_PREFIX: &str = "system-";
/// Above are the system's own.
const HIGHEST: i32 = 1_000_000_000;

/// What the API's own documentation says of the fields.
const VALUE: &str = "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.";
const GLOBAL_DEFAULT: &str = "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.";
const PREEMPTION_POLICY: &str = "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.";

pub const PREEMPT: &str = "PreemptLowerPriority";

/// A system class as an object.
pub fn system(name: &str, value: i32, description: &str) -> Value {
    json!({"metadata": {"name": name}, "value": value, "description": description})
}

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let policy = str_at(tree, "/preemptionPolicy");
    let default = bool_at(tree, "/globalDefault");
    vec![int_at(tree, "/value").into(), default.into(), age(tree, now), policy.into()]
}

fn default(tree: &mut Value) {
    if let Some(fields) = tree.as_object_mut()
        && fields.get("preemptionPolicy").is_none_or(Value::is_null)
    {
        fields.insert("preemptionPolicy".into(), PREEMPT.into());
    }
    // Made where it is missing, so that everything that follows may rely on it.
    child(tree, "metadata");
}

fn typed(tree: &Value, found: &mut Findings) -> Option<PriorityClass> {
    match PriorityClass::deserialize(tree) {
        Ok(class) => Some(class),
        Err(why) => {
            found.invalid(&Path::new("value"), Value::Null, why.to_string());
            None
        }
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let Some(class) = typed(tree, &mut found) else { return found.into_errors() };
    let (name, given) = (text(&class.metadata.name), class.value.unwrap_or_default());
    if name.starts_with(SYSTEM_PREFIX) {
        let wrong = match SYSTEM.iter().find(|(known, ..)| *known == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, value, _)) if *value != given => Some(format!("value of {name} PriorityClass must be {value}")),
            Some(_) if class.global_default == Some(true) => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(why) = wrong {
            let why = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
            );
            found.forbidden(&Path::new("metadata").child("name"), why);
        }
    } else if given > HIGHEST {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        found.forbidden(&Path::new("value"), why);
    }
    if let Some(policy) = class.preemption_policy.as_deref() {
        found.one_of(&Path::new("preemptionPolicy"), policy, &[PREEMPT, "Never"]);
    }
    found.into_errors()
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    if int_at(tree, "/value") != int_at(old, "/value") {
        found.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    let (new, was) = (str_at(tree, "/preemptionPolicy"), str_at(old, "/preemptionPolicy"));
    found.immutable(&Path::new("preemptionPolicy"), &new, &was, new);
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(mut tree: Value) -> Vec<String> {
        default(&mut tree);
        validate(&tree).iter().map(ToString::to_string).collect()
    }

    fn class(name: &str, value: i64) -> Value {
        json!({"metadata": {"name": name}, "value": value})
    }

    #[test]
    fn system_names_and_values_are_the_systems() {
        assert_eq!(wrong(class("gold", 1_000_000_000)), [""; 0]);
        assert_eq!(
            wrong(class("gold", 1_000_000_001)),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
        assert_eq!(
            wrong(class("system-mine", 1)),
            [format!("{reserved}system-mine is not a known system priority class")]
        );
        assert_eq!(
            wrong(class("system-node-critical", 1)),
            [format!("{reserved}value of system-node-critical PriorityClass must be 2000001000")]
        );
        for (name, value, description) in SYSTEM {
            assert_eq!(wrong(system(name, value, description)), [""; 0]);
        }
    }

    #[test]
    fn the_policy_is_one_of_two_and_stays_and_so_does_the_value() {
        let mut odd = class("gold", -7);
        odd["preemptionPolicy"] = "Odd".into();
        assert_eq!(
            wrong(odd),
            ["preemptionPolicy: Unsupported value: \"Odd\": supported values: \"PreemptLowerPriority\", \"Never\""]
        );
        let (mut old, mut new) = (class("gold", 5), class("gold", 6));
        default(&mut old);
        new["preemptionPolicy"] = "Never".into();
        let said: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"Never\": field is immutable"
            ]
        );
    }
}
