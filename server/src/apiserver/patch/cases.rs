//! Strategic merge by the documented rules of the fields (`patchStrategy`, `patchMergeKey`) and its directives: what is
//! there, the patch, what comes out.

use super::*;
use crate::apiserver::FieldValidation::Strict;
use serde_json::json;

const POD: Target<'static> = Target { group: "", version: "v1", kind: "Pod", type_name: "io.k8s.api.core.v1.Pod" };
const SERVICE: Target<'static> =
    Target { group: "", version: "v1", kind: "Service", type_name: "io.k8s.api.core.v1.Service" };
const ACCOUNT: Target<'static> =
    Target { group: "", version: "v1", kind: "ServiceAccount", type_name: "io.k8s.api.core.v1.ServiceAccount" };
const NODE: Target<'static> = Target { group: "", version: "v1", kind: "Node", type_name: "io.k8s.api.core.v1.Node" };
const MAP: Target<'static> =
    Target { group: "", version: "v1", kind: "ConfigMap", type_name: "io.k8s.api.core.v1.ConfigMap" };

/// Compares at `pointer`, after `there` was decoded once, so that both are canonical.
#[track_caller]
fn case(target: Target<'_>, there: Value, patch: Value, pointer: &str, expected: Value) {
    let there = decode::tree(&there, &target, Strict).expect("it is valid").tree;
    let patched = apply(PatchKind::Strategic, there.clone(), patch.to_string().as_bytes(), &target, Strict);
    let tree = patched.unwrap_or_else(|status| panic!("{patch}: {}", status.message)).tree;
    assert_eq!(tree.pointer(pointer).cloned().unwrap_or_default(), expected, "{patch} on {there}");
}

#[track_caller]
fn refused(target: Target<'_>, there: Value, patch: Value, words: &str) {
    let there = decode::tree(&there, &target, Strict).expect("it is valid").tree;
    let error = apply(PatchKind::Strategic, there.clone(), patch.to_string().as_bytes(), &target, Strict).unwrap_err();
    assert!(error.message.contains(words), "{patch}: {}", error.message);
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn with(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn lists_merge_by_their_declared_keys() {
    // Each list with its own key: an item of the same key is changed, another one is added ahead of what the server has.
    for (list, key, more) in [
        ("volumes", "name", json!({"emptyDir": {}})),
        ("imagePullSecrets", "name", json!({})),
        ("schedulingGates", "name", json!({})),
    ] {
        let item = |name: &str| {
            let mut item = more.clone();
            item[key] = name.into();
            item
        };
        let there = pod(json!({list: [item("a"), item("b")]}));
        let pointer = format!("/spec/{list}");
        case(POD, there.clone(), with(json!({list: [item("b")]})), &pointer, json!([item("a"), item("b")]));
        case(POD, there.clone(), with(json!({list: [item("c")]})), &pointer, json!([item("c"), item("a"), item("b")]));
        let gone = json!({key: "a", "$patch": "delete"});
        case(POD, there.clone(), with(json!({list: [gone]})), &pointer, json!([item("b")]));
        refused(POD, there, with(json!({list: [{"x": 1}]})), "does not contain declared merge key");
    }
}

#[test]
fn keys_that_are_not_names() {
    let ports = json!([{"port": 80, "targetPort": 8080}, {"port": 443, "name": "https"}]);
    let there = json!({"metadata": {"name": "s"}, "spec": {"ports": ports}});
    let changed = with(json!({"ports": [{"port": 80, "targetPort": 9090, "name": "http"}]}));
    let expected = json!([{"port": 80, "targetPort": 9090, "name": "http"}, {"port": 443, "name": "https"}]);
    case(SERVICE, there, changed, "/spec/ports", expected);
    let hosts = json!({"hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a"]}]});
    // The names of an address are a list of scalars without a strategy: replaced.
    let changed = with(json!({"hostAliases": [{"ip": "1.1.1.1", "hostnames": ["b"]}]}));
    case(POD, pod(hosts), changed, "/spec/hostAliases", json!([{"ip": "1.1.1.1", "hostnames": ["b"]}]));
    let mounts = json!({"containers": [{"name": "c", "volumeMounts": [
        {"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}]}]});
    let changed = with(json!({"containers": [{"name": "c", "volumeMounts": [
        {"mountPath": "/b", "name": "w", "readOnly": true}, {"mountPath": "/a", "$patch": "delete"}]}]}));
    let expected = json!([{"mountPath": "/b", "name": "w", "readOnly": true}]);
    case(POD, pod(mounts), changed, "/spec/containers/0/volumeMounts", expected);
    let spread = |skew: u32| json!([{"topologyKey": "zone", "maxSkew": skew, "whenUnsatisfiable": "DoNotSchedule"}]);
    let there = pod(json!({"topologySpreadConstraints": spread(1)}));
    let changed = with(json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 2}]}));
    case(POD, there, changed, "/spec/topologySpreadConstraints", spread(2));
}

#[test]
fn conditions_and_owners_merge_too() {
    let there = json!({"metadata": {"name": "n"}, "status": {"conditions": [
        {"type": "Ready", "status": "True", "reason": "R"}, {"type": "DiskPressure", "status": "False"}],
        "addresses": [{"type": "Hostname", "address": "n"}]}});
    let changed = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": null}]}});
    let tree = decode::tree(&there, &NODE, Strict).unwrap().tree;
    let patched =
        apply(PatchKind::Strategic, tree.clone(), changed.to_string().as_bytes(), &NODE, Strict).unwrap().tree;
    let ready = &patched["status"]["conditions"][0];
    assert_eq!((&ready["status"], ready.get("reason")), (&json!("Unknown"), None));
    assert_eq!(patched["status"]["conditions"][1], tree["status"]["conditions"][1]);
    assert_eq!(patched["status"]["addresses"], tree["status"]["addresses"]);
    let owner = |uid: &str, name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    let there = json!({"metadata": {"name": "m", "ownerReferences": [owner("1", "a"), owner("2", "b")]}});
    let changed =
        json!({"metadata": {"ownerReferences": [{"uid": "2", "$patch": "delete"}, {"uid": "1", "name": "z"}]}});
    case(MAP, there, changed, "/metadata/ownerReferences", json!([owner("1", "z")]));
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let there = pod(json!({"tolerations": [{"key": "a"}, {"key": "b"}]}));
    case(POD, there, with(json!({"tolerations": [{"key": "c"}]})), "/spec/tolerations", json!([{"key": "c"}]));
    let there = pod(json!({"containers": [{"name": "c", "command": ["a", "b"], "args": ["c"]}]}));
    let changed = with(json!({"containers": [{"name": "c", "command": ["z"], "args": null}]}));
    case(POD, there.clone(), changed, "/spec/containers/0/command", json!(["z"]));
    let changed = with(json!({"containers": [{"name": "c", "args": null}]}));
    case(POD, there, changed, "/spec/containers/0/args", Value::Null);
}

#[test]
fn scalars_merge_where_it_is_declared() {
    let there = json!({"metadata": {"name": "m", "finalizers": ["x/a", "x/b", "x/c"]}});
    let pointer = "/metadata/finalizers";
    let set = |value: Value| json!({"metadata": value});
    let at = |patch: Value, expected: Value| case(MAP, there.clone(), set(patch), pointer, expected);
    at(json!({"finalizers": ["x/b"]}), json!(["x/a", "x/b", "x/c"]));
    at(json!({"$deleteFromPrimitiveList/finalizers": ["x/b", "x/none"]}), json!(["x/a", "x/c"]));
    at(
        json!({"$deleteFromPrimitiveList/finalizers": ["x/a"], "$setElementOrder/finalizers": ["x/c", "x/d", "x/b"], "finalizers": ["x/d"]}),
        json!(["x/c", "x/d", "x/b"]),
    );
    at(json!({"$setElementOrder/finalizers": ["x/c", "x/a", "x/b"]}), json!(["x/c", "x/a", "x/b"]));
    at(json!({"finalizers": null}), Value::Null);
}

#[test]
fn unions_keep_only_what_they_say() {
    let there =
        pod(json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}, {"name": "w", "emptyDir": {}}]}));
    let changed =
        with(json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "m"}}]}));
    let expected = json!([{"name": "v", "configMap": {"name": "m"}}, {"name": "w", "emptyDir": {}}]);
    case(POD, there.clone(), changed, "/spec/volumes", expected);
    let wrong = with(json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "configMap": {"name": "m"}}]}));
    refused(POD, there.clone(), wrong, "invalid patch format of retainKeys");
    // Without the directive both would stand there, and validation has its say later.
    let both = with(json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}]}));
    let expected = json!({"name": "v", "emptyDir": {"medium": "Memory"}, "configMap": {"name": "m"}});
    case(POD, there, both, "/spec/volumes/0", expected);
}

#[test]
fn directives_replace_and_delete_maps() {
    let there = pod(json!({"nodeSelector": {"a": "1", "b": "2"}, "securityContext": {"runAsUser": 1, "fsGroup": 2}}));
    let replaced = with(json!({"nodeSelector": {"$patch": "replace", "c": "3"}}));
    case(POD, there.clone(), replaced, "/spec/nodeSelector", json!({"c": "3"}));
    let replaced = with(json!({"securityContext": {"$patch": "replace", "fsGroup": 3}}));
    case(POD, there.clone(), replaced, "/spec/securityContext", json!({"fsGroup": 3}));
    case(POD, there.clone(), with(json!({"nodeSelector": {"b": null}})), "/spec/nodeSelector", json!({"a": "1"}));
    refused(POD, there.clone(), with(json!({"nodeSelector": {"$patch": "grow"}})), "unknown patch type: grow");
    let all = with(json!({"volumes": [{"$patch": "replace"}]}));
    case(POD, pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]})), all, "/spec/volumes", Value::Null);
}

#[test]
fn accounts_keep_the_secrets_of_others() {
    let there = json!({"metadata": {"name": "a"}, "secrets": [{"name": "one"}], "imagePullSecrets": [{"name": "x"}]});
    // `secrets` merges by name; `imagePullSecrets` of an account declares nothing and is replaced.
    case(
        ACCOUNT,
        there.clone(),
        json!({"secrets": [{"name": "two"}]}),
        "/secrets",
        json!([{"name": "two"}, {"name": "one"}]),
    );
    case(ACCOUNT, there, json!({"imagePullSecrets": [{"name": "y"}]}), "/imagePullSecrets", json!([{"name": "y"}]));
}
