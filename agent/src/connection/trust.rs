//! Which server is the right one: judged by certificates alone.
//!
//! Before joining, by the pin in the join token: the server presents its CA with its certificate, the pin is the
//! SHA-256 of that CA's public key, and the rest is ordinary verification with that CA as the only root. From then on by
//! the CA that joining gave. `--ca FILE` takes the place of both, for installations behind another certificate: only
//! what the file holds is trusted, never the system's roots by themselves.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a server has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A certificate signed by the CA whose public key has this SHA-256, in base64url.
    Pin(String),
    /// A certificate signed by one of these, PEM.
    Roots(String),
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the join token's pin is not the base64url of a SHA-256")]
    Pin,
    #[error("there is no usable certificate among what should be trusted{0}")]
    Roots(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    pub fn client_config(&self) -> Result<ClientConfig, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        Ok(match self {
            Self::Pin(pin) => {
                let pin = URL_SAFE_NO_PAD.decode(pin).ok().and_then(|p| p.try_into().ok()).ok_or(TrustError::Pin)?;
                let verifier = Arc::new(PinnedAuthority { pin, provider });
                builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            }
            Self::Roots(pem) => builder.with_root_certificates(roots(pem)?).with_no_client_auth(),
        })
    }
}

fn roots(pem: &str) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    let mut problem = String::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        match certificate.map_err(|e| e.to_string()).and_then(|c| store.add(c).map_err(|e| e.to_string())) {
            Ok(()) => {}
            // A bundle of a system may hold some that we can't use; the rest count.
            Err(e) => problem = format!(": {e}"),
        }
    }
    if store.is_empty() { Err(TrustError::Roots(problem)) } else { Ok(store) }
}

#[derive(Debug)]
struct PinnedAuthority {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl PinnedAuthority {
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        ParsedCertificate::try_from(certificate)
            .is_ok_and(|parsed| Sha256::digest(parsed.subject_public_key_info()).as_slice() == self.pin)
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|c| self.is_pinned(c)).ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    struct Authority {
        key: KeyPair,
        certificate: rcgen::Certificate,
        parameters: CertificateParams,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut parameters = CertificateParams::new(Vec::new()).unwrap();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let certificate = parameters.self_signed(&key).unwrap();
            Self { key, certificate, parameters }
        }

        fn pin(&self) -> Trust {
            Trust::Pin(URL_SAFE_NO_PAD.encode(Sha256::digest(self.key.subject_public_key_info())))
        }

        fn roots(&self) -> Trust {
            Trust::Roots(self.certificate.pem())
        }

        /// A server for `host` that presents its certificate and those of `chain`.
        fn server(&self, host: &str, chain: &[&Authority]) -> ServerConfig {
            let key = KeyPair::generate().unwrap();
            let parameters = CertificateParams::new(vec![host.to_string()]).unwrap();
            let issuer = Issuer::from_params(&self.parameters, &self.key);
            let certificate = parameters.signed_by(&key, &issuer).unwrap();
            let presented = std::iter::once(certificate.der().clone())
                .chain(chain.iter().map(|authority| authority.certificate.der().clone()));
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    presented.collect(),
                    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
                )
                .unwrap()
        }
    }

    /// A whole handshake in memory; what the client says to it.
    fn handshake(trust: &Trust, server: ServerConfig, host: &str) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(host.to_string()).unwrap();
        let mut client = ClientConnection::new(Arc::new(trust.client_config().unwrap()), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn the_pinned_authority_and_no_other_is_believed() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let server = || authority.server("longshore.example", &[&authority]);
        assert_eq!(handshake(&authority.pin(), server(), "longshore.example"), Ok(()));
        assert!(handshake(&stranger.pin(), server(), "longshore.example").is_err(), "another pin");
        assert!(handshake(&authority.pin(), server(), "other.example").is_err(), "another host");
    }

    #[test]
    fn showing_the_authority_without_its_signature_is_not_enough() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let server = stranger.server("longshore.example", &[&authority, &stranger]);
        assert!(handshake(&authority.pin(), server, "longshore.example").is_err());
        let server = authority.server("longshore.example", &[]);
        assert!(handshake(&authority.pin(), server, "longshore.example").is_err(), "the authority must be shown");
    }

    #[test]
    fn after_joining_the_given_authority_is_the_only_one() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let server = || authority.server("10.0.0.1", &[]);
        assert_eq!(handshake(&authority.roots(), server(), "10.0.0.1"), Ok(()));
        assert!(handshake(&stranger.roots(), server(), "10.0.0.1").is_err());
        assert!(matches!(Trust::Roots("nothing".into()).client_config(), Err(TrustError::Roots(_))));
        assert!(matches!(Trust::Pin("short".into()).client_config(), Err(TrustError::Pin)));
    }
}
