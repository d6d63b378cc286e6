//! NetworkPolicies as units of the network map.
//!
//! Whom a policy selects each node judges itself, for the pods that it runs: it knows them before they have an address
//! that others could know. Who their peers are it is told as sets of addresses that the owner computes, once for all nodes
//! and once for all policies that say the same of their peers. A set comes in parts, one for each /24 (IPv6: /120), so that
//! a pod that comes or goes is news of one part; a part that nobody is in any more is removed.

use crate::network::{Name, Protocol};
use crate::selector::SpecSelector;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// A NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    pub namespace: String,
    pub name: String,
    /// Whom it isolates, among the pods of its namespace.
    pub selector: SpecSelector,
    /// Which connections to them are allowed; none: it says nothing of such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<Rule>>,
    /// Which connections from them are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    pub fn key(&self) -> Name {
        Name::new(&self.namespace, &self.name)
    }
}

/// Allows what is of one of the peers and of one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// None: anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<Peer>>,
    /// None: any port of any protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    /// The addresses of a set.
    Pods(String),
    /// The range without the ranges in `except`; CIDRs.
    Block {
        range: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        except: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Port {
    Any(Protocol),
    /// Both ends are in it.
    Range(Protocol, u16, u16),
    /// The addresses with ports of a set: where pods have a port of that protocol and of some name.
    Named(Protocol, String),
}

/// A part of a set, whole. A set is of addresses, or of addresses with ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    pub part: Part,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// At most 20 letters and digits; it follows from what the set is of.
    pub set: String,
    /// The first address of the part's range.
    pub of: IpAddr,
}

impl Part {
    pub fn new(set: impl Into<String>, address: IpAddr) -> Self {
        let of = match address {
            IpAddr::V4(ip) => IpAddr::from((u32::from(ip) & !0xff).to_be_bytes()),
            IpAddr::V6(ip) => IpAddr::from((u128::from(ip) & !0xff).to_be_bytes()),
        };
        Self { set: set.into(), of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Frame, Key};

    #[test]
    fn frames_are_short_lines_that_read_back() {
        let selector = serde_json::from_str(r#"{"matchLabels":{"app":"web"}}"#).unwrap();
        let block = Peer::Block { range: "10.0.0.0/8".into(), except: vec!["10.1.0.0/16".into()] };
        let rule = Rule {
            peers: Some(vec![Peer::Pods("a1".into()), block]),
            ports: Some(vec![Port::Any(Protocol::Udp), Port::Range(Protocol::Tcp, 80, 90)]),
        };
        let policy = Policy {
            namespace: "a".into(),
            name: "web".into(),
            selector,
            ingress: Some(vec![rule, Rule::default()]),
            egress: None,
        };
        let part = Part::new("a1", IpAddr::from([10, 244, 7, 9]));
        let peers = Peers { part: part.clone(), addresses: vec![IpAddr::from([10, 244, 7, 9])], ports: Vec::new() };
        let frames = [
            (
                Frame::Policy(policy.clone()),
                r#"{"policy":{"namespace":"a","name":"web","selector":{"matchLabels":{"app":"web"}},"ingress":[{"peers":[{"pods":"a1"},{"block":{"range":"10.0.0.0/8","except":["10.1.0.0/16"]}}],"ports":[{"any":"UDP"},{"range":["TCP",80,90]}]},{}]}}"#,
            ),
            (Frame::Peers(peers), r#"{"peers":{"part":{"set":"a1","of":"10.244.7.0"},"addresses":["10.244.7.9"]}}"#),
            (Frame::Removed(Key::Policy(policy.key())), r#"{"removed":{"policy":{"namespace":"a","name":"web"}}}"#),
            (Frame::Removed(Key::Peers(part)), r#"{"removed":{"peers":{"set":"a1","of":"10.244.7.0"}}}"#),
        ];
        for (frame, line) in frames {
            assert_eq!(serde_json::to_string(&frame).unwrap(), line);
            assert_eq!(serde_json::from_str::<Frame>(line).unwrap(), frame);
        }
    }

    #[test]
    fn parts_are_by_their_last_byte() {
        let of = |ip: &str| Part::new("s", ip.parse().unwrap()).of.to_string();
        assert_eq!((of("10.244.7.255"), of("fd00::12:3456")), ("10.244.7.0".into(), "fd00::12:3400".into()));
    }
}
