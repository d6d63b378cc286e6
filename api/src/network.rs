//! The network map: all that a node needs to know of its cluster's network, pushed to it by the cluster's owner.
//!
//! `GET /node/v1/network` on a stream of the tunnel is answered by lines of JSON without end, each a [`Frame`]: first the
//! whole map, then [`Frame::Synced`], then each change as it is committed. A unit replaces the one of its [`Key`]; what a new
//! stream hasn't named by its `Synced` is gone. Frames are the same for all nodes of a cluster. A node that is slow is told
//! of the newest state of each unit only, never of all that lay between, and there is no order between different units.
//!
//! Addresses and ports have been judged by the API server; what isn't an IP address (endpoints by name) is left out.

use crate::name_servers::NameServers;
use crate::network_policy::{Part, Peers, Policy};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub const NETWORK_PATH: &str = "/node/v1/network";

/// The cluster's DNS domain.
pub const DOMAIN: &str = "cluster.local";

/// A Node's annotations by which its agent tells the others of its way into the mesh.
/// Public keys (X25519 in base64), separated by commas: the newest first, and behind it for some minutes the one before.
pub const MESH_KEYS_ANNOTATION: &str = "longshore.dev/mesh-keys";
/// `ADDRESS:PORT`, separated by commas.
pub const MESH_ENDPOINTS_ANNOTATION: &str = "longshore.dev/mesh-endpoints";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Frame {
    Cluster(Cluster),
    Node(Node),
    Service(Service),
    Endpoints(Endpoints),
    Policy(Policy),
    Peers(Peers),
    /// Those that the cluster's users chose; none while they chose none.
    NameServers(NameServers),
    Removed(Key),
    /// The unit can't be read now: a node goes on with what it knows of it.
    Unread(Key),
    /// The map is whole: what came before is the state that was committed at some moment, or later.
    Synced,
}

/// What a unit is replaced and removed by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Key {
    Cluster,
    Node(String),
    Service(Name),
    /// An EndpointSlice.
    Endpoints(Name),
    Policy(Name),
    Peers(Part),
    NameServers,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

impl Name {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// Once a cluster; never removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    /// CIDRs.
    pub pod_range: String,
    pub service_range: String,
    /// Empty in clusters with IPv4 only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_range_v6: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_range_v6: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub name: String,
    /// Its identity, as the server wrote it; what the relay knows it by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its slice of the pod range, as CIDR; empty while it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_range: String,
    /// The same of IPv6.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_range_v6: String,
    /// `topology.kubernetes.io/zone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Its public keys in the mesh, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mesh_keys: Vec<String>,
    /// Where it may be reached directly, best first, each `ADDRESS:PORT`; and `relay:BYTES`, where it takes packets of so many
    /// bytes over the relay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mesh_endpoints: Vec<String>,
    /// Where it serves its cluster's Ingresses, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<crate::edge::Ports>,
}

/// A Service of any type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Its addresses in the cluster; none when it is headless or another name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Addresses outside that lead to it: `externalIPs`, and those of its load balancer that arrive here untranslated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_addresses: Vec<IpAddr>,
    /// Type `ExternalName`: what it is another name of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// For how many seconds a client stays with an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// From inside the cluster, only endpoints on the caller's own node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal_local: bool,
    /// From outside, only endpoints on the node where it arrives.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub external_local: bool,
    /// Answered by each node itself rather than by endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by_node: Option<Answer>,
}

/// What a node answers at a Service's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The cluster's API, by passing raw bytes to the server.
    Api,
    Dns,
}

impl Service {
    pub fn key(&self) -> Name {
        Name::new(&self.namespace, &self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
    /// What is spoken there, as the Service says it: `kubernetes.io/h2c`, `https`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app_protocol: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// As an IP header has it.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    pub namespace: String,
    pub name: String,
    /// The Service's name.
    pub service: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

impl Endpoints {
    pub fn key(&self) -> Name {
        Name::new(&self.namespace, &self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// The Service's port of this name leads here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub address: IpAddr,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serving: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminating: bool,
    /// Its name below its headless Service's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Hints: the zones, and the nodes, that should use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<String>,
}

/// How a node reaches another one now. A node answers `{"links": [...]}` at [`LINKS_PATH`] of its own HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The other Node's name.
    pub node: String,
    /// The other's address, `ADDRESS:PORT`; none: packets go over the server's relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<String>,
    /// Of a direct path, there and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_microseconds: Option<u64>,
    /// Bytes of the largest packet of pods that the path carries.
    pub mtu: u16,
    /// Bytes of pods' packets since the link began.
    pub sent: u64,
    pub received: u64,
    /// None while the two have not agreed on keys yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_since_handshake: Option<u64>,
}

/// Below a node's own HTTP API; through the API server `/api/v1/nodes/NAME/proxy/links`.
pub const LINKS_PATH: &str = "/links";

impl Frame {
    /// None only for [`Frame::Synced`].
    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Cluster(_) => Key::Cluster,
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Service(service) => Key::Service(service.key()),
            Self::Endpoints(slice) => Key::Endpoints(slice.key()),
            Self::Policy(policy) => Key::Policy(policy.key()),
            Self::Peers(peers) => Key::Peers(peers.part.clone()),
            Self::NameServers(_) => Key::NameServers,
            Self::Removed(key) | Self::Unread(key) => key.clone(),
            Self::Synced => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_short_lines_that_read_back() {
        let endpoint = Endpoint {
            address: [10, 244, 1, 2].into(),
            ready: true,
            serving: true,
            terminating: false,
            hostname: String::new(),
            node: "n1".into(),
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        };
        let port = EndpointPort { name: String::new(), protocol: Protocol::Tcp, port: 8080 };
        let slice = Endpoints {
            namespace: "a".into(),
            name: "web-1".into(),
            service: "web".into(),
            ports: vec![port],
            endpoints: vec![endpoint],
        };
        let frames = [
            (
                Frame::Endpoints(slice.clone()),
                r#"{"endpoints":{"namespace":"a","name":"web-1","service":"web","ports":[{"protocol":"TCP","port":8080}],"endpoints":[{"address":"10.244.1.2","ready":true,"serving":true,"node":"n1"}]}}"#,
            ),
            (
                Frame::Removed(Key::Endpoints(slice.key())),
                r#"{"removed":{"endpoints":{"namespace":"a","name":"web-1"}}}"#,
            ),
            (Frame::Removed(Key::Node("n1".into())), r#"{"removed":{"node":"n1"}}"#),
            (Frame::Unread(Key::NameServers), r#"{"unread":"nameServers"}"#),
            (Frame::Synced, r#""synced""#),
        ];
        for (frame, line) in frames {
            assert_eq!(serde_json::to_string(&frame).unwrap(), line);
            assert_eq!(serde_json::from_str::<Frame>(line).unwrap(), frame);
        }
    }
}
