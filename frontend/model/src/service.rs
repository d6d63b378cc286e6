//! Whether a Service has somebody behind it.

use crate::kube::{EndpointSlice, Service};
use crate::state::{Action, Sentence, State};
use crate::words::{Word, t};
use std::sync::Arc;

/// One address behind a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    pub address: String,
    pub ports: String,
    pub pod: Option<(String, String)>,
    pub node: String,
    pub ready: bool,
    pub terminating: bool,
}

/// All addresses of all slices, in order.
pub fn backends(slices: &[Arc<EndpointSlice>]) -> Vec<Backend> {
    let mut all = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().filter_map(|p| p.port).map(|p| p.to_string()).collect::<Vec<_>>().join(", ");
        for endpoint in &slice.endpoints {
            let target = &endpoint.target_ref;
            for address in &endpoint.addresses {
                all.push(Backend {
                    address: address.clone(),
                    ports: ports.clone(),
                    pod: (target.kind == "Pod").then(|| (target.namespace.clone(), target.name.clone())),
                    node: endpoint.node_name.clone(),
                    // Absent means ready, by the API's own words.
                    ready: endpoint.conditions.ready.unwrap_or(true),
                    terminating: endpoint.conditions.terminating.unwrap_or(false),
                });
            }
        }
    }
    all.sort();
    all
}

pub fn sentence(service: &Service, slices: Option<&[Arc<EndpointSlice>]>) -> Sentence {
    if service.spec.r#type == "ExternalName" {
        return Sentence::new(State::Idle, Word::ServiceExternal.with(&[("name", &service.spec.external_name)]));
    }
    let Some(slices) = slices else { return Sentence::new(State::Unknown, t(Word::Loading)) };
    let backends = backends(slices);
    let ready = backends.iter().filter(|b| b.ready).count();
    match (ready, backends.len()) {
        (0, 0) if service.spec.selector.is_empty() => Sentence::new(State::Idle, t(Word::ServiceNoSelector)),
        (0, 0) => {
            Sentence::new(State::Failing, t(Word::ServiceNobody)).next(Word::NextSelector, Some(Action::EditYaml))
        }
        (0, all) => Sentence::new(State::Failing, Word::ServiceNoneReady.with(&[("all", &all)]))
            .next(Word::NextLookAtPods, Some(Action::ShowPods)),
        (ready, all) if ready == all => Sentence::new(
            State::Good,
            Word::ServiceServing.with(&[("ready", &crate::words::plural(Word::Endpoints, ready as i64))]),
        ),
        (ready, all) => Sentence::new(State::Degraded, Word::ServicePartly.with(&[("ready", &ready), ("all", &all)])),
    }
}

/// `80 → 8080/TCP (http)` for each port.
pub fn ports(service: &Service) -> Vec<String> {
    let port = |p: &crate::kube::ServicePort| {
        let target = match &p.target_port {
            Some(serde_json::Value::String(name)) => format!(" → {name}"),
            Some(serde_json::Value::Number(n)) if n.as_i64() != Some(p.port) => format!(" → {n}"),
            _ => String::new(),
        };
        let node = p.node_port.filter(|n| *n > 0).map(|n| format!(":{n}")).unwrap_or_default();
        let protocol = if p.protocol.is_empty() { "TCP" } else { &p.protocol };
        let name = if p.name.is_empty() { String::new() } else { format!(" ({})", p.name) };
        format!("{}{node}{target}/{protocol}{name}", p.port)
    };
    service.spec.ports.iter().map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        Read::read(&json!({"metadata": {"name": "s"}, "spec": spec}))
    }
    fn slice(ready: &[Value]) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = ready
            .iter()
            .enumerate()
            .map(|(n, r)| json!({"addresses": [format!("10.0.0.{n}")], "conditions": {"ready": r}}))
            .collect();
        Arc::new(Read::read(&json!({"endpoints": endpoints, "ports": [{"port": 80}]})))
    }

    #[test]
    fn says_how_many_answer() {
        let web = service(json!({"selector": {"app": "web"}}));
        let state = |slices: &[Arc<EndpointSlice>]| sentence(&web, Some(slices)).state;
        assert_eq!(sentence(&web, None).state, State::Unknown);
        assert_eq!(state(&[]), State::Failing);
        assert_eq!(state(&[slice(&[json!(true), Value::Null])]), State::Good);
        assert_eq!(state(&[slice(&[json!(true)]), slice(&[json!(false)])]), State::Degraded);
        assert_eq!(state(&[slice(&[json!(false)])]), State::Failing);
        assert_eq!(sentence(&service(json!({})), Some(&[])).state, State::Idle);
    }

    #[test]
    fn ports_read_left_to_right() {
        let service = service(
            json!({"ports": [{"port": 80, "targetPort": "http", "protocol": "TCP", "name": "web"}, {"port": 53, "targetPort": 53, "protocol": "UDP", "nodePort": 30053}]}),
        );
        assert_eq!(ports(&service), ["80 → http/TCP (web)", "53:30053/UDP"]);
    }
}
