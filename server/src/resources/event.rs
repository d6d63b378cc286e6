//! Event.

use super::*;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    type_name: "io.k8s.api.core.v1.Event",
    ..BASE
};

/// `events.k8s.io/v1`: the same objects with other field names.
pub static EVENTS_V1: Resource = Resource {
    group: "events.k8s.io",
    type_name: "io.k8s.api.events.v1.Event",
    stored: Some(Stored { resource: &RESOURCE, to_storage, from_storage }),
    ..Resource {
        kind: "Event",
        list_kind: "EventList",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        ..BASE
    }
};

/// Each field's name in events.k8s.io/v1 and in core/v1.
const NAMES: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];
/// The controller's name is `reportingController` in events.k8s.io/v1 and `reportingComponent` in core/v1.
const REPORTER: (&str, &str) = ("reportingController", "reportingComponent");

fn to_storage(tree: Value) -> Value {
    renamed(tree, "v1", |name| NAMES.iter().chain([&REPORTER]).find(|(new, _)| *new == name).map(|(_, core)| *core))
}

fn from_storage(tree: Value) -> Value {
    renamed(tree, "events.k8s.io/v1", |name| {
        NAMES.iter().chain([&REPORTER]).find(|(_, core)| *core == name).map(|(new, _)| *new)
    })
}

fn renamed(tree: Value, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = tree else { return tree };
    let renamed = |(field, value): (String, Value)| match field.as_str() {
        "apiVersion" => (field, Value::from(api_version)),
        other => (name(other).map_or_else(|| other.to_string(), String::from), value),
    };
    Value::Object(fields.into_iter().map(renamed).collect())
}
