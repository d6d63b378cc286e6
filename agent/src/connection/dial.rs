//! From a base URL to a TLS connection, through an HTTP proxy where the environment names one.

use super::trust::{Trust, TrustError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// One address of a host may take this long before the next is tried.
const TCP: Duration = Duration::from_secs(5);
/// What each further step may take: the proxy's answer, the TLS handshake.
const STEP: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0:?} is no base URL of an installation: it has the form https://HOST[:PORT]")]
    Url(String),
    #[error("{0}")]
    Trust(#[from] TrustError),
    #[error("{host}: {source}")]
    Tcp { host: String, source: io::Error },
    #[error("the proxy {proxy}: {why}")]
    Proxy { proxy: String, why: String },
    #[error("{host}: TLS: {source}")]
    Tls { host: String, source: io::Error },
}

impl DialError {
    /// Whether the server showed a certificate that isn't trusted, or nothing could be trusted at all.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Tls { source, .. } => source
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_))),
            Self::Trust(_) | Self::Url(_) => true,
            _ => false,
        }
    }
}

/// Where an installation is, and through which proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    proxy: Option<Proxy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Proxy {
    host: String,
    port: u16,
    /// `USER:PASSWORD`.
    login: Option<String>,
}

/// A connection, and which of this machine's addresses it leaves from.
pub struct Dialed {
    pub stream: TlsStream<TcpStream>,
    pub local: Option<IpAddr>,
}

impl Endpoint {
    /// From the base URL and the environment's `HTTPS_PROXY` (else `HTTP_PROXY`, `ALL_PROXY`) and `NO_PROXY`.
    pub fn from_environment(url: &str) -> Result<Self, DialError> {
        let get = |name: &str| {
            let found = std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase()));
            found.ok().filter(|value| !value.is_empty())
        };
        let proxy = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].into_iter().find_map(get);
        Self::new(url, proxy.as_deref(), &get("NO_PROXY").unwrap_or_default())
    }

    pub fn new(url: &str, proxy: Option<&str>, no_proxy: &str) -> Result<Self, DialError> {
        let wrong = || DialError::Url(url.into());
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let host = bare(uri.host().ok_or_else(wrong)?);
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let port = uri.port_u16().unwrap_or(443);
        let proxy = match proxy {
            Some(proxy) if !excluded(&host, no_proxy) => Some(Proxy::parse(proxy)?),
            _ => None,
        };
        Ok(Self { host, port, proxy })
    }

    /// As it stands in URLs and in `Host`.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    pub async fn dial(&self, trust: &Trust) -> Result<Dialed, DialError> {
        let tls = tokio_rustls::TlsConnector::from(Arc::new(trust.client_config()?));
        let name = ServerName::try_from(self.host.clone()).map_err(|_| DialError::Url(self.authority()))?;
        let tcp = match &self.proxy {
            None => tcp(&self.host, self.port).await?,
            Some(proxy) => proxy.dial(&self.authority()).await?,
        };
        let _ = tcp.set_nodelay(true);
        let local = tcp.local_addr().ok().map(|address| address.ip().to_canonical());
        let failed = |source| DialError::Tls { host: self.authority(), source };
        let stream = within(STEP, tls.connect(name, tcp)).await.map_err(failed)?;
        Ok(Dialed { stream, local })
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, DialError> {
        let wrong = || DialError::Proxy {
            proxy: "of the environment".into(),
            why: "it has the form http://[USER:PASSWORD@]HOST:PORT".into(),
        };
        let with_scheme = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let login = uri.authority().and_then(|a| a.as_str().rsplit_once('@')).map(|(login, _)| decoded(login));
        Ok(Self { host: bare(uri.host().ok_or_else(wrong)?), port: uri.port_u16().unwrap_or(80), login })
    }

    /// A tunnel to `target` by CONNECT.
    async fn dial(&self, target: &str) -> Result<TcpStream, DialError> {
        let proxy = authority(&self.host, self.port);
        let failed = |why: String| DialError::Proxy { proxy: proxy.clone(), why };
        let tcp = tcp(&self.host, self.port).await?;
        let opened = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(|e| e.to_string())?;
            tokio::spawn(connection.with_upgrades());
            let mut request = http::Request::connect(target).header(http::header::HOST, target);
            if let Some(login) = &self.login {
                let basic = format!("Basic {}", STANDARD.encode(login));
                request = request.header(http::header::PROXY_AUTHORIZATION, basic);
            }
            let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            if !response.status().is_success() {
                return Err(format!("CONNECT {target}: {}", response.status()));
            }
            let upgraded = hyper::upgrade::on(response).await.map_err(|e| e.to_string())?;
            let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| "no raw connection".to_string())?;
            // In TLS the client speaks first: nothing can have been read yet.
            if parts.read_buf.is_empty() { Ok(parts.io.into_inner()) } else { Err("it spoke first".to_string()) }
        };
        match tokio::time::timeout(STEP, opened).await {
            Ok(opened) => opened.map_err(failed),
            Err(_) => Err(failed("it doesn't answer".into())),
        }
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Tcp { host: authority(host, port), source };
    let addresses = within(STEP, tokio::net::lookup_host((host, port))).await.map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match within(TCP, TcpStream::connect(address)).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(failed(last))
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| late())
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_string()
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// This machine itself, and what `NO_PROXY` names: hosts, domains with or without a leading dot, `*`.
fn excluded(host: &str, no_proxy: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return true;
    }
    let host = host.to_ascii_lowercase();
    no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty()).any(|entry| {
        let domain = entry.trim_start_matches('.');
        entry == "*" || host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    })
}

/// Percent-decoded, as logins in URLs are written.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code =
            tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_https_without_a_path() {
        let of = |url: &str| Endpoint::new(url, None, "").map(|e| e.authority()).ok();
        assert_eq!(of("https://longshore.example/").as_deref(), Some("longshore.example:443"));
        assert_eq!(of("https://10.0.0.1:7480").as_deref(), Some("10.0.0.1:7480"));
        assert_eq!(of("https://[fd00::1]:7480").as_deref(), Some("[fd00::1]:7480"));
        for wrong in ["http://10.0.0.1:7480", "longshore.example", "https://a/b", "https://a?b", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn proxies_are_used_for_hosts_that_nothing_excludes() {
        let via = |url: &str, no_proxy: &str| {
            Endpoint::new(url, Some("http://me:p%40ss@proxy.example:3128"), no_proxy).unwrap().proxy
        };
        let proxy = Proxy { host: "proxy.example".into(), port: 3128, login: Some("me:p@ss".into()) };
        assert_eq!(via("https://a.example", "b.example,c"), Some(proxy));
        for (url, no_proxy) in [
            ("https://a.example", "example"),
            ("https://a.example", ".example"),
            ("https://a.example", "x, A.example"),
            ("https://a.example", "*"),
            ("https://127.0.0.1:7480", ""),
        ] {
            assert_eq!(via(url, no_proxy), None, "{url} {no_proxy}");
        }
        assert!(via("https://bexample", "example").is_some());
        assert!(Endpoint::new("https://a.example", Some("socks5://p:1"), "").is_err());
    }
}
