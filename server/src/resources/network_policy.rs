//! NetworkPolicy.

use super::addresses::{cidr, port_number, port_number_or_name};
use super::age::age;
use super::findings::{Findings, all};
use super::tree::{at, child, child_of, each, fill, list_at, same};
use super::*;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use longshore_api::field::Path;
use std::net::IpAddr;

pub static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    list_kind: "NetworkPolicyList",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    type_name: "io.k8s.api.networking.v1.NetworkPolicy",
    columns: &[Column::new("Pod-Selector", "string", POD_SELECTOR), Column::AGE],
    cells: |tree, now| {
        let selector = workload::selector_query(at(tree, "/spec/podSelector")).map(|query| match query.as_str() {
            "" => "<none>".to_owned(),
            _ => query,
        });
        vec![selector.unwrap_or_else(|| "<error>".to_owned()).into(), age(tree, now)]
    },
    default,
    prepare_create: |_, tree| set_generation(tree, 1),
    prepare_update: |_, tree, old| {
        let unchanged = same(at(tree, "/spec"), at(old, "/spec"));
        count_generation(tree, old, unchanged);
    },
    validate,
    ..BASE
};

/// What the API's own documentation says of the field.
const POD_SELECTOR: &str = "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is optional. If it is not specified, it defaults to an empty selector.";

const INGRESS: &str = "Ingress";
const EGRESS: &str = "Egress";

fn default(tree: &mut Value) {
    let egress = !list_at(tree, "/spec/egress").is_empty();
    let typed = !list_at(tree, "/spec/policyTypes").is_empty();
    let Some(spec) = child(tree, "spec") else { return };
    child_of(spec, "podSelector");
    for rules in ["ingress", "egress"] {
        for rule in each(spec, rules) {
            for port in each(rule, "ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }
    // Whoever says nothing means what comes in, at least.
    if !typed {
        let types = [INGRESS, EGRESS];
        spec.insert("policyTypes".into(), types[..1 + usize::from(egress)].into());
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("spec");
    let Some(spec) = found.part::<NetworkPolicySpec>(tree, "spec") else { return found.into_errors() };
    selectors::validate(spec.pod_selector.as_ref(), &path.child("podSelector"), &mut found);
    let ingress = all(&spec.ingress).iter().map(|rule| (all(&rule.ports), all(&rule.from)));
    rules(ingress, &path.child("ingress"), "from", &mut found);
    let egress = all(&spec.egress).iter().map(|rule| (all(&rule.ports), all(&rule.to)));
    rules(egress, &path.child("egress"), "to", &mut found);
    policy_types(all(&spec.policy_types), &path.child("policyTypes"), &mut found);
    found.into_errors()
}

fn rules<'a>(
    rules: impl Iterator<Item = (&'a [NetworkPolicyPort], &'a [NetworkPolicyPeer])>,
    path: &Path,
    peers: &str,
    found: &mut Findings,
) {
    for (i, (ports, those)) in rules.enumerate() {
        let path = path.index(i);
        for (i, item) in ports.iter().enumerate() {
            port(item, &path.child("ports").index(i), found);
        }
        for (i, item) in those.iter().enumerate() {
            peer(item, &path.child(peers).index(i), found);
        }
    }
}

fn port(port: &NetworkPolicyPort, path: &Path, found: &mut Findings) {
    found.none_or_one_of(&path.child("protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
    let end = path.child("endPort");
    if let Some(port) = &port.port {
        port_number_or_name(port, &path.child("port"), found);
    }
    match (&port.port, port.end_port) {
        (_, None) => {}
        (None, Some(last)) => found.invalid(&end, last, "may not be specified when `port` is not specified"),
        (Some(IntOrString::String(_)), Some(last)) => {
            found.invalid(&end, last, "may not be specified when `port` is non-numeric");
        }
        (Some(IntOrString::Int(first)), Some(last)) => {
            if last < *first {
                found.invalid(&end, last, "must be greater than or equal to `port`");
            }
            port_number(last, &end, found);
        }
    }
}

fn peer(peer: &NetworkPolicyPeer, path: &Path, found: &mut Findings) {
    selectors::validate(peer.pod_selector.as_ref(), &path.child("podSelector"), found);
    selectors::validate(peer.namespace_selector.as_ref(), &path.child("namespaceSelector"), found);
    if let Some(block) = &peer.ip_block {
        ip_block(block, &path.child("ipBlock"), found);
    }
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        None if !selects => found.required(path, "must specify a peer"),
        Some(_) if selects => found.forbidden(path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(block: &IPBlock, path: &Path, found: &mut Findings) {
    if block.cidr.is_empty() {
        found.required(&path.child("cidr"), "");
        return;
    }
    let Some(range) = cidr(&block.cidr, &path.child("cidr"), found) else { return };
    for (i, text) in all(&block.except).iter().enumerate() {
        let path = path.child("except").index(i);
        let except = cidr(text, &path, found);
        if except.is_some_and(|except| !is_strict_subset(except, range)) {
            found.invalid(&path, text.as_str(), "must be a strict subset of `cidr`");
        }
    }
}

fn is_strict_subset((inner, inner_bits): (IpAddr, u8), (outer, bits): (IpAddr, u8)) -> bool {
    let beginning = |ip: u128, width: u32| ip.checked_shr(width.saturating_sub(bits.into())).unwrap_or_default();
    let within = match (inner, outer) {
        (IpAddr::V4(inner), IpAddr::V4(outer)) => {
            beginning(u32::from(inner).into(), 32) == beginning(u32::from(outer).into(), 32)
        }
        (IpAddr::V6(inner), IpAddr::V6(outer)) => beginning(inner.into(), 128) == beginning(outer.into(), 128),
        _ => false,
    };
    within && bits < inner_bits
}

fn policy_types(types: &[String], path: &Path, found: &mut Findings) {
    if types.len() > 2 {
        found.invalid(path, types, "may not specify more than two policyTypes");
        return;
    }
    for (i, kind) in types.iter().enumerate() {
        if ![INGRESS, EGRESS].contains(&kind.as_str()) {
            found.not_supported(&path.index(i), kind.as_str(), &[INGRESS, EGRESS]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(spec: Value) -> Vec<String> {
        let mut tree = json!({"metadata": {"name": "p"}, "spec": spec});
        default(&mut tree);
        validate(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_said_is_filled_in() {
        let of = |spec: Value| {
            let mut tree = json!({"metadata": {}, "spec": spec});
            default(&mut tree);
            tree["spec"].clone()
        };
        assert_eq!(of(Value::Null), json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
        let said = of(json!({"egress": [{"ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]}]}));
        assert_eq!(said["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(
            said["egress"][0]["ports"],
            json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}])
        );
        assert_eq!(of(json!({"policyTypes": ["Egress"], "egress": []}))["policyTypes"], json!(["Egress"]));
    }

    #[test]
    fn says_what_is_wrong_with_ports_as_kubernetes_does() {
        let ports = json!([
            {"port": 0}, {"protocol": "ICMP"}, {"port": 80, "endPort": 79}, {"port": 80, "endPort": 70_000},
            {"port": "http", "endPort": 80}, {"endPort": 80}, {"port": "UP"},
        ]);
        assert_eq!(
            wrong(json!({"ingress": [{"ports": ports}]})),
            [
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[0].ports[1].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.ingress[0].ports[2].endPort: Invalid value: 79: must be greater than or equal to `port`",
                "spec.ingress[0].ports[3].endPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ingress[0].ports[4].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
                "spec.ingress[0].ports[5].endPort: Invalid value: 80: may not be specified when `port` is not specified",
                "spec.ingress[0].ports[6].port: Invalid value: \"UP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "spec.ingress[0].ports[6].port: Invalid value: \"UP\": must contain at least one letter (a-z)",
            ]
        );
    }

    #[test]
    fn says_what_is_wrong_with_peers_as_kubernetes_does() {
        let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
        let peers = json!([
            {}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}, block("", &[]), block("10.0.0.0", &[]),
            block("10.0.0.0/8", &["10.1.0.0/16", "11.0.0.0/16", "10.0.0.0/8", "x"]), block("::/0", &["fd00::/8"]),
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
        ]);
        assert_eq!(
            wrong(json!({"egress": [{"to": peers}], "policyTypes": ["Egress", "Both"]})),
            [
                "spec.egress[0].to[0]: Required value: must specify a peer",
                "spec.egress[0].to[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.egress[0].to[2].ipBlock.cidr: Required value",
                "spec.egress[0].to[3].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "spec.egress[0].to[4].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.egress[0].to[4].ipBlock.except[2]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                "spec.egress[0].to[4].ipBlock.except[3]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "spec.egress[0].to[6].namespaceSelector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
                "spec.policyTypes[1]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\"",
            ]
        );
        let many = wrong(json!({"policyTypes": ["Egress", "Ingress", "Egress"]}));
        assert!(many[0].ends_with("may not specify more than two policyTypes"), "{many:?}");
    }

    #[test]
    fn shows_whom_it_selects() {
        let shown = |selector: Value| {
            (RESOURCE.cells)(&json!({"spec": {"podSelector": selector}}), jiff::Timestamp::UNIX_EPOCH)[0].clone()
        };
        assert_eq!(shown(json!({})), json!("<none>"));
        assert_eq!(shown(json!({"matchLabels": {"b": "1", "a": "2"}})), json!("a=2,b=1"));
    }
}
