//! Endpoint slices: which addresses stand behind a Service, at most a hundred to a slice.
//!
//! What is already in a slice stays there, so that a pod that comes or goes rewrites one slice, not all of them: every
//! node reads every slice.

use super::{Change, Controller, controller_reference};
use crate::action::{Action, ObjectKey, Outcome};
use crate::projection::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Hint, Hints, Node, Pod, Service, ServicePort, TargetRef,
};
use crate::view::{Applied, Item, Kind, SERVICE_NAME, View};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub struct EndpointSliceController;

const NAME: &str = "endpointslice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Set on slices and Endpoints of a Service without an address of its own.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
const PER_SLICE: usize = 100;

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, view: &View, change: &Applied) -> Vec<ObjectKey> {
        match change.key.resource.as_ref() {
            Service::RESOURCE => vec![(*change.key).clone()],
            EndpointSlice::RESOURCE => change
                .sides()
                .filter(|r| r.meta().labels.get(MANAGED_BY).is_some_and(|m| m == MANAGER))
                .filter_map(|r| r.meta().labels.get(SERVICE_NAME))
                .map(|service| ObjectKey::new(Service::RESOURCE, change.key.namespace.clone(), service.clone()))
                .take(1)
                .collect(),
            Pod::RESOURCE => services_of_pod(view, change),
            // A node's zone is copied into its endpoints.
            Node::RESOURCE => {
                let zone = |r: Option<&crate::view::Record>| r.and_then(|r| Some(r.get::<Node>()?.zone().to_string()));
                match (zone(change.before.as_ref()), zone(change.after.as_ref())) {
                    (Some(before), Some(after)) if before != after => {
                        let services = |p: Item<Pod>| view.services_selecting(&p.meta.namespace, &p.meta.labels);
                        view.pods_on(&change.key.name).flat_map(services).map(|s| (*s.key).clone()).collect()
                    }
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, _now: Timestamp) -> Outcome {
        let Some(service) = view.item::<Service>(key).filter(|s| !s.meta.is_terminating()) else {
            // Its slices go with their owner.
            return Outcome::default();
        };
        let ours = |s: &Item<EndpointSlice>| s.meta.labels.get(MANAGED_BY).is_some_and(|m| m == MANAGER);
        let existing: Vec<_> =
            view.slices_of(&key.namespace, &key.name).filter(ours).filter(|s| !s.meta.is_terminating()).collect();
        let Some(selector) = service.selector.as_ref().filter(|_| service.r#type != "ExternalName") else {
            return Outcome { actions: existing.iter().filter_map(|s| remove(view, s)).collect(), again_at: None };
        };
        let pods = view.pods_selected(&key.namespace, selector);
        let mut actions = Vec::new();
        let families = families(&service);
        for family in &families {
            let slices: Vec<_> = existing.iter().filter(|s| s.address_type == *family).collect();
            Placement { view, service: &service, family }.reconcile(&slices, &pods, &mut actions);
        }
        let stale = existing.iter().filter(|s| !families.contains(&s.address_type));
        actions.extend(stale.filter_map(|s| remove(view, s)));
        Outcome { actions, again_at: None }
    }
}

/// Services that may have to do with a pod's change: what selected it before, what selects it now.
pub(super) fn services_of_pod(view: &View, change: &Applied) -> Vec<ObjectKey> {
    if let (Some(before), Some(after)) = (change.before.as_ref(), change.after.as_ref())
        && let (Some(before), Some(after)) = (before.get::<Pod>(), after.get::<Pod>())
    {
        let shape = |p: &Pod| {
            let (ips, ports) = (p.ips.clone(), p.ports.clone());
            (ips, p.ready.ready, p.is_finished(), p.meta.is_terminating(), p.node_name.clone(), ports)
        };
        if before.meta.labels == after.meta.labels && shape(&before) == shape(&after) {
            return Vec::new();
        }
    }
    let services = change.sides().flat_map(|r| view.services_selecting(&r.meta().namespace, &r.meta().labels));
    services.map(|s| (*s.key).clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn families(service: &Service) -> Vec<String> {
    if service.ip_families.is_empty() {
        let six = service.cluster_ip.contains(':');
        return vec![if six { "IPv6" } else { "IPv4" }.into()];
    }
    service.ip_families.clone()
}

/// Whether a pod's address belongs among endpoints at all.
pub(super) fn has_endpoint(pod: &Pod, with_terminating: bool) -> bool {
    !pod.is_finished() && !pod.ips.is_empty() && (with_terminating || !pod.meta.is_terminating())
}

/// The pod's port that a Service's port leads to, if it has one.
pub(super) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        Value::String(name) if name.parse::<i32>().is_err() => {
            pod.ports.iter().find(|p| p.name == *name && p.protocol == port.protocol).map(|p| p.port)
        }
        Value::String(number) => number.parse().ok(),
        Value::Number(number) => {
            number.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n != 0).or(Some(port.port))
        }
        _ => Some(port.port),
    }
}

pub(super) fn target_ref(pod: &Pod) -> TargetRef {
    TargetRef {
        kind: "Pod".into(),
        namespace: pod.meta.namespace.clone(),
        name: pod.meta.name.clone(),
        uid: pod.meta.uid.clone(),
    }
}

/// The name that a headless Service gives a pod in DNS, if the pod asked for one.
pub(super) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let asked = !pod.hostname.is_empty() && pod.subdomain == service.meta.name;
    (asked && pod.meta.namespace == service.meta.namespace).then(|| pod.hostname.clone())
}

fn remove(view: &View, slice: &Item<EndpointSlice>) -> Option<Action> {
    Some(Change::of(view.record(&slice.key)?).delete(None))
}

/// For whom an endpoint in `zone` on `node` is meant, by a Service's `trafficDistribution`.
fn hints(distribution: &str, zone: Option<&str>, node: &str) -> Option<Hints> {
    let hint = |name: &str| Hint { name: name.to_string() };
    let for_nodes = match distribution {
        "PreferSameNode" if !node.is_empty() => vec![hint(node)],
        "PreferSameNode" | "PreferSameZone" | "PreferClose" => Vec::new(),
        _ => return None,
    };
    let hints = Hints { for_zones: zone.map(hint).into_iter().collect(), for_nodes };
    (hints != Hints::default()).then_some(hints)
}

/// One Service's slices of one address family.
struct Placement<'a> {
    view: &'a View,
    service: &'a Item<Service>,
    family: &'a str,
}

/// What identifies an endpoint over changes of its conditions.
type Identity = (Option<TargetRef>, Vec<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    (endpoint.target_ref.clone(), endpoint.addresses.clone())
}

impl Placement<'_> {
    fn reconcile(&self, existing: &[&Item<EndpointSlice>], pods: &[Item<Pod>], actions: &mut Vec<Action>) {
        let mut wanted: BTreeMap<Vec<EndpointPort>, BTreeMap<Identity, Endpoint>> = BTreeMap::new();
        for pod in pods.iter().filter(|p| has_endpoint(p, true)) {
            if let Some(endpoint) = self.endpoint(pod) {
                wanted.entry(self.ports(pod)).or_default().insert(identity(&endpoint), endpoint);
            }
        }
        let mut by_ports: BTreeMap<Vec<EndpointPort>, Vec<&Item<EndpointSlice>>> = BTreeMap::new();
        for slice in existing {
            let mut ports = slice.ports.clone();
            ports.sort();
            by_ports.entry(ports).or_default().push(slice);
        }
        // A Service with nothing behind it keeps one empty slice, as a sign that this was looked at.
        if wanted.is_empty() {
            wanted.insert(Vec::new(), BTreeMap::new());
            let placeholder = by_ports.remove(&Vec::new()).unwrap_or_default();
            self.fill(&[], placeholder, BTreeMap::new(), true, actions);
        } else {
            for (ports, endpoints) in &wanted {
                let slices = by_ports.remove(ports).unwrap_or_default();
                self.fill(ports, slices, endpoints.clone(), false, actions);
            }
        }
        for slice in by_ports.into_values().flatten() {
            actions.extend(remove(self.view, slice));
        }
    }

    fn fill(
        &self,
        ports: &[EndpointPort],
        slices: Vec<&Item<EndpointSlice>>,
        mut wanted: BTreeMap<Identity, Endpoint>,
        keep_one: bool,
        actions: &mut Vec<Action>,
    ) {
        // Each slice keeps what is still wanted of it, in its newest state.
        let mut kept: Vec<(&Item<EndpointSlice>, Vec<Endpoint>)> = slices
            .into_iter()
            .map(|slice| (slice, slice.endpoints.iter().filter_map(|e| wanted.remove(&identity(e))).collect()))
            .collect();
        let mut left: Vec<Endpoint> = wanted.into_values().collect();
        // The rest goes first where something is rewritten anyway, then where most is, then into new slices.
        let mut order: Vec<usize> = (0..kept.len()).collect();
        order.sort_by_key(|i| {
            let (slice, endpoints) = &kept[*i];
            (endpoints.len() == slice.endpoints.len(), std::cmp::Reverse(endpoints.len()), *i)
        });
        for i in order {
            let room = PER_SLICE.saturating_sub(kept[i].1.len()).min(left.len());
            kept[i].1.extend(left.drain(..room));
        }
        let mut filled = 0;
        for (slice, endpoints) in kept {
            if endpoints.is_empty() && !(keep_one && filled == 0) {
                actions.extend(remove(self.view, slice));
                continue;
            }
            filled += 1;
            let Some(record) = self.view.record(&slice.key) else { continue };
            let labels = self.labels();
            let strangers: Vec<&String> = slice.meta.labels.keys().filter(|k| !labels.contains_key(*k)).collect();
            if endpoints != slice.endpoints || labels != slice.meta.labels {
                let mut all: serde_json::Map<String, Value> =
                    strangers.into_iter().map(|k| (k.clone(), Value::Null)).collect();
                all.extend(labels.into_iter().map(|(k, v)| (k, json!(v))));
                let patch = json!({"metadata": {"labels": all}, "endpoints": endpoints});
                actions.push(Change::of(record).exact(None, patch));
            }
        }
        for chunk in left.chunks(PER_SLICE) {
            filled += 1;
            actions.push(self.create(ports, chunk));
        }
        if keep_one && filled == 0 {
            actions.push(self.create(ports, &[]));
        }
    }

    fn endpoint(&self, pod: &Pod) -> Option<Endpoint> {
        let six = self.family == "IPv6";
        let address = pod.ips.iter().find(|ip| ip.contains(':') == six)?;
        let terminating = pod.meta.is_terminating();
        let serving = pod.ready.ready;
        let ready = self.service.publish_not_ready_addresses || (serving && !terminating);
        let zone = self.view.get::<Node>("", &pod.node_name).map(|n| n.zone().to_string()).filter(|z| !z.is_empty());
        let hints = hints(&self.service.traffic_distribution, zone.as_deref(), &pod.node_name).filter(|_| ready);
        Some(Endpoint {
            addresses: vec![address.clone()],
            conditions: EndpointConditions {
                ready: Some(ready),
                serving: Some(serving),
                terminating: Some(terminating),
            },
            hostname: hostname(pod, self.service),
            target_ref: Some(target_ref(pod)),
            node_name: (!pod.node_name.is_empty()).then(|| pod.node_name.clone()),
            zone,
            hints,
        })
    }

    fn ports(&self, pod: &Pod) -> Vec<EndpointPort> {
        let port = |p: &ServicePort| {
            Some(EndpointPort {
                name: Some(p.name.clone()),
                port: Some(target_port(pod, p)?),
                protocol: Some(if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() }),
                app_protocol: p.app_protocol.clone(),
            })
        };
        let mut all: Vec<_> = self.service.ports.iter().filter_map(port).collect();
        all.sort();
        all
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.service.meta.labels.clone();
        labels.remove(HEADLESS);
        if self.service.is_headless() {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(SERVICE_NAME.into(), self.service.meta.name.clone());
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        labels
    }

    fn create(&self, ports: &[EndpointPort], endpoints: &[Endpoint]) -> Action {
        let meta = &self.service.meta;
        Action::Create {
            resource: EndpointSlice::RESOURCE,
            namespace: meta.namespace.clone(),
            object: json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "generateName": format!("{}-", meta.name),
                    "namespace": meta.namespace,
                    "labels": self.labels(),
                    "ownerReferences": [controller_reference("v1", "Service", &meta.name, &meta.uid)],
                },
                "addressType": self.family,
                "endpoints": endpoints,
                "ports": ports,
            }),
            report: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_traffic_distribution_becomes_hints() {
        let of = |distribution, zone| json!(hints(distribution, zone, "n1"));
        assert_eq!(of("", Some("a")), json!(null));
        assert_eq!(of("PreferSameZone", None), json!(null));
        assert_eq!(of("PreferClose", Some("a")), json!({"forZones": [{"name": "a"}]}));
        assert_eq!(of("PreferSameNode", Some("a")), json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]}));
    }
}
