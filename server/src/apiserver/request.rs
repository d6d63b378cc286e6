//! A request's line, read once: which verb on which resource, or which other path.

use super::authorize::Attributes;
use http::Method;
use longshore_api::Status;
use longshore_api::selector::FieldSelector;

/// `metav1`'s query, decoded. Repeated keys keep all their values (`command=a&command=b`).
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of `key`; empty where there is none, which is how Kubernetes reads an absent option.
    pub fn text(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// `true` and `1`, and the key alone, are yes.
    pub fn flag(&self, key: &str) -> bool {
        self.has(key) && !matches!(self.text(key).to_ascii_lowercase().as_str(), "false" | "0")
    }
}

/// Percent-decoding; `plus` reads `+` as a space, as in forms. What is no valid escape or UTF-8 is taken as it stands.
fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match (escaped, bytes[i]) {
            (Some(byte), _) => {
                out.push(byte);
                i += 3;
                continue;
            }
            (None, b'+') if plus => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads method, path (below the cluster's base) and query into what is asked. Err is for a path that no resource can have.
pub fn attributes(method: &Method, path: &str, query: &Query) -> Result<Attributes, Status> {
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(|p| decode(p, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts[..] {
        ["api", version, ref rest @ ..] if !rest.is_empty() => ("", version, rest),
        ["apis", group, version, ref rest @ ..] if !rest.is_empty() => (group, version, rest),
        _ => {
            let verb = method.as_str().to_ascii_lowercase();
            return Ok(Attributes { verb, path: path.into(), ..Default::default() });
        }
    };
    let (namespace, resource, name, subresource) = match *rest {
        // `namespaces/x/pods` lists pods of x; `namespaces/x/status` is the namespace's own.
        ["namespaces", name, subresource @ ("status" | "finalize")] => (name, "namespaces", name, subresource),
        ["namespaces", name] => (name, "namespaces", name, ""),
        ["namespaces", namespace, resource] => (namespace, resource, "", ""),
        ["namespaces", namespace, resource, name] => (namespace, resource, name, ""),
        ["namespaces", namespace, resource, name, subresource] => (namespace, resource, name, subresource),
        // What follows is the pod's own path.
        ["namespaces", namespace, resource @ ("pods" | "services"), name, "proxy", ..] => {
            (namespace, resource, name, "proxy")
        }
        ["nodes", name, "proxy", ..] => ("", "nodes", name, "proxy"),
        [resource] => ("", resource, "", ""),
        [resource, name] => ("", resource, name, ""),
        [resource, name, subresource] => ("", resource, name, subresource),
        _ => return Err(Status::no_such_path()),
    };
    // A cluster-scoped name belongs to no namespace, the namespace itself included.
    let namespace = if resource == "namespaces" { "" } else { namespace };
    let fields = FieldSelector::parse(query.text("fieldSelector")).unwrap_or_default();
    let named = !name.is_empty();
    let verb = match *method {
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    };
    let collection = matches!(verb, "list" | "watch" | "deletecollection");
    let name = if collection { fields.equality("metadata.name").unwrap_or_default() } else { name };
    Ok(Attributes {
        verb: verb.into(),
        group: group.into(),
        version: version.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        node_selector: fields.equality("spec.nodeName").unwrap_or_default().into(),
        path: path.into(),
        is_resource: true,
    })
}

/// The part of a path (below the cluster's base) that is the proxied one's own: what follows
/// `/api/v1/namespaces/…/pods/…/proxy` or `/api/v1/nodes/…/proxy`, as it came. Empty, or with a slash at its beginning.
pub fn proxied(path: &str) -> &str {
    let of_node = path.split('/').filter(|part| !part.is_empty()).nth(2) == Some("nodes");
    (0..if of_node { 5 } else { 7 }).fold(path, |rest, _| {
        let rest = rest.trim_start_matches('/');
        &rest[rest.find('/').unwrap_or(rest.len())..]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(method: Method, uri: &str) -> (String, String) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let a = attributes(&method, path, &Query::parse(query)).unwrap();
        (a.verb, [a.group, a.version, a.resource, a.subresource, a.namespace, a.name].join("|"))
    }

    #[test]
    fn reads_paths_as_kubernetes_does() {
        for (method, uri, verb, what) in [
            (Method::GET, "/api/v1/pods", "list", "|v1|pods|||"),
            (Method::GET, "/api/v1/pods?watch=1", "watch", "|v1|pods|||"),
            (Method::GET, "/api/v1/namespaces/d/pods/x/log?follow=true", "get", "|v1|pods|log|d|x"),
            (Method::POST, "/apis/apps/v1/namespaces/d/deployments", "create", "apps|v1|deployments||d|"),
            (Method::PUT, "/apis/apps/v1/namespaces/d/deployments/a/scale", "update", "apps|v1|deployments|scale|d|a"),
            (Method::PATCH, "/api/v1/namespaces/d", "patch", "|v1|namespaces|||d"),
            (Method::PUT, "/api/v1/namespaces/d/finalize", "update", "|v1|namespaces|finalize||d"),
            (Method::DELETE, "/api/v1/nodes/n", "delete", "|v1|nodes|||n"),
            (Method::DELETE, "/api/v1/nodes", "deletecollection", "|v1|nodes|||"),
            (Method::GET, "/api/v1/namespaces/d/secrets?fieldSelector=metadata.name%3Ds", "list", "|v1|secrets||d|s"),
        ] {
            assert_eq!(read(method, uri), (verb.to_string(), what.to_string()), "{uri}");
        }
        let other = attributes(&Method::GET, "/apis/apps/v1", &Query::default()).unwrap();
        assert!(!other.is_resource);
        assert_eq!((other.verb.as_str(), other.path.as_str()), ("get", "/apis/apps/v1"));
        assert!(attributes(&Method::GET, "/api/v1/namespaces/a/b/c/d/e", &Query::default()).is_err());
    }

    #[test]
    fn what_follows_a_proxy_is_the_pods() {
        for (path, name, own) in [
            ("/api/v1/namespaces/d/pods/https:p:443/proxy", "https:p:443", ""),
            ("/api/v1/namespaces/d/services/s:web/proxy/", "s:web", "/"),
            ("/api//v1/namespaces/d/pods/p%3a80/proxy/a%2Fb//proxy/?", "p:80", "/a%2Fb//proxy/?"),
        ] {
            let asked = attributes(&Method::POST, path, &Query::default()).unwrap();
            assert_eq!(
                (asked.verb.as_str(), asked.name.as_str(), asked.subresource.as_str()),
                ("create", name, "proxy")
            );
            assert_eq!(proxied(path), own, "{path}");
        }
        let asked = attributes(&Method::GET, "/api/v1/nodes/n/proxy/stats/summary", &Query::default()).unwrap();
        assert_eq!((asked.verb.as_str(), asked.name.as_str(), asked.subresource.as_str()), ("get", "n", "proxy"));
        assert_eq!(proxied("/api/v1/nodes/n/proxy/stats/summary"), "/stats/summary");
        assert!(attributes(&Method::GET, "/api/v1/namespaces/d/pods/p/log/x", &Query::default()).is_err());
    }

    #[test]
    fn queries_keep_repeated_keys() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%20b&tty=true&stdin&x=0");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a b"]);
        assert!(query.flag("tty") && query.flag("stdin") && !query.flag("x") && !query.flag("absent"));
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/[a-z0-9%./ ]{0,12}){0,7}", query in ".{0,40}") {
            let _ = attributes(&Method::GET, &path, &Query::parse(&query));
        }
    }
}
