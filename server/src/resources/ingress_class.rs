//! IngressClass: which controller serves the Ingresses that name it.

use super::age::age;
use super::findings::{Findings, text};
use super::tree::{at, child, child_of, fill, same, str_at};
use super::*;
use k8s_openapi::api::networking::v1::{IngressClassParametersReference, IngressClassSpec};
use longshore_api::field::Path;
use longshore_api::names;
use longshore_edge::ingress::class::{CONTROLLER, LEGACY_CLASS};
use serde_json::json;

pub static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    kind: "IngressClass",
    list_kind: "IngressClassList",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    type_name: "io.k8s.api.networking.v1.IngressClass",
    columns: &[
        Column::new("Controller", "string", "Controller that is responsible for handling this class"),
        Column::new("Parameters", "string", "A reference to a resource with additional parameters"),
        Column::AGE,
    ],
    cells,
    default,
    prepare_create: |_, tree| set_generation(tree, 1),
    prepare_update: |_, tree, old| count_generation(tree, old, same(at(tree, "/spec"), at(old, "/spec"))),
    validate,
    validate_update,
    ..BASE
};

/// Says of a class whether it is everybody's.
pub const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// The class whose Ingresses the edge serves.
pub fn edge() -> Value {
    let metadata = json!({"name": LEGACY_CLASS, "annotations": {DEFAULT_ANNOTATION: "true"}});
    json!({"metadata": metadata, "spec": {"controller": CONTROLLER}})
}

const LONGEST_CONTROLLER: usize = 250;
const SCOPES: [&str; 2] = ["Cluster", "Namespace"];
const HTTP_PATH: &str = "must be a valid path";

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let parameters = match (str_at(tree, "/spec/parameters/kind"), str_at(tree, "/spec/parameters/apiGroup")) {
        ("", _) => "<none>".to_string(),
        (kind, group) => {
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", str_at(tree, "/spec/parameters/name"))
        }
    };
    vec![str_at(tree, "/spec/controller").into(), parameters.into(), age(tree, now)]
}

fn default(tree: &mut Value) {
    let Some(spec) = child(tree, "spec") else { return };
    if spec.get("parameters").is_some_and(|parameters| !parameters.is_null())
        && let Some(parameters) = child_of(spec, "parameters")
    {
        fill(parameters, "scope", "Cluster");
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    let Some(spec) = found.part::<IngressClassSpec>(tree, "spec") else { return found.into_errors() };
    controller(text(&spec.controller), &path.child("controller"), &mut found);
    if let Some(given) = &spec.parameters {
        parameters(given, &path.child("parameters"), &mut found);
    }
    found.into_errors()
}

/// A domain, a slash, a path.
fn controller(given: &str, path: &Path, found: &mut Findings) {
    if given.is_empty() {
        return found.required(path, "");
    }
    if given.len() > LONGEST_CONTROLLER {
        found.too_long(path, LONGEST_CONTROLLER);
    }
    match given.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty()) {
        None => found.invalid(path, given, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        Some((domain, rest)) => {
            found.each(path, domain, names::dns1123_subdomain(domain));
            if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
                found.invalid(path, rest, HTTP_PATH);
            }
        }
    }
}

fn parameters(given: &IngressClassParametersReference, path: &Path, found: &mut Findings) {
    if let Some(group) = given.api_group.as_deref().filter(|group| !group.is_empty()) {
        found.each(&path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    for (field, value) in [("kind", &given.kind), ("name", &given.name)] {
        match value.as_str() {
            "" => found.required(&path.child(field), &format!("{field} is required")),
            value => found.each(&path.child(field), value, names::path_segment(value)),
        }
    }
    let namespace = path.child("namespace");
    match (text(&given.scope), given.namespace.as_deref()) {
        ("Namespace", None | Some("")) => found.required(&namespace, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(name)) => found.each(&namespace, name, names::dns1123_label(name)),
        ("Cluster", Some(_)) => found.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"),
        ("Cluster", None) => {}
        (other, _) => found.one_of(&path.child("scope"), other, &SCOPES),
    }
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let (new, was) = (str_at(tree, "/spec/controller"), str_at(old, "/spec/controller"));
    found.immutable(&Path::new("spec").child("controller"), &new, &was, new);
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(spec: Value) -> Vec<String> {
        let mut tree = json!({"metadata": {"name": "edge"}, "spec": spec});
        default(&mut tree);
        validate(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_controller_is_a_path_below_a_domain() {
        assert_eq!(wrong(json!({"controller": "longshore.dev/edge"})), [""; 0]);
        assert_eq!(wrong(json!({})), ["spec.controller: Required value"]);
        assert_eq!(
            wrong(json!({"controller": "edge"})),
            ["spec.controller: Invalid value: \"edge\": must be a domain-prefixed path (such as \"acme.io/foo\")"]
        );
        let (old, new) = (json!({"spec": {"controller": "a.b/c"}}), json!({"spec": {"controller": "a.b/d"}}));
        let said: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["spec.controller: Invalid value: \"a.b/d\": field is immutable"]);
    }

    #[test]
    fn parameters_have_a_scope() {
        let with = |more: Value| {
            let mut parameters = json!({"kind": "Settings", "name": "main", "apiGroup": "a.b"});
            for (key, value) in more.as_object().unwrap() {
                parameters[key] = value.clone();
            }
            wrong(json!({"controller": "a.b/c", "parameters": parameters}))
        };
        assert_eq!(with(json!({})), [""; 0]);
        assert_eq!(with(json!({"scope": "Namespace", "namespace": "a"})), [""; 0]);
        assert_eq!(
            with(json!({"scope": "Namespace"})),
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]
        );
        assert_eq!(
            with(json!({"namespace": "a"})),
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]
        );
        assert_eq!(
            with(json!({"scope": "Odd"})),
            ["spec.parameters.scope: Unsupported value: \"Odd\": supported values: \"Cluster\", \"Namespace\""]
        );
    }

    #[test]
    fn shows_its_controller_and_parameters() {
        let tree = json!({"spec": {"controller": "a.b/c", "parameters": {"kind": "Settings", "name": "main", "apiGroup": "a.b"}}});
        let got = cells(&tree, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(got[..2], [json!("a.b/c"), json!("Settings.a.b/main")]);
    }
}
