//! What Ingresses and Services are told: where they are found, and what is wrong with them.

use super::Room;
use super::ports::EdgePort;
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
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

const COMPONENT: &str = "longshore-edge";

/// Something that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Finding {
    pub object: Name,
    pub reason: &'static str,
    pub message: String,
}

impl Finding {
    pub fn new(object: Name, reason: &'static str, message: &str) -> Self {
        Self { object, reason, message: message.to_owned() }
    }
}

/// One of `status.loadBalancer.ingress`: an address or a name, and the ports that are open there.
pub(super) fn address(text: &str, ports: impl IntoIterator<Item = EdgePort>) -> Value {
    let ports = ports.into_iter().map(|EdgePort { number, protocol }| json!({"port": number, "protocol": protocol}));
    let ports: Vec<Value> = ports.collect();
    match text.parse::<IpAddr>() {
        Ok(ip) => json!({"ip": ip, "ports": ports}),
        Err(_) => json!({"hostname": text, "ports": ports}),
    }
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

/// Tells objects of one kind in one cluster.
pub(super) struct Reporter {
    api: Api,
    cluster: Arc<Cluster>,
    resource: &'static str,
    recorder: Recorder,
    /// What was said already.
    told: Mutex<HashSet<Finding>>,
}

impl Reporter {
    pub fn new(room: &Room, cluster: &Arc<Cluster>, resource: &'static str) -> Self {
        let (recorder, writing) = crate::cluster::recorder(room.api.clone(), cluster.clone());
        tokio::spawn(writing);
        Self { api: room.api.clone(), cluster: cluster.clone(), resource, recorder, told: Mutex::default() }
    }

    /// All that is wrong now: what isn't any more is forgotten, and told again if it comes back. `uid`: of an object that
    /// is there.
    pub fn tell_all(&self, wrong: Vec<Finding>, uid: impl Fn(&Name) -> Option<String>) {
        let now: HashSet<Finding> = wrong.iter().cloned().collect();
        self.told.lock().retain(|finding| now.contains(finding));
        wrong.into_iter().for_each(|finding| self.tell(finding, &uid));
    }

    /// An event, unless it was told.
    pub fn tell(&self, finding: Finding, uid: impl Fn(&Name) -> Option<String>) {
        let Some(uid) = uid(&finding.object) else { return };
        if !self.told.lock().insert(finding.clone()) {
            return;
        }
        let about = ObjectKey::new(self.resource, &finding.object.namespace, &finding.object.name);
        let Finding { reason, message, .. } = finding;
        self.recorder.record(Event { about, uid, kind: EventType::Warning, reason, message, component: COMPONENT });
    }

    /// Makes `wanted` what `status.loadBalancer.ingress` tells, which is `told` now.
    pub async fn address(&self, name: &Name, told: &Value, wanted: Value) {
        if *told == wanted {
            return;
        }
        let Some(resource) = registry().by_name(self.resource) else { return };
        let cx = Context::system(self.cluster.clone(), COMPONENT, Timestamp::now());
        let body = json!({"status": {"loadBalancer": {"ingress": wanted}}}).to_string();
        let patch = Patch { kind: PatchKind::Merge, body: body.as_bytes() };
        let options = PatchOptions::default();
        let written = self.api.patch(&cx, resource, &name.namespace, &name.name, Some("status"), patch, &options).await;
        if let Err(status) = written {
            tracing::debug!(object = ?name, "the address of {} was not written: {}", self.resource, status.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_an_address_or_a_name_with_its_ports() {
        let ports = json!([{"port": 80, "protocol": "TCP"}]);
        let address = |text: &str| address(text, [EdgePort::tcp(80)]);
        assert_eq!(address("192.0.2.1"), json!({"ip": "192.0.2.1", "ports": ports}));
        assert_eq!(address("edge.example"), json!({"hostname": "edge.example", "ports": ports}));
    }
}
