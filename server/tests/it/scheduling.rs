//! Priority classes, and why a pod is where it is, as clients see them.

use crate::app::TestApp;
use serde_json::{Value, json};

const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn class(name: &str, value: i64, more: Value) -> Value {
    let mut tree = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
    for (field, value) in more.as_object().unwrap() {
        tree[field] = value.clone();
    }
    tree
}

async fn with_account() -> TestApp {
    let app = TestApp::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    app.owner().post("/api/v1/namespaces/default/serviceaccounts", account).await;
    app
}

fn pod(name: &str, spec: Value) -> Value {
    let mut tree = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "web:1"}]}});
    for (field, value) in spec.as_object().unwrap() {
        tree["spec"][field] = value.clone();
    }
    tree
}

#[tokio::test]
async fn the_systems_classes_are_there_and_stay() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let list = owner.get(CLASSES).await.body;
    let named = |c: &Value| (c["metadata"]["name"].as_str().unwrap().to_string(), c["value"].as_i64().unwrap());
    let classes: Vec<_> = list["items"].as_array().unwrap().iter().map(named).collect();
    assert_eq!(
        classes,
        [("system-cluster-critical".to_string(), 2_000_000_000), ("system-node-critical".to_string(), 2_000_001_000)]
    );
    let refused = owner.delete(&format!("{CLASSES}/system-node-critical")).await;
    assert_eq!(
        (refused.status.as_u16(), refused.body["message"].as_str().unwrap()),
        (
            403,
            "priorityclasses.scheduling.k8s.io \"system-node-critical\" is forbidden: this is a system priority class and cannot be deleted"
        )
    );
    let viewer = app.as_("viewer");
    assert_eq!(viewer.get(CLASSES).await.status, 200);
    assert_eq!(app.as_("developer").post(CLASSES, class("gold", 1, json!({}))).await.status, 403);
}

#[tokio::test]
async fn there_is_one_default_and_classes_keep_their_value() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let made = owner.post(CLASSES, class("gold", 1000, json!({"globalDefault": true}))).await;
    assert_eq!(
        (made.status.as_u16(), &made.body["preemptionPolicy"]),
        (201, &json!("PreemptLowerPriority")),
        "{}",
        made.text
    );
    let second = owner.post(CLASSES, class("silver", 10, json!({"globalDefault": true}))).await;
    assert_eq!(
        (second.status.as_u16(), second.body["message"].as_str().unwrap()),
        (
            403,
            "priorityclasses.scheduling.k8s.io \"silver\" is forbidden: PriorityClass gold is already marked as default. Only one default can exist"
        )
    );
    let described = owner.merge(&format!("{CLASSES}/gold"), json!({"description": "for what earns money"})).await;
    assert_eq!(described.status, 200, "{}", described.text);
    let changed = owner.merge(&format!("{CLASSES}/gold"), json!({"value": 2000})).await;
    assert_eq!(changed.status, 422);
    assert!(changed.body["message"].as_str().unwrap().ends_with("value: Forbidden: may not be changed in an update."));
    let table = owner.get_as(&format!("{CLASSES}/gold"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let columns: Vec<&str> =
        table.body["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"]);
    assert_eq!(table.body["rows"][0]["cells"][1], 1000);
}

#[tokio::test]
async fn pods_get_what_their_class_says() {
    let app = with_account().await;
    let owner = app.owner();
    let none = owner.post(PODS, pod("none", json!({}))).await;
    assert_eq!(
        (&none.body["spec"]["priority"], &none.body["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority")),
        "{}",
        none.text
    );
    owner.post(CLASSES, class("patient", 7, json!({"preemptionPolicy": "Never", "globalDefault": true}))).await;
    let by_default = owner.post(PODS, pod("default", json!({}))).await.body["spec"].clone();
    assert_eq!(
        (&by_default["priority"], &by_default["preemptionPolicy"], &by_default["priorityClassName"]),
        (&json!(7), &json!("Never"), &json!("patient"))
    );
    let critical = owner.post(PODS, pod("critical", json!({"priorityClassName": "system-node-critical"}))).await;
    assert_eq!(critical.body["spec"]["priority"], 2_000_001_000, "{}", critical.text);
    for (name, spec, why) in [
        ("unknown", json!({"priorityClassName": "gold"}), "no PriorityClass with name gold was found"),
        (
            "number",
            json!({"priority": 9}),
            "the integer value of priority (9) must not be provided in pod spec; priority admission controller computed 7 from the given PriorityClass name",
        ),
        (
            "policy",
            json!({"preemptionPolicy": "PreemptLowerPriority"}),
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name",
        ),
    ] {
        let refused = owner.post(PODS, pod(name, spec)).await;
        let message = format!("pods \"{name}\" is forbidden: {why}");
        assert_eq!((refused.status.as_u16(), refused.body["message"].as_str()), (403, Some(message.as_str())));
    }
}

#[tokio::test]
async fn who_may_read_a_pod_may_ask_why_it_is_where_it_is() {
    let app = with_account().await;
    app.owner().post(PODS, pod("web", json!({}))).await;
    let path = |name: &str| format!("/apis/longshore.dev/v1/namespaces/default/pods/{name}/scheduling");
    let code = |answer: crate::app::Answer| {
        (answer.status.as_u16(), answer.body["message"].as_str().unwrap_or_default().to_string())
    };
    for who in ["viewer", "developer", "admin", "owner"] {
        let actor = app.as_(who);
        assert_eq!(
            code(actor.get(&path("web")).await),
            (404, "pods/scheduling.longshore.dev \"web\" not found".into()),
            "no scheduler has run here"
        );
        assert_eq!(code(actor.get(&path("none")).await), (404, "pods \"none\" not found".into()));
    }
    for who in ["serviceaccount:robot", "node:other"] {
        let (status, message) = code(app.as_(who).get(&path("web")).await);
        assert!(
            status == 403 && message.contains("cannot get resource \"pods\" in API group \"\""),
            "{who}: {status} {message}"
        );
    }
    assert_eq!(
        app.as_("nobody").get(&path("web")).await.status.as_u16(),
        app.as_("nobody").get(&format!("{PODS}/web")).await.status.as_u16()
    );
    let owner = app.owner();
    assert_eq!(owner.send("DELETE", &path("web"), &[], "").await.status, 405);
    assert_eq!(owner.get("/apis/longshore.dev/v1/namespaces/default/services/web/scheduling").await.status, 404);
    assert!(!owner.get("/apis").await.text.contains("longshore.dev"), "it is no Kubernetes group");
}
