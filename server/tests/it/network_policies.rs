//! Network policies, as clients see them.

use crate::app::TestApp;
use serde_json::{Value, json};

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_policy_is_kept_with_its_defaults_and_counts_its_changes() {
    let app = TestApp::new().await;
    let developer = app.as_("developer");
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}],
        "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}]});
    let made = developer.post(POLICIES, policy("web", spec)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.body["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(made.body["spec"]["ingress"][0]["ports"], json!([{"port": "http", "protocol": "TCP"}]));
    assert_eq!(made.body["metadata"]["generation"], 1);

    let path = format!("{POLICIES}/web");
    assert_eq!(
        developer.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await.body["metadata"]["generation"],
        1
    );
    let changed = developer.merge(&path, json!({"spec": {"egress": null, "policyTypes": ["Ingress"]}})).await;
    assert_eq!((changed.status.as_u16(), &changed.body["metadata"]["generation"]), (200, &json!(2)));
    let table = developer.get_as(POLICIES, "application/json;as=Table;v=v1;g=meta.k8s.io").await.body;
    let columns: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(columns, ["Name", "Pod-Selector", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..2], [json!("web"), json!("app=web")]);

    let viewer = app.as_("viewer");
    assert_eq!(viewer.get(&path).await.status, 200);
    assert_eq!(viewer.delete(&path).await.status, 403);
    assert_eq!(developer.delete(&path).await.status, 200);
    assert_eq!(developer.get(&path).await.status, 404);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_kubernetes_words() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let spec = json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]});
    let refused = owner.post(POLICIES, policy("web", spec)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.body["message"].as_str().unwrap()),
        (
            422,
            "NetworkPolicy.networking.k8s.io \"web\" is invalid: spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"
        )
    );
    assert_eq!(
        owner.post(POLICIES, policy("web", json!({"ingres": []}))).await.status,
        201,
        "unknown fields are dropped"
    );
    let strict = owner.post(&format!("{POLICIES}?fieldValidation=Strict"), policy("two", json!({"ingres": []}))).await;
    assert_eq!(strict.status, 400, "{}", strict.text);
}

#[tokio::test]
async fn it_is_discovered_and_described() {
    let app = TestApp::new().await;
    let owner = app.owner();
    let found = owner.get("/apis/networking.k8s.io/v1").await.body;
    let kinds = found["resources"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["name"] == "networkpolicies").unwrap();
    assert_eq!((&kind["shortNames"], &kind["namespaced"]), (&json!(["netpol"]), &json!(true)));
    let document = owner.get("/openapi/v3/apis/networking.k8s.io/v1").await;
    assert_eq!(document.status, 200);
    let schema = &document.body["components"]["schemas"]["io.k8s.api.networking.v1.NetworkPolicySpec"];
    assert!(schema["properties"]["podSelector"]["description"].as_str().unwrap().starts_with("podSelector selects"));
}
