//! What every cluster has from birth.

use super::addresses::Range;
use super::errors;
use crate::apiserver::{api, metadata};
use crate::resources::{
    Request, Resource, endpoint_slice, endpoints, ingress_class, namespace, priority_class, service,
};
use crate::store::{Cluster, ClusterHook, ListQuery, StoreError, Write, WriteError};
use futures::future::BoxFuture;
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use serde_json::{Value, json};
use std::sync::Arc;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// What is wrong with none of it: whoever looks in `kubectl get events` finds the system as the maker.
const USER: &str = "system:apiserver";
const HTTPS: i64 = 443;
const DNS: i64 = 53;

/// Makes what is missing of the namespaces, the system's priority classes, the edge's class of Ingresses, of the Service
/// `kubernetes`, by which pods reach this API, and of `kube-dns`, where nodes answer for names. Called whenever a cluster is
/// loaded: it heals what was deleted, and changes nothing that is there.
pub async fn bootstrap(cluster: &Cluster) -> Result<(), Status> {
    for name in NAMESPACES {
        create(cluster, &namespace::RESOURCE, "", json!({"metadata": {"name": name}})).await?;
    }
    for (name, value, description) in priority_class::SYSTEM {
        create(cluster, &priority_class::RESOURCE, "", priority_class::system(name, value, description)).await?;
    }
    create(cluster, &ingress_class::RESOURCE, "", ingress_class::edge()).await?;
    let address = Range::of(&cluster.info().service_range)?.first().to_string();
    let metadata = |labels: Value| json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let named = json!({"component": "apiserver", "provider": "kubernetes"});
    let ports = json!([{"name": "https", "protocol": "TCP", "port": HTTPS, "targetPort": HTTPS}]);
    let spec = of_ipv4(&address, ports);
    create(cluster, &service::RESOURCE, "default", json!({"metadata": metadata(named), "spec": spec})).await?;
    // The address answers on every node, where the agent carries what arrives to the server: it is its own endpoint.
    let subset =
        json!({"addresses": [{"ip": address}], "ports": [{"name": "https", "port": HTTPS, "protocol": "TCP"}]});
    let mirrored = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    create(cluster, &endpoints::RESOURCE, "default", json!({"metadata": metadata(mirrored), "subsets": [subset]}))
        .await?;
    let of_service = json!({"kubernetes.io/service-name": "kubernetes"});
    let slice = json!({
        "metadata": metadata(of_service),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": HTTPS, "protocol": "TCP"}],
    });
    create(cluster, &endpoint_slice::RESOURCE, "default", slice).await?;
    name_server(cluster).await
}

/// What the cluster itself offers has one family, as Kubernetes's own Services.
fn of_ipv4(address: &str, ports: Value) -> Value {
    json!({"clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": ports, "type": "ClusterIP"})
}

/// Every node answers at its address: it has no endpoints. Who wants a name server of their own gives it a selector.
async fn name_server(cluster: &Cluster) -> Result<(), Status> {
    let Some(address) = Range::of(&cluster.info().service_range)?.tenth().map(|ip| ip.to_string()) else {
        return Ok(());
    };
    let query = ListQuery { resource: service::RESOURCE.store_name().into(), ..ListQuery::default() };
    let services = cluster.list(&query).map_err(errors::store)?;
    // From before there was a name server.
    if services.items.iter().any(|s| &*s.key.name != "kube-dns" && s.tree()["spec"]["clusterIP"] == *address) {
        return Ok(());
    }
    let labels =
        json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "port": DNS, "targetPort": DNS},
        {"name": "dns-tcp", "protocol": "TCP", "port": DNS, "targetPort": DNS},
    ]);
    let spec = of_ipv4(&address, ports);
    let metadata = json!({"name": "kube-dns", "namespace": "kube-system", "labels": labels});
    create(cluster, &service::RESOURCE, "kube-system", json!({"metadata": metadata, "spec": spec})).await
}

/// Bootstraps each cluster as it is loaded, before anyone else sees it.
pub struct Bootstrap;

impl ClusterHook for Bootstrap {
    fn loaded<'a>(&'a self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { bootstrap(cluster).await.map_err(|status| StoreError::Unavailable(status.message)) })
    }

    fn unloading(&self, _: &ClusterId) {}
}

async fn create(cluster: &Cluster, kind: &Resource, namespace: &str, mut tree: Value) -> Result<(), Status> {
    let name = metadata::text(&tree, "name").to_string();
    let key = api::key(kind, namespace, &name);
    if cluster.newest(&key).map_err(errors::store)?.object.is_some() {
        return Ok(());
    }
    let now = Timestamp::now();
    tree["kind"] = kind.kind.into();
    tree["apiVersion"] = kind.api_version().into();
    (kind.default)(&mut tree);
    metadata::fill_create(&mut tree, namespace, uuid::Uuid::new_v4().to_string(), now);
    (kind.prepare_create)(&Request { now, user: USER, namespace }, &mut tree);
    match cluster.commit(Write::Create(api::draft(kind, key, &tree))).await {
        Ok(_) | Err(WriteError::AlreadyExists) => Ok(()),
        Err(error) => Err(errors::write(error, kind, &name)),
    }
}
