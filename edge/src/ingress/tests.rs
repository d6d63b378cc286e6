use super::*;
use crate::table::{Claims, Entry, Table};
use http::{HeaderMap, HeaderName, HeaderValue};
use longshore_api::ids::ClusterId;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

/// `age`: the smaller the older.
fn ingress(name: &str, age: u8, rules: &[(&str, &str, &str, &str)], annotations: Value, more: Value) -> Ingress {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(host, kind, path, service)| {
            let backend = json!({"service": {"name": service, "port": {"number": 80}}});
            json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}})
        })
        .collect();
    let mut spec = json!({"rules": rules});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let created = format!("2026-01-01T00:00:{age:02}Z");
    let metadata = json!({"namespace": "a", "name": name, "creationTimestamp": created, "annotations": annotations});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn plain(name: &str, age: u8, rules: &[(&str, &str, &str, &str)]) -> Ingress {
    ingress(name, age, rules, json!({}), json!({}))
}

fn entry(cluster: &str, claims: Claims, compiled: &Compiled) -> Entry {
    let routes = Arc::new(compiled.routes.clone());
    Entry { cluster: ClusterId::new(cluster), claims: Arc::new(claims), routes }
}

fn table(compiled: &Compiled) -> Table {
    Table::new(vec![entry("c-1", Claims::All, compiled)], &[])
}

/// The Services that a request could go to, with their weights.
fn met(table: &Table, host: &str, path: &str, headers: &[(&str, &str)]) -> Vec<(String, u32)> {
    let headers: HeaderMap =
        headers.iter().map(|(k, v)| (HeaderName::try_from(*k).unwrap(), HeaderValue::try_from(*v).unwrap())).collect();
    let backends = table.find(host, path, &headers).map(|met| &met.rule.backends);
    backends.into_iter().flatten().map(|w| (w.backend.service.name.clone(), w.weight)).collect()
}

fn service(table: &Table, host: &str, path: &str) -> String {
    met(table, host, path, &[]).first().map_or("404".into(), |(name, _)| name.clone())
}

fn messages(compiled: &Compiled) -> Vec<String> {
    let all = compiled.findings.iter();
    all.map(|f| format!("{} {:?}: {}", f.ingress.name, f.reason, f.message)).collect()
}

#[test]
fn several_ingresses_of_a_host_are_one_and_the_older_has_what_both_claim() {
    let compiled = compile(
        &[
            plain("young", 2, &[("a.com", "Prefix", "/", "young"), ("a.com", "Prefix", "/api", "api")]),
            plain("old", 1, &[("a.com", "Prefix", "/", "old"), ("a.com", "Exact", "/api", "exact")]),
        ],
        &[],
    );
    let table = table(&compiled);
    for (path, expected) in [("/", "old"), ("/x", "old"), ("/api", "exact"), ("/api/", "api"), ("/apix", "old")] {
        assert_eq!(service(&table, "a.com", path), expected, "{path}");
    }
    assert_eq!(service(&table, "b.com", "/"), "404");
    assert_eq!(
        messages(&compiled),
        ["young Conflict: host a.com with path / belongs to Ingress a/old, which is older"]
    );
    assert_eq!(compiled.served.len(), 2);
}

#[test]
fn hosts_go_from_exact_over_wildcard_to_any_and_then_to_a_default() {
    let default = json!({"defaultBackend": {"service": {"name": "default", "port": {"name": "http"}}}});
    let rules =
        [("a.b.com", "Prefix", "/x", "exact"), ("*.b.com", "Prefix", "/y", "wild"), ("", "Prefix", "/z", "any")];
    let own = json!({"defaultBackend": {"service": {"name": "own", "port": {"number": 80}}}});
    let compiled = compile(
        &[
            ingress("i", 1, &rules, json!({}), default),
            ingress("j", 2, &[("own.com", "Exact", "/only", "only")], json!({}), own),
        ],
        &[],
    );
    let table = table(&compiled);
    for (host, path, expected) in [
        ("a.b.com", "/x", "exact"),
        ("a.b.com", "/y", "wild"),
        ("a.b.com", "/z", "any"),
        ("a.b.com", "/", "default"),
        ("c.b.com", "/x", "default"),
        ("c.b.com", "/y", "wild"),
        ("b.com", "/y", "default"),
        ("d.c.b.com", "/y", "default"),
        ("else.org", "/z/1", "any"),
        ("own.com", "/only", "only"),
        ("own.com", "/else", "own"),
    ] {
        assert_eq!(service(&table, host, path), expected, "{host}{path}");
    }
    assert_eq!(messages(&compiled), [""; 0]);
}

#[test]
fn a_canary_gets_who_asks_for_it_and_its_part_of_the_others() {
    let canary = json!({
        "nginx.ingress.kubernetes.io/canary": "true", "nginx.ingress.kubernetes.io/canary-weight": "20",
        "nginx.ingress.kubernetes.io/canary-by-header": "X-Canary", "longshore.dev/canary-by-cookie": "try",
    });
    let rules = [("a.com", "Prefix", "/", "new")];
    let lonely = [("b.com", "Prefix", "/", "new")];
    let compiled = compile(
        &[
            ingress("canary", 1, &rules, canary.clone(), json!({})),
            plain("main", 2, &[("a.com", "Prefix", "/", "main"), ("a.com", "Prefix", "/deep", "deep")]),
            ingress("lonely", 3, &lonely, canary, json!({})),
        ],
        &[],
    );
    let table = table(&compiled);
    let to = |headers: &[(&str, &str)]| met(&table, "a.com", "/", headers);
    let (main, new) = (("main".to_string(), 1), ("new".to_string(), 1));
    assert_eq!(to(&[]), [("main".to_string(), 80), ("new".to_string(), 20)]);
    assert_eq!(to(&[("x-canary", "always")]), std::slice::from_ref(&new));
    assert_eq!(to(&[("x-canary", "never"), ("cookie", "try=always")]), std::slice::from_ref(&main));
    assert_eq!(to(&[("cookie", "x=1; try=always")]), [new]);
    assert_eq!(to(&[("cookie", "try=never")]), [main]);
    assert_eq!(met(&table, "a.com", "/deep", &[("x-canary", "always")]), [("deep".to_string(), 1)]);
    assert_eq!(
        messages(&compiled),
        ["lonely LonelyCanary: canary for host b.com with path /: there is no Ingress with the same host and path"]
    );
}

#[test]
fn what_is_wrong_with_one_leaves_the_others_alone() {
    let regex = json!({"longshore.dev/use-regex": "true"});
    let guarded = json!({"nginx.ingress.kubernetes.io/auth-type": "basic"});
    let resource = json!({"defaultBackend": {"resource": {"kind": "Bucket", "name": "b"}}});
    let compiled = compile(
        &[
            ingress(
                "regex",
                1,
                &[
                    ("a.com", "ImplementationSpecific", "/(", "broken"),
                    ("a.com", "ImplementationSpecific", "/v[0-9]+/", "version"),
                ],
                regex,
                json!({}),
            ),
            ingress("guarded", 2, &[("a.com", "Prefix", "/admin", "admin")], guarded, json!({})),
            ingress("resource", 3, &[], json!({}), resource),
            plain("fine", 4, &[("a.com", "Prefix", "/", "fine")]),
        ],
        &[],
    );
    let table = table(&compiled);
    assert_eq!(service(&table, "a.com", "/V12/x"), "version");
    assert_eq!(service(&table, "a.com", "/v/x"), "fine");
    assert_eq!(service(&table, "a.com", "/admin"), "fine");
    let reasons: Vec<_> = compiled.findings.iter().map(|f| (f.ingress.name.as_str(), f.reason)).collect();
    assert_eq!(
        reasons,
        [("regex", Reason::InvalidPath), ("guarded", Reason::Refused), ("resource", Reason::UnsupportedBackend)]
    );
    let served: Vec<_> = compiled.served.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(served, ["fine", "regex"]);
}

#[test]
fn tls_hosts_have_a_secret_or_an_order() {
    let tls = json!({"tls": [{"hosts": ["a.com", "*.b.com"], "secretName": "s"}, {"hosts": ["c.com", "*.c.com"]}, {"secretName": "rest"}]});
    let rules = [
        ("a.com", "Prefix", "/", "x"),
        ("d.com", "Prefix", "/", "x"),
        ("x.b.com", "Prefix", "/", "x"),
        ("c.com", "Prefix", "/", "x"),
    ];
    let compiled = compile(&[ingress("i", 1, &rules, json!({}), tls)], &[]);
    let table = table(&compiled);
    let secret = |name: &str| Some(CertificateSource::Secret(Name::new("a", name)));
    for (host, expected) in [
        ("a.com", secret("s")),
        ("x.b.com", secret("rest")),
        ("y.b.com", secret("s")),
        ("c.com", Some(CertificateSource::Automatic("c.com".into()))),
        ("d.com", secret("rest")),
        ("e.com", None),
    ] {
        // A wildcard's certificate is for hosts that are served.
        let found = table.certificate(host).map(|(_, source)| source.clone());
        let expected = if host == "y.b.com" { None } else { expected };
        assert_eq!(found, expected, "{host}");
    }
    assert_eq!(compiled.routes.automatic_hosts().into_iter().collect::<Vec<_>>(), ["*.c.com", "c.com"]);
    assert!(messages(&compiled).is_empty());
}

#[test]
fn a_host_is_one_clusters_and_reserved_ones_are_nobodys() {
    let mine = compile(&[plain("i", 1, &[("app.com", "Prefix", "/", "mine"), ("", "Prefix", "/all", "mine")])], &[]);
    let theirs = compile(
        &[plain(
            "i",
            1,
            &[
                ("app.com", "Prefix", "/x", "theirs"),
                ("own.net", "Prefix", "/", "theirs"),
                ("home.com", "Prefix", "/", "theirs"),
                ("", "Prefix", "/", "theirs"),
            ],
        )],
        &[],
    );
    let only = |hosts: &[&str]| Claims::Only(hosts.iter().map(|h| Host::parse(h).unwrap()).collect());
    let reserved = [Host::parse("home.com").unwrap()];
    let entries = vec![
        entry("c-1", only(&["app.com", "*.mine.org"]), &mine),
        entry("c-2", only(&["own.net", "home.com", "*.theirs.org"]), &theirs),
    ];
    let table = Table::new(entries, &reserved);
    for (host, path, expected) in [
        ("app.com", "/", "mine"),
        // The other one claims this path of a host that isn't its own.
        ("app.com", "/x", "mine"),
        ("own.net", "/", "theirs"),
        ("home.com", "/", "404"),
        ("x.mine.org", "/all", "mine"),
        ("x.mine.org", "/", "404"),
        ("x.theirs.org", "/all", "theirs"),
        ("unclaimed.org", "/all", "404"),
    ] {
        assert_eq!(service(&table, host, path), expected, "{host}{path}");
    }
}

type Row = (u8, String, String, String);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let host = prop::sample::select(vec!["", "a.com", "*.com", "b.a.com", "*.a.com"]).prop_map(String::from);
    let kind = prop::sample::select(vec!["Exact", "Prefix", "ImplementationSpecific"]).prop_map(String::from);
    prop::collection::vec((0u8..4, host, kind, "(/[ab]{1,2}){1,3}/?|/"), 1..12)
}

/// The semantics again, as sentences about all rules at once and without any order of search.
fn expected(rows: &[(usize, Row)], host: &str, path: &str) -> Option<String> {
    let plain = |p: &str| p.trim_end_matches('/').to_string();
    let fits = |(_, (_, h, kind, p)): &&(usize, Row)| {
        let host_fits = Host::parse(h).is_some_and(|h| h.matches(host));
        let elements = |t: &str| -> Vec<String> { plain(t).split('/').map(String::from).collect() };
        let path_fits = if kind == "Exact" { p == path } else { elements(path).starts_with(&elements(p)) };
        host_fits && path_fits
    };
    let best = rows.iter().filter(fits).max_by_key(|(i, (age, h, kind, p))| {
        let particular = if h.is_empty() {
            0
        } else if h.starts_with('*') {
            1
        } else {
            2
        };
        let exact = kind == "Exact";
        let length = if exact { p.len() } else { plain(p).len() };
        // Oldest first, then by name, then by place.
        (particular, exact, length, std::cmp::Reverse((*age, *i)))
    });
    best.map(|(i, _)| format!("s{i}"))
}

proptest! {
    #[test]
    fn routes_are_what_kubernetes_says(rows in rows(), host in prop::sample::select(vec!["a.com", "b.a.com", "c.a.com", "d.com", "x.y.z"]), path in "(/[ab]{1,2}){1,3}/?|/") {
        let rows: Vec<(usize, Row)> = rows.into_iter().enumerate().collect();
        let ingresses: Vec<Ingress> = rows
            .iter()
            .rev()
            .map(|(i, (age, host, kind, path))| plain(&format!("i{i:02}"), *age, &[(host, kind, path, &format!("s{i}"))]))
            .collect();
        let table = table(&compile(&ingresses, &[]));
        let found = met(&table, host, &path, &[]).first().map(|(name, _)| name.clone());
        prop_assert_eq!(found, expected(&rows, host, &path));
    }
}
