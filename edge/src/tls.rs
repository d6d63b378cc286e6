//! Certificates, and which one a client is shown.

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The protocol under which an authority asks for a challenge's certificate (RFC 8737).
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("tls.crt is no chain of PEM certificates")]
    Chain,
    #[error("tls.key is no private key in PEM")]
    Key,
    #[error("the key can't be used: {0}")]
    Unusable(#[source] rustls::Error),
    #[error("the key is not the certificate's")]
    Mismatch,
}

/// A chain and its key, ready to be shown; the key is checked to be the certificate's.
#[derive(Clone, Debug)]
pub struct Certificate(pub(crate) Arc<CertifiedKey>);

impl Certificate {
    /// `tls.crt` and `tls.key` of a `kubernetes.io/tls` Secret.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let (chain, key) = read(chain, key)?;
        let certified = CertifiedKey::new(chain, any_supported_type(&key).map_err(CertificateError::Unusable)?);
        match certified.keys_match() {
            Ok(()) => Ok(Self(Arc::new(certified))),
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(CertificateError::Mismatch)
            }
            Err(why) => Err(CertificateError::Unusable(why)),
        }
    }

    /// What a challenge shows: its certificate has an extension that nobody but the authority reads, so that it can't be
    /// compared with its key.
    pub fn of_challenge(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let (chain, key) = read(chain, key)?;
        let key = any_supported_type(&key).map_err(CertificateError::Unusable)?;
        Ok(Self(Arc::new(CertifiedKey::new(chain, key))))
    }
}

fn read(chain: &[u8], key: &[u8]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.ok().filter(|c| !c.is_empty()).ok_or(CertificateError::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Key)?;
    Ok((chain, key))
}
