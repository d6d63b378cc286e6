//! NetworkPolicies as nodes are told of them, and what the sets are of that they name.

use super::{Namespaces, SetId, Wanted};
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Written;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use longshore_api::network::{Name, Protocol};
use longshore_api::network_policy::{Peer, Policy, Port, Rule};
use longshore_api::selector::{LabelSelector, Requirement, SpecRequirement, SpecSelector};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

type Sets = BTreeMap<SetId, Wanted>;

/// The policy, and its sets.
pub fn policy(name: Name, spec: NetworkPolicySpec) -> (Policy, Sets) {
    let mut sets = Sets::new();
    let types = spec.policy_types.unwrap_or_default();
    let isolates = |kind: &str| types.iter().any(|t| t == kind);
    let (comes_in, goes_out) = (isolates("Ingress"), isolates("Egress"));
    let ingress = spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports));
    let egress = spec.egress.unwrap_or_default().into_iter().map(|rule| (rule.to, rule.ports));
    let mut rules = |(those, ports)| rule(&name.namespace, those, ports, &mut sets);
    let policy = Policy {
        ingress: comes_in.then(|| ingress.map(&mut rules).collect()),
        egress: goes_out.then(|| egress.map(&mut rules).collect()),
        selector: selector(spec.pod_selector.unwrap_or_default()),
        namespace: name.namespace,
        name: name.name,
    };
    (policy, sets)
}

/// Lists that are empty are as good as none: anybody, any port.
fn rule(
    namespace: &str,
    peers: Option<Vec<NetworkPolicyPeer>>,
    ports: Option<Vec<NetworkPolicyPort>>,
    sets: &mut Sets,
) -> Rule {
    let mut named = |wanted: Wanted| {
        let id = id(&wanted);
        sets.insert(id.clone(), wanted);
        id.to_string()
    };
    let peers = peers.filter(|list| !list.is_empty());
    let peers = peers.map(|list| list.into_iter().filter_map(|p| peer(namespace, p, &mut named)).collect());
    let ports = ports.filter(|list| !list.is_empty());
    let ports = ports.map(|list| list.into_iter().filter_map(|p| port(p, &mut named)).collect());
    Rule { peers, ports }
}

fn peer(namespace: &str, peer: NetworkPolicyPeer, named: &mut impl FnMut(Wanted) -> String) -> Option<Peer> {
    if let Some(block) = peer.ip_block {
        return Some(Peer::Block { range: block.cidr, except: block.except.unwrap_or_default() });
    }
    let namespaces = match peer.namespace_selector {
        None => Namespaces::One(namespace.to_owned()),
        Some(labelled) => Namespaces::Labelled(compiled(labelled)?),
    };
    let pods = compiled(peer.pod_selector.unwrap_or_default())?;
    Some(Peer::Pods(named(Wanted::Pods { namespaces, pods })))
}

fn port(port: NetworkPolicyPort, named: &mut impl FnMut(Wanted) -> String) -> Option<Port> {
    let protocol = protocol(port.protocol.as_deref().unwrap_or("TCP"))?;
    Some(match port.port {
        None => Port::Any(protocol),
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(first);
            Port::Range(protocol, u16::try_from(first).ok()?, u16::try_from(last).ok()?)
        }
        Some(IntOrString::String(name)) => Port::Named(protocol, named(Wanted::Port { protocol, name })),
    })
}

pub fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn selector(selector: Written) -> SpecSelector {
    let requirement = |r: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement| SpecRequirement {
        key: r.key,
        operator: r.operator,
        values: r.values.unwrap_or_default(),
    };
    SpecSelector {
        match_labels: selector.match_labels.unwrap_or_default(),
        match_expressions: selector.match_expressions.unwrap_or_default().into_iter().map(requirement).collect(),
    }
}

/// In an order of its own, so that who means the same says the same.
fn compiled(written: Written) -> Option<LabelSelector> {
    let LabelSelector(mut all) = selector(written).compile().ok()?;
    for requirement in &mut all {
        if let Requirement::In(_, values) | Requirement::NotIn(_, values) = requirement {
            values.sort();
            values.dedup();
        }
    }
    all.sort_by_cached_key(|requirement| LabelSelector(vec![requirement.clone()]).to_string());
    all.dedup();
    Some(LabelSelector(all))
}

/// The same on every replica, before and after a restart.
fn id(wanted: &Wanted) -> SetId {
    let text = match wanted {
        Wanted::Pods { namespaces: Namespaces::One(one), pods } => format!("pods in {one} of {pods}"),
        Wanted::Pods { namespaces: Namespaces::Labelled(selector), pods } => {
            format!("pods in all of {selector} of {pods}")
        }
        Wanted::Port { protocol, name } => format!("port {protocol:?} {name}"),
    };
    hex::encode(&Sha256::digest(text)[..10]).into()
}
