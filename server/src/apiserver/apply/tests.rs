//! Apply, case by case as Kubernetes's own documentation and tests have them, and what holds for all.

use super::*;
use crate::apiserver::schema::schema;
use proptest::prelude::*;
use serde_json::json;

/// Objects of one kind and those who write them, each at a second of its own.
struct Object {
    message: &'static Message,
    tree: Value,
    second: u32,
}

impl Object {
    fn new(kind: &str, tree: Value) -> Self {
        Self { message: schema().find(kind).unwrap(), tree, second: 0 }
    }

    fn pod(tree: Value) -> Self {
        Self::new("api.core.v1.Pod", tree)
    }

    fn note<'a>(&self, manager: &'a str, subresource: &'a str, now: &'a str) -> Note<'a> {
        Note { message: self.message, manager, api_version: "v1", subresource, now }
    }

    fn now(&mut self) -> String {
        self.second += 1;
        format!("2026-01-01T00:00:{:02}Z", self.second)
    }

    fn try_apply(&mut self, manager: &str, wanted: Value, force: bool) -> Result<(), Refusal> {
        let now = self.now();
        let live = Some(&self.tree).filter(|tree| !tree.is_null());
        self.tree = self.note(manager, "", &now).applied(live, &wanted, force)?;
        Ok(())
    }

    fn apply(&mut self, manager: &str, wanted: Value) {
        self.try_apply(manager, wanted, false).unwrap();
    }

    fn update(&mut self, manager: &str, subresource: &str, change: impl FnOnce(&mut Value)) {
        let now = self.now();
        let mut new = self.tree.clone();
        change(&mut new);
        if is_noted(&new) {
            self.note(manager, subresource, &now).updated(&self.tree, &mut new);
        }
        self.tree = new;
    }

    /// Each manager's name and paths.
    fn owners(&self) -> Vec<(String, Vec<String>)> {
        managers::read(&self.tree).into_iter().map(|m| (m.who.name, m.fields.paths())).collect()
    }

    fn of(&self, manager: &str) -> Vec<String> {
        self.owners().into_iter().filter(|(name, _)| name == manager).flat_map(|(_, paths)| paths).collect()
    }

    /// The object without the owners.
    fn plain(&self) -> Value {
        let mut tree = self.tree.clone();
        metadata::of(&mut tree).remove("managedFields");
        if tree["metadata"] == json!({}) {
            tree.as_object_mut().unwrap().remove("metadata");
        }
        tree
    }
}

fn data(data: Value) -> Value {
    json!({"data": data})
}

fn config_map() -> Object {
    Object::new("api.core.v1.ConfigMap", Value::Null)
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn who_applies_owns_what_it_says_and_nothing_else() {
    let mut pod = Object::pod(Value::Null);
    pod.apply(
        "a",
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "labels": {"x": "1"}, "finalizers": ["example.org/f"]},
        "spec": {"containers": [{"name": "c", "image": "i", "args": ["1", "2"], "ports": [{"containerPort": 80}], "resources": {}}],
            "nodeSelector": {"zone": "z"}},
        "status": {"phase": "Running"}}),
    );
    assert_eq!(
        pod.of("a"),
        [
            ".metadata.finalizers[=\"example.org/f\"]",
            ".metadata.labels.x",
            ".spec.containers[name=\"c\"]",
            ".spec.containers[name=\"c\"].args",
            ".spec.containers[name=\"c\"].image",
            ".spec.containers[name=\"c\"].name",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.containers[name=\"c\"].resources",
            ".spec.nodeSelector",
        ]
    );
    let entry = &pod.tree["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["operation"], &entry["fieldsType"], &entry["time"]),
        (&json!("Apply"), &json!("FieldsV1"), &json!("2026-01-01T00:00:01Z"))
    );
    assert_eq!(entry["fieldsV1"]["f:metadata"]["f:labels"], json!({"f:x": {}}));
    let container = &entry["fieldsV1"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!((&container["."], &container["f:image"], &container["f:args"]), (&json!({}), &json!({}), &json!({})));
    assert_eq!(pod.plain()["status"], Value::Null, "a status is not applied with its object");
}

#[test]
fn what_is_left_out_goes_unless_somebody_else_has_it_too() {
    let mut map = config_map();
    map.apply("a", data(json!({"x": "1", "y": "1", "z": "1"})));
    map.apply("b", data(json!({"y": "1"})));
    map.apply("a", data(json!({"z": "1"})));
    assert_eq!(map.plain(), data(json!({"y": "1", "z": "1"})));
    map.apply("b", json!({}));
    assert_eq!(map.plain(), data(json!({"z": "1"})));
    assert_eq!(map.owners().len(), 1, "who has nothing is not listed");
    map.apply("a", json!({}));
    assert_eq!(map.plain(), json!({}), "a message that only held what is gone goes, too");
}

#[test]
fn items_go_whole_with_what_was_defaulted_in_them() {
    let mut pod = Object::pod(Value::Null);
    pod.apply("a", containers(json!([{"name": "c", "image": "1"}, {"name": "d", "image": "1"}])));
    pod.tree["spec"]["containers"][1]["terminationMessagePath"] = "/dev/termination-log".into();
    pod.tree["spec"]["dnsPolicy"] = "ClusterFirst".into();
    pod.apply("a", containers(json!([{"name": "c", "image": "1"}])));
    assert_eq!(pod.plain()["spec"], json!({"containers": [{"name": "c", "image": "1"}], "dnsPolicy": "ClusterFirst"}));

    // A field of another in it keeps an item, and only that.
    pod.apply("b", containers(json!([{"name": "c", "imagePullPolicy": "Always"}])));
    pod.apply("a", json!({"spec": {"restartPolicy": "Never"}}));
    let left = json!({"containers": [{"name": "c", "imagePullPolicy": "Always"}], "dnsPolicy": "ClusterFirst", "restartPolicy": "Never"});
    assert_eq!(pod.plain()["spec"], left);
}

#[test]
fn a_conflict_says_whose_fields_they_are() {
    let mut deployment = Object::new("api.apps.v1.Deployment", Value::Null);
    deployment.apply("a", json!({"spec": {"replicas": 1, "paused": true}}));
    let refused = deployment.try_apply("b", json!({"spec": {"replicas": 2}}), false).unwrap_err();
    let status = refused.status("n/d; apps/v1, Kind=Deployment");
    assert_eq!(
        (status.code, &*status.message),
        (409, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas")
    );
    let cause = &status.details.unwrap().causes[0];
    assert_eq!((&*cause.reason, &*cause.field), ("FieldManagerConflict", ".spec.replicas"));
    assert_eq!(deployment.plain()["spec"]["replicas"], 1, "nothing was applied");

    deployment.update("scaler", "scale", |tree| tree["spec"]["replicas"] = 5.into());
    assert_eq!(deployment.of("a"), [".spec.paused"]);
    let refused = deployment.try_apply("b", json!({"spec": {"replicas": 2, "paused": false}}), false).unwrap_err();
    assert_eq!(
        refused.status("").message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.paused\n\
         conflicts with \"scaler\" with subresource \"scale\" using v1:\n- .spec.replicas"
    );
    deployment.try_apply("b", json!({"spec": {"replicas": 2, "paused": false}}), true).unwrap();
    assert_eq!(deployment.plain()["spec"], json!({"replicas": 2, "paused": false}));
    assert_eq!(deployment.owners(), [("b".into(), vec![".spec.paused".into(), ".spec.replicas".into()])]);
}

#[test]
fn the_same_value_is_shared() {
    let mut map = config_map();
    map.apply("a", data(json!({"x": "1"})));
    map.apply("b", data(json!({"x": "1"})));
    assert_eq!((map.of("a"), map.of("b")), (vec![".data.x".to_string()], vec![".data.x".to_string()]));
    let refused = map.try_apply("a", data(json!({"x": "2"})), false).unwrap_err();
    assert_eq!(refused, Refusal::Conflicts(vec![("\"b\"".into(), ".data.x".into())]));
}

#[test]
fn updates_take_over_what_they_change_and_add() {
    let mut map = config_map();
    map.apply("a", data(json!({"x": "1", "y": "1"})));
    map.update("editor", "", |tree| tree["data"] = json!({"x": "2", "z": "1"}));
    assert_eq!(map.of("a"), Vec::<String>::new(), "x is the editor's, y is gone");
    assert_eq!(map.of("editor"), [".data.x", ".data.z"]);
    let before = map.tree.clone();
    map.update("other", "", |_| {});
    assert_eq!(map.tree, before, "who changes nothing isn't noted");
    map.update("editor", "", |tree| tree["data"]["z"] = "2".into());
    assert_eq!(map.owners().len(), 1);
}

#[test]
fn what_nobody_has_applied_is_noted_only_from_the_first_time_on() {
    let mut map = config_map();
    map.tree = data(json!({"x": "1", "y": "1"}));
    map.update("editor", "", |tree| tree["data"]["x"] = "2".into());
    assert!(map.owners().is_empty());
    let refused = map.try_apply("a", data(json!({"x": "3"})), false).unwrap_err();
    assert_eq!(
        refused.status("").message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
    map.apply("a", data(json!({"x": "2", "z": "1"})));
    assert_eq!(map.of(BEFORE), [".data.x", ".data.y"]);
    assert_eq!(map.of("a"), [".data.x", ".data.z"]);
}

#[test]
fn kubectl_takes_over_what_it_has_applied_by_itself() {
    let noted = json!({"data": {"x": "1"}}).to_string();
    let live = json!({"metadata": {"annotations": {LAST_APPLIED: noted}}, "data": {"x": "1", "y": "1"}});
    let mut map = Object { tree: live, ..config_map() };
    assert!(map.try_apply("helm", data(json!({"x": "2"})), false).is_err());
    let Err(Refusal::Conflicts(left)) = map.try_apply(KUBECTL, data(json!({"x": "2", "y": "2"})), false) else {
        panic!()
    };
    assert_eq!(left.len(), 1, "y was never its own: {left:?}");
    map.apply(KUBECTL, data(json!({"x": "2"})));
    assert_eq!(map.plain()["data"], json!({"x": "2", "y": "1"}));
}

#[test]
fn a_status_has_owners_of_its_own() {
    let mut pod = Object::pod(Value::Null);
    pod.apply("a", containers(json!([{"name": "c"}])));
    let now = pod.now();
    let wanted = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    pod.tree = pod.note("a", "status", &now).applied(Some(&pod.tree), &wanted, false).unwrap();
    let owners = pod.owners();
    assert_eq!(owners.len(), 2, "one entry for each part: {owners:?}");
    assert_eq!(owners[1].1, [".status.phase"]);
    pod.apply("a", containers(json!([{"name": "c", "image": "i"}])));
    assert_eq!(pod.plain()["status"]["phase"], "Running", "it isn't what this part had");
}

#[test]
fn lists_are_in_the_order_that_is_applied_with_others_between() {
    let order = |live: &[&str], applied: &[&str]| -> Vec<String> {
        let list = |names: &[&str]| containers(names.iter().map(|name| json!({"name": name})).collect());
        let pod = Shape::Struct(schema().find("api.core.v1.Pod").unwrap());
        let merged = pod.merge(&list(live), &list(applied));
        let merged = merged["spec"]["containers"].as_array().unwrap().clone();
        merged.iter().map(|c| c["name"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(order(&["a", "b"], &["a", "c"]), ["a", "b", "c"]);
    assert_eq!(order(&["a", "b"], &["c", "a"]), ["c", "a", "b"]);
    assert_eq!(order(&["a", "x", "b"], &["b", "a"]), ["x", "b", "a"]);
    assert_eq!(order(&["x", "a", "b"], &["a", "n", "b"]), ["x", "a", "n", "b"]);
    assert_eq!(order(&[], &["b", "a"]), ["b", "a"]);
}

#[test]
fn an_empty_list_owns_nothing_and_stays() {
    let mut pod = Object::pod(Value::Null);
    pod.apply("a", json!({"spec": {"nodeName": "n", "containers": []}}));
    assert_eq!(pod.of("a"), [".spec.nodeName"]);
    pod.apply("a", json!({"spec": {"containers": []}}));
    assert_eq!(pod.plain(), json!({}), "what was there is gone, and with it the message");
    pod.apply("a", json!({"spec": {"containers": []}}));
    pod.apply("a", json!({"spec": {"containers": []}}));
    assert_eq!(pod.plain(), json!({"spec": {"containers": []}}));
}

#[test]
fn atomic_lists_and_maps_are_one_value() {
    let mut pod = Object::pod(Value::Null);
    pod.apply("a", containers(json!([{"name": "c", "args": ["1", "2"]}])));
    let refused = pod.try_apply("b", containers(json!([{"name": "c", "args": ["3"]}])), false).unwrap_err();
    assert_eq!(refused, Refusal::Conflicts(vec![("\"a\"".into(), ".spec.containers[name=\"c\"].args".into())]));
    let mut service = Object::new("api.core.v1.Service", Value::Null);
    service.apply("a", json!({"spec": {"selector": {"x": "1"}}}));
    assert!(service.try_apply("b", json!({"spec": {"selector": {"y": "1"}}}), false).is_err());
}

#[test]
fn items_that_cannot_be_told_apart_are_refused() {
    let mut pod = Object::pod(Value::Null);
    let refused = pod.try_apply("a", containers(json!([{"image": "i"}])), false).unwrap_err();
    assert_eq!(
        refused.status("n/p; v1, Kind=Pod").message,
        "failed to create typed patch object (n/p; v1, Kind=Pod): .spec.containers: associative list with keys has an \
         element that omits key field \"name\" (and doesn't have default value)"
    );
    let twice = containers(json!([{"name": "c"}, {"name": "c"}]));
    let refused = pod.try_apply("a", twice.clone(), false).unwrap_err();
    assert_eq!(refused.status("").message.rsplit(": ").next(), Some("duplicate entries for key [name=\"c\"]"));
    // What stands there already may be so.
    pod.tree = twice;
    pod.apply("a", json!({"spec": {"nodeName": "n"}}));
    assert_eq!(pod.plain()["spec"]["containers"].as_array().unwrap().len(), 2);
}

#[test]
fn what_clients_send_as_owners_is_read_without_trust() {
    for odd in
        [json!(7), json!([7, null, {}]), json!([{"operation": "Apply", "fieldsV1": {"f:a": 3, "x": {}, "": {}}}])]
    {
        let mut map = Object { tree: json!({"metadata": {"managedFields": odd}, "data": {"x": "1"}}), ..config_map() };
        map.update("editor", "", |tree| tree["data"]["x"] = "2".into());
        map.apply("a", data(json!({"y": "1"})));
    }
    let mut deep = json!({});
    (0..10_000).for_each(|_| deep = Value::Object([("f:a".to_string(), deep.take())].into_iter().collect()));
    assert!(!Fields::from_json(&deep).is_empty());
    // Taken apart by hand: dropping it as it is would go as deep.
    while let Some(inner) = deep.as_object_mut().and_then(|map| map.remove("f:a")) {
        deep = inner;
    }
}

/// A pod as somebody may want it. Empty lists and maps say nothing and own nothing: they are left out.
#[test]
fn of_many_who_update_the_oldest_become_one() {
    let mut object = config_map();
    object.apply("owner", data(json!({"own": "1"})));
    for number in 1..=14 {
        object.update(&format!("m{number:02}"), "", |tree| tree["data"][format!("k{number:02}")] = "x".into());
    }
    let mut names: Vec<String> = object.owners().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let newest = (6..=14).map(|number| format!("m{number:02}"));
    assert_eq!(
        names,
        ["ancient-changes".to_string()].into_iter().chain(newest).chain(["owner".into()]).collect::<Vec<_>>()
    );
    assert_eq!(object.of("ancient-changes"), [".data.k01", ".data.k02", ".data.k03", ".data.k04", ".data.k05"]);
    assert_eq!(object.of("owner"), [".data.own"]);
}

fn wanted() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[0-1]", 0..3);
    let container = ("[x-y]", env, prop::option::of(prop::collection::vec("[a-b]", 0..2)));
    let containers = prop::collection::btree_map("[a-c]", container, 1..3);
    let labels = prop::collection::btree_map("[l-n]", "[0-1]", 0..3);
    (containers, labels, prop::collection::btree_set("[f-h]", 0..3)).prop_map(|(containers, labels, finalizers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, env, args))| {
                let env: Vec<Value> =
                    env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                let mut container = json!({"name": name, "image": image, "args": args});
                if args.is_none() {
                    container.as_object_mut().unwrap().remove("args");
                }
                if !env.is_empty() {
                    container["env"] = json!(env);
                }
                container
            })
            .collect();
        let mut tree = json!({"spec": {"containers": containers}});
        if !labels.is_empty() {
            tree["metadata"]["labels"] = json!(labels);
        }
        if !finalizers.is_empty() {
            tree["metadata"]["finalizers"] = json!(finalizers);
        }
        tree
    })
}

proptest! {
    #[test]
    fn sets_are_read_as_they_were_written(wanted in wanted()) {
        let fields = Shape::Struct(schema().find("api.core.v1.Pod").unwrap()).fields(&wanted);
        prop_assert_eq!(Fields::from_json(&fields.to_json()), fields);
    }

    #[test]
    fn who_applies_again_changes_nothing(live in wanted(), wanted in wanted()) {
        let mut pod = Object::pod(Value::Null);
        pod.apply("other", live);
        pod.try_apply("a", wanted.clone(), true).unwrap();
        let before = pod.tree.clone();
        pod.apply("a", wanted);
        prop_assert_eq!(&pod.tree, &before);
    }

    /// What is applied is there, and owned; only that of it which another forced over is not.
    #[test]
    fn what_is_applied_is_there(first in wanted(), second in wanted(), third in wanted()) {
        let mut pod = Object::pod(Value::Null);
        pod.apply("a", first);
        pod.try_apply("b", second, true).unwrap();
        pod.try_apply("a", third.clone(), true).unwrap();
        let shape = Shape::Struct(pod.message);
        prop_assert_eq!(shape.merge(&pod.plain(), &third), pod.plain(), "applied over it, it stays");
        let missing = shape.fields(&third).without(&shape.fields(&pod.plain()));
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
    }

    /// Everything belongs to somebody, and nobody to what isn't there.
    #[test]
    fn owners_and_object_agree(steps in prop::collection::vec(("[a-c]", wanted()), 1..6)) {
        let mut pod = Object::pod(Value::Null);
        for (manager, wanted) in steps {
            pod.try_apply(&manager, wanted, true).unwrap();
        }
        let mut owned = Fields::default();
        managers::read(&pod.tree).iter().for_each(|manager| owned.add(&manager.fields));
        let there = Shape::Struct(pod.message).fields(&pod.plain());
        let left = owned.clone().without(&there);
        prop_assert!(left.is_empty(), "owned and not there: {:?}", left.paths());
        let nobodys = there.without(&owned);
        prop_assert!(nobodys.is_empty(), "nobody's: {:?}", nobodys.paths());
    }

    #[test]
    fn who_takes_everything_back_leaves_what_others_have(mine in wanted(), theirs in wanted()) {
        let mut alone = Object::pod(Value::Null);
        alone.apply("b", theirs.clone());
        let mut pod = Object::pod(Value::Null);
        pod.apply("b", theirs.clone());
        if pod.try_apply("a", mine, false).is_ok() {
            pod.apply("a", json!({}));
            prop_assert_eq!(Shape::Struct(pod.message).fields(&pod.plain()), Shape::Struct(pod.message).fields(&alone.plain()));
        }
    }
}
