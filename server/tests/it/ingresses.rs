//! Ingresses and their classes, as clients see them.

use crate::app::TestApp;
use serde_json::{Value, json};

const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";

fn ingress(name: &str, host: &str) -> Value {
    let path =
        json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
        "spec": {"rules": [{"host": host, "http": {"paths": [path]}}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}})
}

#[tokio::test]
async fn an_ingress_is_made_changed_and_told_its_address() {
    let app = TestApp::new().await;
    let developer = app.as_("developer");
    let made = developer.post(INGRESSES, ingress("web", "a.com")).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!((&made.body["metadata"]["generation"], &made.body["status"]), (&json!(1), &json!({"loadBalancer": {}})));
    let path = format!("{INGRESSES}/web");
    let changed = developer.merge(&path, json!({"spec": {"ingressClassName": "edge"}})).await;
    assert_eq!(
        (&changed.body["metadata"]["generation"], &changed.body["spec"]["ingressClassName"]),
        (&json!(2), &json!("edge"))
    );
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    assert_eq!(developer.merge(&format!("{path}/status"), status.clone()).await.status, 403);
    let told = app.owner().merge(&format!("{path}/status"), status).await;
    assert_eq!(told.body["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.1");
    assert_eq!(told.body["metadata"]["generation"], 2);
    let table = app.as_("viewer").get_as(INGRESSES, "application/json;as=Table;v=v1;g=meta.k8s.io").await.body;
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..5],
        [json!("web"), json!("edge"), json!("a.com"), json!("192.0.2.1"), json!("80")]
    );
}

#[tokio::test]
async fn a_wrong_ingress_is_refused_in_kubernetes_words() {
    let app = TestApp::new().await;
    let refused = app.owner().post(INGRESSES, ingress("web", "A.com")).await;
    assert_eq!(refused.status, 422);
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "Ingress.networking.k8s.io \"web\" is invalid: spec.rules[0].host: Invalid value: \"A.com\": "
        ),
        "{message}"
    );
}

#[tokio::test]
async fn an_ingress_that_names_no_class_gets_the_one_that_is_everybodys() {
    let app = TestApp::new().await;
    let class_of = async |name: &str, annotations: Value| {
        let mut asked = ingress(name, "a.com");
        asked["metadata"]["annotations"] = annotations;
        let made = app.owner().post(INGRESSES, asked).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["spec"]["ingressClassName"].clone()
    };
    assert_eq!(class_of("first", json!({})).await, "longshore");
    assert_eq!(class_of("old", json!({"kubernetes.io/ingress.class": "nginx"})).await, Value::Null);
    // The newest of several; of the same second the first by name.
    let default = json!({"name": "edge", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}});
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": default, "spec": {"controller": "a.b/c"}});
    assert_eq!(app.owner().post(CLASSES, class).await.status, 201);
    assert_eq!(class_of("second", json!({})).await, "edge");
    for name in ["edge", "longshore"] {
        assert_eq!(app.owner().delete(&format!("{CLASSES}/{name}")).await.status, 200);
    }
    assert_eq!(class_of("third", json!({})).await, Value::Null);
}

#[tokio::test]
async fn classes_are_the_clusters_and_keep_their_controller() {
    let app = TestApp::new().await;
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "edge"}, "spec": {"controller": "longshore.dev/edge"}});
    assert_eq!(app.as_("developer").post(CLASSES, class.clone()).await.status, 403);
    assert_eq!(app.owner().post(CLASSES, class).await.status, 201);
    let refused = app.owner().merge(&format!("{CLASSES}/edge"), json!({"spec": {"controller": "a.b/c"}})).await;
    assert_eq!(refused.status, 422);
    assert_eq!(app.as_("viewer").get(CLASSES).await.body["items"].as_array().unwrap().len(), 2);
    let found = app.owner().get("/apis/networking.k8s.io/v1").await.body;
    let kinds: Vec<&str> = found["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    for expected in ["ingressclasses", "ingresses", "ingresses/status"] {
        assert!(kinds.contains(&expected), "{kinds:?}");
    }
}
