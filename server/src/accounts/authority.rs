//! Certificate authorities: one for the installation (the port's certificate), one for each cluster (the API server that
//! its pods see). Keys are ECDSA P-256, which every TLS client of Kubernetes takes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Ten years: as kubeadm's CA. Rotation comes by adding a second one to the bundle.
const CA_DAYS: i64 = 3650;
/// A server's certificate is made anew at each start and on renewal.
const SERVER_DAYS: i64 = 365;

/// What is stored of an authority; the key only ever sealed.
#[derive(Clone)]
pub struct AuthorityRecord {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    pin: String,
}

/// A server certificate with its chain and key, as rustls takes them.
pub struct ServerCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    /// The chain in PEM.
    pub chain_pem: String,
    pub key: PrivateKeyDer<'static>,
}

impl Authority {
    /// A new authority named `common_name`.
    pub fn generate(common_name: &str) -> Result<AuthorityRecord, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name = named(common_name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        valid_for(&mut parameters, CA_DAYS);
        let certificate = parameters.self_signed(&key)?;
        Ok(AuthorityRecord { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    pub fn load(record: &AuthorityRecord) -> Result<Self, rcgen::Error> {
        use rustls_pki_types::pem::PemObject;
        let key = KeyPair::from_pem(&record.key_pem)?;
        let pin = URL_SAFE_NO_PAD.encode(Sha256::digest(key.subject_public_key_info()));
        let certificate = CertificateDer::from_pem_slice(record.certificate_pem.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate_pem: record.certificate_pem.clone(), certificate, pin })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The base64url SHA-256 of the CA's public key info: what a join token carries.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// A server certificate for `names`, host names and addresses alike, over `key`.
    pub fn issue_server(
        &self,
        common_name: &str,
        names: &[String],
        key: &KeyPair,
    ) -> Result<ServerCertificate, rcgen::Error> {
        let mut parameters = CertificateParams::new(names.to_vec())?;
        parameters.distinguished_name = named(common_name);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        valid_for(&mut parameters, SERVER_DAYS);
        let certificate = parameters.signed_by(key, &self.issuer)?;
        Ok(ServerCertificate {
            chain_pem: format!("{}{}", certificate.pem(), self.certificate_pem),
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// A TLS configuration that presents such a certificate and offers HTTP/2 and HTTP/1.1.
    pub fn server_config(
        &self,
        common_name: &str,
        names: &[String],
        key: &KeyPair,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let certificate = self.issue_server(common_name, names, key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificate.chain, certificate.key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// From an hour ago, for clocks that are behind.
fn valid_for(parameters: &mut CertificateParams, days: i64) {
    let now = std::time::SystemTime::now();
    parameters.not_before = (now - std::time::Duration::from_secs(3600)).into();
    parameters.not_after = (now + std::time::Duration::from_secs(days as u64 * 86_400)).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_trusts_the_ca_trusts_its_server_and_no_other() {
        let authority = Authority::load(&Authority::generate("longshore-ca").unwrap()).unwrap();
        let stranger = Authority::load(&Authority::generate("longshore-ca").unwrap()).unwrap();
        let names = ["localhost".to_string(), "10.1.2.3".to_string()];
        let chain = authority.issue_server("server", &names, &KeyPair::generate().unwrap()).unwrap().chain;
        for (trusted, expected) in [(&authority, true), (&stranger, false)] {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(trusted.certificate.clone()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier =
                rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            for name in names.iter() {
                let name = rustls_pki_types::ServerName::try_from(name.as_str()).unwrap();
                let now = rustls_pki_types::UnixTime::now();
                use rustls::client::danger::ServerCertVerifier;
                let verdict = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
                assert_eq!(verdict.is_ok(), expected, "{name:?}");
            }
        }
        assert_ne!(authority.pin(), stranger.pin());
    }
}
