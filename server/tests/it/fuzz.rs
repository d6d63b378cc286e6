//! Requests that nobody should send, through the whole router: each is answered, an error is a `Status`, nothing panics and
//! nothing takes long.

use crate::app::TestApp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn cases() -> ProptestConfig {
    let cases = std::env::var("LONGSHORE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn path() -> impl Strategy<Value = String> {
    let known = prop_oneof![
        Just("/api/v1/pods"),
        Just("/api/v1/namespaces/default/configmaps"),
        Just("/api/v1/namespaces/default/configmaps/a"),
        Just("/api/v1/namespaces/default/pods/p"),
        Just("/api/v1/namespaces/default/pods/p/status"),
        Just("/api/v1/namespaces/default/pods/p/log"),
        Just("/api/v1/namespaces/default/pods/p/exec"),
        Just("/api/v1/namespaces/default/pods/p/binding"),
        Just("/api/v1/namespaces/default/pods/p/eviction"),
        Just("/api/v1/namespaces/default/serviceaccounts/default/token"),
        Just("/api/v1/namespaces/default"),
        Just("/api/v1/namespaces/default/finalize"),
        Just("/api/v1/nodes/n"),
        Just("/api/v1/namespaces/default/services"),
        Just("/api/v1/namespaces/default/secrets"),
        Just("/api/v1/namespaces/default/events"),
        Just("/apis/apps/v1/namespaces/default/deployments"),
        Just("/apis/apps/v1/namespaces/default/deployments/d"),
        Just("/apis/apps/v1/namespaces/default/deployments/d/scale"),
        Just("/apis/apps/v1/namespaces/default/replicasets/r/scale"),
        Just("/apis/coordination.k8s.io/v1/leases"),
        Just("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        Just("/apis/events.k8s.io/v1/events"),
        Just("/openapi/v3"),
        Just("/openapi/v3/apis/apps/v1"),
        Just("/api"),
        Just("/apis"),
        Just("/version"),
        Just("/metrics"),
    ];
    prop_oneof![3 => known.prop_map(String::from), 1 => "(/[a-zA-Z0-9%._~-]{0,10}){1,8}"]
}

fn query() -> impl Strategy<Value = String> {
    let key = "(labelSelector|fieldSelector|limit|continue|resourceVersion|resourceVersionMatch|timeoutSeconds|sendInitialEvents|allowWatchBookmarks|fieldManager|fieldValidation|force|dryRun|propagationPolicy|gracePeriodSeconds|orphanDependents|pretty|includeObject|container|command|tailLines|sinceTime|x)";
    let value = prop_oneof![
        Just("true".to_string()),
        Just("0".into()),
        Just("1".into()),
        Just("-1".into()),
        Just("99999999999999999999".into()),
        Just("All".into()),
        Just("Strict".into()),
        Just("Exact".into()),
        Just("NotOlderThan".into()),
        Just("Foreground".into()),
        Just("a%3Db%2Cc+in+(d%2Ce)".into()),
        Just("metadata.name%3Da".into()),
        Just("spec.nodeName!%3Dn".into()),
        "[a-zA-Z0-9%=!,.()_-]{0,12}",
    ];
    // A watch without an end would be waited for.
    let pairs = prop::collection::vec((key, value).prop_map(|(key, value)| format!("{key}={value}")), 0..5);
    (pairs, any::<bool>()).prop_map(|(pairs, watch)| {
        let watch = if watch { "&watch=1&timeoutSeconds=1" } else { "" };
        let pairs: Vec<String> =
            pairs.into_iter().filter(|pair| !watch.is_empty() || !pair.starts_with("timeoutSeconds")).collect();
        let pairs: Vec<String> =
            pairs.into_iter().filter(|pair| watch.is_empty() || !pair.starts_with("timeoutSeconds")).collect();
        format!("{}{watch}", pairs.join("&")).trim_start_matches('&').to_string()
    })
}

fn tree() -> impl Strategy<Value = Value> {
    let field = "(apiVersion|kind|metadata|name|generateName|namespace|labels|annotations|finalizers|ownerReferences|uid|resourceVersion|deletionTimestamp|spec|status|replicas|selector|matchLabels|template|containers|image|ports|port|containerPort|data|binaryData|type|clusterIP|op|path|value|\\$patch|preconditions|target|expirationSeconds|resourceAttributes)";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop_oneof![
            Just("a"),
            Just("v1"),
            Just("apps/v1"),
            Just("ConfigMap"),
            Just("Pod"),
            Just("Deployment"),
            Just("default"),
            Just("add"),
            Just("/metadata"),
            Just("ClusterIP"),
            Just("10.96.0.1"),
            Just("")
        ]
        .prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            3 => prop::collection::btree_map(field, inner, 0..7).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let whole = tree().prop_map(|mut tree| {
        // Most bodies should get further than to their name.
        if let Some(metadata) = tree.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("name".into(), "a".into());
        }
        tree.to_string().into_bytes()
    });
    prop_oneof![
        6 => whole,
        1 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u8>(), 0..60),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| [b"k8s\0".to_vec(), bytes].concat()),
        1 => tree().prop_map(|tree| serde_json::to_vec(&json!([tree])).unwrap_or_default()),
    ]
}

fn method() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => Just("GET"), 3 => Just("POST"), 2 => Just("PUT"), 3 => Just("PATCH"), 2 => Just("DELETE"), 1 => Just("HEAD"),
        1 => Just("OPTIONS"), 1 => Just("TRACE"),
    ]
}

fn media_type() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("application/json".to_string()),
        Just("application/yaml".into()),
        Just("application/vnd.kubernetes.protobuf".into()),
        Just("application/json-patch+json".into()),
        Just("application/merge-patch+json".into()),
        Just("application/strategic-merge-patch+json".into()),
        Just("application/apply-patch+yaml".into()),
        Just("application/json;as=Table;v=v1;g=meta.k8s.io,application/json".into()),
        Just("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io".into()),
        Just("*/*".into()),
        "[ -~]{0,30}",
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_request_is_answered_and_every_error_is_a_status(
        requests in prop::collection::vec((method(), path(), query(), media_type(), media_type(), body()), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let app = TestApp::new().await;
            let owner = app.owner();
            owner.post("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
            for (method, path, query, accept, content_type, body) in requests {
                let uri = format!("{path}?{query}");
                let Ok(_) = uri.parse::<http::Uri>() else { continue };
                let headers = [("accept", accept.as_str()), ("content-type", content_type.as_str())];
                if headers.iter().any(|(_, value)| http::HeaderValue::from_str(value).is_err()) {
                    continue;
                }
                let begun = Instant::now();
                let answer = owner.send(method, &uri, &headers, body.clone()).await;
                let told = format!("{method} {uri} {headers:?} {:?}: {} {}", String::from_utf8_lossy(&body), answer.status, answer.text);
                prop_assert!(begun.elapsed() < Duration::from_secs(20), "{}", told);
                prop_assert_ne!(answer.status.as_u16(), 500, "{}", told);
                let shown = answer.body["kind"] == "Status" || answer.text.contains("kind: Status") || method == "HEAD";
                prop_assert!(answer.status.as_u16() < 400 || shown, "{}", told);
            }
            Ok(())
        })?;
    }
}
