//! Endpoints: the older shape of what endpoint slices say, one object a Service, kept for those who still read it.

use super::endpoint_slice::{HEADLESS, has_endpoint, hostname, services_of_pod, target_port, target_ref};
use super::{Change, Controller};
use crate::action::{Action, ObjectKey, Outcome};
use crate::projection::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service, ServicePort};
use crate::view::{Applied, Kind, View};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub struct EndpointsController;

const NAME: &str = "endpoint-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// More addresses than this are cut off: one object can't hold a large Service. Slices can.
const MOST_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Service::RESOURCE => vec![(*change.key).clone()],
            Pod::RESOURCE => services_of_pod(view, change),
            Endpoints::RESOURCE => {
                let ours = change.sides().any(|r| r.meta().labels.get(MANAGED_BY).is_some_and(|m| m == NAME));
                let key = ObjectKey::new(Service::RESOURCE, change.key.namespace.clone(), change.key.name.clone());
                if ours { vec![key] } else { Vec::new() }
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, _now: Timestamp) -> Outcome {
        let existing = view.get::<Endpoints>(&key.namespace, &key.name);
        let record = existing.as_ref().and_then(|e| view.record(&e.key));
        let Some(service) = view.item::<Service>(key) else {
            // Endpoints have no owner; they go with the Service of their name.
            return Outcome {
                actions: record.map(|r| Change::of(r).delete(None)).into_iter().collect(),
                again_at: None,
            };
        };
        let Some(selector) = service.selector.as_ref().filter(|_| service.r#type != "ExternalName") else {
            return Outcome::default();
        };
        if service.meta.is_terminating() {
            return Outcome::default();
        }
        let pods = view.pods_selected(&key.namespace, selector);
        let (subsets, cut) = truncate(subsets(&service, &pods));
        let mut labels = service.meta.labels.clone();
        labels.remove(HEADLESS);
        if service.is_headless() {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(MANAGED_BY.into(), NAME.into());
        let annotations = json!({OVER_CAPACITY: if cut { json!("truncated") } else { Value::Null }});
        let action = match (existing, record) {
            (Some(existing), Some(record)) => {
                if existing.subsets == subsets && existing.meta.labels == labels {
                    return Outcome::default();
                }
                let mut all: Map<String, Value> =
                    existing.meta.labels.keys().map(|k| (k.clone(), Value::Null)).collect();
                all.extend(labels.into_iter().map(|(k, v)| (k, json!(v))));
                let subsets = if subsets.is_empty() { Value::Null } else { json!(subsets) };
                Change::of(record)
                    .exact(None, json!({"metadata": {"labels": all, "annotations": annotations}, "subsets": subsets}))
            }
            _ => {
                let mut object = json!({
                    "apiVersion": "v1",
                    "kind": "Endpoints",
                    "metadata": {"name": key.name, "namespace": key.namespace, "labels": labels},
                });
                if cut {
                    object["metadata"]["annotations"] = annotations;
                }
                if !subsets.is_empty() {
                    object["subsets"] = json!(subsets);
                }
                Action::Create { resource: Endpoints::RESOURCE, namespace: key.namespace.clone(), object, report: None }
            }
        };
        Outcome { actions: vec![action], again_at: None }
    }
}

/// Addresses grouped so that all of a subset have all its ports: Kubernetes's `RepackSubsets`, in its order.
fn subsets(service: &Service, pods: &[crate::view::Item<Pod>]) -> Vec<EndpointSubset> {
    let mut by_address: BTreeMap<(EndpointAddress, bool), BTreeSet<EndpointPort>> = BTreeMap::new();
    let six = service.ip_families.first().map_or(service.cluster_ip.contains(':'), |f| f == "IPv6");
    for pod in pods.iter().filter(|p| has_endpoint(p, service.publish_not_ready_addresses)) {
        let Some(ip) = pod.ips.iter().find(|ip| ip.contains(':') == six) else { continue };
        let address = EndpointAddress {
            ip: ip.clone(),
            hostname: hostname(pod, service),
            node_name: (!pod.node_name.is_empty()).then(|| pod.node_name.clone()),
            target_ref: Some(target_ref(pod)),
        };
        let ready = service.publish_not_ready_addresses || pod.ready.ready;
        let ports: BTreeSet<_> = service.ports.iter().filter_map(|p| endpoint_port(pod, p)).collect();
        if !ports.is_empty() || (service.is_headless() && service.ports.is_empty()) {
            by_address.entry((address, ready)).or_default().extend(ports);
        }
    }
    let mut by_ports: BTreeMap<BTreeSet<EndpointPort>, EndpointSubset> = BTreeMap::new();
    for ((address, ready), ports) in by_address {
        let subset = by_ports.entry(ports).or_default();
        if ready { subset.addresses.push(address) } else { subset.not_ready_addresses.push(address) }
    }
    let with_ports = |(ports, mut subset): (BTreeSet<EndpointPort>, EndpointSubset)| {
        subset.ports = ports.into_iter().collect();
        subset
    };
    by_ports.into_iter().map(with_ports).collect()
}

fn endpoint_port(pod: &Pod, port: &ServicePort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: (!port.name.is_empty()).then(|| port.name.clone()),
        port: Some(target_port(pod, port)?),
        protocol: Some(if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() }),
        app_protocol: port.app_protocol.clone(),
    })
}

/// Ready addresses first, as many as there is room for.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let total: usize = subsets.iter().map(|s| s.addresses.len() + s.not_ready_addresses.len()).sum();
    if total <= MOST_ADDRESSES {
        return (subsets, false);
    }
    let mut room = MOST_ADDRESSES;
    for subset in &mut subsets {
        subset.addresses.truncate(room);
        room -= subset.addresses.len();
    }
    for subset in &mut subsets {
        subset.not_ready_addresses.truncate(room);
        room -= subset.not_ready_addresses.len();
    }
    subsets.retain(|s| !s.addresses.is_empty() || !s.not_ready_addresses.is_empty());
    (subsets, true)
}
