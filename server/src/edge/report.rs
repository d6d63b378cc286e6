//! What Ingresses are told: where they are found, and what is wrong with them.

use super::Room;
use super::hosts::Settled;
use super::part::{INGRESSES, Part};
use crate::apiserver::patch::PatchKind;
use crate::apiserver::{Api, Context, Patch, PatchOptions};
use crate::cluster::Recorder;
use crate::resources::registry;
use crate::store::Cluster;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use longshore_api::network::Name;
use longshore_control::{Event, EventType, ObjectKey};
use longshore_edge::host::Host;
use longshore_edge::ingress::Compiled;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

const COMPONENT: &str = "longshore-edge";

/// Something that is wrong with an Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Finding {
    pub ingress: Name,
    pub reason: &'static str,
    pub message: String,
}

impl Finding {
    pub fn new(ingress: Name, reason: &'static str, message: &str) -> Self {
        Self { ingress, reason, message: message.to_owned() }
    }
}

/// `status.loadBalancer.ingress` for an edge that is found under these addresses or names, at these ports.
pub(super) fn addresses(addresses: &[String], ports: &[Option<u16>]) -> Value {
    let ports: Vec<Value> = ports.iter().flatten().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
    let told = addresses.iter().map(|address| match address.parse::<IpAddr>() {
        Ok(ip) => json!({"ip": ip, "ports": ports}),
        Err(_) => json!({"hostname": address, "ports": ports}),
    });
    told.collect()
}

/// The hosts of an Ingress's rules; any, where it has a default or a rule without a host.
pub(super) fn hosts_of(ingress: &Ingress) -> BTreeSet<Host> {
    let spec = ingress.spec.as_ref();
    let rules = spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    let mut hosts: BTreeSet<Host> =
        rules.filter_map(|rule| Host::parse(rule.host.as_deref().unwrap_or_default())).collect();
    if hosts.is_empty() && spec.is_some_and(|spec| spec.default_backend.is_some()) {
        hosts.insert(Host::Any);
    }
    hosts
}

pub(super) struct Reporter {
    api: Api,
    cluster: Arc<Cluster>,
    addresses: Value,
    recorder: Recorder,
    /// What was said already.
    told: Mutex<HashSet<Finding>>,
}

impl Reporter {
    pub fn new(room: &Room, cluster: &Arc<Cluster>) -> Self {
        let (recorder, writing) = crate::cluster::recorder(room.api.clone(), cluster.clone());
        tokio::spawn(writing);
        let (api, addresses) = (room.api.clone(), room.addresses.clone());
        Self { api, cluster: cluster.clone(), addresses, recorder, told: Mutex::default() }
    }

    /// The whole state: what was wrong and isn't any more is forgotten, and told again if it comes back.
    pub async fn report(&self, part: &Part, compiled: &Compiled, settled: &Settled, wrong: Vec<Finding>) {
        let now: HashSet<Finding> = wrong.iter().cloned().collect();
        self.told.lock().retain(|finding| now.contains(finding));
        wrong.into_iter().for_each(|finding| self.tell(part, finding));
        for (name, ingress) in part.ingresses().filter(|(name, _)| compiled.ours.contains(name)) {
            let served = compiled.served.contains(name) && !hosts_of(ingress).is_disjoint(&settled.granted);
            self.address(name, ingress, served).await;
        }
    }

    /// An event, unless it was told.
    pub fn tell(&self, part: &Part, finding: Finding) {
        let Some(ingress) = part.ingress(&finding.ingress) else { return };
        if !self.told.lock().insert(finding.clone()) {
            return;
        }
        let uid = ingress.metadata.uid.clone().unwrap_or_default();
        let about = ObjectKey::new(INGRESSES, &finding.ingress.namespace, &finding.ingress.name);
        let Finding { reason, message, .. } = finding;
        self.recorder.record(Event { about, uid, kind: EventType::Warning, reason, message, component: COMPONENT });
    }

    async fn address(&self, name: &Name, ingress: &Ingress, served: bool) {
        let told = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let told = told.and_then(|balancer| balancer.ingress.as_ref());
        let told = serde_json::to_value(told.map(Vec::as_slice).unwrap_or_default()).unwrap_or_default();
        let wanted = if served { self.addresses.clone() } else { json!([]) };
        if told == wanted {
            return;
        }
        let Some(resource) = registry().by_name(INGRESSES) else { return };
        let cx = Context::system(self.cluster.clone(), COMPONENT, Timestamp::now());
        let body = json!({"status": {"loadBalancer": {"ingress": wanted}}}).to_string();
        let patch = Patch { kind: PatchKind::Merge, body: body.as_bytes() };
        let options = PatchOptions::default();
        let written = self.api.patch(&cx, resource, &name.namespace, &name.name, Some("status"), patch, &options).await;
        if let Err(status) = written {
            tracing::debug!(ingress = ?name, "the status of an Ingress was not written: {}", status.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_an_address_or_a_name_with_its_ports() {
        let told = addresses(&["192.0.2.1".into(), "edge.example".into()], &[Some(80), None]);
        let ports = json!([{"port": 80, "protocol": "TCP"}]);
        assert_eq!(told, json!([{"ip": "192.0.2.1", "ports": ports}, {"hostname": "edge.example", "ports": ports}]));
    }
}
