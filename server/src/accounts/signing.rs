//! Tokens that we sign: service accounts' (as Kubernetes's own, verifiable by anyone with the published keys) and nodes'.
//!
//! Each cluster has a key of its own for each purpose: a service account's token can never pass as a node's, nor one
//! cluster's as another's, whatever the claims say.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use longshore_api::ids::{ClusterId, NodeId};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// One ES256 key pair.
pub struct SigningKey {
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// The public point, `x` and `y`, base64url.
    point: (String, String),
}

#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
}

impl SigningKey {
    /// A new key, in PKCS#8 PEM.
    pub fn generate() -> Result<String, SigningError> {
        Ok(KeyPair::generate()?.serialize_pem())
    }

    pub fn load(pem: &str) -> Result<Self, SigningError> {
        let pair = KeyPair::from_pem(pem)?;
        // Uncompressed point: 4, then 32 bytes of x, then 32 of y.
        let point = pair.public_key_raw();
        let (x, y) = point.get(1..65).map(|p| p.split_at(32)).ok_or(rcgen::Error::CouldNotParseKeyPair)?;
        let point = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        Ok(Self {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info())),
            encoding: EncodingKey::from_ec_pem(pem.as_bytes())?,
            decoding: DecodingKey::from_ec_components(&point.0, &point.1)?,
            point,
        })
    }

    /// As `/openid/v1/jwks` lists it.
    pub fn jwk(&self) -> Value {
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": self.point.0, "y": self.point.1})
    }

    /// The key as clients of the published set would read it.
    pub fn published(&self) -> Option<Jwk> {
        serde_json::from_value(self.jwk()).ok()
    }

    fn sign(&self, claims: &impl Serialize) -> Result<String, SigningError> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        header.typ = None;
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }

    /// Signature and expiry; audience and issuer are the caller's to judge.
    fn verify<T: serde::de::DeserializeOwned>(&self, token: &str) -> Result<T, SigningError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        validation.validate_nbf = true;
        Ok(jsonwebtoken::decode::<T>(token, &self.decoding, &validation)?.claims)
    }

    pub fn sign_service_account(&self, claims: &ServiceAccountClaims) -> Result<String, SigningError> {
        self.sign(claims)
    }
    pub fn verify_service_account(&self, token: &str) -> Result<ServiceAccountClaims, SigningError> {
        self.verify(token)
    }
    pub fn sign_node(&self, claims: &NodeClaims) -> Result<String, SigningError> {
        self.sign(claims)
    }
    pub fn verify_node(&self, token: &str) -> Result<NodeClaims, SigningError> {
        self.verify(token)
    }
}

/// A service account's token, claim for claim as Kubernetes issues it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceAccountClaims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    pub nbf: i64,
    pub sub: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// What a node shows: who it is, and the key whose possession it proves on each connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeClaims {
    pub cluster: ClusterId,
    /// The node's id.
    pub sub: NodeId,
    pub name: String,
    /// The node's Ed25519 public key, base64url.
    pub key: String,
    pub iat: i64,
    pub exp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> NodeClaims {
        NodeClaims {
            cluster: ClusterId::new("c-1"),
            sub: NodeId::new("n-1"),
            name: "worker".into(),
            key: "k".into(),
            iat: 0,
            exp,
        }
    }

    #[test]
    fn a_token_is_good_only_under_its_own_key_and_until_it_expires() {
        let key = SigningKey::load(&SigningKey::generate().unwrap()).unwrap();
        let other = SigningKey::load(&SigningKey::generate().unwrap()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let token = key.sign_node(&claims(now + 3600)).unwrap();
        assert_eq!(key.verify_node(&token).unwrap(), claims(now + 3600));
        assert!(other.verify_node(&token).is_err());
        assert!(key.verify_node(&key.sign_node(&claims(now - 3600)).unwrap()).is_err());
        assert!(key.verify_service_account(&token).is_err(), "a node's token is no service account's");
        let mut forged = token.clone();
        forged.truncate(token.len() - 4);
        assert!(key.verify_node(&forged).is_err());
    }

    #[test]
    fn the_published_key_verifies() {
        let key = SigningKey::load(&SigningKey::generate().unwrap()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let token = key.sign_node(&claims(now + 60)).unwrap();
        let published = DecodingKey::from_jwk(&key.published().unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        assert!(jsonwebtoken::decode::<NodeClaims>(&token, &published, &validation).is_ok());
    }
}
