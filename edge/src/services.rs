//! From a Service's port to the endpoints behind it, by the shapes of the network map.

use crate::model::Port;
use longshore_api::network::{Endpoints, Protocol, Service};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Where a backend's traffic goes: an address of a pod, and the node it is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub node: String,
}

/// The ready endpoints behind a Service's port, or, where none is ready, those that end and still serve. `slices` are those of
/// the Service. None where it has no such TCP port.
pub fn targets<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a Endpoints>,
    port: &Port,
) -> Option<BTreeSet<Target>> {
    let mut ports = service.ports.iter().filter(|p| p.protocol == Protocol::Tcp);
    let port = ports.find(|p| match port {
        Port::Number(number) => p.port == *number,
        Port::Name(name) => p.name == *name,
    })?;
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let Some(target) = slice.ports.iter().find(|p| p.name == port.name && p.protocol == Protocol::Tcp) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let at = Target { address: SocketAddr::new(endpoint.address, target.port), node: endpoint.node.clone() };
            if endpoint.ready {
                ready.insert(at);
            } else if endpoint.serving && endpoint.terminating {
                ending.insert(at);
            }
        }
    }
    Some(if ready.is_empty() { ending } else { ready })
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
            let targets = targets(&service, slices, &port)?;
            Some(targets.into_iter().map(|t| format!("{} {}", t.address, t.node)).collect::<Vec<_>>())
        };
        let both = [slice(json!([ending, starting])), slice(json!([ready]))];
        assert_eq!(found(&both, Port::Number(80)), Some(vec!["10.0.0.1:8080 n1".into()]));
        assert_eq!(found(&both[..1], Port::Name("http".into())), Some(vec!["10.0.0.2:8080 n2".into()]));
        assert_eq!(found(&[], Port::Number(80)), Some(vec![]));
        assert_eq!(found(&both, Port::Name("dns".into())), None);
        assert_eq!(found(&both, Port::Number(8080)), None);
    }
}
