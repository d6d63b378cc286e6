//! Admission against a cluster in memory.

use super::*;
use crate::resources::{Request, config_map, namespace, pod, service, service_account};
use crate::store::{Write, testing};
use jiff::Timestamp;
use serde_json::json;

async fn cluster() -> Arc<Cluster> {
    let cluster = testing::cluster().await;
    bootstrap(&cluster).await.unwrap();
    cluster
}

/// Puts an object into the store as it is.
async fn put(cluster: &Cluster, kind: &Resource, tree: &Value) -> Arc<Object> {
    let name = tree["metadata"]["name"].as_str().unwrap();
    let key = api::key(kind, tree["metadata"]["namespace"].as_str().unwrap_or_default(), name);
    let expected = cluster.newest(&key).unwrap().object.map(|o| o.revision);
    let draft = api::draft(kind, key, tree);
    let write = match expected {
        None => Write::Create(draft),
        Some(expected) => Write::Update { draft, expected },
    };
    cluster.commit(write).await.unwrap()
}

fn take(
    cluster: &Arc<Cluster>,
    resource: &'static Resource,
    operation: Operation,
    mut tree: Value,
) -> Result<Value, Status> {
    let identity = Identity::system("test");
    let admission = Admission { cluster, resource, identity: &identity, operation, subresource: "", old: None };
    admit(&admission, &mut tree).map(|()| tree)
}

async fn create(cluster: &Arc<Cluster>, resource: &'static Resource, mut tree: Value) -> Result<Value, Status> {
    (resource.default)(&mut tree);
    (resource.prepare_create)(&Request { now: Timestamp::UNIX_EPOCH, user: "", namespace: "" }, &mut tree);
    let namespace = tree["metadata"]["namespace"].as_str().unwrap_or_default().to_string();
    await_dependencies(cluster, resource, &namespace, &tree).await;
    take(cluster, resource, Operation::Create, tree)
}

fn a_service(name: &str, spec: Value) -> Value {
    let mut tree = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
    tree["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    tree
}

fn a_pod(namespace: &str) -> Value {
    json!({"metadata": {"name": "web", "namespace": namespace}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}})
}

#[tokio::test]
async fn a_cluster_is_born_with_its_namespaces_and_service() {
    let cluster = cluster().await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let found = newest(&cluster, &namespace::RESOURCE, "", name).unwrap().unwrap();
        assert_eq!(found.field("status.phase"), Some("Active"));
    }
    let kubernetes = newest(&cluster, &service::RESOURCE, "default", "kubernetes").unwrap().unwrap().tree();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    assert!((service::RESOURCE.validate)(&kubernetes).is_empty());
    let names = newest(&cluster, &service::RESOURCE, "kube-system", "kube-dns").unwrap().unwrap().tree();
    assert_eq!(
        (&names["spec"]["clusterIP"], names["spec"]["ports"][0]["port"].as_i64()),
        (&json!("10.96.0.10"), Some(53))
    );
    assert!((service::RESOURCE.validate)(&names).is_empty());
    let slice =
        newest(&cluster, &crate::resources::endpoint_slice::RESOURCE, "default", "kubernetes").unwrap().unwrap();
    assert!((crate::resources::endpoint_slice::RESOURCE.validate)(&slice.tree()).is_empty());
    let revision = cluster.revision();
    bootstrap(&cluster).await.unwrap();
    assert_eq!(cluster.revision(), revision, "a second look changes nothing");
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_not_there_or_going() {
    let cluster = cluster().await;
    let map = |namespace: &str| json!({"metadata": {"name": "a", "namespace": namespace}});
    assert!(create(&cluster, &config_map::RESOURCE, map("default")).await.is_ok());
    let missing = create(&cluster, &config_map::RESOURCE, map("web")).await.unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (404, "namespaces \"web\" not found"));
    let going = json!({"metadata": {"name": "web"}, "status": {"phase": "Terminating"}});
    put(&cluster, &namespace::RESOURCE, &going).await;
    let refused = create(&cluster, &config_map::RESOURCE, map("web")).await.unwrap_err();
    let why =
        "configmaps \"a\" is forbidden: unable to create new content in namespace web because it is being terminated";
    assert_eq!((refused.code, refused.message.as_str()), (403, why));
    assert_eq!(refused.details.unwrap().causes[0].reason, "NamespaceTerminating");
}

#[tokio::test]
async fn some_namespaces_never_go() {
    let cluster = cluster().await;
    for (name, message) in
        [("default", Some("namespaces \"default\" is forbidden: this namespace may not be deleted")), ("web", None)]
    {
        let tree = json!({"metadata": {"name": name}});
        let answer = take(&cluster, &namespace::RESOURCE, Operation::Delete, tree);
        assert_eq!(answer.err().map(|s| s.message).as_deref(), message);
    }
}

#[tokio::test]
async fn services_get_addresses_of_their_own() {
    let cluster = cluster().await;
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..50 {
        // None of these is committed: reservations alone keep them apart.
        let made = create(&cluster, &service::RESOURCE, a_service(&format!("s{i}"), json!({}))).await.unwrap();
        assert_eq!(made["spec"]["clusterIPs"], json!([made["spec"]["clusterIP"]]));
        assert!((service::RESOURCE.validate)(&made).is_empty());
        assert!(seen.insert(made["spec"]["clusterIP"].as_str().unwrap().to_string()));
    }
    let headless = create(&cluster, &service::RESOURCE, a_service("h", json!({"clusterIP": "None"}))).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let named = json!({"type": "ExternalName", "externalName": "example.com"});
    let named = create(&cluster, &service::RESOURCE, a_service("n", named)).await.unwrap();
    assert!(named["spec"].get("clusterIP").is_none());
}

#[tokio::test]
async fn services_get_an_address_of_each_of_their_families() {
    let cluster = cluster().await;
    let range: ipnet::IpNet = cluster.info().service_range_v6.as_deref().unwrap().parse().unwrap();
    let made = async |name: &str, spec: Value| {
        let made = create(&cluster, &service::RESOURCE, a_service(name, spec)).await.unwrap();
        assert!((service::RESOURCE.validate)(&made).is_empty());
        assert_eq!(made["spec"]["clusterIP"], made["spec"]["clusterIPs"][0]);
        let ips = made["spec"]["clusterIPs"].as_array().unwrap().clone();
        ips.iter().map(|ip| ip.as_str().unwrap().parse().unwrap()).collect::<Vec<std::net::IpAddr>>()
    };
    let both = made("both", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    assert!(both.len() == 2 && both[0].is_ipv4() && range.contains(&both[1]), "{both:?}");
    let six = made("six", json!({"ipFamilies": ["IPv6"]})).await;
    assert!(six.len() == 1 && range.contains(&six[0]) && six[0] != both[1], "{six:?}");
    let taken = json!({"clusterIP": both[1].to_string()});
    let refused = create(&cluster, &service::RESOURCE, a_service("other", taken)).await.unwrap_err();
    assert!(refused.message.ends_with("provided IP is already allocated"), "{}", refused.message);
    let foreign = json!({"clusterIP": "2001:db8::1"});
    let refused = create(&cluster, &service::RESOURCE, a_service("other", foreign)).await.unwrap_err();
    assert!(refused.message.ends_with("the provided network does not match the current range"), "{}", refused.message);
}

#[tokio::test]
async fn an_address_is_given_once() {
    let cluster = cluster().await;
    let asks = |name: &str, ip: &str| create(&cluster, &service::RESOURCE, a_service(name, json!({"clusterIP": ip})));
    let taken = asks("a", "10.96.0.1").await.unwrap_err();
    let why = "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated";
    assert_eq!((taken.code, taken.message.as_str()), (422, why));
    let outside = asks("a", "10.97.0.1").await.unwrap_err();
    assert!(
        outside
            .message
            .ends_with("failed to allocate IP 10.97.0.1: the provided network does not match the current range")
    );
    let first = asks("a", "10.96.7.7").await.unwrap();
    assert!(asks("b", "10.96.7.7").await.is_err(), "reserved while its write is on the way");
    assert!(asks("a", "10.96.7.7").await.is_ok(), "its own second try is no conflict");
    let object = put(&cluster, &service::RESOURCE, &first).await;
    assert!(asks("b", "10.96.7.7").await.is_err(), "and taken when it is committed");
    let draft = api::draft(&service::RESOURCE, object.key.clone(), &first);
    cluster.commit(Write::Delete { draft, expected: object.revision }).await.unwrap();
    let allocated = create(&cluster, &service::RESOURCE, a_service("c", json!({}))).await.unwrap();
    assert_ne!(allocated["spec"]["clusterIP"], "10.96.7.7");
}

#[tokio::test]
async fn node_ports_are_given_once() {
    let cluster = cluster().await;
    let spec =
        json!({"type": "NodePort", "ports": [{"port": 53, "name": "a", "protocol": "UDP"}, {"port": 53, "name": "b"}]});
    let made = create(&cluster, &service::RESOURCE, a_service("dns", spec)).await.unwrap();
    let ports = made["spec"]["ports"].as_array().unwrap();
    let port = ports[0]["nodePort"].as_i64().unwrap();
    assert!((30_000..=32_767).contains(&port));
    assert_eq!(ports[1]["nodePort"], port, "one number for both protocols of a port");
    put(&cluster, &service::RESOURCE, &made).await;
    for (asked, why) in [
        (port, "provided port is already allocated"),
        (80, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
    ] {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": asked}]});
        let refused = create(&cluster, &service::RESOURCE, a_service("web", spec)).await.unwrap_err();
        let message = format!("Service \"web\" is invalid: spec.ports[0].nodePort: Invalid value: {asked}: {why}");
        assert_eq!(refused.message, message);
    }
}

#[tokio::test]
async fn pods_run_as_a_service_account() {
    let cluster = cluster().await;
    let account =
        json!({"metadata": {"name": "default", "namespace": "default"}, "imagePullSecrets": [{"name": "registry"}]});
    put(&cluster, &service_account::RESOURCE, &account).await;
    let made = create(&cluster, &pod::RESOURCE, a_pod("default")).await.unwrap();
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
    assert_eq!(made["spec"]["priority"], 0);
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let volume = &made["spec"]["volumes"][0];
    assert!(volume["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!((pod::RESOURCE.validate)(&made), []);
    let mut robot = a_pod("default");
    robot["spec"]["serviceAccountName"] = json!("robot");
    let refused = create(&cluster, &pod::RESOURCE, robot).await.unwrap_err();
    let why =
        "pods \"web\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found";
    assert_eq!((refused.code, refused.message.as_str()), (403, why));
    let mut quiet = a_pod("default");
    quiet["spec"]["automountServiceAccountToken"] = json!(false);
    let quiet = create(&cluster, &pod::RESOURCE, quiet).await.unwrap();
    assert!(quiet["spec"].get("volumes").is_none());
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let cluster = cluster().await;
    let making = cluster.clone();
    let made = tokio::spawn(async move { create(&making, &pod::RESOURCE, a_pod("default")).await });
    tokio::task::yield_now().await;
    let account = json!({"metadata": {"name": "default", "namespace": "default"}});
    put(&cluster, &service_account::RESOURCE, &account).await;
    assert!(made.await.unwrap().is_ok());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn no_tree_makes_admission_fail(
        changes in proptest::collection::vec(
            (proptest::prelude::any::<proptest::sample::Index>(), crate::resources::tests::properties::anything()), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = cluster().await;
            put(&cluster, &namespace::RESOURCE, &json!({"metadata": {"name": "shop"}, "status": {"phase": "Active"}})).await;
            let account = json!({"metadata": {"name": "default", "namespace": "shop"}, "imagePullSecrets": [{"name": "a"}]});
            put(&cluster, &service_account::RESOURCE, &account).await;
            for (name, sample) in crate::resources::tests::samples() {
                let kind = crate::resources::registry().by_name(name).unwrap();
                let mut tree = crate::resources::tests::properties::spoilt(sample, &changes);
                (kind.default)(&mut tree);
                for operation in [Operation::Create, Operation::Update, Operation::Delete] {
                    let _ = take(&cluster, kind, operation, tree.clone());
                }
            }
        });
    }
}
