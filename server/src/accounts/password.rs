//! Passwords (argon2id) and secrets that are shown once (kept as SHA-256: they are random, so no slow hash is needed).

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};

/// The least length that sign-up takes (NIST SP 800-63B).
pub const SHORTEST: usize = 8;
/// Longer input is refused, so that hashing it can't be made a burden.
pub const LONGEST: usize = 1024;

/// OWASP's second choice: 19 MiB, two passes, one lane.
fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

/// Takes some 20 ms of a core: call it off the reactor.
pub fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    let mut salt = [0u8; 16];
    rand::rng().fill_bytes(&mut salt);
    let salt = SaltString::encode_b64(&salt)?;
    Ok(argon2().hash_password(password.as_bytes(), &salt)?.to_string())
}

/// As slow as [`hash`], also when `stored` is none: an unknown account must not be told by its speed.
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    if password.len() > LONGEST {
        return false;
    }
    match stored.map(PasswordHash::new) {
        Some(Ok(parsed)) => argon2().verify_password(password.as_bytes(), &parsed).is_ok(),
        _ => {
            let _ = hash(password);
            false
        }
    }
}

/// 32 random bytes, base64url.
pub fn secret() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is kept of such a secret.
pub fn digest(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

/// `prefix` and ten lower-case base-32 characters: 50 random bits.
pub fn random_id(prefix: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0u8; 10];
    rand::rng().fill_bytes(&mut bytes);
    let tail: String = bytes.iter().map(|b| ALPHABET[usize::from(b % 32)] as char).collect();
    format!("{prefix}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifies_only_the_right_password() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify("correct horse", Some(&stored)));
        assert!(!verify("wrong horse", Some(&stored)));
        assert!(!verify("correct horse", None));
        assert!(!verify("correct horse", Some("garbage")));
    }

    #[test]
    fn ids_and_secrets_differ() {
        assert_ne!(secret(), secret());
        let id = random_id("c");
        assert_eq!(id.len(), 12);
        assert_ne!(id, random_id("c"));
    }
}
