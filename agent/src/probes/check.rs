//! One probe, carried out: a command in the container, or a connection to the pod as its node makes it: from inside the
//! cluster's network, as the host itself may have no way to its pods.

use super::tracker::timeout;
use crate::pods::network::{Network, refusal};
use crate::runtime::{ExecSpec, Output, Record, Runtime};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How much of what a probe prints or answers is kept for the event.
const KEPT: usize = 10 << 10;

#[derive(Debug, PartialEq)]
pub enum Outcome {
    Success,
    /// With what the event says.
    Failure(String),
}

pub struct Target<'a> {
    pub runtime: &'a Arc<dyn Runtime>,
    pub record: &'a Record,
    pub container: &'a Container,
    pub network: &'a dyn Network,
    /// The pod shares the host's network.
    pub host_network: bool,
    /// The pod's address; the host's for pods in its network.
    pub ip: IpAddr,
}

pub async fn check(target: &Target<'_>, probe: &Probe) -> Outcome {
    let limit = timeout(probe);
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match run(target.runtime, &target.record.id, command, limit).await {
            Ok((0, _)) => Outcome::Success,
            Ok((_, output)) => Outcome::Failure(output),
            Err(message) => Outcome::Failure(message),
        };
    }
    let answer = async {
        if let Some(action) = &probe.http_get {
            http_get(target, action).await
        } else if let Some(action) = &probe.tcp_socket {
            tcp(target, action).await
        } else if let Some(action) = &probe.grpc {
            grpc(target, action).await
        } else {
            Err("no action was specified for the probe".to_owned())
        }
    };
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(())) => Outcome::Success,
        Ok(Err(message)) => Outcome::Failure(message),
        Err(_) => Outcome::Failure(late(target, probe)),
    }
}

fn late(target: &Target<'_>, probe: &Probe) -> String {
    match &probe.http_get {
        Some(action) => {
            let address = url(target, action).unwrap_or_default();
            format!("Get \"{address}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        }
        None => "timeout: health rpc did not complete or the connection timed out".to_owned(),
    }
}

/// Runs a command to its end and answers its exit code and output; killed from the host when it takes too long.
pub async fn run(
    runtime: &Arc<dyn Runtime>,
    id: &str,
    command: Vec<String>,
    limit: Duration,
) -> Result<(i32, String), String> {
    let spec = ExecSpec { command: command.clone(), stdin: false, stdout: true, stderr: true, tty: false };
    let session = runtime.exec(id, &spec).await.map_err(|e| e.to_string())?;
    let mut output = session.output;
    let mut text = Vec::new();
    let all = async {
        while let Some(part) = output.next().await {
            let (Ok(Output::Stdout(bytes)) | Ok(Output::Stderr(bytes))) = part else { break };
            let room = KEPT.saturating_sub(text.len());
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        session.control.exit_code().await
    };
    match tokio::time::timeout(limit, all).await {
        Ok(Ok(code)) => Ok((code.unwrap_or(0), String::from_utf8_lossy(&text).into_owned())),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => {
            session.control.kill().await;
            Err(format!("command timed out: \"{}\" timed out after {}s", command.join(" "), limit.as_secs()))
        }
    }
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name)) {
            Some(found) => found.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port: {name}"))?,
        },
    };
    u16::try_from(number).ok().filter(|p| *p > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

async fn connect(target: &Target<'_>, host: Option<&str>, port: u16) -> Result<TcpStream, String> {
    let ip: IpAddr = match host.filter(|h| !h.is_empty()) {
        None => target.ip,
        Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(host) => host.parse().map_err(|_| format!("dial tcp: lookup {host}: no such host"))?,
    };
    let address = SocketAddr::new(ip, port);
    // What a probe calls localhost is its node's.
    match target.host_network || ip.is_loopback() {
        true => TcpStream::connect(address).await,
        false => target.network.connect(address).await,
    }
    .map_err(|error| refusal(address, &error))
}

async fn tcp(target: &Target<'_>, action: &TCPSocketAction) -> Result<(), String> {
    connect(target, action.host.as_deref(), port(target.container, &action.port)?).await.map(drop)
}

fn url(target: &Target<'_>, action: &HTTPGetAction) -> Result<String, String> {
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let host = action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.ip.to_string());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!("{scheme}://{host}:{}{slash}{path}", port(target.container, &action.port)?))
}

async fn http_get(target: &Target<'_>, action: &HTTPGetAction) -> Result<(), String> {
    let url = url(target, action)?;
    let stream = connect(target, action.host.as_deref(), port(target.container, &action.port)?)
        .await
        .map_err(|e| format!("Get \"{url}\": {e}"))?;
    let uri: http::Uri = url.parse().map_err(|e| format!("parse \"{url}\": {e}"))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut request = http::Request::get(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header("user-agent", "kube-probe/1.37")
        .header("accept", "*/*");
    let mut host = authority;
    for header in action.http_headers.iter().flatten() {
        if header.name.eq_ignore_ascii_case("host") {
            host.clone_from(&header.value);
        } else {
            request = request.header(&header.name, &header.value);
        }
    }
    let request = request.header("host", host).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let status = if action.scheme.as_deref() == Some("HTTPS") {
        let name = rustls_pki_types::ServerName::IpAddress(target.ip.into());
        let tls = tls_connector().connect(name, stream).await.map_err(|e| format!("Get \"{url}\": {e}"))?;
        exchange(tls, request).await
    } else {
        exchange(stream, request).await
    };
    match status.map_err(|e| format!("Get \"{url}\": {e}"))? {
        200..400 => Ok(()),
        code => Err(format!("HTTP probe failed with statuscode: {code}")),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Empty<Bytes>>,
) -> Result<u16, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    // A little of the body, so that the server isn't cut off in the middle of a short answer.
    let mut body = http_body_util::Limited::new(response.into_body(), KEPT);
    while let Some(Ok(_)) = body.frame().await {}
    drop(driver);
    Ok(status)
}

/// `grpc.health.v1.Health/Check`, written by hand: one string in, one number out.
async fn grpc(target: &Target<'_>, action: &GRPCAction) -> Result<(), String> {
    let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
    let stream = connect(target, None, port).await.map_err(|e| format!("timeout: failed to connect service: {e}"))?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| format!("failed to connect service: {e}"))?;
    let _driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let service = action.service.as_deref().unwrap_or_default().as_bytes();
    let mut message = Vec::new();
    if let (false, Ok(length)) = (service.is_empty(), u8::try_from(service.len())) {
        message.extend([0x0a, length]);
        message.extend(service);
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let request = http::Request::post(format!("http://{}:{port}/grpc.health.v1.Health/Check", target.ip))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| format!("error: health rpc failed: {e}"))?;
    let body = http_body_util::Limited::new(response.into_body(), KEPT)
        .collect()
        .await
        .map_err(|e| format!("error: health rpc failed: {e}"))?
        .to_bytes();
    match body.get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        Some([0x08, status, ..]) => Err(format!(
            "service unhealthy (responded with \"{}\")",
            if *status == 2 { "NOT_SERVING" } else { "UNKNOWN" }
        )),
        _ => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into()),
    }
}

/// Trusts any certificate, as Kubernetes does in probes and towards pods behind its proxy: the address says who it is.
pub fn tls_connector() -> tokio_rustls::TlsConnector {
    #[derive(Debug)]
    struct Anyone;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map(|b| b.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth());
    // The versions are the provider's own; there is nothing to fail on.
    tokio_rustls::TlsConnector::from(Arc::new(config.unwrap_or_else(|e| unreachable!("TLS versions: {e}"))))
}
