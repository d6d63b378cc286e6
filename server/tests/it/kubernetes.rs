//! The verbs as a client sees them.

use crate::app::TestApp;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": {"k": "v"}})
}

fn events(text: &str) -> Vec<(String, Value)> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|event| (event["type"].as_str().unwrap().to_string(), event["object"].clone())).collect()
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let created = owner.post(MAPS, config_map("a")).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert!(created.body["metadata"]["uid"].is_string());
    assert_eq!(owner.post(MAPS, config_map("a")).await.body["reason"], "AlreadyExists");
    let path = format!("{MAPS}/a");
    assert_eq!(owner.get(&path).await.body, created.body);

    let unchanged = owner.put(&path, created.body.clone()).await;
    assert_eq!(unchanged.body["metadata"]["resourceVersion"], created.body["metadata"]["resourceVersion"]);
    let patched = owner.merge(&path, json!({"data": {"k": null, "x": "y"}})).await;
    assert_eq!(patched.body["data"], json!({"x": "y"}), "{}", patched.text);
    let stale = owner.put(&path, created.body).await;
    assert_eq!((stale.status.as_u16(), &stale.body["reason"]), (409, &json!("Conflict")));

    let deleted = owner.delete(&path).await;
    assert_eq!((&deleted.body["kind"], &deleted.body["status"]), (&json!("Status"), &json!("Success")));
    let gone = owner.get(&path).await;
    assert_eq!(gone.body["message"], "configmaps \"a\" not found");
    assert!(gone.headers.contains_key("audit-id"));
}

#[tokio::test]
async fn lists_select_page_and_go_on_where_they_were() {
    let app = TestApp::new().await;
    let owner = app.owner();
    for name in ["a", "b", "c"] {
        owner.post(MAPS, config_map(name)).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().into()).collect()
    };
    let selected = owner.get(&format!("{MAPS}?labelSelector=app%20in%20(a,c)")).await;
    assert_eq!(names(&selected.body), ["a", "c"]);
    let first = owner.get(&format!("{MAPS}?limit=2")).await.body;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(1)));
    owner.delete(&format!("{MAPS}/c")).await;
    let next = owner.get(&format!("{MAPS}?limit=2&continue={}", first["metadata"]["continue"].as_str().unwrap())).await;
    assert_eq!(names(&next.body), ["c"], "a page belongs to the state that the list began with");
    let refused = owner.get(&format!("{MAPS}?fieldSelector=data.k=v")).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(owner.get(&format!("{MAPS}?continue=rubbish")).await.status, 400);
}

#[tokio::test]
async fn a_watch_sends_the_state_its_end_and_what_enters_and_leaves_the_selector() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let version = owner.post(MAPS, config_map("a")).await.body["metadata"]["resourceVersion"].clone();
    let version = version.as_str().unwrap();
    owner.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"app": "other"}}})).await;
    owner.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"app": "a"}}})).await;
    owner.delete(&format!("{MAPS}/a")).await;
    let query = format!("watch=1&timeoutSeconds=1&labelSelector=app%3Da&resourceVersion={version}");
    let seen = events(&owner.get(&format!("{MAPS}?{query}")).await.text);
    let kinds: Vec<&str> = seen.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["DELETED", "ADDED", "DELETED"]);

    owner.post(MAPS, config_map("b")).await;
    let query =
        "watch=1&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let seen = events(&owner.get(&format!("{MAPS}?{query}")).await.text);
    assert!(seen.iter().any(|(kind, o)| kind == "ADDED" && o["metadata"]["name"] == "b"));
    let (kind, bookmark) = seen.last().unwrap();
    assert_eq!((kind.as_str(), &bookmark["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let app = TestApp::new().await;
    let owner = app.owner();
    assert_eq!(owner.post(&format!("{MAPS}?dryRun=All"), config_map("a")).await.status, 201);
    assert_eq!(owner.get(&format!("{MAPS}/a")).await.status, 404);
    owner.post(MAPS, config_map("a")).await;
    assert_eq!(owner.delete(&format!("{MAPS}/a?dryRun=All")).await.status, 200);
    assert_eq!(owner.get(&format!("{MAPS}/a")).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_is_said_as_kubernetes_says_it() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let code =
        |answer: crate::app::Answer| (answer.status.as_u16(), answer.body["reason"].as_str().unwrap().to_string());
    assert_eq!(code(owner.get("/apis/rbac.authorization.k8s.io/v1/roles").await), (404, "NotFound".into()));
    assert_eq!(code(owner.put(MAPS, config_map("a")).await), (405, "MethodNotAllowed".into()));
    assert_eq!(code(owner.get_as(MAPS, "text/html").await), (406, "NotAcceptable".into()));
    let xml = owner.send("POST", MAPS, &[("content-type", "text/xml")], "<a/>").await;
    assert_eq!(code(xml), (415, "UnsupportedMediaType".into()));
    let huge = owner.send("POST", MAPS, &[], vec![b' '; 3 * 1024 * 1024 + 1]).await;
    assert_eq!(code(huge), (413, "RequestEntityTooLarge".into()));
    assert_eq!(code(owner.post(MAPS, config_map("A")).await), (422, "Invalid".into()));
    assert_eq!(code(owner.send("POST", MAPS, &[], "{").await), (400, "BadRequest".into()));
    let spdy = owner.send("POST", &format!("{PODS}/x/exec?command=a"), &[("upgrade", "SPDY/3.1")], "").await;
    assert_eq!(spdy.status, 400);
}

#[tokio::test]
async fn tables_and_partial_objects_are_made_where_they_are_asked_for() {
    let app = TestApp::new().await;
    let owner = app.owner();
    owner.post(MAPS, config_map("a")).await;
    let table =
        owner.get_as(&format!("{MAPS}/a"), "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!((&table.body["kind"], &table.body["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = owner.get_as(MAPS, partial).await;
    assert_eq!(list.body["kind"], "PartialObjectMetadataList");
    let yaml = owner.get_as(&format!("{MAPS}/a"), "application/yaml").await;
    assert!(yaml.text.contains("kind: ConfigMap"), "{}", yaml.text);
}

#[tokio::test]
async fn deployments_scale_and_reviews_say_who_asks() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let labels = json!({"app": "web"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        }},
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let created = owner.post(deployments, deployment).await;
    assert_eq!((created.status.as_u16(), &created.body["spec"]["replicas"]), (201, &json!(1)), "{}", created.text);
    let scaled = owner.merge(&format!("{deployments}/web/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!(
        (&scaled.body["kind"], &scaled.body["spec"]["replicas"]),
        (&json!("Scale"), &json!(5)),
        "{}",
        scaled.text
    );
    let stored = owner.get(&format!("{deployments}/web")).await.body;
    assert_eq!((&stored["spec"]["replicas"], &stored["metadata"]["generation"]), (&json!(5), &json!(2)));
    let who = owner.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(who.body["status"]["userInfo"]["username"], "ann@example.com", "{}", who.text);
}

/// No request is longer than that, but patches add up.
#[tokio::test]
async fn an_object_cannot_grow_for_ever() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let container = json!({"name": "c", "image": "i", "args": ["x"]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let made = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec});
    assert_eq!(owner.post("/apis/apps/v1/namespaces/default/deployments", made).await.status, 201);
    let path = "/apis/apps/v1/namespaces/default/deployments/a";
    let grow = async |bytes: usize| {
        let add = json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "x".repeat(bytes)}]);
        owner.send("PATCH", path, &[("content-type", "application/json-patch+json")], add.to_string()).await
    };
    assert_eq!(grow(2 << 20).await.status, 200);
    let refused = grow(2 << 20).await;
    assert_eq!((refused.status.as_u16(), &refused.body["reason"]), (413, &json!("RequestEntityTooLarge")));
    assert_eq!(refused.body["message"], "Request entity too large: limit is 3145728");
    assert_eq!(grow(1).await.status, 200, "nothing is lost");
}
