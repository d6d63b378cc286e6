//! What an Ingress may say: Kubernetes's rules, in its words.

use super::{LEGACY_CLASS, legacy_class};
use crate::resources::addresses;
use crate::resources::findings::{Findings, all, text};
use crate::resources::tree::str_at;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, IngressBackend, IngressRule, IngressSpec, IngressStatus, IngressTLS,
};
use longshore_api::field::{Error, Path};
use longshore_api::names;
use serde_json::Value;

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
/// Parts of a path that mean something else to some reader.
const INVALID_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const INVALID_ENDS: [&str; 2] = ["/..", "/."];
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

pub fn ingress(tree: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    let legacy = legacy_class(tree);
    if !legacy.is_empty() && !str_at(tree, "/spec/ingressClassName").is_empty() {
        let path = Path::new("annotations").child(LEGACY_CLASS);
        found.invalid(&path, legacy, "can not be set when the class field is also set");
    }
    found.append(spec(tree));
    found.into_errors()
}

fn spec(tree: &Value) -> Findings {
    let mut found = Findings::default();
    let Some(spec) = found.part::<IngressSpec>(tree, "spec") else { return found };
    let path = Path::new("spec");
    if all(&spec.rules).is_empty() && spec.default_backend.is_none() {
        found.invalid(&path, Value::Null, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(given) = &spec.default_backend {
        backend(given, &path.child("defaultBackend"), &mut found);
    }
    for (i, given) in all(&spec.rules).iter().enumerate() {
        rule(given, &path.child("rules").index(i), &mut found);
    }
    for (i, given) in all(&spec.tls).iter().enumerate() {
        tls(given, &path.child("tls").index(i), &mut found);
    }
    if let Some(class) = &spec.ingress_class_name {
        found.each(&path.child("ingressClassName"), class, names::dns1123_subdomain(class));
    }
    found
}

fn rule(rule: &IngressRule, path: &Path, found: &mut Findings) {
    let host = text(&rule.host);
    if !host.is_empty() {
        let at = path.child("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            found.invalid(&at, host, "must be a DNS name, not an IP address");
        }
        host_name(host, &at, found);
    }
    let Some(http) = &rule.http else { return };
    let at = path.child("http").child("paths");
    if http.paths.is_empty() {
        found.required(&at, "");
    }
    for (i, given) in http.paths.iter().enumerate() {
        http_path(given, &at.index(i), found);
    }
}

fn host_name(host: &str, path: &Path, found: &mut Findings) {
    if host.contains('*') {
        let fit =
            host.len() <= 253 && host.strip_prefix("*.").is_some_and(|rest| names::dns1123_subdomain(rest).is_empty());
        if !fit {
            found.invalid(path, host, WILDCARD);
        }
    } else {
        found.each(path, host, names::dns1123_subdomain(host));
    }
}

fn http_path(given: &HTTPIngressPath, path: &Path, found: &mut Findings) {
    let (at, text) = (path.child("path"), text(&given.path));
    match given.path_type.as_str() {
        "" => found.required(&path.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                found.invalid(&at, text, "must be an absolute path");
            }
            for sequence in INVALID_SEQUENCES.iter().filter(|s| text.contains(*s)) {
                found.invalid(&at, text, format!("must not contain '{sequence}'"));
            }
            for end in INVALID_ENDS.iter().filter(|s| text.ends_with(*s)) {
                found.invalid(&at, text, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                found.invalid(&at, text, "must be an absolute path");
            }
        }
        other => found.not_supported(&path.child("pathType"), other, &PATH_TYPES),
    }
    backend(&given.backend, &path.child("backend"), found);
}

fn backend(given: &IngressBackend, path: &Path, found: &mut Findings) {
    match (&given.resource, &given.service) {
        (Some(_), Some(_)) => found.invalid(path, "", "cannot set both resource and service backends"),
        (None, None) => found.invalid(path, "", "resource or service backend is required"),
        (Some(resource), None) => {
            let at = path.child("resource");
            if let Some(group) = resource.api_group.as_deref().filter(|group| !group.is_empty()) {
                found.each(&at.child("apiGroup"), group, names::dns1123_subdomain(group));
            }
            for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
                match value.as_str() {
                    "" => found.required(&at.child(field), &format!("{field} is required")),
                    value => found.each(&at.child(field), value, names::path_segment(value)),
                }
            }
        }
        (None, Some(service)) => {
            let at = path.child("service");
            match service.name.as_str() {
                "" => found.required(&at.child("name"), ""),
                name => found.each(&at.child("name"), name, names::dns1123_label(name)),
            }
            let port = service.port.clone().unwrap_or_default();
            match (text(&port.name), port.number.unwrap_or_default()) {
                ("", 0) => found.required(path, "port name or number is required"),
                ("", number) => {
                    for sentence in names::port_number(number.into()) {
                        found.invalid(&at.child("port").child("number"), number, sentence);
                    }
                }
                (name, 0) => found.each(&at.child("port").child("name"), name, names::port_name(name)),
                _ => found.invalid(path, "", "cannot set both port name & port number"),
            }
        }
    }
}

fn tls(given: &IngressTLS, path: &Path, found: &mut Findings) {
    for (i, host) in all(&given.hosts).iter().enumerate() {
        host_name(host, &path.child("hosts").index(i), found);
    }
    let secret = text(&given.secret_name);
    if !secret.is_empty() {
        found.each(&path.child("secretName"), secret, names::dns1123_subdomain(secret));
    }
}

pub fn status(tree: &Value, _: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    let Some(status) = found.part::<IngressStatus>(tree, "status") else { return found.into_errors() };
    let points = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (i, point) in points.iter().enumerate() {
        let path = path.index(i);
        if let Some(ip) = point.ip.as_deref().filter(|ip| !ip.is_empty()) {
            addresses::ip(ip, &path.child("ip"), &mut found);
        }
        if let Some(name) = point.hostname.as_deref().filter(|name| !name.is_empty()) {
            found.each(&path.child("hostname"), name, names::dns1123_subdomain(name));
            if name.parse::<std::net::IpAddr>().is_ok() {
                found.invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address");
            }
        }
    }
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(spec: Value) -> Vec<String> {
        ingress(&json!({"metadata": {"name": "web"}, "spec": spec})).iter().map(ToString::to_string).collect()
    }

    fn with(host: &str, path: Value) -> Value {
        json!({"rules": [{"host": host, "http": {"paths": [path]}}]})
    }

    fn path(kind: &str, path: &str) -> Value {
        json!({"path": path, "pathType": kind, "backend": {"service": {"name": "web", "port": {"number": 80}}}})
    }

    #[test]
    fn hosts_are_names_with_one_star_at_most() {
        for host in ["", "a.com", "*.a.com"] {
            assert_eq!(wrong(with(host, path("Prefix", "/"))), [""; 0], "{host}");
        }
        assert_eq!(
            wrong(with("192.0.2.1", path("Prefix", "/"))),
            ["spec.rules[0].host: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address"]
        );
        for host in ["*", "a.*.com", "*.*.com"] {
            assert_eq!(
                wrong(with(host, path("Prefix", "/"))),
                [format!("spec.rules[0].host: Invalid value: \"{host}\": {WILDCARD}")]
            );
        }
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        let at = "spec.rules[0].http.paths[0]";
        for (given, why) in [
            (path("Prefix", "x"), format!("{at}.path: Invalid value: \"x\": must be an absolute path")),
            (path("Exact", ""), format!("{at}.path: Invalid value: \"\": must be an absolute path")),
            (path("Exact", "/a//b"), format!("{at}.path: Invalid value: \"/a//b\": must not contain '//'")),
            (path("Prefix", "/a/.."), format!("{at}.path: Invalid value: \"/a/..\": cannot end with '/..'")),
            (path("", "/"), format!("{at}.pathType: Required value: pathType must be specified")),
            (
                path("Odd", "/"),
                format!(
                    "{at}.pathType: Unsupported value: \"Odd\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
                ),
            ),
        ] {
            assert_eq!(wrong(with("a.com", given)), [why]);
        }
        assert_eq!(wrong(with("a.com", path("ImplementationSpecific", "/a//(b|c)"))), [""; 0]);
    }

    #[test]
    fn a_backend_is_one_thing_with_one_port() {
        let backend = |backend: Value| wrong(json!({"defaultBackend": backend}));
        for (given, why) in [
            (json!({}), "spec.defaultBackend: Invalid value: \"\": resource or service backend is required"),
            (
                json!({"service": {"name": "web"}}),
                "spec.defaultBackend: Required value: port name or number is required",
            ),
            (
                json!({"service": {"name": "web", "port": {"name": "a", "number": 1}}}),
                "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number",
            ),
            (
                json!({"service": {"name": "web", "port": {"number": 70000}}}),
                "spec.defaultBackend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
        ] {
            assert_eq!(backend(given), [why]);
        }
        assert_eq!(
            wrong(json!({})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
    }

    #[test]
    fn the_class_is_said_once() {
        let tree = json!({"metadata": {"name": "web", "annotations": {LEGACY_CLASS: "a"}},
            "spec": {"ingressClassName": "b", "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
        let said: Vec<String> = ingress(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": can not be set when the class field is also set"
            ]
        );
    }

    #[test]
    fn a_status_tells_addresses() {
        let status = |point: Value| status(&json!({"status": {"loadBalancer": {"ingress": [point]}}}), &Value::Null);
        assert!(status(json!({"ip": "192.0.2.1"})).is_empty());
        assert!(status(json!({"hostname": "edge.org"})).is_empty());
        assert_eq!(status(json!({"ip": "edge.org"})).len(), 1);
        assert_eq!(status(json!({"hostname": "192.0.2.1"})).len(), 1);
    }
}
