//! Machines that joined: what the gateway asks of accounts.

use super::cluster_keys::{ClusterKeys, NODE_DAYS};
use super::signing::NodeClaims;
use super::{Accounts, Status, records, unavailable};
use crate::gateway::{Member, Nodes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::names::dns1123_subdomain;
use longshore_api::node::{Join, Joined, Renewed};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

impl Nodes for Accounts {
    fn join(&self, join: Join) -> BoxFuture<'_, Result<Joined, Status>> {
        Box::pin(async move {
            let cluster = self.verify_join_token(&join.token).await?.cluster;
            if let Some(wrong) = dns1123_subdomain(&join.name).first() {
                return Err(Status::bad_request(format!("the node's name {:?} is not valid: {wrong}", join.name)));
            }
            public_key(&join.public_key).ok_or_else(|| Status::bad_request("the public key is not 32 bytes"))?;
            let node = self.register_node(&cluster, &join.name, &join.public_key).await?;
            let keys = self.cluster_keys(&cluster).await?;
            let Renewed { credential, expires_at } = issue(&keys, &node, &join.name, &join.public_key)?;
            Ok(Joined {
                cluster,
                node,
                name: join.name,
                credential,
                expires_at,
                ca: self.authority().certificate_pem().to_string(),
                labels: BTreeMap::new(),
                server_version: env!("CARGO_PKG_VERSION").into(),
            })
        })
    }

    fn verify<'a>(&'a self, credential: &'a str) -> BoxFuture<'a, Result<Member, Status>> {
        Box::pin(async move {
            // Which cluster's key must have signed it stands inside; believed only once that key has verified it.
            let claimed = jsonwebtoken::dangerous::insecure_decode_claims::<NodeClaims>(credential);
            let cluster = claimed.map_err(|_| Status::unauthorized())?.cluster;
            let keys = match self.cluster_keys(&cluster).await {
                Err(status) if status.code == 404 => return Err(Status::unauthorized()),
                other => other?,
            };
            let claims = keys.verify_node(credential).ok_or_else(Status::unauthorized)?;
            let key = public_key(&claims.key).ok_or_else(Status::unauthorized)?;
            if !self.node_is_good(&cluster, &claims.sub).await? {
                return Err(Status::unauthorized());
            }
            Ok(Member { cluster, node: claims.sub, name: claims.name, key })
        })
    }

    fn renew<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Renewed, Status>> {
        Box::pin(async move {
            let keys = self.cluster_keys(&member.cluster).await?;
            issue(&keys, &member.node, &member.name, &URL_SAFE_NO_PAD.encode(member.key))
        })
    }

    fn revoke<'a>(&'a self, cluster: &'a ClusterId, node: &'a NodeId) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { records::revoke_node(&self.pool, cluster, node).await.map_err(unavailable) })
    }

    fn cluster_tls<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Arc<rustls::ServerConfig>, Status>> {
        Box::pin(async move {
            let keys = self.cluster_keys(cluster).await?;
            if let Some(config) = keys.tls.get() {
                return Ok(config.clone());
            }
            let loaded = self.store.cluster(cluster).await.map_err(|e| Status::unavailable(e.to_string()))?;
            let mut names: Vec<String> =
                ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].into_iter().map(String::from).collect();
            names.push("kubernetes.default.svc.cluster.local".into());
            names.extend(first_address(&loaded.info().service_range).map(|ip| ip.to_string()));
            let key = rcgen::KeyPair::generate().map_err(Status::internal)?;
            let made = keys.authority().server_config("kube-apiserver", &names, &key).map_err(Status::internal)?;
            Ok(keys.tls.get_or_init(|| made).clone())
        })
    }
}

fn issue(keys: &ClusterKeys, node: &NodeId, name: &str, public_key: &str) -> Result<Renewed, Status> {
    let credential = keys.issue_node(node, name, public_key)?;
    let expires_at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(NODE_DAYS * 24);
    Ok(Renewed { credential, expires_at: expires_at.to_string() })
}

fn public_key(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// The address of Service `kubernetes`: the first of the service range.
fn first_address(range: &str) -> Option<Ipv4Addr> {
    let network: Ipv4Addr = range.split('/').next()?.parse().ok()?;
    Some(Ipv4Addr::from(u32::from(network) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_has_the_first_address_of_the_service_range() {
        assert_eq!(first_address("10.96.0.0/16"), Some(Ipv4Addr::new(10, 96, 0, 1)));
        assert_eq!(first_address("nonsense"), None);
    }
}
