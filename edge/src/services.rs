//! From a Service's port to the endpoints behind it, by the shapes of the network map.

use crate::model::{self, Port};
use longshore_api::network::{Endpoints, Protocol, Service};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Where a backend's traffic goes: an address of a pod, and the node it is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub node: String,
}

/// What is behind a Service's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// The ready endpoints, or, where none is ready, those that end and still serve.
    pub targets: BTreeSet<Target>,
    /// Every endpoint that there is, in whatever state: a tunnel to one that gets no new requests goes on.
    pub standing: BTreeSet<Target>,
    /// What they speak, where the Service says so.
    pub protocol: Option<model::Protocol>,
    /// A client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub sticky: bool,
}

/// By a Service's `appProtocol`.
fn spoken(app_protocol: &str) -> Option<model::Protocol> {
    match app_protocol {
        "http" | "kubernetes.io/ws" => Some(model::Protocol::Http),
        "https" | "kubernetes.io/wss" => Some(model::Protocol::Https),
        "kubernetes.io/h2c" | "h2c" | "grpc" => Some(model::Protocol::H2c),
        "grpcs" => Some(model::Protocol::H2),
        _ => None,
    }
}

/// `slices` are those of the Service. None where it has no such port.
pub fn behind<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a Endpoints>,
    port: &Port,
    protocol: Protocol,
) -> Option<Behind> {
    let mut ports = service.ports.iter().filter(|p| p.protocol == protocol);
    let port = ports.find(|p| match port {
        Port::Number(number) => p.port == *number,
        Port::Name(name) => p.name == *name,
    })?;
    let (mut ready, mut ending, mut standing) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let Some(target) = slice.ports.iter().find(|p| p.name == port.name && p.protocol == protocol) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let at = Target { address: SocketAddr::new(endpoint.address, target.port), node: endpoint.node.clone() };
            standing.insert(at.clone());
            if endpoint.ready {
                ready.insert(at);
            } else if endpoint.serving && endpoint.terminating {
                ending.insert(at);
            }
        }
    }
    let mut targets = if ready.is_empty() { ending } else { ready };
    // A pod with addresses of both families is one endpoint.
    if targets.iter().any(|target| target.address.is_ipv4()) {
        targets.retain(|target| target.address.is_ipv4());
    }
    Some(Behind { targets, standing, protocol: spoken(&port.app_protocol), sticky: service.affinity_seconds.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_leads_to_what_is_ready_behind_its_name() {
        let service: Service = serde_json::from_value(json!({"namespace": "a", "name": "web", "ports": [
            {"name": "dns", "protocol": "UDP", "port": 80}, {"name": "http", "protocol": "TCP", "port": 80}]}))
        .unwrap();
        let slice = |endpoints| -> Endpoints {
            serde_json::from_value(json!({"namespace": "a", "name": "s", "service": "web", "endpoints": endpoints,
                "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]}))
            .unwrap()
        };
        let ending = json!({"address": "10.0.0.2", "serving": true, "terminating": true, "node": "n2"});
        let ready = json!({"address": "10.0.0.1", "ready": true, "serving": true, "node": "n1"});
        let starting = json!({"address": "10.0.0.3", "node": "n3"});
        let found = |slices: &[Endpoints], port: Port| {
            let behind = behind(&service, slices, &port, Protocol::Tcp)?;
            Some(behind.targets.into_iter().map(|t| format!("{} {}", t.address, t.node)).collect::<Vec<_>>())
        };
        let both = [slice(json!([ending, starting])), slice(json!([ready]))];
        assert_eq!(found(&both, Port::Number(80)), Some(vec!["10.0.0.1:8080 n1".into()]));
        let six = slice(json!([{"address": "fd00::1", "ready": true, "serving": true, "node": "n1"}]));
        assert_eq!(found(std::slice::from_ref(&six), Port::Number(80)), Some(vec!["[fd00::1]:8080 n1".into()]));
        assert_eq!(found(&[six, both[1].clone()], Port::Number(80)), Some(vec!["10.0.0.1:8080 n1".into()]));
        assert_eq!(found(&both[..1], Port::Name("http".into())), Some(vec!["10.0.0.2:8080 n2".into()]));
        let standing = behind(&service, &both, &Port::Number(80), Protocol::Tcp).unwrap().standing;
        let standing: Vec<_> = standing.into_iter().map(|target| target.node).collect();
        assert_eq!(standing, ["n1", "n2", "n3"]);
        assert_eq!(found(&[], Port::Number(80)), Some(vec![]));
        assert_eq!(found(&both, Port::Name("dns".into())), None);
        assert_eq!(found(&both, Port::Number(8080)), None);
    }

    #[test]
    fn a_service_says_what_is_spoken_and_who_stays() {
        let of = |app_protocol: &str, affinity: Option<u32>| {
            let port = json!({"protocol": "TCP", "port": 80, "appProtocol": app_protocol});
            let service: Service = serde_json::from_value(
                json!({"namespace": "a", "name": "web", "ports": [port], "affinitySeconds": affinity}),
            )
            .unwrap();
            let found = behind(&service, &[], &Port::Number(80), Protocol::Tcp).unwrap();
            (found.protocol, found.sticky)
        };
        assert_eq!(of("", None), (None, false));
        assert_eq!(of("kubernetes.io/h2c", Some(10)), (Some(model::Protocol::H2c), true));
        assert_eq!(of("mysql", None), (None, false));
    }
}
