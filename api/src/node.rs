//! The node protocol: what agent and server say to each other outside the Kubernetes API.
//!
//! A machine joins once (`POST /node/v1/join`) with a join token and a key it made itself; from then on it shows the
//! credential it got *and* proves that it holds the key, freshly each time ([`Proof`]): a copied credential alone opens
//! nothing. Everything else goes over the tunnel (`GET /node/v1/tunnel`) as plain HTTP.

use crate::ids::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Where a machine becomes a node: [`Join`] in, [`Joined`] out.
pub const JOIN_PATH: &str = "/node/v1/join";
/// Where a credential is renewed before it expires (POST: nothing in, [`Renewed`] out), and given up for good (DELETE: 204;
/// the identity ends, its Node object goes, the name is free). Authorized as the tunnel is.
pub const CREDENTIAL_PATH: &str = "/node/v1/credential";
/// Where the agent's WebSocket ends.
pub const TUNNEL_PATH: &str = "/node/v1/tunnel";
/// The subprotocol of that WebSocket: a change of the frames gets another name.
pub const TUNNEL_PROTOCOL: &str = "tunnel.longshore.v1";
/// Where the agent's second WebSocket ends, authorized as the tunnel is and open only beside it: packets of pods for nodes
/// that aren't reached directly.
pub const RELAY_PATH: &str = "/node/v1/relay";
pub const RELAY_PROTOCOL: &str = "relay.longshore.v1";
/// The header that carries a [`Proof`]; the credential itself goes as `Authorization: Bearer`.
pub const PROOF_HEADER: &str = "x-longshore-proof";
/// The protocol an agent asks for (`GET /node/v1/kubernetes` with `Connection: Upgrade`) on a stream of the tunnel to
/// carry raw bytes of a pod's connection to its cluster's API server. The server ends the TLS inside.
pub const RAW_KUBERNETES_PROTOCOL: &str = "kubernetes-raw.longshore.v1";
pub const RAW_KUBERNETES_PATH: &str = "/node/v1/kubernetes";
/// The protocol the server asks for (`GET /portForward/{namespace}/{pod}?port=…&uid=…` with `Connection: Upgrade`) on a stream
/// to the agent to carry raw bytes of one connection to a port of a pod.
pub const RAW_PORT_PROTOCOL: &str = "port-raw.longshore.v1";
/// How far a proof's time may be off the server's clock, in seconds. An agent whose clock is further off takes the
/// server's from the `Date` of the refusal.
pub const PROOF_TOLERANCE_SECONDS: i64 = 120;
/// The label that carries the node's id on its Node object and on its containers. On the Node the server writes it itself,
/// whatever the node says: when the object is deleted, that identity ends.
pub const NODE_ID_LABEL: &str = "longshore.dev/node-id";

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// The join token as a whole.
    pub token: String,
    /// The Node's name: a DNS-1123 subdomain.
    pub name: String,
    /// The node's Ed25519 public key, 32 bytes in base64url without padding.
    pub public_key: String,
    #[serde(default)]
    pub agent_version: String,
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("name", &self.name)
            .field("agent_version", &self.agent_version)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub name: String,
    /// A token bound to this node and its key.
    pub credential: String,
    /// RFC 3339.
    pub expires_at: String,
    /// The installation's CA, PEM: what the agent trusts from now on.
    pub ca: String,
    /// Labels that the join token gives its nodes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub server_version: String,
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Joined");
        shown.field("cluster", &self.cluster).field("node", &self.node).field("name", &self.name);
        shown.field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewed {
    pub credential: String,
    /// RFC 3339.
    pub expires_at: String,
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Proof that the sender holds the node's key: a signature over what it is for, when, and a value used once.
/// On the wire `TIME.NONCE.SIGNATURE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Seconds since 1970.
    pub time: i64,
    /// At least 16 random bytes, base64url; refused when seen again.
    pub nonce: String,
    /// Ed25519, base64url.
    pub signature: String,
}

impl Proof {
    /// What is signed. `path` binds the proof to its purpose, `credential` to the node and its cluster.
    pub fn message(path: &str, credential: &str, time: i64, nonce: &str) -> String {
        format!("longshore node proof 1\n{path}\n{credential}\n{time}\n{nonce}")
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.time, self.nonce, self.signature)
    }
}

impl FromStr for Proof {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a proof has the form TIME.NONCE.SIGNATURE";
        let base64url = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let [time, nonce, signature] = text.split('.').collect::<Vec<_>>()[..] else { return Err(WRONG) };
        let time = time.parse().map_err(|_| WRONG)?;
        if !(22..=64).contains(&nonce.len()) || signature.len() != 86 || !base64url(nonce) || !base64url(signature) {
            return Err(WRONG);
        }
        Ok(Self { time, nonce: nonce.into(), signature: signature.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_round_trip_and_others_are_refused() {
        let proof = Proof { time: 1_700_000_000, nonce: "n".repeat(22), signature: "s".repeat(86) };
        assert_eq!(proof.to_string().parse::<Proof>().unwrap(), proof);
        let signature = "s".repeat(86);
        for bad in ["", "1.2.3", "x.nnnnnnnnnnnnnnnnnnnnnn.", &format!("1.short.{signature}")] {
            assert!(bad.parse::<Proof>().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let join =
            Join { token: "lsj.s3cret".into(), name: "n".into(), public_key: "k".into(), agent_version: "1".into() };
        assert!(!format!("{join:?}").contains("s3cret"));
        let renewed = Renewed { credential: "s3cret".into(), expires_at: "2030-01-01T00:00:00Z".into() };
        assert!(!format!("{renewed:?}").contains("s3cret"));
    }
}
