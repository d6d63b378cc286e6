//! Objects as units of the network map. Pure.

use crate::store::Object;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use longshore_api::edge;
use longshore_api::network::{
    Answer, Endpoint, EndpointPort, Endpoints, Frame, Key, MESH_ENDPOINTS_ANNOTATION, MESH_KEYS_ANNOTATION, Name, Node,
    Protocol, Service, ServicePort,
};
use longshore_api::node::NODE_ID_LABEL;
use longshore_control::projection::{ContainerPort, Meta, Pod};
use longshore_control::view::SERVICE_NAME;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::sync::Arc;

/// Whose objects are units, each for itself.
pub const RESOURCES: [&str; 3] = ["nodes", "services", "endpointslices.discovery.k8s.io"];
/// These become units together, with [`SELECTED`].
pub const POLICIES: &str = "networkpolicies.networking.k8s.io";
/// What policies select.
pub const SELECTED: [&str; 2] = ["namespaces", "pods"];
/// The pods that answer for names, as those who write policies know them; here each node does, at the Service's address.
const NAME_SERVERS: (&str, &str) = ("k8s-app", "kube-dns");

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The unit's key, and the unit; none for an object that is of no use to nodes.
pub fn unit(object: &Object) -> (Key, Option<Frame>) {
    let name = || Name::new(&*object.key.namespace, &*object.key.name);
    match &*object.key.resource {
        "nodes" => (Key::Node(object.key.name.to_string()), read(object).map(|n| Frame::Node(node(n)))),
        "services" => (Key::Service(name()), read(object).map(|s| Frame::Service(service(name(), s)))),
        _ => (Key::Endpoints(name()), read(object).and_then(|s| endpoints(name(), s)).map(Frame::Endpoints)),
    }
}

/// A policy; none for one that can't be read.
pub fn policy(object: &Object) -> Option<NetworkPolicy> {
    read(object)
}

/// Where nodes answer for names, as a pod that policies can select.
pub fn name_server(service: &Service) -> Option<Arc<Pod>> {
    let port = |p: &ServicePort| ContainerPort {
        name: p.name.clone(),
        protocol: if p.protocol == Protocol::Udp { "UDP" } else { "TCP" }.to_owned(),
        port: p.port.into(),
    };
    let (label, value) = NAME_SERVERS;
    (service.answered_by_node == Some(Answer::Dns)).then(|| {
        Arc::new(Pod {
            meta: Meta { labels: [(label.to_owned(), value.to_owned())].into(), ..Meta::default() },
            ips: service.addresses.iter().map(IpAddr::to_string).collect(),
            ports: service.ports.iter().map(port).collect(),
            ..Pod::default()
        })
    })
}

fn read<T: DeserializeOwned>(object: &Object) -> Option<T> {
    let read = serde_json::from_slice(&object.json);
    read.map_err(|error| tracing::warn!(key = ?object.key, %error, "an object is left out of the network map")).ok()
}

fn node(node: core::Node) -> Node {
    let spec = node.spec.unwrap_or_default();
    let mut labels = node.metadata.labels.unwrap_or_default();
    let annotations = node.metadata.annotations.unwrap_or_default();
    let serves = edge::is_marked(&labels);
    let listed = |annotation: &str| {
        let text = annotations.get(annotation).map(String::as_str).unwrap_or_default();
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(String::from).collect()
    };
    Node {
        edge: serves.then(|| edge::ports(&annotations)),
        name: node.metadata.name.unwrap_or_default(),
        id: labels.remove(NODE_ID_LABEL).unwrap_or_default(),
        pod_range: spec.pod_cidr.unwrap_or_default(),
        pod_range_v6: spec.pod_cidrs.into_iter().flatten().find(|range| range.contains(':')).unwrap_or_default(),
        zone: labels.remove(ZONE_LABEL).unwrap_or_default(),
        mesh_keys: listed(MESH_KEYS_ANNOTATION),
        mesh_endpoints: listed(MESH_ENDPOINTS_ANNOTATION),
    }
}

fn service(name: Name, service: core::Service) -> Service {
    let spec = service.spec.unwrap_or_default();
    let local = |policy: Option<String>| policy.as_deref() == Some("Local");
    let balancer = service.status.and_then(|s| s.load_balancer).and_then(|b| b.ingress).unwrap_or_default();
    // One that translates (`ipMode: Proxy`) sends to node ports; its own address is for it alone.
    let balancers = balancer.into_iter().filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip);
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    let timeout = spec.session_affinity_config.and_then(|c| c.client_ip).and_then(|c| c.timeout_seconds);
    let selected = spec.selector.is_some_and(|s| !s.is_empty());
    let answered_by_node = match (name.namespace.as_str(), name.name.as_str()) {
        ("default", "kubernetes") => Some(Answer::Api),
        // Someone who brings a name server of their own gives it endpoints.
        ("kube-system", "kube-dns") if !selected => Some(Answer::Dns),
        _ => None,
    };
    let by_name = spec.type_.as_deref() == Some("ExternalName");
    Service {
        namespace: name.namespace,
        name: name.name,
        addresses: ips(spec.cluster_ips.unwrap_or_default()),
        external_addresses: ips(spec.external_ips.unwrap_or_default().into_iter().chain(balancers)),
        external_name: spec.external_name.filter(|_| by_name).unwrap_or_default(),
        ports: spec.ports.unwrap_or_default().into_iter().filter_map(service_port).collect(),
        affinity_seconds: sticky.then(|| timeout.and_then(|t| u32::try_from(t).ok()).unwrap_or(10_800)),
        internal_local: local(spec.internal_traffic_policy),
        external_local: local(spec.external_traffic_policy),
        answered_by_node,
    }
}

fn ips(texts: impl IntoIterator<Item = String>) -> Vec<IpAddr> {
    // A headless Service's only "address" is `None`.
    texts.into_iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn service_port(port: core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
        app_protocol: port.app_protocol.unwrap_or_default(),
    })
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// None for a slice of names, and for one that belongs to no Service.
fn endpoints(name: Name, slice: discovery::EndpointSlice) -> Option<Endpoints> {
    let service = slice.metadata.labels.unwrap_or_default().remove(SERVICE_NAME)?;
    if slice.address_type == "FQDN" {
        return None;
    }
    let port = |p: discovery::EndpointPort| {
        Some(EndpointPort {
            name: p.name.unwrap_or_default(),
            protocol: protocol(p.protocol.as_deref())?,
            port: u16::try_from(p.port?).ok()?,
        })
    };
    Some(Endpoints {
        namespace: name.namespace,
        name: name.name,
        service,
        ports: slice.ports.unwrap_or_default().into_iter().filter_map(port).collect(),
        endpoints: slice.endpoints.into_iter().flatten().filter_map(endpoint).collect(),
    })
}

fn endpoint(endpoint: discovery::Endpoint) -> Option<Endpoint> {
    let conditions = endpoint.conditions.unwrap_or_default();
    let hints = endpoint.hints.unwrap_or_default();
    // Unknown counts as ready; serving is as ready where it isn't said.
    let ready = conditions.ready != Some(false);
    Some(Endpoint {
        address: endpoint.addresses.first()?.parse().ok()?,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating == Some(true),
        hostname: endpoint.hostname.unwrap_or_default(),
        node: endpoint.node_name.unwrap_or_default(),
        for_zones: hints.for_zones.unwrap_or_default().into_iter().map(|z| z.name).collect(),
        for_nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|n| n.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key as StoreKey, Revision};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn of(resource: &str, name: &str, tree: Value) -> (Key, Option<Frame>) {
        let key = StoreKey { resource: resource.into(), namespace: "ns".into(), name: name.into() };
        unit(&Object::read(key, Revision(1), tree.to_string().into(), |_| BTreeMap::new()).unwrap())
    }

    #[test]
    fn services_say_where_they_are_found() {
        let (key, unit) = of(
            "services",
            "web",
            json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4"],
                "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                "ports": [{"name": "a", "port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}]}}}),
        );
        assert_eq!(key, Key::Service(Name::new("ns", "web")));
        let Some(Frame::Service(service)) = unit else { panic!("a service") };
        assert_eq!(service.addresses, [IpAddr::from([10, 96, 3, 4])]);
        assert_eq!(service.external_addresses, [IpAddr::from([192, 0, 2, 1]), [192, 0, 2, 2].into()]);
        assert_eq!((service.affinity_seconds, service.external_local, service.internal_local), (Some(60), true, false));
        assert_eq!(service.ports.iter().map(|p| p.node_port).collect::<Vec<_>>(), [Some(30080), None]);

        let spec = json!({"clusterIP": "None", "clusterIPs": ["None"], "externalName": "left over"});
        let Some(Frame::Service(headless)) = of("services", "web", json!({"metadata": {}, "spec": spec})).1 else {
            panic!("a service")
        };
        assert_eq!((headless.addresses, headless.external_name), (vec![], String::new()));
    }

    #[test]
    fn what_is_not_said_of_an_endpoint_counts_as_kubernetes_has_it() {
        let slice = json!({"metadata": {"labels": {(SERVICE_NAME): "web"}}, "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "any"}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}]});
        let Some(Frame::Endpoints(slice)) = of("endpointslices.discovery.k8s.io", "web-1", slice).1 else {
            panic!("endpoints")
        };
        let told: Vec<_> = slice.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
        assert_eq!(told, [(true, true, false), (false, false, false), (false, true, true)]);
        assert_eq!((slice.service.as_str(), slice.ports.len()), ("web", 1));
        let nobodys = json!({"metadata": {}, "addressType": "IPv4", "endpoints": []});
        assert_eq!(of("endpointslices.discovery.k8s.io", "x", nobodys).1, None);
    }

    #[test]
    fn nodes_have_their_slice_and_their_way_into_the_mesh() {
        let tree = json!({"metadata": {"name": "n1", "labels": {(ZONE_LABEL): "a", (NODE_ID_LABEL): "n-1"},
            "annotations": {(MESH_KEYS_ANNOTATION): "k,j", (MESH_ENDPOINTS_ANNOTATION): "192.0.2.1:5, 192.0.2.2:6"}},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]}});
        let Some(Frame::Node(node)) = of("nodes", "n1", tree).1 else { panic!("a node") };
        assert_eq!((node.pod_range.as_str(), node.zone.as_str(), node.id.as_str()), ("10.244.1.0/24", "a", "n-1"));
        assert_eq!(node.pod_range_v6, "fd00:1::/64");
        assert_eq!(node.mesh_keys, ["k", "j"]);
        assert_eq!(node.mesh_endpoints, ["192.0.2.1:5", "192.0.2.2:6"]);
        assert_eq!(node.edge, None);
        let marked = |value: &str| {
            let annotations = json!({"longshore.dev/edge-http-port": "8080"});
            let tree = json!({"metadata": {"name": "n1", "labels": {"longshore.dev/edge": value}, "annotations": annotations}});
            let Some(Frame::Node(node)) = of("nodes", "n1", tree).1 else { panic!("a node") };
            node.edge
        };
        assert_eq!(marked("true"), Some(edge::Ports { http: 8080, https: 443 }));
        assert_eq!(marked("false"), None);
    }
}
