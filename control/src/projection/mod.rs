//! Compact typed projections: of each kind, what indexes, controllers and the scheduler need, and no more.
//!
//! They are parsed once, when an object is written, and kept beside its bytes, so that no controller ever parses JSON and
//! a look at a thousand pods touches a thousand small structs. They are read-only views: what a controller wants changed
//! it says as a patch, never by writing a projection back (it has forgotten most of the object).

mod affinity;
mod meta;
mod namespace;
mod node;
mod pod;
mod resources;
mod service;
mod workload;

pub use affinity::{PodAffinity, PodTerm, SpreadConstraint, WeightedPodTerm};
pub use meta::{Condition, Meta, OwnerReference, Status};
pub use namespace::{ConfigMap, Lease, Namespace, ROOT_CA_CONFIG_MAP};
pub use node::{Effect, Node, NodeImage, NodeSelectorTerm, Taint, Toleration};
pub use pod::{ContainerPort, HostPort, NodeAffinity, Phase, Pod, PodScheduled, PreferredTerm, ReadyState};
pub use resources::{Amount, Resources};
pub use service::{
    Endpoint, EndpointAddress, EndpointConditions, EndpointPort, EndpointSlice, EndpointSubset, Endpoints, Hint, Hints,
    Service, ServicePort, TargetRef, Zone,
};
pub use workload::{Deployment, DeploymentStatus, IntOrPercent, ReplicaSet, ReplicaSetStatus, Strategy, Template};

use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// What the store keeps beside an object's bytes.
#[derive(Clone, Debug, Default)]
pub enum Projection {
    /// A kind that no controller looks at, Events above all: they own nothing and nothing owns them.
    #[default]
    None,
    /// A kind of which controllers need only the metadata (garbage collection, namespace deletion).
    Meta(Arc<Meta>),
    ConfigMap(Arc<ConfigMap>),
    Deployment(Arc<Deployment>),
    Endpoints(Arc<Endpoints>),
    EndpointSlice(Arc<EndpointSlice>),
    Lease(Arc<Lease>),
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    ReplicaSet(Arc<ReplicaSet>),
    Service(Arc<Service>),
}

impl Projection {
    /// The projection of `object`, a `resource` such as `pods` or `deployments.apps`, in its storage version and already
    /// validated. What doesn't parse all the same reads as if it were not set.
    pub fn of(resource: &str, object: &Value) -> Self {
        match resource {
            "events" | "events.events.k8s.io" => Self::None,
            "configmaps" => Self::ConfigMap(Arc::new(ConfigMap::of(object))),
            "deployments.apps" => Self::Deployment(Arc::new(Deployment::of(object))),
            "endpoints" => Self::Endpoints(Arc::new(read(object))),
            "endpointslices.discovery.k8s.io" => Self::EndpointSlice(Arc::new(read(object))),
            "leases.coordination.k8s.io" => Self::Lease(Arc::new(Lease::of(object))),
            "namespaces" => Self::Namespace(Arc::new(Namespace::of(object))),
            "nodes" => Self::Node(Arc::new(Node::of(object))),
            "pods" => Self::Pod(Arc::new(Pod::of(object))),
            "replicasets.apps" => Self::ReplicaSet(Arc::new(ReplicaSet::of(object))),
            "services" => Self::Service(Arc::new(Service::of(object))),
            _ => Self::Meta(Arc::new(Meta::of(object))),
        }
    }

    /// The object's metadata; none only for kinds without a projection.
    pub fn meta(&self) -> Option<&Meta> {
        Some(match self {
            Self::None => return None,
            Self::Meta(meta) => meta,
            Self::ConfigMap(o) => &o.meta,
            Self::Deployment(o) => &o.meta,
            Self::Endpoints(o) => &o.meta,
            Self::EndpointSlice(o) => &o.meta,
            Self::Lease(o) => &o.meta,
            Self::Namespace(o) => &o.meta,
            Self::Node(o) => &o.meta,
            Self::Pod(o) => &o.meta,
            Self::ReplicaSet(o) => &o.meta,
            Self::Service(o) => &o.meta,
        })
    }
}

/// Reads a struct of defaults out of a tree. A `null` where a list or a string should be (protobuf-minded clients send
/// them) is the same as nothing there, which serde only grants `Option`: then once more without nulls.
pub(crate) fn read<T: DeserializeOwned + Default>(tree: &Value) -> T {
    T::deserialize(tree).or_else(|_| T::deserialize(without_nulls(tree))).unwrap_or_default()
}

fn without_nulls(tree: &Value) -> Value {
    match tree {
        Value::Object(fields) => Value::Object(
            fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_read_as_absent() {
        let pod = json!({"metadata": {"name": "a", "labels": null, "finalizers": null},
            "spec": {"containers": null, "nodeName": null}, "status": null});
        let Projection::Pod(pod) = Projection::of("pods", &pod) else { panic!("not a pod") };
        assert_eq!(pod.meta.name, "a");
        assert_eq!(pod.phase, Phase::Pending);
    }

    #[test]
    fn every_kind_but_events_has_metadata() {
        let object = json!({"metadata": {"name": "a", "uid": "u"}});
        for resource in ["pods", "nodes", "secrets", "widgets.example.com", "services", "namespaces", "configmaps"] {
            assert_eq!(Projection::of(resource, &object).meta().map(|m| m.uid.as_str()), Some("u"), "{resource}");
        }
        assert!(Projection::of("events", &object).meta().is_none());
    }
}
