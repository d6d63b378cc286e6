//! What a node that serves Ingresses itself is told of them.
//!
//! A Node with the label [`EDGE_LABEL`] is an edge of its cluster. `GET /node/v1/edge` on a stream of its tunnel is answered
//! by lines of JSON without end, each an [`Edge`], which replaces the one before. Endpoints aren't among it: they stand in the
//! network map. A node without the label is refused (403), and the answer of one that loses it ends.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

pub const EDGE_PATH: &str = "/node/v1/edge";
/// `GET …HOST/TOKEN`: what an authority is to find at that host (ACME's HTTP-01), as text; 404 where it asked for nothing.
pub const CHALLENGE_PATH: &str = "/node/v1/edge-challenge/";
/// `GET …HOST`: the [`Certificate`] that an authority is to be shown for that host (ACME's TLS-ALPN-01), which must be one that
/// this edge serves with a certificate of its own getting; else, or where the authority asked for nothing, 404.
pub const TLS_CHALLENGE_PATH: &str = "/node/v1/edge-tls-challenge/";

/// `true`: the node is an edge. No node may say so of itself.
pub const EDGE_LABEL: &str = "longshore.dev/edge";
/// A Node's annotations. The ports at which its edge listens, 80 and 443 unless they say otherwise; `0`: none.
pub const HTTP_PORT_ANNOTATION: &str = "longshore.dev/edge-http-port";
pub const HTTPS_PORT_ANNOTATION: &str = "longshore.dev/edge-https-port";
/// The address or name under which the world finds it; by default its external address, or its internal one.
pub const ADDRESS_ANNOTATION: &str = "longshore.dev/edge-address";

/// Where a node serves; 0: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
}

/// Whether a Node with these labels is an edge.
pub fn is_marked(labels: &BTreeMap<String, String>) -> bool {
    labels.get(EDGE_LABEL).is_some_and(|value| value == "true")
}

/// By a Node's annotations. A port that is none is 0.
pub fn ports(annotations: &BTreeMap<String, String>) -> Ports {
    let port = |annotation: &str, usual: u16| {
        let said = annotations.get(annotation);
        said.map_or(usual, |text| text.trim().parse().unwrap_or_default())
    };
    Ports { http: port(HTTP_PORT_ANNOTATION, 80), https: port(HTTPS_PORT_ANNOTATION, 443) }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edge {
    /// The Ingresses that are Longshore's to serve, and the classes that say so.
    pub ingresses: Vec<Value>,
    pub classes: Vec<Value>,
    /// The hosts that are the cluster's: names, `*.` before a name, or `*` for any.
    pub hosts: Vec<String>,
    pub certificates: Vec<Certificate>,
}

/// For whom the edge shows it, and what.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    #[serde(flatten)]
    pub source: Source,
    /// PEM.
    pub chain: String,
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Which certificate a host is served with, as an Ingress names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// A Secret of type `kubernetes.io/tls`.
    Secret(crate::network::Name),
    /// Got by the edge itself for a host, `*.domain` among them.
    Automatic(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_is_a_mark() {
        let of = |value: &str| is_marked(&[(EDGE_LABEL.to_string(), value.to_string())].into());
        assert!(of("true") && !of("false") && !of("") && !is_marked(&BTreeMap::new()));
    }

    #[test]
    fn ports_are_the_usual_ones_unless_said() {
        let of = |http: &str| ports(&[(HTTP_PORT_ANNOTATION.to_string(), http.to_string())].into());
        assert_eq!(ports(&BTreeMap::new()), Ports { http: 80, https: 443 });
        assert_eq!(of(" 8080 "), Ports { http: 8080, https: 443 });
        assert_eq!((of("0").http, of("many").http, of("70000").http), (0, 0, 0));
    }

    #[test]
    fn a_key_is_never_printed() {
        let source = Source::Automatic("a.com".into());
        let certificate = Certificate { source, chain: "chain".into(), key: "secret".into() };
        let printed = format!("{certificate:?}");
        assert!(printed.contains("a.com") && !printed.contains("secret"), "{printed}");
        let read: Certificate = serde_json::from_value(serde_json::to_value(&certificate).unwrap()).unwrap();
        assert_eq!(read, certificate);
    }
}
