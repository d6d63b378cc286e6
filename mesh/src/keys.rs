//! Keys of nodes (X25519), as WireGuard has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes in base64")]
pub struct NotAKey;

/// Made on the node and never leaves it.
#[derive(Clone)]
pub struct PrivateKey(x25519::StaticSecret);

impl PrivateKey {
    pub fn generate() -> Self {
        Self::from_bytes(rand::random())
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(x25519::StaticSecret::from(bytes))
    }

    /// To be kept where only the node reads it.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
    }

    pub(crate) fn secret(&self) -> &x25519::StaticSecret {
        &self.0
    }

    /// What authenticates messages about paths between the two: only they can compute it.
    pub(crate) fn shared_with(&self, peer: &PublicKey) -> hmac::Key {
        let shared = self.0.diffie_hellman(&peer.to_x25519());
        let label = hmac::Key::new(hmac::HMAC_SHA256, b"longshore mesh paths 1");
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&label, shared.as_bytes()).as_ref())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public())
    }
}

/// By what a node is known to its peers. As text: base64, as WireGuard's tools write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// Stands for a key in messages about paths.
pub(crate) type Tag = [u8; 8];

impl PublicKey {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn to_x25519(self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }

    pub(crate) fn tag(&self) -> Tag {
        let digest = digest::digest(&digest::SHA256, &self.0);
        digest.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let bytes = STANDARD.decode(text).map_err(|_| NotAKey)?;
        bytes.try_into().map(Self).map_err(|_| NotAKey)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotAKey;
    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_share_what_nobody_else_knows() {
        let [a, b, c] = [(); 3].map(|()| PrivateKey::generate());
        let sign = |key: &hmac::Key| hmac::sign(key, b"x").as_ref().to_vec();
        assert_eq!(sign(&a.shared_with(&b.public())), sign(&b.shared_with(&a.public())));
        assert_ne!(sign(&a.shared_with(&b.public())), sign(&a.shared_with(&c.public())));
    }

    #[test]
    fn a_key_as_text() {
        let key = PrivateKey::generate().public();
        assert_eq!(key.to_string().parse(), Ok(key));
        for wrong in ["", "abc", "AAAA"] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(NotAKey));
        }
    }
}
