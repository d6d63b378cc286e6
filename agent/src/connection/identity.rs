//! Who this node is: a key that never leaves the machine, and what joining gave for it.
//!
//! Kept in one private file, written whole and renamed into place. The key is written before the first attempt to join,
//! so that a machine that dies between the server's yes and its own note joins again with the same key and is the same
//! node. Nothing here ever forgets: not an absent server, not a refusal. A file that can't be read is an error and never
//! a reason to begin anew; only `longshore-agent leave` removes it.

use crate::pods::desired;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use jiff::Timestamp;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::node::{Joined, Proof, Renewed};
use parking_lot::RwLock;
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "identity.json";

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} holds no identity ({why}); it is never replaced by a new one")]
    Broken { path: PathBuf, why: String },
}

pub struct Identity {
    path: PathBuf,
    key: SigningKey,
    kept: RwLock<Kept>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// Ed25519, the 32 bytes of the seed in base64url.
    key: String,
    /// The Node's name.
    name: String,
    /// The installation's base URL.
    server: String,
    /// PEM: what is trusted instead of the CA that joining gave (`--ca`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<Joined>,
    /// When the credential was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential_since: Option<Timestamp>,
}

impl Identity {
    /// The identity kept in `dir`; none when there never was one.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::File { path, source }),
        };
        let broken = |why: String| IdentityError::Broken { path: path.clone(), why };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        let seed: Option<[u8; 32]> = URL_SAFE_NO_PAD.decode(&kept.key).ok().and_then(|seed| seed.try_into().ok());
        let seed = seed.ok_or_else(|| broken("the key is not 32 bytes".into()))?;
        Ok(Some(Self { key: SigningKey::from_bytes(&seed), kept: RwLock::new(kept), path }))
    }

    /// The identity kept in `dir`, or a new one named `name` that has not joined yet. `server` and `ca` are where to find
    /// the installation today; the name of an identity that has joined stays.
    pub fn load_or_make(dir: &Path, name: &str, server: &str, ca: Option<String>) -> Result<Self, IdentityError> {
        let identity = match Self::load(dir)? {
            Some(identity) => identity,
            None => {
                let seed: [u8; 32] = rand::rng().random();
                let key = URL_SAFE_NO_PAD.encode(seed);
                let kept = Kept {
                    key,
                    name: name.into(),
                    server: server.into(),
                    ca: None,
                    joined: None,
                    credential_since: None,
                };
                Self { path: dir.join(FILE), key: SigningKey::from_bytes(&seed), kept: RwLock::new(kept) }
            }
        };
        identity.change(|kept| {
            if kept.joined.is_none() {
                kept.name = name.into();
            }
            kept.server = server.into();
            kept.ca = ca.or(kept.ca.take());
        })?;
        Ok(identity)
    }

    /// Notes what joining gave.
    pub fn joined(&self, joined: Joined, now: Timestamp) -> Result<(), IdentityError> {
        self.change(|kept| {
            kept.name = joined.name.clone();
            kept.joined = Some(joined);
            kept.credential_since = Some(now);
        })
    }

    pub fn renewed(&self, renewed: Renewed, now: Timestamp) -> Result<(), IdentityError> {
        self.change(|kept| {
            if let Some(joined) = &mut kept.joined {
                joined.credential = renewed.credential;
                joined.expires_at = renewed.expires_at;
            }
            kept.credential_since = Some(now);
        })
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) -> Result<(), IdentityError> {
        let mut kept = self.kept.write();
        let mut new = kept.clone();
        change(&mut new);
        desired::write(&self.path, &new).map_err(|source| IdentityError::File { path: self.path.clone(), source })?;
        *kept = new;
        Ok(())
    }

    pub fn name(&self) -> String {
        self.kept.read().name.clone()
    }

    pub fn server(&self) -> String {
        self.kept.read().server.clone()
    }

    /// What joining gave; none before.
    pub fn membership(&self) -> Option<Joined> {
        self.kept.read().joined.clone()
    }

    pub fn ids(&self) -> Option<(ClusterId, NodeId)> {
        self.kept.read().joined.as_ref().map(|joined| (joined.cluster.clone(), joined.node.clone()))
    }

    /// PEM: what the server's certificate must be signed by. None before joining without `--ca`.
    pub fn trusted(&self) -> Option<String> {
        let kept = self.kept.read();
        kept.ca.clone().or_else(|| kept.joined.as_ref().map(|joined| joined.ca.clone()))
    }

    /// The public key, as joining tells it.
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes())
    }

    /// Proves for `path` and `credential` that this machine holds the key. `time` is the server's, in seconds since 1970.
    pub fn prove(&self, path: &str, credential: &str, time: i64) -> Proof {
        let nonce = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 16]>());
        let signature = self.key.sign(Proof::message(path, credential, time, &nonce).as_bytes());
        Proof { time, nonce, signature: URL_SAFE_NO_PAD.encode(signature.to_bytes()) }
    }

    /// When the credential should be renewed: when two thirds of its life have passed. None before joining.
    pub fn renew_at(&self) -> Option<Timestamp> {
        let kept = self.kept.read();
        let since = kept.credential_since?;
        let expires: Timestamp = kept.joined.as_ref()?.expires_at.parse().ok()?;
        Some(since + expires.duration_since(since) * 2 / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signature, Verifier};
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    fn membership(name: &str) -> Joined {
        Joined {
            cluster: ClusterId::new("c-1"),
            node: NodeId::new("n-1"),
            name: name.into(),
            credential: "credential".into(),
            expires_at: "2030-01-31T00:00:00Z".into(),
            ca: "the CA".into(),
            labels: BTreeMap::new(),
            server_version: String::new(),
        }
    }

    #[test]
    fn a_second_start_with_the_same_folder_is_the_same_node() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_make(dir.path(), "worker", "https://a:1", None).unwrap();
        let key = first.public_key();
        first.joined(membership("worker"), "2030-01-01T00:00:00Z".parse().unwrap()).unwrap();
        drop(first);
        let second = Identity::load_or_make(dir.path(), "another-name", "https://b:2", None).unwrap();
        assert_eq!((second.public_key(), second.name(), second.server()), (key, "worker".into(), "https://b:2".into()));
        assert_eq!(second.trusted().as_deref(), Some("the CA"));
        assert_eq!(second.renew_at(), Some("2030-01-21T00:00:00Z".parse().unwrap()));
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_key_is_kept_from_before_the_first_attempt_to_join() {
        let dir = tempfile::tempdir().unwrap();
        let key = Identity::load_or_make(dir.path(), "a", "https://a:1", None).unwrap().public_key();
        let again = Identity::load_or_make(dir.path(), "b", "https://a:1", None).unwrap();
        assert_eq!((again.public_key(), again.name()), (key, "b".into()));
    }

    #[test]
    fn a_broken_file_is_no_reason_to_begin_anew() {
        let dir = tempfile::tempdir().unwrap();
        for broken in ["", "{", r#"{"key":"short","name":"a","server":"https://a:1"}"#] {
            std::fs::write(dir.path().join(FILE), broken).unwrap();
            assert!(matches!(
                Identity::load_or_make(dir.path(), "a", "https://a:1", None),
                Err(IdentityError::Broken { .. })
            ));
            assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), broken);
        }
    }

    #[test]
    fn a_proof_is_signed_over_what_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(dir.path(), "a", "https://a:1", None).unwrap();
        let proof: Proof = identity.prove("/node/v1/tunnel", "c", 1_700_000_000).to_string().parse().unwrap();
        let signature = URL_SAFE_NO_PAD.decode(&proof.signature).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        let verify = |path: &str| {
            let message = Proof::message(path, "c", proof.time, &proof.nonce);
            identity.key.verifying_key().verify(message.as_bytes(), &signature).is_ok()
        };
        assert!(verify("/node/v1/tunnel") && !verify("/node/v1/credential"));
    }
}
