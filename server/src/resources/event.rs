//! Event, in core/v1, as it is stored, and in events.k8s.io/v1: one storage, two spellings.

use super::age::{since, time_at};
use super::findings::Findings;
use super::tree::{at, int_at, str_at};
use super::*;
use longshore_api::field::Path;
use longshore_api::names;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    type_name: "io.k8s.api.core.v1.Event",
    create_on_update: true,
    name_column: false,
    columns: COLUMNS,
    cells,
    validate,
    fields,
    ..BASE
};

const COLUMNS: &[Column] = &[
    Column::new("Last Seen", "string", "The time at which the most recent occurrence of this event was recorded."),
    Column::new("Type", "string", "Type of this event (Normal, Warning), new types could be added in the future"),
    Column::new(
        "Reason",
        "string",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    Column::new("Object", "string", "The object that this event is about."),
    Column::wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    Column::wide("Source", "The component reporting this event. Should be a short machine understandable string."),
    Column::new("Message", "string", "A human-readable description of the status of this operation."),
    Column::wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    Column::wide("Count", "The number of times this event has occurred."),
    Column {
        name: "Name",
        r#type: "string",
        format: "name",
        description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
        priority: 1,
    },
];

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let first = time_at(tree, "/firstTimestamp").or_else(|| time_at(tree, "/eventTime"));
    let mut last = time_at(tree, "/lastTimestamp").or(first);
    let mut count = int_at(tree, "/count").max(1);
    if at(tree, "/series").is_object() {
        last = time_at(tree, "/series/lastObservedTime");
        count = int_at(tree, "/series/count");
    }
    let kind = str_at(tree, "/involvedObject/kind").to_lowercase();
    let object = match str_at(tree, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        since(last, now).into(),
        str_at(tree, "/type").into(),
        str_at(tree, "/reason").into(),
        object.into(),
        str_at(tree, "/involvedObject/fieldPath").into(),
        source(tree).into(),
        str_at(tree, "/message").trim().into(),
        since(first, now).into(),
        count.into(),
        str_at(tree, "/metadata/name").into(),
    ]
}

/// `kubelet, node-1`: who reported it, and where.
fn source(tree: &Value) -> String {
    let first = |fields: [&'static str; 2]| fields.map(|f| str_at(tree, f)).into_iter().find(|s| !s.is_empty());
    let component = first(["/source/component", "/reportingComponent"]).unwrap_or_default();
    match first(["/source/host", "/reportingInstance"]) {
        None => component.to_string(),
        Some(host) => format!("{component}, {host}"),
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let (namespace, object) = (str_at(tree, "/metadata/namespace"), str_at(tree, "/involvedObject/namespace"));
    let path = Path::new("involvedObject").child("namespace");
    const NO_MATCH: &str = "does not match event.namespace";
    if at(tree, "/eventTime").is_null() {
        let matches = if object.is_empty() { ["", "default"].contains(&namespace) } else { namespace == object };
        if !matches {
            found.invalid(&path, object, NO_MATCH);
        }
        return found.into_errors();
    }
    if object.is_empty() && !["default", "kube-system"].contains(&namespace) {
        found.invalid(&path, object, NO_MATCH);
    }
    let reporter = str_at(tree, "/reportingComponent");
    if reporter.is_empty() {
        found.required(&Path::new("reportingComponent"), "");
    }
    found.each(&Path::new("reportingComponent"), reporter, names::qualified_name(reporter));
    for (field, required, max) in
        [("reportingInstance", true, 128), ("action", true, 128), ("reason", true, 128), ("message", false, 1024)]
    {
        let value = tree.get(field).and_then(Value::as_str).unwrap_or_default();
        if required && value.is_empty() {
            found.required(&Path::new(field), "");
        }
        if value.len() > max {
            found.invalid(&Path::new(field), "", format!("can have at most {max} characters"));
        }
    }
    found.into_errors()
}

/// Events made through events.k8s.io/v1 follow stricter rules than those of old.
fn validate_new(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    if at(tree, "/series").is_object() {
        if int_at(tree, "/series/count") < 2 {
            found.invalid(&Path::new("series.count"), "", "should be at least 2");
        }
        if at(tree, "/series/lastObservedTime").is_null() {
            found.required(&Path::new("series.lastObservedTime"), "");
        }
    }
    if at(tree, "/eventTime").is_null() {
        found.required(&Path::new("eventTime"), "");
    }
    let kind = str_at(tree, "/type");
    if !["Normal", "Warning"].contains(&kind) {
        found.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
    }
    let unset = |pointer: &str| match at(tree, pointer) {
        Value::Null => true,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::Object(map) => map.values().all(|v| v.is_null() || v == ""),
        _ => false,
    };
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        if !unset(&format!("/{field}")) {
            found.invalid(&Path::new(field), "", "needs to be unset");
        }
    }
    validate(tree).into_iter().chain(found.into_errors()).collect()
}

fn fields(tree: &Value) -> BTreeMap<&'static str, String> {
    let text = |pointer: &str| str_at(tree, pointer).to_string();
    let source = match str_at(tree, "/source/component") {
        "" => text("/reportingComponent"),
        component => component.to_string(),
    };
    BTreeMap::from([
        ("involvedObject.kind", text("/involvedObject/kind")),
        ("involvedObject.namespace", text("/involvedObject/namespace")),
        ("involvedObject.name", text("/involvedObject/name")),
        ("involvedObject.uid", text("/involvedObject/uid")),
        ("involvedObject.apiVersion", text("/involvedObject/apiVersion")),
        ("involvedObject.resourceVersion", text("/involvedObject/resourceVersion")),
        ("involvedObject.fieldPath", text("/involvedObject/fieldPath")),
        ("reason", text("/reason")),
        ("reportingComponent", text("/reportingComponent")),
        ("source", source),
        ("type", text("/type")),
    ])
}

/// `events.k8s.io/v1`: the same objects with other field names.
pub static EVENTS_V1: Resource = Resource {
    group: "events.k8s.io",
    type_name: "io.k8s.api.events.v1.Event",
    stored: Some(Stored { resource: &RESOURCE, to_storage, from_storage }),
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    name_column: false,
    columns: COLUMNS,
    cells,
    validate: validate_new,
    fields,
    ..BASE
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn shows_who_saw_what_when() {
        let event = json!({"metadata": {"name": "web.1"}, "type": "Warning", "reason": "BackOff", "message": " back-off\n", "count": 4,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z",
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"},
            "source": {"component": "kubelet", "host": "n1"}});
        let got = Value::from(cells(&event, "2026-01-01T00:10:00Z".parse().unwrap()));
        let expected = json!([
            "60s",
            "Warning",
            "BackOff",
            "pod/web",
            "spec.containers{a}",
            "kubelet, n1",
            "back-off",
            "10m",
            4,
            "web.1"
        ]);
        assert_eq!(got, expected);
        let event = json!({"eventTime": "2026-01-01T00:09:30.000001Z", "reportingComponent": "scheduler", "involvedObject": {"kind": "Node"}});
        let got = cells(&event, "2026-01-01T00:10:00Z".parse().unwrap());
        assert_eq!(
            (&got[0], &got[3], &got[5], &got[8]),
            (&json!("29s"), &json!("node"), &json!("scheduler"), &json!(1))
        );
    }

    #[test]
    fn new_events_follow_stricter_rules() {
        let wrong = |tree: Value| -> Vec<String> { validate_new(&tree).iter().map(ToString::to_string).collect() };
        let good = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "type": "Normal", "reason": "r",
            "action": "a", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "example.com/x",
            "reportingInstance": "x", "source": {}});
        assert_eq!(wrong(good.clone()), [""; 0]);
        let mut old = good.clone();
        old["count"] = json!(2);
        old["type"] = json!("Odd");
        old["series"] = json!({"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
        assert_eq!(
            wrong(old),
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
        assert_eq!(
            wrong(json!({"metadata": {"namespace": "default"}, "type": "Normal"})),
            ["eventTime: Required value"]
        );
    }

    #[test]
    fn lies_in_the_namespace_of_what_it_is_about() {
        let wrong = |tree: Value| -> Vec<String> { validate(&tree).iter().map(ToString::to_string).collect() };
        assert_eq!(wrong(json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}})), [""; 0]);
        assert_eq!(wrong(json!({"metadata": {"namespace": "default"}, "involvedObject": {}})), [""; 0]);
        let why = "involvedObject.namespace: Invalid value: \"b\": does not match event.namespace";
        assert_eq!(wrong(json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}})), [why]);
    }

    proptest! {
        #[test]
        fn comes_back_as_it_went(note in "[a-z]{0,9}", count in 0..9, reporter in "[a-z]{1,9}") {
            let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": note, "deprecatedCount": count,
                "reportingController": reporter, "regarding": {"kind": "Pod"}, "reason": "r"});
            let stored = to_storage(event.clone());
            prop_assert_eq!(&stored["message"], &json!(note));
            prop_assert_eq!(&stored["apiVersion"], &json!("v1"));
            prop_assert_eq!(from_storage(stored), event);
        }
    }
}
