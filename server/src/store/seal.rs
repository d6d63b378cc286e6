//! Sealing at rest: what Secrets hold is unreadable in Postgres, its replicas, its logs and its backups.
//!
//! Each cluster has a data key of its own, so that a cluster is moved, exported or shredded by its key. The data key lies
//! in the cluster's row, wrapped by the installation's key ring. A sealed text is bound to cluster, key and revision
//! (associated data): a row copied to another place, or an old one put back, does not open.

use super::object::{Key, Revision};
use chacha20poly1305::aead::{Aead, AeadCore, KeyInit, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use longshore_api::ids::ClusterId;
use std::fmt;

const NONCE: usize = 24;

/// A sealed text did not open: another key, another place, or damage. Says no more, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed text does not open with the key at hand")]
pub struct SealError;

/// Wraps and unwraps the clusters' data keys. An implementation may ask a key service; it is called once a load.
pub trait KeyRing: Send + Sync + 'static {
    fn wrap(&self, cluster: &ClusterId, key: &[u8; 32]) -> Result<Vec<u8>, SealError>;
    fn unwrap(&self, cluster: &ClusterId, wrapped: &[u8]) -> Result<[u8; 32], SealError>;
}

/// 32 bytes that wrap other keys and sign nothing.
pub struct MasterKey(XChaCha20Poly1305);

impl MasterKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(&key.into()))
    }

    /// A key for tests and new installations.
    pub fn random() -> ([u8; 32], Self) {
        let key: [u8; 32] = XChaCha20Poly1305::generate_key(OsRng).into();
        (key, Self::new(key))
    }

    /// Seals a small secret (a key) for one purpose; `purpose` must be given again to open it.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.0, purpose.as_bytes(), plain)
    }

    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        open(&self.0, purpose.as_bytes(), sealed)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl KeyRing for MasterKey {
    fn wrap(&self, cluster: &ClusterId, key: &[u8; 32]) -> Result<Vec<u8>, SealError> {
        self.seal(&purpose(cluster), key)
    }

    fn unwrap(&self, cluster: &ClusterId, wrapped: &[u8]) -> Result<[u8; 32], SealError> {
        self.open(&purpose(cluster), wrapped)?.try_into().map_err(|_| SealError)
    }
}

fn purpose(cluster: &ClusterId) -> String {
    format!("cluster data key {cluster}")
}

/// One cluster's data key at work.
pub struct DataKey {
    cluster: ClusterId,
    cipher: XChaCha20Poly1305,
}

impl DataKey {
    pub fn new(cluster: ClusterId, key: [u8; 32]) -> Self {
        Self { cluster, cipher: XChaCha20Poly1305::new(&key.into()) }
    }

    pub fn generate() -> [u8; 32] {
        XChaCha20Poly1305::generate_key(OsRng).into()
    }

    pub fn seal(&self, key: &Key, revision: Revision, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.cipher, &self.binding(key, revision), plain)
    }

    pub fn open(&self, key: &Key, revision: Revision, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        open(&self.cipher, &self.binding(key, revision), sealed)
    }

    /// Where a text belongs. NUL separates: no name holds one.
    fn binding(&self, key: &Key, revision: Revision) -> Vec<u8> {
        let Key { resource, namespace, name } = key;
        format!("{}\0{resource}\0{namespace}\0{name}\0{}", self.cluster, revision.0).into_bytes()
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, …)", self.cluster)
    }
}

fn seal(cipher: &XChaCha20Poly1305, binding: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
    let sealed = cipher.encrypt(&nonce, Payload { msg: plain, aad: binding }).map_err(|_| SealError)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn open(cipher: &XChaCha20Poly1305, binding: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, text) = sealed.split_at_checked(NONCE).ok_or(SealError)?;
    cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: text, aad: binding }).map_err(|_| SealError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: "secrets".into(), namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn opens_only_where_it_was_sealed() {
        let (raw, _) = MasterKey::random();
        let data = DataKey::new(ClusterId::new("c-a"), raw);
        let sealed = data.seal(&key("a"), Revision(7), b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(data.open(&key("a"), Revision(7), &sealed).unwrap(), b"hunter2");
        assert_eq!(data.open(&key("b"), Revision(7), &sealed), Err(SealError));
        assert_eq!(data.open(&key("a"), Revision(8), &sealed), Err(SealError));
        assert_eq!(DataKey::new(ClusterId::new("c-b"), raw).open(&key("a"), Revision(7), &sealed), Err(SealError));
        assert_eq!(data.open(&key("a"), Revision(7), &sealed[..10]), Err(SealError));
    }

    #[test]
    fn a_wrapped_key_belongs_to_one_cluster() {
        let (_, master) = MasterKey::random();
        let raw = DataKey::generate();
        let wrapped = master.wrap(&ClusterId::new("c-a"), &raw).unwrap();
        assert_eq!(master.unwrap(&ClusterId::new("c-a"), &wrapped).unwrap(), raw);
        assert_eq!(master.unwrap(&ClusterId::new("c-b"), &wrapped), Err(SealError));
        assert_eq!(MasterKey::random().1.unwrap(&ClusterId::new("c-a"), &wrapped), Err(SealError));
    }
}
