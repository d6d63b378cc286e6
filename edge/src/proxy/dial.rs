//! How an endpoint is reached. The edge itself opens no connection to anywhere: the server dials through tunnels, a node
//! from its own network.

use crate::model::Protocol;
use longshore_api::ids::ClusterId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use tokio::io::{AsyncRead, AsyncWrite};

/// A live endpoint, as the caller gave it: nothing else is ever dialed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub cluster: ClusterId,
    pub node: String,
    /// In the cluster's network, which other clusters may use as well.
    pub address: SocketAddr,
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

pub trait Dialer: Send + Sync + 'static {
    /// A stream of bytes to the endpoint. It may be dropped at any moment; how long it may take is the edge's affair.
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Dialing<'a>;

    /// A stream whose far end is [`crate::datagrams::answer`]'s, for datagrams to the endpoint.
    fn dial_datagrams<'a>(&'a self, _: &'a Endpoint) -> Dialing<'a> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// Dials, and speaks TLS where the protocol has it.
pub(super) async fn dial(dialer: &dyn Dialer, to: &Endpoint, protocol: Protocol) -> io::Result<Box<dyn Stream>> {
    let stream = dialer.dial(to).await?;
    if !protocol.tls() {
        return Ok(stream);
    }
    let config = if protocol.http2() { &*HTTP2 } else { &*HTTP1 };
    let name = ServerName::IpAddress(to.address.ip().into());
    let tls = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await?;
    if protocol.http2() && tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the endpoint doesn't speak HTTP/2"));
    }
    Ok(Box::new(tls))
}

static HTTP1: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(b"http/1.1"));
static HTTP2: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(b"h2"));

fn config(alpn: &[u8]) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring speaks both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// Pods sign for themselves; their address, which the edge was given, says who they are.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
