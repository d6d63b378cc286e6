//! The paths of a document: what can be done with each resource, and by which parameters.

use super::document::{META, base, gvk, list_name, reference, type_of};
use crate::apiserver::discovery::Virtual;
use crate::apiserver::patch;
use crate::resources::{Resource, Subresource};
use serde_json::{Map, Value, json};

const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const ANSWERS: [&str; 2] = ["application/json", "application/yaml"];

/// Query parameters: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const WRITES: [Parameter; 3] = [
    (
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
    ),
    (
        "fieldManager",
        "string",
        "fieldManager is a name associated with the actor or entity that is making these changes.",
    ),
    (
        "fieldValidation",
        "string",
        "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
    ),
];
const FORCE: Parameter = (
    "force",
    "boolean",
    "Force is going to \"force\" Apply requests. Force flag must be unset for non-apply patch requests.",
);
const DELETES: [Parameter; 3] = [
    WRITES[0],
    (
        "gracePeriodSeconds",
        "integer",
        "The duration in seconds before the object should be deleted. The value zero indicates delete immediately.",
    ),
    (
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed. Acceptable values are: 'Orphan', 'Background', 'Foreground'.",
    ),
];
const READS: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    (
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    (
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    ("watch", "boolean", "Watch for changes to the described resources and return them as a stream of notifications."),
];
const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");

fn query((name, r#type, description): Parameter) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": r#type, "uniqueItems": true}})
}

fn in_path(name: &str, description: &str) -> Value {
    let schema = json!({"type": "string", "uniqueItems": true});
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

/// What operations are about.
struct About<'a> {
    tag: String,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    type_name: String,
}

impl About<'_> {
    fn operation(&self, action: &str, parameters: &[Parameter], body: Option<Value>, answer: &str) -> Value {
        let mut operation = json!({
            "tags": [self.tag],
            "parameters": parameters.iter().copied().map(query).collect::<Vec<_>>(),
            "responses": {
                "200": {"description": "OK", "content": content(&ANSWERS, answer)},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(self.group, self.version, self.kind),
        });
        if let Some(body) = body {
            operation["requestBody"] = json!({"required": !action.starts_with("delete"), "content": body});
        }
        operation
    }

    /// An operation with the object itself as its body.
    fn write(&self, action: &str) -> Value {
        self.operation(action, &WRITES, Some(content(&BODIES, &self.type_name)), &self.type_name)
    }

    fn delete(&self, action: &str, parameters: &[Parameter]) -> Value {
        let body = content(&BODIES, &format!("{META}.DeleteOptions"));
        self.operation(action, parameters, Some(body), &format!("{META}.Status"))
    }

    fn patch(&self) -> Value {
        let [dry_run, manager, validation] = WRITES;
        let body = content(&patch::ACCEPTED, &format!("{META}.Patch"));
        self.operation("patch", &[dry_run, manager, validation, FORCE], Some(body), &self.type_name)
    }

    /// What can be done with one object or one of its parts.
    fn object(&self, verbs: &[&str], part: bool, parameters: &[Value]) -> Value {
        let mut item = Map::new();
        for verb in verbs {
            let (method, operation) = match *verb {
                "get" => ("get", self.operation("get", &[], None, &self.type_name)),
                "create" if part => ("post", self.write("post")),
                "update" => ("put", self.write("put")),
                "patch" => ("patch", self.patch()),
                "delete" => ("delete", self.delete("delete", &DELETES)),
                _ => continue,
            };
            item.insert(method.into(), operation);
        }
        item.insert("parameters".into(), parameters.to_vec().into());
        item.into()
    }
}

fn content(types: &[&str], name: &str) -> Value {
    types.iter().map(|t| (t.to_string(), json!({"schema": reference(name)}))).collect::<Map<_, _>>().into()
}

/// `apps_v1`
fn tag(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    format!("{group}_{version}")
}

/// A collection's path and the parameters in it.
fn collection(group: &str, version: &str, plural: &str, namespaced: bool) -> (String, Vec<Value>) {
    let root = format!("/{}", base(group, version));
    if !namespaced {
        return (format!("{root}/{plural}"), Vec::new());
    }
    let namespace = in_path("namespace", "object name and auth scope, such as for teams and projects");
    (format!("{root}/namespaces/{{namespace}}/{plural}"), vec![namespace])
}

/// Adds all paths of a kind.
pub fn add(paths: &mut Map<String, Value>, r: &Resource) {
    let tag = tag(r.group, r.version);
    let about =
        About { tag: tag.clone(), group: r.group, version: r.version, kind: r.kind, type_name: r.type_name.into() };
    let (path, mut parameters) = collection(r.group, r.version, r.plural, r.namespaced);
    parameters.push(query(PRETTY));
    let mut item = Map::new();
    for verb in r.verbs {
        let (method, operation) = match *verb {
            "list" => ("get", about.operation("list", &READS, None, &list_name(r))),
            "create" => ("post", about.write("post")),
            "deletecollection" => ("delete", about.delete("deletecollection", &READS)),
            _ => continue,
        };
        item.insert(method.into(), operation);
    }
    item.insert("parameters".into(), parameters.clone().into());
    if r.namespaced && r.verbs.contains(&"list") {
        let list = about.operation("list", &READS, None, &list_name(r));
        let across = json!({"get": list, "parameters": [query(PRETTY)]});
        paths.insert(format!("/{}/{}", base(r.group, r.version), r.plural), across);
    }
    paths.insert(path.clone(), item.into());
    parameters.push(in_path("name", &format!("name of the {}", r.kind)));
    paths.insert(format!("{path}/{{name}}"), about.object(r.verbs, false, &parameters));
    for part in r.subresources {
        // Streams and proxies: their options stand in the query, and what they say has no schema.
        if part.kind.ends_with("Options") {
            let name = format!("{path}/{{name}}/{}", part.name);
            let item = connect(&tag, part, &parameters);
            if part.name == "proxy" {
                let mut below = item.clone();
                if let Some(parameters) = below["parameters"].as_array_mut() {
                    parameters.push(in_path("path", "path to the resource"));
                }
                paths.insert(format!("{name}/{{path}}"), below);
            }
            paths.insert(name, item);
            continue;
        }
        let Some(type_name) = type_of(part.group, part.version, part.kind) else { continue };
        let about = About { tag: tag.clone(), group: part.group, version: part.version, kind: part.kind, type_name };
        paths.insert(format!("{path}/{{name}}/{}", part.name), about.object(part.verbs, true, &parameters));
    }
}

/// What can be done with a part that is no object but a way to something.
fn connect(tag: &str, part: &Subresource, parameters: &[Value]) -> Value {
    let mut item = Map::new();
    for verb in part.verbs {
        let method = match *verb {
            "create" => "post",
            "update" => "put",
            other => other,
        };
        let operation = json!({
            "tags": [tag],
            "responses": {
                "200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": "connect",
            "x-kubernetes-group-version-kind": gvk(part.group, part.version, part.kind),
        });
        item.insert(method.into(), operation);
    }
    item.insert("parameters".into(), parameters.to_vec().into());
    item.into()
}

/// Adds what can only be created.
pub fn add_virtual(paths: &mut Map<String, Value>, v: &Virtual) {
    let type_name = v.type_name.into();
    let about = About { tag: tag(v.group, v.version), group: v.group, version: v.version, kind: v.kind, type_name };
    let (path, parameters) = collection(v.group, v.version, v.plural, v.namespaced);
    paths.insert(path, json!({"post": about.write("post"), "parameters": parameters}));
}
