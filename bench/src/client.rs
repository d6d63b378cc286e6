//! HTTP/1.1 over TLS, one connection a client: what every side is asked with, in the same way.
//!
//! Hyper's bare connection and nothing above it (no pool, no redirects, no decompression): the generator shares its two
//! cores with what it measures, so each microsecond it saves is one that the measured side gets. HTTP/1.1 for all sides,
//! because that is one TLS record and one system call a request, and neither side's flow control is part of the figure.

use crate::Result;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const MERGE_PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json");

/// An API server: where it is, and who we are to it.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// What stands before `/api/v1/…`: empty, or `/clusters/…`.
    pub prefix: String,
    authorization: HeaderValue,
    host: HeaderValue,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Target {
    pub fn new(address: SocketAddr, prefix: &str, token: &str) -> Result<Self> {
        Ok(Self {
            address,
            prefix: prefix.into(),
            authorization: HeaderValue::from_str(&format!("Bearer {token}"))?,
            host: HeaderValue::from_str(&address.to_string())?,
            name: ServerName::IpAddress(address.ip().into()),
            tls: connector(&[b"http/1.1"])?,
        })
    }

    /// The same server and person, another cluster.
    pub fn at(&self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..self.clone() }
    }

    /// A host that is served at an address.
    pub fn host(address: SocketAddr, host: &str) -> Result<Self> {
        let (name, value) = (ServerName::try_from(host.to_owned())?, HeaderValue::from_str(host)?);
        Ok(Self { name, host: value, ..Self::new(address, "", "none")? })
    }

    pub async fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(self.name.clone(), tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(async move {
            // Its error is also the next request's.
            let _ = connection.await;
        });
        Ok(Connection { sender, target: self.clone() })
    }
}

/// TLS to children of this process, that speak one of these protocols.
pub fn connector(protocols: &[&[u8]]) -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OwnChild(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// One request of a workload.
pub struct Ask {
    pub method: Method,
    /// Below the target's prefix.
    pub path: String,
    pub body: Bytes,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: Bytes::new() }
    }

    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: path.into(), body: body.into() }
    }

    pub fn merge_patch(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::PATCH, path: path.into(), body: body.into() }
    }
}

/// One client.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Connection {
    /// Sends a request; the head of its answer, whatever it is.
    pub async fn send(&mut self, ask: Ask) -> Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(ask.body));
        *request.uri_mut() = format!("{}{}", self.target.prefix, ask.path).parse()?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.target.host.clone());
        headers.insert(AUTHORIZATION, self.target.authorization.clone());
        headers.insert(ACCEPT, JSON);
        match ask.method {
            Method::GET => {}
            Method::PATCH => drop(headers.insert(CONTENT_TYPE, MERGE_PATCH)),
            _ => drop(headers.insert(CONTENT_TYPE, JSON)),
        }
        *request.method_mut() = ask.method;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and takes the whole answer; anything but success is an error.
    pub async fn ask(&mut self, ask: Ask) -> Result<Bytes> {
        let what = format!("{} {}", ask.method, ask.path);
        let (status, body) = self.answer(ask).await?;
        match status.is_success() {
            true => Ok(body),
            false => Err(format!("{what}: {status} {}", String::from_utf8_lossy(&body[..body.len().min(300)])).into()),
        }
    }

    async fn answer(&mut self, ask: Ask) -> Result<(StatusCode, Bytes)> {
        let response = self.send(ask).await?;
        Ok((response.status(), response.into_body().collect().await?.to_bytes()))
    }

    /// Sends a request and counts the bytes of its answer without keeping them.
    pub async fn count(&mut self, ask: Ask) -> Result<u64> {
        let what = format!("{} {}", ask.method, ask.path);
        let response = self.send(ask).await?;
        if !response.status().is_success() {
            return Err(format!("{what}: {}", response.status()).into());
        }
        let (mut body, mut bytes) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(bytes)
    }
}

/// Takes any certificate: all sides are children of this process, on loopback.
#[derive(Debug)]
struct OwnChild(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for OwnChild {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
