//! Patches as kubectl and others send them, and as nobody should.

use super::*;
use crate::apiserver::FieldValidation::{Ignore, Strict, Warn};
use proptest::prelude::*;
use serde_json::json;

const DEPLOYMENT: Target<'static> =
    Target { group: "apps", version: "v1", kind: "Deployment", type_name: "io.k8s.api.apps.v1.Deployment" };

fn deployment() -> Value {
    json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"app":"web"},
            "annotations":{"a":"1"},"finalizers":["x/a","x/b"]},
        "spec":{"replicas":3,"selector":{"matchLabels":{"app":"web"}},
            "strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%"}},
            "template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[
                {"name":"a","image":"a:1","env":[{"name":"X","value":"1"},{"name":"Y","value":"2"}],
                 "ports":[{"containerPort":80,"protocol":"TCP"}],"args":["1","2"],"resources":{}},
                {"name":"b","image":"b:1","resources":{}}],
                "tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}},"status":{}})
}

fn patch(kind: PatchKind, patch: Value) -> Result<Value, Status> {
    apply(kind, deployment(), patch.to_string().as_bytes(), &DEPLOYMENT, Strict).map(|d| d.tree)
}

fn strategic(body: Value) -> Value {
    patch(PatchKind::Strategic, body).unwrap()
}

fn pod(tree: &Value) -> &Value {
    &tree["spec"]["template"]["spec"]
}

#[test]
fn content_types_choose_the_patch() {
    assert_eq!(PatchKind::of(Some("application/merge-patch+json; charset=utf-8")).unwrap(), PatchKind::Merge);
    let status = PatchKind::of(Some("application/json")).unwrap_err();
    assert_eq!(status.code, 415);
    assert_eq!(
        status.message,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
         application/apply-patch+yaml"
    );
}

/// `kubectl set image deployment/web b=b:2`
#[test]
fn set_image_changes_one_container() {
    let tree = strategic(json!({"spec":{"template":{"spec":{
        "$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"image":"b:2","name":"b"}]}}}}));
    assert_eq!(pod(&tree)["containers"][1], json!({"name":"b","image":"b:2","resources":{}}));
    assert_eq!(pod(&tree)["containers"][0], pod(&deployment())["containers"][0]);
    let without_order = strategic(json!({"spec":{"template":{"spec":{"containers":[{"image":"b:2","name":"b"}]}}}}));
    assert_eq!(tree, without_order);
}

/// `kubectl rollout restart`, `annotate`, `label k-`, `scale` by patch.
#[test]
fn maps_merge_and_nulls_delete() {
    let restart = json!({"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}});
    for kind in [PatchKind::Strategic, PatchKind::Merge] {
        let tree = patch(kind, restart.clone()).unwrap();
        assert_eq!(
            tree["spec"]["template"]["metadata"],
            json!({"labels":{"app":"web"},"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}})
        );
        let tree = patch(kind, json!({"metadata":{"annotations":{"a":null,"b":"2"}},"spec":{"replicas":5}})).unwrap();
        assert_eq!(tree["metadata"]["annotations"], json!({"b":"2"}));
        assert_eq!(tree["spec"]["replicas"], 5);
    }
}

#[test]
fn items_are_added_deleted_and_replaced() {
    let tree = strategic(json!({"spec":{"template":{"spec":{"containers":[
        {"name":"c","image":"c:1"},{"name":"a","$patch":"delete"}]}}}}));
    let names: Vec<_> = pod(&tree)["containers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["c", "b"]);
    let tree = strategic(json!({"spec":{"template":{"spec":{"containers":[{"$patch":"replace"},{"name":"z"}]}}}}));
    assert_eq!(pod(&tree)["containers"], json!([{"name":"z","resources":{}}]));
    let tree = strategic(json!({"spec":{"template":{"spec":{"$patch":"replace","containers":[{"name":"z"}]}}}}));
    assert_eq!(pod(&tree), &json!({"containers":[{"name":"z","resources":{}}]}));
    let env = strategic(json!({"spec":{"template":{"spec":{"containers":[
        {"name":"a","env":[{"name":"Y","$patch":"delete"},{"name":"X","value":"9"},{"name":"Z","value":"3"}]}]}}}}));
    assert_eq!(pod(&env)["containers"][0]["env"], json!([{"name":"X","value":"9"},{"name":"Z","value":"3"}]));
}

#[test]
fn atomic_lists_are_replaced() {
    let tree = strategic(json!({"spec":{"template":{"spec":{"tolerations":[{"key":"n"}],
        "containers":[{"name":"a","args":["3"]}]}}}}));
    assert_eq!(pod(&tree)["tolerations"], json!([{"key":"n"}]));
    assert_eq!(pod(&tree)["containers"][0]["args"], json!(["3"]));
}

#[test]
fn primitive_lists_merge_and_shrink() {
    let tree = strategic(json!({"metadata":{"finalizers":["x/c"]}}));
    assert_eq!(tree["metadata"]["finalizers"], json!(["x/a", "x/b", "x/c"]).clone_sorted(&["x/c"]));
    let tree = strategic(json!({"metadata":{"$deleteFromPrimitiveList/finalizers":["x/a"],
        "$setElementOrder/finalizers":["x/b"]}}));
    assert_eq!(tree["metadata"]["finalizers"], json!(["x/b"]));
}

trait Ordered {
    fn clone_sorted(&self, first: &[&str]) -> Value;
}
impl Ordered for Value {
    /// What the patch names goes ahead of what it doesn't, unless both were there before.
    fn clone_sorted(&self, first: &[&str]) -> Value {
        let items = self.as_array().unwrap();
        let (mut ahead, rest): (Vec<Value>, Vec<Value>) =
            items.iter().cloned().partition(|i| first.contains(&i.as_str().unwrap()));
        ahead.extend(rest);
        Value::Array(ahead)
    }
}

#[test]
fn order_is_set_and_server_items_keep_their_place() {
    let order = |patch: Value| -> Vec<String> {
        let tree = strategic(patch);
        let all = pod(&tree)["containers"].as_array().unwrap();
        all.iter().map(|c| c["name"].as_str().unwrap().to_string()).collect()
    };
    let set = |order: Value, items: Value| json!({"spec":{"template":{"spec":{"$setElementOrder/containers":order,"containers":items}}}});
    assert_eq!(order(set(json!([{"name":"b"},{"name":"a"}]), json!([]))), ["b", "a"]);
    let added = json!([{"name":"n","image":"n"}]);
    assert_eq!(order(set(json!([{"name":"a"},{"name":"n"},{"name":"b"}]), added.clone())), ["a", "n", "b"]);
    // `b` is the server's own: it was behind `a` and stays behind it.
    assert_eq!(order(set(json!([{"name":"n"},{"name":"a"}]), added)), ["n", "a", "b"]);
    let error = patch(PatchKind::Strategic, set(json!([{"name":"a"}]), json!([{"name":"zz"}]))).unwrap_err();
    assert!(
        error.message.starts_with("The order in patch list:\n[map[name:zz]]\n doesn't match $setElementOrder list:")
    );
}

#[test]
fn unions_retain_what_they_say() {
    let tree = strategic(json!({"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}));
    assert_eq!(tree["spec"]["strategy"], json!({"type":"Recreate"}));
    let tree = strategic(json!({"spec":{"template":{"spec":{"volumes":[
        {"$retainKeys":["name","hostPath"],"name":"v","hostPath":{"path":"/x"}}]}}}}));
    assert_eq!(pod(&tree)["volumes"], json!([{"name":"v","hostPath":{"path":"/x"}}]));
    let wrong = json!({"spec":{"strategy":{"$retainKeys":["rollingUpdate"],"type":"Recreate"}}});
    let error = patch(PatchKind::Strategic, wrong).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "invalid patch format of retainKeys"));
}

#[test]
fn directives_never_reach_the_tree() {
    let tree = strategic(json!({"spec":{"template":{"spec":{"affinity":{"$patch":"replace","nodeAffinity":{}},
        "initContainers":[{"name":"i","$setElementOrder/env":[{"name":"A"}],"env":[{"name":"A"},{"name":"B","$patch":"delete"}]}],
        "securityContext":{"$retainKeys":["runAsUser"],"runAsUser":1,"runAsGroup":null}}}}}));
    assert_eq!(pod(&tree)["affinity"], json!({"nodeAffinity":{}}));
    assert_eq!(pod(&tree)["initContainers"], json!([{"name":"i","env":[{"name":"A"}],"resources":{}}]));
    assert_eq!(pod(&tree)["securityContext"], json!({"runAsUser":1}));
}

#[test]
fn strategic_errors_are_kubernetes_own() {
    for (body, message) in [
        (
            json!({"spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (json!({"spec":{"$patch":"explode"}}), "unknown patch type: explode in map: map[]"),
        (json!([1]), "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ] {
        assert_eq!(patch(PatchKind::Strategic, body).unwrap_err().message, message);
    }
    let error = patch(PatchKind::Strategic, json!({"spec":{"replicas":"x"}})).unwrap_err();
    assert_eq!(error.code, 422);
    assert_eq!(
        error.message,
        " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:x]]\": json: cannot unmarshal string into Go \
         struct field DeploymentSpec.spec.replicas of type int32"
    );
}

#[test]
fn unknown_fields_of_a_patch_fail_warn_or_pass() {
    let body = br#"{"spec":{"foo":1,"replicas":1,"replicas":2}}"#;
    for kind in [PatchKind::Strategic, PatchKind::Merge] {
        let with = |validation| apply(kind, deployment(), body, &DEPLOYMENT, validation);
        let warnings = with(Warn).unwrap().warnings;
        assert_eq!(warnings, ["duplicate field \"spec.replicas\"", "unknown field \"spec.foo\""]);
        assert!(with(Ignore).unwrap().warnings.is_empty());
        let error = with(Strict).unwrap_err();
        assert_eq!(error.code, 422);
        assert!(
            error
                .message
                .ends_with("strict decoding error: duplicate field \"spec.replicas\", unknown field \"spec.foo\"")
        );
    }
}

#[test]
fn merge_patches_replace_lists() {
    let tree = patch(PatchKind::Merge, json!({"spec":{"template":{"spec":{"containers":[{"name":"z"}]}}}})).unwrap();
    assert_eq!(pod(&tree)["containers"], json!([{"name":"z","resources":{}}]));
    let error = patch(PatchKind::Merge, json!([])).unwrap_err();
    assert_eq!(
        error.message,
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    // The cases of RFC 7386's appendix that are objects.
    for (target, patch, result) in [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ] {
        assert_eq!(merge::apply(target, patch), result);
    }
}

#[test]
fn json_patches_do_as_the_rfc_says() {
    let tree = patch(PatchKind::Json, json!([
        {"op":"test","path":"/spec/replicas","value":3},
        {"op":"replace","path":"/spec/replicas","value":4},
        {"op":"add","path":"/metadata/annotations/x~1y","value":"z"},
        {"op":"remove","path":"/metadata/annotations/a"},
        {"op":"add","path":"/spec/template/spec/containers/-","value":{"name":"c"}},
        {"op":"add","path":"/spec/template/spec/containers/0","value":{"name":"first"}},
        {"op":"copy","from":"/spec/template/spec/containers/1/image","path":"/spec/template/spec/containers/0/image"},
        {"op":"move","from":"/metadata/finalizers/0","path":"/metadata/finalizers/1"},
        {"op":"remove","path":"/metadata/finalizers/-1"},
        {"op":"test","path":"/spec/paused","value":null}
    ]))
    .unwrap();
    assert_eq!(tree["spec"]["replicas"], 4);
    assert_eq!(tree["metadata"]["annotations"], json!({"x/y":"z"}));
    assert_eq!(tree["metadata"]["finalizers"], json!(["x/b"]));
    let names: Vec<_> = pod(&tree)["containers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["first", "a", "b", "c"]);
    assert_eq!(pod(&tree)["containers"][0]["image"], "a:1");
}

#[test]
fn json_patches_that_do_not_apply_are_422() {
    for operation in [
        json!({"op":"test","path":"/spec/replicas","value":4}),
        json!({"op":"remove","path":"/spec/nothing"}),
        json!({"op":"replace","path":"/spec/nothing","value":1}),
        json!({"op":"add","path":"/no/where","value":1}),
        json!({"op":"add","path":"/metadata/finalizers/9","value":"x"}),
        json!({"op":"add","path":"","value":1}),
        json!({"op":"explode","path":"/a"}),
        json!({"path":"/a"}),
        json!({"op":"move","path":"/a"}),
    ] {
        let error = patch(PatchKind::Json, json!([operation])).unwrap_err();
        assert_eq!(error.code, 422, "{operation}");
        assert_eq!(error.message, "the server rejected our request due to an error in our request");
    }
    let error = patch(PatchKind::Json, json!({"op":"add"})).unwrap_err();
    assert_eq!(
        error.message,
        "error decoding patch: json: cannot unmarshal object into Go value of type []map[string]interface {}"
    );
    let many = vec![json!({"op":"test","path":"/spec/replicas","value":3}); 10_001];
    let error = patch(PatchKind::Json, many.into()).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (413, "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001")
    );
}

#[test]
fn json_patches_are_bounded() {
    // Doubling: each copy puts the labels into themselves.
    let double: Vec<_> =
        (0..40).map(|i| json!({"op":"copy","from":"/metadata","path":format!("/metadata/x{i}")})).collect();
    assert_eq!(patch(PatchKind::Json, double.into()).unwrap_err().code, 422);
    let nest = vec![json!({"op":"copy","from":"/metadata","path":"/metadata/labels"}); 200];
    assert_eq!(patch(PatchKind::Json, nest.into()).unwrap_err().code, 422);
    // Shifting: a long list, pushed at its front again and again.
    let long = json!({"op":"add","path":"/metadata/finalizers","value":vec![""; 500_000]});
    let mut shift = vec![json!({"op":"add","path":"/metadata/finalizers/0","value":""}); 5_000];
    shift.insert(0, long);
    let started = std::time::Instant::now();
    assert_eq!(patch(PatchKind::Json, shift.into()).unwrap_err().code, 422);
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn long_lists_merge_without_squares() {
    let env: Vec<_> = (0..30_000).map(|i| json!({"name":format!("v{i}")})).collect();
    let body = json!({"spec":{"template":{"spec":{"containers":[{"name":"a","env":env}]}}}});
    let started = std::time::Instant::now();
    let once = strategic(body.clone());
    let twice =
        apply(PatchKind::Strategic, once.clone(), body.to_string().as_bytes(), &DEPLOYMENT, Strict).unwrap().tree;
    assert_eq!(once, twice);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        "(a|b|web|RollingUpdate|delete|replace|merge)".prop_map(Value::from),
    ];
    let key = "(\\$patch|\\$retainKeys|\\$setElementOrder/containers|\\$deleteFromPrimitiveList/finalizers|spec|template|containers|env|name|metadata|labels|finalizers|strategy|type|args|image|op|path|value)";
    leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_panics(body in anything(), raw in "\\PC{0,60}") {
        for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
            let _ = patch(kind, body.clone());
            let _ = patch(kind, json!([body.clone()]));
            let _ = apply(kind, deployment(), raw.as_bytes(), &DEPLOYMENT, Warn);
        }
    }

    /// Patches without deletions say what should be there: a second time they change nothing.
    #[test]
    fn merging_twice_is_merging_once(body in anything()) {
        for kind in [PatchKind::Merge, PatchKind::Strategic] {
            if let Ok(once) = apply(kind, deployment(), body.to_string().as_bytes(), &DEPLOYMENT, Ignore) {
                let twice = apply(kind, once.tree.clone(), body.to_string().as_bytes(), &DEPLOYMENT, Ignore);
                if let Ok(twice) = twice {
                    prop_assert_eq!(&once.tree, &twice.tree);
                }
            }
        }
    }
}
