//! The rules for Deployments and ReplicaSets, in Kubernetes's words.

use crate::resources::{Resource, deployment, replica_set};
use serde_json::{Value, json};

fn wrong(kind: &Resource, change: impl Fn(&mut Value)) -> Vec<String> {
    let mut tree = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}},
    }});
    change(&mut tree["spec"]);
    (kind.default)(&mut tree);
    (kind.validate)(&tree).iter().map(ToString::to_string).collect()
}

#[test]
fn both_need_a_selector_that_matches() {
    for kind in [&deployment::RESOURCE, &replica_set::RESOURCE] {
        assert_eq!(wrong(kind, |_| {}), [""; 0]);
        assert_eq!(
            wrong(kind, |spec| spec["selector"] = Value::Null),
            [
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ]
        );
        assert_eq!(
            wrong(kind, |spec| spec["selector"] = json!({})),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
        assert_eq!(
            wrong(kind, |spec| spec["template"]["metadata"]["labels"]["app"] = json!("api")),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"api\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            wrong(kind, |spec| spec["template"]["spec"]["restartPolicy"] = json!("Never")),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
        assert_eq!(
            wrong(kind, |spec| spec["replicas"] = json!(-1)),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            wrong(kind, |spec| spec["template"]["spec"]["containers"][0]["image"] = json!("")),
            ["spec.template.spec.containers[0].image: Required value"]
        );
        let old = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}});
        let new = json!({"spec": {"selector": {"matchLabels": {"app": "api"}}}});
        let got: Vec<_> = (kind.validate_update)(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"api\"}}: field is immutable"]);
    }
}

#[test]
fn deployments_roll_somehow() {
    let strategy = |value: Value| wrong(&deployment::RESOURCE, |spec| spec["strategy"] = value.clone());
    assert_eq!(strategy(json!({"type": "Recreate"})), [""; 0]);
    assert_eq!(
        strategy(json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]
    );
    assert_eq!(
        strategy(json!({"rollingUpdate": {"maxUnavailable": "101%"}})),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"]
    );
    assert_eq!(
        strategy(json!({"rollingUpdate": {"maxSurge": "many"}})),
        [
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"many\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
        ]
    );
    assert_eq!(
        strategy(json!({"type": "Recreate", "rollingUpdate": {}})),
        ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
    );
    assert_eq!(
        strategy(json!({"type": "Odd"})),
        ["spec.strategy: Unsupported value: \"Odd\": supported values: \"Recreate\", \"RollingUpdate\""]
    );
    let deadline = wrong(&deployment::RESOURCE, |spec| {
        spec["minReadySeconds"] = json!(10);
        spec["progressDeadlineSeconds"] = json!(10);
    });
    assert_eq!(deadline, ["spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds"]);
}

#[test]
fn their_defaults() {
    let mut tree = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}}});
    (deployment::RESOURCE.default)(&mut tree);
    let spec = &tree["spec"];
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(
        (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
        (&json!(1), &json!(10), &json!(600))
    );
    let template = &spec["template"]["spec"];
    assert_eq!(template["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(template["restartPolicy"], "Always");
    assert!(template.get("enableServiceLinks").is_none(), "what only pods get, templates don't");
}

#[test]
fn status_adds_up() {
    let status = |status: Value| {
        let tree = json!({"status": status});
        let errors = (deployment::RESOURCE.validate_status_update)(&tree, &json!({}));
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(status(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1})), [""; 0]);
    assert_eq!(
        status(json!({"replicas": 1, "readyReplicas": 2})),
        ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
    );
}

#[test]
fn scale_reads_and_writes() {
    let scale = deployment::RESOURCE.scale.unwrap();
    let mut tree =
        json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 1}});
    assert_eq!(((scale.desired)(&tree), (scale.current)(&tree), (scale.selector)(&tree).as_str()), (2, 1, "app=web"));
    (scale.set)(&mut tree, 5);
    assert_eq!(tree["spec"]["replicas"], 5);
}
