//! The keys of one cluster: its CA (the API server that pods see) and the signers of its service accounts' and nodes'
//! tokens. Made on first use, sealed by the master key.

use super::authority::{Authority, AuthorityRecord};
use super::records::{self, KeyRow};
use super::signing::{Bound, NodeClaims, Reference, ServiceAccountClaims, SigningKey};
use super::{no_such_cluster, unavailable};
use crate::apiserver::{IssuedToken, TokenSpec};
use crate::store::MasterKey;
use longshore_api::Status;
use longshore_api::ids::{ClusterId, NodeId};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::sync::{Arc, OnceLock};

/// The audience by which pods know the API server, beside the issuer itself.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc";
/// A node's credential; it is renewed at a third of it.
pub const NODE_DAYS: i64 = 30;

pub struct ClusterKeys {
    cluster: ClusterId,
    issuer: String,
    authority: Authority,
    service_account: SigningKey,
    node: SigningKey,
    /// What pods are shown at `kubernetes.default.svc`, made on first use.
    pub(super) tls: OnceLock<Arc<rustls::ServerConfig>>,
}

impl ClusterKeys {
    pub(super) async fn load(
        pool: &PgPool,
        master: &MasterKey,
        cluster: &ClusterId,
        base_url: &str,
    ) -> Result<Self, Status> {
        let signer = || SigningKey::generate().map(|pem| (String::new(), pem)).map_err(Status::internal);
        let ca = || {
            let made = Authority::generate(&format!("longshore-{cluster}")).map_err(Status::internal)?;
            Ok((made.certificate_pem, made.key_pem))
        };
        let (certificate_pem, key_pem) = load_or_make(pool, master, cluster, "ca", ca).await?;
        let (_, service_account) = load_or_make(pool, master, cluster, "service-account", signer).await?;
        let (_, node) = load_or_make(pool, master, cluster, "node", signer).await?;
        let record = AuthorityRecord { certificate_pem, key_pem };
        Ok(Self {
            cluster: cluster.clone(),
            issuer: format!("{base_url}/clusters/{cluster}"),
            authority: Authority::load(&record).map_err(Status::internal)?,
            service_account: SigningKey::load(&service_account).map_err(Status::internal)?,
            node: SigningKey::load(&node).map_err(Status::internal)?,
            tls: OnceLock::new(),
        })
    }

    /// The cluster's own certificate authority: what `kube-root-ca.crt` holds.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// `/.well-known/openid-configuration`
    pub fn openid_configuration(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/openid/v1/jwks`
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.service_account.jwk()]})
    }

    /// Signs a service account's token.
    pub fn issue_service_account(&self, spec: TokenSpec) -> Result<IssuedToken, Status> {
        let now = jiff::Timestamp::now().as_second();
        let audiences = if spec.audiences.is_empty() { vec![self.issuer.clone()] } else { spec.audiences };
        let reference = |name: &str, uid: &str| Reference { name: name.into(), uid: uid.into() };
        let bound = |kind: &str| spec.bound.as_ref().filter(|b| b.kind == kind).map(|b| reference(&b.name, &b.uid));
        let exp = now + spec.expiration_seconds;
        let claims = ServiceAccountClaims {
            aud: audiences.clone(),
            exp,
            iat: now,
            nbf: now,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("system:serviceaccount:{}:{}", spec.namespace, spec.service_account),
            kubernetes: Bound {
                namespace: spec.namespace.clone(),
                node: spec.node.as_ref().map(|(name, uid)| reference(name, uid)),
                pod: bound("Pod"),
                secret: bound("Secret"),
                serviceaccount: reference(&spec.service_account, &spec.service_account_uid),
                warnafter: None,
            },
        };
        let token = self.service_account.sign_service_account(&claims).map_err(Status::internal)?;
        let expires = jiff::Timestamp::from_second(exp).map_err(Status::internal)?;
        Ok(IssuedToken { token, expires, audiences })
    }

    /// The claims of a service account's token that is meant for this API server. Whether the account and what the
    /// token is bound to still exist is the caller's to ask.
    pub fn verify_service_account(&self, token: &str) -> Option<ServiceAccountClaims> {
        let claims = self.service_account.verify_service_account(token).ok()?;
        // The host part of the issuer changes when the installation is reached under another address.
        let ours = format!("/clusters/{}", self.cluster);
        let for_us = claims.aud.iter().any(|a| a == API_AUDIENCE || a == &claims.iss);
        (claims.iss.ends_with(&ours) && for_us).then_some(claims)
    }

    /// A node's credential: good for [`NODE_DAYS`], bound to the key that it proves on each connection.
    pub fn issue_node(&self, node: &NodeId, name: &str, public_key: &str) -> Result<String, Status> {
        let now = jiff::Timestamp::now().as_second();
        let claims = NodeClaims {
            cluster: self.cluster.clone(),
            sub: node.clone(),
            name: name.into(),
            key: public_key.into(),
            iat: now,
            exp: now + NODE_DAYS * 86_400,
        };
        self.node.sign_node(&claims).map_err(Status::internal)
    }

    pub fn verify_node(&self, credential: &str) -> Option<NodeClaims> {
        self.node.verify_node(credential).ok().filter(|claims| claims.cluster == self.cluster)
    }
}

/// Two replicas may need a key at once: both offer one, and both take the one that was kept.
async fn load_or_make(
    pool: &PgPool,
    master: &MasterKey,
    cluster: &ClusterId,
    purpose: &str,
    make: impl FnOnce() -> Result<(String, String), Status>,
) -> Result<(String, String), Status> {
    let context = format!("{cluster}/{purpose}");
    let row = match records::cluster_key(pool, cluster, purpose).await.map_err(unavailable)? {
        Some(row) => row,
        None => {
            let (certificate, key) = make()?;
            let key =
                KeyRow { certificate, sealed_key: master.seal(&context, key.as_bytes()).map_err(Status::internal)? };
            records::offer_cluster_key(pool, cluster, purpose, &key).await.map_err(unavailable)?;
            let kept = records::cluster_key(pool, cluster, purpose).await.map_err(unavailable)?;
            kept.ok_or_else(|| no_such_cluster(cluster))?
        }
    };
    let key = master.open(&context, &row.sealed_key).ok().and_then(|k| String::from_utf8(k).ok());
    let key = key.ok_or_else(|| Status::internal("a key of the cluster can't be unwrapped with this master key"))?;
    Ok((row.certificate, key))
}
