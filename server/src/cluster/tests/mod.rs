//! A whole cluster in memory: store, API, controllers and scheduler as they are, a pretended kubelet beside them.

mod nodes;
mod resting;
mod scheduling;

use super::*;
use crate::apiserver::node_proxy::NoNodes;
use crate::apiserver::patch::PatchKind;
use crate::apiserver::{
    Context, CreateOptions, DeleteOptions, IssuedToken, Patch, PatchOptions, Publication, TokenIssuer, TokenSpec,
    admission,
};
use crate::resources::{Resource, registry};
use crate::store::{ChangeKind, Key, ListQuery, NewCluster, Object, Revision, Store, WatchFilter, WatchItem};
use jiff::Timestamp;
use longshore_api::ids::OrganizationId;
use serde_json::{Value, json};
use std::time::Duration;

struct NoKeys;

impl TokenIssuer for NoKeys {
    fn issue<'a>(&'a self, _: &'a ClusterId, _: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        Box::pin(async { Err(Status::unavailable("no keys")) })
    }
    fn publication<'a>(&'a self, _: &'a ClusterId) -> BoxFuture<'a, Result<Publication, Status>> {
        Box::pin(async { Err(Status::unavailable("no keys")) })
    }
}

impl RootCa for NoKeys {
    fn root_ca<'a>(&'a self, _: &'a ClusterId) -> BoxFuture<'a, Result<String, Status>> {
        Box::pin(async { Ok("the CA".to_string()) })
    }
}

struct World {
    api: Api,
    cluster: Arc<Cluster>,
    sessions: Sessions,
    _store: Store,
}

/// Longer than anything here takes on a loaded machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    async fn new() -> Self {
        let store = Store::in_memory();
        let api = Api::new(Arc::new(NoNodes), Arc::new(NoKeys));
        store.on_load(Arc::new(admission::Bootstrap));
        let sessions = Sessions::default();
        store.on_load(Arc::new(Drivers::new(api.clone(), sessions.clone(), Arc::new(NoKeys))));
        let id = store.create_cluster(NewCluster::new(OrganizationId::new("o-test"), "test")).await.unwrap();
        let cluster = store.cluster(&id).await.unwrap();
        let world = Self { api, cluster, sessions, _store: store };
        world.until("default has its account", |w| w.get("serviceaccounts", "default", "default").is_some()).await;
        world
    }

    /// The same with ready nodes and a kubelet that runs whatever is bound to them.
    async fn with_nodes(nodes: usize) -> Self {
        let world = Self::new().await;
        for i in 0..nodes {
            world.node(&format!("n{i}")).await;
        }
        tokio::spawn(kubelet(world.api.clone(), world.cluster.clone()));
        // A new node is tainted until its first status was looked at.
        world.until("nodes take pods", |w| w.list("nodes", "").iter().all(|n| n["spec"]["taints"].is_null())).await;
        world
    }

    fn context(&self) -> Context {
        Context::system(self.cluster.clone(), "test", Timestamp::now())
    }

    async fn node(&self, name: &str) {
        self.create("nodes", "", json!({"metadata": {"name": name}})).await;
        let now = Timestamp::now().to_string();
        let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "1100"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now});
        let status = json!({"status": {"capacity": resources, "allocatable": resources, "conditions": [ready]}});
        self.patch("nodes", "", name, Some("status"), status).await;
    }

    async fn create(&self, resource: &str, namespace: &str, body: Value) -> Arc<Object> {
        let written =
            self.api.create(&self.context(), kind(resource), namespace, body, &CreateOptions::default()).await;
        written.unwrap_or_else(|status| panic!("{resource}: {status:?}")).object
    }

    async fn patch(&self, resource: &str, namespace: &str, name: &str, subresource: Option<&str>, patch: Value) {
        let body = patch.to_string();
        let patch = Patch { kind: PatchKind::Merge, body: body.as_bytes() };
        let (cx, options) = (self.context(), PatchOptions::default());
        let written = self.api.patch(&cx, kind(resource), namespace, name, subresource, patch, &options).await;
        written.unwrap_or_else(|status| panic!("{resource} {name}: {status:?}"));
    }

    async fn delete(&self, resource: &str, namespace: &str, name: &str, options: DeleteOptions) {
        self.api.delete(&self.context(), kind(resource), namespace, name, &options).await.unwrap();
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        self.cluster.get_stale(&key).unwrap().map(|object| object.tree())
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let query = ListQuery {
            resource: resource.into(),
            namespace: (!namespace.is_empty()).then(|| namespace.into()),
            stale: true,
            ..ListQuery::default()
        };
        self.cluster.list(&query).unwrap().items.iter().map(|object| object.tree()).collect()
    }

    fn events(&self, reason: &str) -> Vec<String> {
        let of = |e: &Value| e["reason"] == reason;
        let events = self.list("events", "default").into_iter().filter(of);
        events.map(|e| e["message"].as_str().unwrap_or_default().to_string()).collect()
    }

    /// Looks after each change until it holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = self.cluster.revision();
            if holds(self) {
                return;
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() || !self.cluster.reached(Revision(seen.0 + 1), left).await {
                if holds(self) {
                    return;
                }
                let pods = self.list("pods", "");
                panic!("never: {what}; {} pods, the first: {}", pods.len(), pods.first().unwrap_or(&Value::Null));
            }
        }
    }

    async fn until_deployed(&self, name: &str, replicas: i64) {
        self.until(&format!("{name} has {replicas} available"), |w| {
            let Some(d) = w.get("deployments.apps", "default", name) else { return false };
            let status = &d["status"];
            let count = |field: &str| status[field].as_i64().unwrap_or_default();
            status["observedGeneration"] == d["metadata"]["generation"]
                && count("replicas") == replicas
                && count("updatedReplicas") == replicas
                && count("availableReplicas") == replicas
        })
        .await;
    }

    fn images(&self) -> Vec<String> {
        let image = |p: Value| p["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_string();
        self.list("pods", "default").into_iter().map(image).collect()
    }
}

fn kind(resource: &str) -> &'static Resource {
    registry().by_name(resource).unwrap_or_else(|| panic!("no kind {resource}"))
}

fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80}]}]},
            },
        },
    })
}

/// Runs bound pods, and lets go of those that are to stop.
async fn kubelet(api: Api, cluster: Arc<Cluster>) {
    let filter = WatchFilter { resource: Some("pods".into()), internal: true, ..WatchFilter::default() };
    let Ok(mut watch) = cluster.watch(None, filter) else { return };
    let mut address = 0u32;
    loop {
        let changes = match watch.next().await {
            WatchItem::Changes(changes) => changes,
            WatchItem::Progress(_) => continue,
            WatchItem::Ended(_) => return,
        };
        let looks = changes.iter().filter(|c| c.kind != ChangeKind::Deleted).map(|change| {
            address += 1;
            look(&api, &cluster, change.object.tree(), address)
        });
        futures::future::join_all(looks).await;
    }
}

async fn look(api: &Api, cluster: &Arc<Cluster>, pod: Value, address: u32) {
    let cx = Context::system(cluster.clone(), "kubelet", Timestamp::now());
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name, uid) = (text("/metadata/namespace"), text("/metadata/name"), text("/metadata/uid"));
    if text("/spec/nodeName").is_empty() {
        return;
    }
    if !text("/metadata/deletionTimestamp").is_empty() {
        let options =
            DeleteOptions { grace_period_seconds: Some(0), uid: Some(uid.into()), ..DeleteOptions::default() };
        let _ = api.delete(&cx, kind("pods"), namespace, name, &options).await;
    } else if text("/status/phase") == "Pending" {
        let ip = format!("10.244.{}.{}", address / 256 % 256, address % 256);
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": crate::apiserver::metadata::time(cx.now)}]);
        let body = json!({"metadata": {"uid": uid}, "status": {"phase": "Running", "podIP": ip,
            "podIPs": [{"ip": ip}], "conditions": ready}})
        .to_string();
        let patch = Patch { kind: PatchKind::Strategic, body: body.as_bytes() };
        let options = PatchOptions::default();
        let _ = api.patch(&cx, kind("pods"), namespace, name, Some("status"), patch, &options).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_made_scaled_rolled_out_undone_and_deleted() {
    let world = World::with_nodes(3).await;
    world.create("deployments.apps", "default", deployment("web", 3, "web:1")).await;
    world.until_deployed("web", 3).await;
    world.until("told", |w| w.events("Scheduled").len() == 3 && w.events("SuccessfulCreate").len() == 3).await;
    let web = world.get("deployments.apps", "default", "web").unwrap();
    assert_eq!(web["metadata"]["generation"], 1);
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let nodes: std::collections::BTreeSet<_> =
        world.list("pods", "default").iter().map(|p| p["spec"]["nodeName"].to_string()).collect();
    assert_eq!(nodes.len(), 3, "one pod a node");
    let first = world.list("replicasets.apps", "default")[0]["metadata"]["name"].as_str().unwrap().to_string();
    assert_eq!(world.events("ScalingReplicaSet"), [format!("Scaled up replica set {first} from 0 to 3")]);

    world.patch("deployments.apps", "default", "web", None, json!({"spec": {"replicas": 5}})).await;
    world.until_deployed("web", 5).await;

    let image = |image: &str| {
        json!({"spec": {"template": {"spec": {"containers": [
        {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80}]}]}}}})
    };
    world.patch("deployments.apps", "default", "web", None, image("web:2")).await;
    world.until_deployed("web", 5).await;
    world.until("all are new", |w| w.images() == vec!["web:2"; 5]).await;
    assert_eq!(world.list("replicasets.apps", "default").len(), 2);

    // What `kubectl rollout undo` does: the old template again.
    world.patch("deployments.apps", "default", "web", None, image("web:1")).await;
    world.until_deployed("web", 5).await;
    world.until("all are old", |w| w.images() == vec!["web:1"; 5]).await;
    let set = world.get("replicasets.apps", "default", &first).unwrap();
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");

    world.delete("deployments.apps", "default", "web", DeleteOptions::default()).await;
    world
        .until("nothing is left", |w| {
            w.list("replicasets.apps", "default").is_empty() && w.list("pods", "default").is_empty()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced_and_a_service_follows() {
    let world = World::with_nodes(2).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http"}]}});
    world.create("services", "default", service).await;
    world.create("deployments.apps", "default", deployment("web", 2, "web:1")).await;
    world.until_deployed("web", 2).await;
    let ready = |w: &World| -> std::collections::BTreeSet<String> {
        let slices = w.list("endpointslices.discovery.k8s.io", "default").into_iter();
        let ours = slices.filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
        let endpoints = ours.flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        let ready = endpoints.filter(|e| e["conditions"]["ready"] == true);
        ready.map(|e| e["targetRef"]["name"].as_str().unwrap_or_default().to_string()).collect()
    };
    let names = |w: &World| -> std::collections::BTreeSet<String> {
        w.list("pods", "default").iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_string()).collect()
    };
    world.until("both are endpoints", |w| ready(w).len() == 2 && ready(w) == names(w)).await;
    world
        .until("and in Endpoints", |w| {
            let Some(endpoints) = w.get("endpoints", "default", "web") else { return false };
            endpoints["subsets"][0]["addresses"].as_array().is_some_and(|a| a.len() == 2)
                && endpoints["subsets"][0]["ports"][0]["port"] == 80
        })
        .await;
    let victim = names(&world).into_iter().next().unwrap();
    world.delete("pods", "default", &victim, DeleteOptions::default()).await;
    world
        .until("another took its place", |w| !names(w).contains(&victim) && names(w).len() == 2 && ready(w) == names(w))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_takes_its_content_along() {
    let world = World::with_nodes(1).await;
    world.create("namespaces", "", json!({"metadata": {"name": "team"}})).await;
    world
        .until("it has what each namespace has", |w| {
            w.get("serviceaccounts", "team", "default").is_some()
                && w.get("configmaps", "team", "kube-root-ca.crt").is_some_and(|m| m["data"]["ca.crt"] == "the CA")
        })
        .await;
    world.create("deployments.apps", "team", deployment("web", 2, "web:1")).await;
    world
        .until("pods run", |w| w.list("pods", "team").iter().filter(|p| p["status"]["phase"] == "Running").count() == 2)
        .await;
    world.delete("namespaces", "", "team", DeleteOptions::default()).await;
    world
        .until("it is gone, and all that was in it", |w| {
            let resources = ["pods", "replicasets.apps", "deployments.apps", "serviceaccounts", "configmaps", "events"];
            w.get("namespaces", "", "team").is_none() && resources.iter().all(|r| w.list(r, "team").is_empty())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_runs_once_it_fits() {
    let world = World::with_nodes(1).await;
    let mut picky = deployment("picky", 1, "web:1");
    picky["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    world.create("deployments.apps", "default", picky).await;
    world
        .until("it says why", |w| {
            w.list("pods", "default").first().is_some_and(|p| {
                p["status"]["conditions"][0]["message"]
                    == "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            })
        })
        .await;
    world.until("it is told", |w| w.events("FailedScheduling").len() == 1).await;
    world.patch("nodes", "", "n0", None, json!({"metadata": {"labels": {"disk": "ssd"}}})).await;
    world.until_deployed("picky", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_gets_its_own_slice_of_the_pod_range() {
    let world = World::with_nodes(4).await;
    world
        .until("all have one", |w| {
            let nodes = w.list("nodes", "");
            let slices = nodes.iter().filter_map(|n| n["spec"]["podCIDRs"].as_array());
            let slices: std::collections::BTreeSet<&str> = slices.flatten().filter_map(|s| s.as_str()).collect();
            let of_ipv6 = slices.iter().filter(|slice| slice.starts_with("fd") && slice.ends_with("/64")).count();
            let first = |n: &serde_json::Value| n["spec"]["podCIDR"] == n["spec"]["podCIDRs"][0];
            (slices.len(), of_ipv6) == (8, 4) && nodes.iter().all(first)
        })
        .await;
}

/// Not a promise, a measure: printed with `--no-capture`.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_replicas_are_made_and_bound() {
    let world = World::with_nodes(10).await;
    let begin = std::time::Instant::now();
    world.create("deployments.apps", "default", deployment("many", 1000, "web:1")).await;
    world
        .until("all are bound", |w| {
            let query = ListQuery { resource: "pods".into(), stale: true, ..ListQuery::default() };
            let pods = w.cluster.list(&query).unwrap().items;
            pods.iter().filter(|p| p.field("spec.nodeName").is_some_and(|n| !n.is_empty())).count() == 1000
        })
        .await;
    let bound = begin.elapsed();
    world.until_deployed("many", 1000).await;
    tracing::info!(?bound, available = ?begin.elapsed(), "a thousand replicas");
    eprintln!("1000 replicas: all bound after {bound:?}, all available after {:?}", begin.elapsed());
}
