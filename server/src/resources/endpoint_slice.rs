//! EndpointSlice.

use super::addresses::{PROTOCOLS, endpoint_ip};
use super::age::age;
use super::findings::{Findings, all, text};
use super::labels::labels;
use super::tree::{at, each, fill, int_at, list_at, same, str_at};
use super::*;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use longshore_api::field::Path;
use longshore_api::names;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub static RESOURCE: Resource = Resource {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    list_kind: "EndpointSliceList",
    plural: "endpointslices",
    singular: "endpointslice",
    type_name: "io.k8s.api.discovery.v1.EndpointSlice",
    columns: &[
        Column::new(
            "AddressType",
            "string",
            "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice must be the same type. This field is immutable after creation. The following address types are currently supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: Represents a Fully Qualified Domain Name.",
        ),
        Column::new(
            "Ports",
            "string",
            "ports specifies the list of network ports exposed by each endpoint in this slice. Each port must have a unique name. When ports is empty, it indicates that there are no defined ports. When a port is defined with a nil port value, it indicates \"all ports\". Each slice may include a maximum of 100 ports.",
        ),
        Column::new(
            "Endpoints",
            "string",
            "endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 endpoints.",
        ),
        Column::AGE,
    ],
    cells,
    default,
    prepare_create: |_, tree| set_generation(tree, 1),
    prepare_update: |_, tree, old| {
        let labels = same(at(tree, "/metadata/labels"), at(old, "/metadata/labels"));
        let rest = ["/addressType", "/endpoints", "/ports"].iter().all(|p| same(at(tree, p), at(old, p)));
        count_generation(tree, old, labels && rest);
    },
    validate,
    validate_update,
    ..BASE
};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;

fn cells(tree: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let ports = list_at(tree, "/ports").iter().map(|port| match (int_at(port, "/port"), str_at(port, "/name")) {
        (0, "") => "*".to_string(),
        (0, name) => name.to_string(),
        (number, _) => number.to_string(),
    });
    let addresses = list_at(tree, "/endpoints").iter().flat_map(|e| list_at(e, "/addresses"));
    vec![
        str_at(tree, "/addressType").into(),
        shown(ports.collect()).into(),
        shown(addresses.map(|a| a.as_str().unwrap_or_default().to_string()).collect()).into(),
        age(tree, now),
    ]
}

fn shown(list: Vec<String>) -> String {
    match list.len() {
        0 => "<unset>".to_string(),
        1..=endpoints::SHOWN => list.join(","),
        many => format!("{} + {} more...", list[..endpoints::SHOWN].join(","), many - endpoints::SHOWN),
    }
}

fn default(tree: &mut Value) {
    let Some(map) = tree.as_object_mut() else { return };
    for port in each(map, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let kind = str_at(tree, "/addressType");
    found.one_of(&Path::new("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    let endpoints = found.part::<Vec<Endpoint>>(tree, "endpoints").unwrap_or_default();
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        found.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
    } else {
        for (i, item) in endpoints.iter().enumerate() {
            endpoint(item, kind, &path.index(i), &mut found);
        }
    }
    let ports = found.part::<Vec<EndpointPort>>(tree, "ports").unwrap_or_default();
    validate_ports(&ports, &Path::new("ports"), &mut found);
    found.into_errors()
}

fn endpoint(endpoint: &Endpoint, kind: &str, path: &Path, found: &mut Findings) {
    let addresses = path.child("addresses");
    match endpoint.addresses.len() {
        0 => found.required(&addresses, "must contain at least 1 address"),
        1..=MAX_ADDRESSES => {}
        many => found.too_many(&addresses, many, MAX_ADDRESSES),
    }
    for (i, value) in endpoint.addresses.iter().enumerate() {
        address(value, kind, &addresses.index(i), found);
    }
    if let Some(node) = &endpoint.node_name {
        found.each(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    let topology = endpoint.deprecated_topology.as_ref();
    if topology.is_some_and(|t| t.len() > MAX_TOPOLOGY) {
        found.too_many(&path.child("deprecatedTopology"), topology.map_or(0, |t| t.len()), MAX_TOPOLOGY);
    }
    labels(topology, &path.child("deprecatedTopology"), found);
    if topology.is_some_and(|t| t.contains_key("topology.kubernetes.io/zone")) {
        let path = path.child("deprecatedTopology").key("topology.kubernetes.io/zone");
        found.invalid(&path, Value::Null, "reserved key was set in deprecatedTopology");
    }
    if let Some(name) = &endpoint.hostname {
        found.each(&path.child("hostname"), name, names::dns1123_label(name));
    }
    let zones = endpoint.hints.as_ref().map(|h| all(&h.for_zones)).unwrap_or_default();
    let path = path.child("hints").child("forZones");
    if zones.len() > MAX_HINTS {
        found.too_many(&path, zones.len(), MAX_HINTS);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, zone) in zones.iter().enumerate() {
        let path = path.index(i).child("name");
        if seen.insert(&zone.name) {
            found.each(&path, &zone.name, names::label_value(&zone.name));
        } else {
            found.duplicate(&path, zone.name.as_str());
        }
    }
}

fn address(value: &str, kind: &str, path: &Path, found: &mut Findings) {
    let ip = value.parse::<IpAddr>().ok();
    match kind {
        "IPv4" if !ip.is_some_and(|ip| ip.is_ipv4()) => found.invalid(path, value, "must be a valid IPv4 address"),
        "IPv6" if !ip.is_some_and(|ip| ip.is_ipv6()) => found.invalid(path, value, "must be a valid IPv6 address"),
        "IPv4" | "IPv6" => endpoint_ip(value, path, found),
        "FQDN" => {
            let name = value.strip_suffix('.').unwrap_or(value);
            let wrong = names::dns1123_subdomain(name);
            if name.is_empty() {
                found.required(path, "");
            } else if !wrong.is_empty() {
                found.invalid(path, name, wrong.join(","));
            } else if !name.contains('.') {
                found.invalid(path, name, "should be a domain with at least two segments separated by dots");
            }
        }
        _ => {}
    }
}

fn validate_ports(ports: &[EndpointPort], path: &Path, found: &mut Findings) {
    if ports.len() > MAX_PORTS {
        found.too_many(path, ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            found.each(&path.child("name"), name, names::dns1123_label(name));
        }
        if !seen.insert(name) {
            found.duplicate(&path.child("name"), name);
        }
        if let Some(number) = port.port {
            super::addresses::port_number(number, &path.child("port"), found);
        }
        found.one_of(&path.child("protocol"), text(&port.protocol), &PROTOCOLS);
        if let Some(protocol) = &port.app_protocol {
            found.each(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let (new, was) = (str_at(tree, "/addressType"), str_at(old, "/addressType"));
    found.immutable(&Path::new("addressType"), &new, &was, new);
    found.into_errors()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_ports_and_addresses() {
        let slice = json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "all"}, {}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2", "10.0.0.3", "10.0.0.4"]}]});
        let got = cells(&slice, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(got[..3], [json!("IPv4"), json!("80,all,*"), json!("10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...")]);
        let got = cells(&json!({"addressType": "IPv4"}), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(got[1..3], [json!("<unset>"), json!("<unset>")]);
    }

    #[test]
    fn judges_addresses_by_their_type() {
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fe80::1"]}, {"addresses": []}],
            "ports": [{"name": "a", "port": 0, "protocol": "TCP"}, {"name": "a", "protocol": "ICMP"}]});
        let got: Vec<_> = validate(&slice).iter().map(ToString::to_string).collect();
        assert_eq!(
            got,
            [
                "endpoints[0].addresses[0]: Invalid value: \"fe80::1\": must be a valid IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
                "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "ports[1].name: Duplicate value: \"a\"",
                "ports[1].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ]
        );
    }
}
