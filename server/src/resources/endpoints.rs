//! Endpoints: the older shape of a Service's endpoint slices.

use super::addresses::{PROTOCOLS, endpoint_ip, ip, port_number};
use super::age::age;
use super::findings::{Findings, all, text};
use super::tree::{each, fill_zero, int_at, list_at, str_at};
use super::*;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};
use longshore_api::field::Path;
use longshore_api::names;

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    type_name: "io.k8s.api.core.v1.Endpoints",
    create_on_update: true,
    columns: &[
        Column::new(
            "Endpoints",
            "string",
            "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
        ),
        Column::AGE,
    ],
    cells: |tree, now| vec![shown(list_at(tree, "/subsets")).into(), age(tree, now)],
    default,
    validate,
    warnings: |_, _| vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_string()],
    ..BASE
};

/// How many addresses a cell shows.
pub(super) const SHOWN: usize = 3;

fn shown(subsets: &[Value]) -> String {
    if subsets.is_empty() {
        return "<none>".to_string();
    }
    let mut list = Vec::new();
    for subset in subsets {
        let ips = list_at(subset, "/addresses").iter().map(|a| str_at(a, "/ip"));
        match list_at(subset, "/ports") {
            [] => list.extend(ips.map(String::from)),
            ports => list.extend(ports.iter().flat_map(|port| {
                let number = int_at(port, "/port");
                ips.clone()
                    .map(move |ip| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") })
            })),
        }
    }
    match list.len() {
        0..=SHOWN => list.join(","),
        many => format!("{} + {} more...", list[..SHOWN].join(","), many - SHOWN),
    }
}

fn default(tree: &mut Value) {
    let Some(map) = tree.as_object_mut() else { return };
    for subset in each(map, "subsets") {
        each(subset, "ports").for_each(|port| fill_zero(port, "protocol", "TCP"));
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let subsets = found.part::<Vec<EndpointSubset>>(tree, "subsets").unwrap_or_default();
    for (i, subset) in subsets.iter().enumerate() {
        let path = Path::new("subsets").index(i);
        let (ready, not_ready) = (all(&subset.addresses), all(&subset.not_ready_addresses));
        if ready.is_empty() && not_ready.is_empty() {
            found.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (field, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (j, item) in list.iter().enumerate() {
                address(item, &path.child(field).index(j), &mut found);
            }
        }
        let ports = all(&subset.ports);
        for (j, item) in ports.iter().enumerate() {
            port(item, ports.len() > 1, &path.child("ports").index(j), &mut found);
        }
    }
    found.into_errors()
}

fn address(address: &EndpointAddress, path: &Path, found: &mut Findings) {
    let ip_path = path.child("ip");
    let valid = ip(&address.ip, &ip_path, found).is_some();
    let hostname = text(&address.hostname);
    if !hostname.is_empty() {
        found.each(&path.child("hostname"), hostname, names::dns1123_label(hostname));
    }
    if let Some(node) = &address.node_name {
        found.each(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    if valid {
        endpoint_ip(&address.ip, &ip_path, found);
    }
}

fn port(port: &EndpointPort, named: bool, path: &Path, found: &mut Findings) {
    match text(&port.name) {
        "" if named => found.required(&path.child("name"), ""),
        "" => {}
        name => found.each(&path.child("name"), name, names::dns1123_label(name)),
    }
    port_number(port.port, &path.child("port"), found);
    found.one_of(&path.child("protocol"), text(&port.protocol), &PROTOCOLS);
    if let Some(protocol) = &port.app_protocol {
        found.each(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_three_and_counts_the_rest() {
        let subset =
            json!({"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80}, {"port": 443}]});
        assert_eq!(shown(&[subset]), "10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more...");
        assert_eq!(shown(&[]), "<none>");
        assert_eq!(shown(&[json!({"addresses": [{"ip": "::1"}], "ports": [{"port": 1}]})]), "[::1]:1");
    }

    #[test]
    fn refuses_addresses_of_the_node_itself() {
        let tree =
            json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}, {}]});
        let got: Vec<_> = validate(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(
            got,
            [
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
            ]
        );
    }
}
