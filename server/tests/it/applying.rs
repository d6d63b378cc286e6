//! Server-side apply as a client sees it.

use crate::app::{Actor, Answer, TestApp};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(client: &Actor<'_>, path: &str, query: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/apply-patch+yaml"), ("user-agent", "test/1")];
    client.send("PATCH", &format!("{path}?{query}"), &headers, body.to_string()).await
}

/// As somebody writes it by hand.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: 'web:1', ports: [{containerPort: 80}]}
      - {name: side, image: 'side:1'}
";

fn owner<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    let managers = object["metadata"]["managedFields"].as_array()?;
    managers.iter().find(|entry| entry["manager"] == manager)
}

#[tokio::test]
async fn what_is_applied_is_made_changed_and_taken_back() {
    let app = TestApp::new().await;
    let client = app.owner();
    let web = format!("{DEPLOYMENTS}/web");
    let made = apply(&client, &web, "fieldManager=a", WEB).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let entry = owner(&made.body, "a").unwrap();
    assert_eq!((&entry["operation"], &entry["apiVersion"]), (&json!("Apply"), &json!("apps/v1")));
    assert_eq!(made.body["spec"]["strategy"]["type"], "RollingUpdate", "defaults are nobody's");
    assert!(entry["fieldsV1"]["f:spec"].get("f:strategy").is_none());

    let again = apply(&client, &web, "fieldManager=a", WEB).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &made.body), "nothing to do, nothing written");
    let less = WEB.replace("      - {name: side, image: 'side:1'}\n", "").replace("web:1", "web:2");
    let changed = apply(&client, &web, "fieldManager=a", &less).await;
    let containers = changed.body["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!((containers.len(), &containers[0]["image"]), (1, &json!("web:2")), "{}", changed.text);
    assert_eq!(changed.body["metadata"]["generation"], 2);
    assert_eq!(client.get(&web).await.body, changed.body);
}

#[tokio::test]
async fn others_fields_are_a_conflict_that_can_be_forced() {
    let app = TestApp::new().await;
    let client = app.owner();
    let web = format!("{DEPLOYMENTS}/web");
    apply(&client, &web, "fieldManager=a", WEB).await;
    let scale = client.merge(&format!("{web}/scale?fieldManager=scaler"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scale.status, 200, "{}", scale.text);
    let refused = apply(&client, &web, "fieldManager=a", WEB).await;
    assert_eq!((refused.status.as_u16(), &refused.body["reason"]), (409, &json!("Conflict")));
    let message = "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert_eq!(refused.body["message"], message);
    assert_eq!(refused.body["details"]["causes"][0]["field"], ".spec.replicas");
    let dry = apply(&client, &web, "fieldManager=a&force=true&dryRun=All", WEB).await;
    assert_eq!((dry.status.as_u16(), &dry.body["spec"]["replicas"]), (200, &json!(2)));
    assert_eq!(client.get(&web).await.body["spec"]["replicas"], 5);
    let forced = apply(&client, &web, "fieldManager=a&force=true", WEB).await;
    assert_eq!(forced.body["spec"]["replicas"], 2, "{}", forced.text);
    assert!(owner(&forced.body, "scaler").is_none());
}

#[tokio::test]
async fn writes_of_all_kinds_are_noted_once_something_is_applied() {
    let app = TestApp::new().await;
    let client = app.owner();
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});
    let made = client.post(maps, map(json!({"x": "1"}))).await;
    assert!(made.body["metadata"].get("managedFields").is_none());
    let path = format!("{maps}/m");
    let changed = client.merge(&path, json!({"data": {"z": "1"}})).await;
    assert!(changed.body["metadata"].get("managedFields").is_none());
    client.merge(&path, json!({"data": {"z": null}})).await;
    let applied = apply(&client, &path, "fieldManager=a", &map(json!({"y": "1"})).to_string()).await;
    assert_eq!(applied.body["data"], json!({"x": "1", "y": "1"}));
    assert!(owner(&applied.body, "before-first-apply").is_some());

    let patched = client.merge(&format!("{path}?fieldManager=hand"), json!({"data": {"y": "2"}})).await;
    assert_eq!(owner(&patched.body, "hand").unwrap()["fieldsV1"], json!({"f:data": {"f:y": {}}}));
    assert!(owner(&patched.body, "a").is_none(), "nothing is left that it owns");
    // A client sends back what it got, changed or not: the server's word counts.
    let mut forged = patched.body.clone();
    forged["metadata"]["managedFields"][0]["manager"] = "forged".into();
    assert_eq!(client.put(&path, forged).await.body, patched.body);
    // Only forgetting can be asked for.
    let forgotten = client.merge(&path, json!({"metadata": {"managedFields": [{}]}})).await;
    assert!(forgotten.body["metadata"].get("managedFields").is_none(), "{}", forgotten.text);
}

#[tokio::test]
async fn a_field_that_is_set_to_nothing_is_set() {
    let app = TestApp::new().await;
    let client = app.owner();
    let web = format!("{DEPLOYMENTS}/web");
    apply(&client, &web, "fieldManager=a", &WEB.replace("  replicas: 2", "  replicas: 2\n  paused: true")).await;
    let running = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {paused: false, replicas: 0}}";
    assert_eq!(apply(&client, &web, "fieldManager=b", running).await.status, 409);
    let taken = apply(&client, &web, "fieldManager=b&force=true", running).await;
    assert!(taken.body["spec"].get("paused").is_none(), "{}", taken.text);
    assert_eq!(taken.body["spec"]["replicas"], 0);
    assert_eq!(owner(&taken.body, "b").unwrap()["fieldsV1"]["f:spec"], json!({"f:paused": {}, "f:replicas": {}}));
}

#[tokio::test]
async fn a_status_is_applied_by_itself() {
    let app = TestApp::new().await;
    let client = app.owner();
    let web = format!("{DEPLOYMENTS}/web");
    let status =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, status: {replicas: 3, readyReplicas: 3}}";
    assert_eq!(apply(&client, &format!("{web}/status"), "fieldManager=s", status).await.status, 404);
    apply(&client, &web, "fieldManager=a", WEB).await;
    let applied = apply(&client, &format!("{web}/status"), "fieldManager=s", status).await;
    assert_eq!((applied.status.as_u16(), &applied.body["status"]["replicas"]), (200, &json!(3)), "{}", applied.text);
    assert_eq!(owner(&applied.body, "s").unwrap()["subresource"], "status");
    assert_eq!(applied.body["spec"]["replicas"], 2);
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_in_kubernetes_words() {
    let app = TestApp::new().await;
    let client = app.owner();
    let web = format!("{DEPLOYMENTS}/web");
    let refusals = [
        (web.as_str(), "", WEB.to_string(), 422, "fieldManager: Required value: is required for apply patch"),
        (&web, "fieldManager=a", "a: [".to_string(), 400, ""),
        (&web, "fieldManager=a", WEB.replace("name: web,", "name: other,"), 400, "does not match the name on the URL"),
        (
            &web,
            "fieldManager=a",
            WEB.replace("{name: side,", "{name: c,"),
            500,
            "duplicate entries for key [name=\"c\"]",
        ),
        (&web, "fieldManager=a", WEB.replace("labels: {app: web}}\nspec", "uid: u-9}\nspec"), 409, "uid mismatch"),
        (&web, "fieldManager=a", WEB.replace("{name: web,", "{name: web, managedFields: [{}],"), 400, "must be nil"),
        (&web, "fieldManager=a&fieldValidation=Strict", WEB.replace("replicas", "replica"), 400, "unknown field"),
        (&web, "fieldManager=a", WEB.replace("web:1", ""), 422, "image"),
    ];
    for (path, query, body, code, said) in refusals {
        let refused = apply(&client, path, query, &body).await;
        assert_eq!(refused.status.as_u16(), code, "{said}: {}", refused.text);
        assert!(refused.body["message"].as_str().unwrap().contains(said), "{}", refused.text);
    }
    assert_eq!(client.get(&web).await.status, 404, "nothing was made");
    let forced = client.merge(&format!("{web}?force=true"), json!({})).await;
    assert!(forced.text.contains("force: Forbidden: may not be specified for non-apply patch"), "{}", forced.text);
}
