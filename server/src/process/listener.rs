//! One port for everything: TLS by its first byte, plain HTTP from loopback and trusted proxies only.
//!
//! Plain HTTP exists for the page on a developer's own machine and for a proxy that ended TLS; it checks `Host`, so that
//! a foreign page whose name was pointed at loopback (DNS rebinding) gets nothing.

use super::stall::{self, Stalling};
use super::unread;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use longshore_api::Status;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::{debug, warn};

/// From whom a request came, as a request extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: bool,
}

/// An address range in CIDR form, from which a proxy may speak plain HTTP to us.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl std::str::FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address range such as 10.0.0.0/8");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = |a: IpAddr| match a {
            IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
            IpAddr::V6(a) => u128::from(a),
        };
        let mask = if self.bits == 0 { 0 } else { u128::MAX << (128 - u32::from(self.bits)) };
        self.address.is_ipv4() == address.is_ipv4() && (number(self.address) ^ number(address)) & mask == 0
    }
}

/// Connections at once; more wait in the kernel's queue. Each idle one costs some 20 kB.
const MOST_CONNECTIONS: usize = 20_000;
/// File descriptors that connections leave to Postgres, files and agents' streams.
const OTHER_FILES: u64 = 256;
/// A client that has not finished its handshake or its request's head by then is let go.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a clean stop gives running requests before it ends them.
const DRAIN: Duration = Duration::from_secs(5);

pub struct Listener {
    pub tcp: TcpListener,
    pub tls: TlsAcceptor,
    pub trusted_proxies: Vec<Cidr>,
    pub router: Router,
}

impl Listener {
    /// Serves until `stop` turns true, then lets running requests finish for a moment.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(places()));
        let shared = Arc::new(self);
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                accepted = shared.tcp.accept() => accepted,
                _ = stop.wait_for(|s| *s) => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    let connection = Connection { shared: shared.clone(), address, place };
                    tokio::spawn(connection.serve(stream, graceful.watcher()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: waiting is all that helps.
                    warn!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    }
}

/// How many connections there can be: as many as this process may have files open. Most systems allow a thousand unless a
/// program asks for more, and then hundreds of thousands.
fn places() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return MOST_CONNECTIONS };
    let wanted = (MOST_CONNECTIONS as u64 + OTHER_FILES).min(hard);
    let files = if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    let places = usize::try_from(files.saturating_sub(OTHER_FILES).max(files / 2)).unwrap_or(MOST_CONNECTIONS);
    if places < MOST_CONNECTIONS {
        warn!(files, places, "this process may open {files} files only: more than {places} connections have to wait");
    }
    places.min(MOST_CONNECTIONS)
}

struct Connection {
    shared: Arc<Listener>,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, mut stream: TcpStream, graceful: Watcher) {
        let mut first = [0u8; 1];
        let Ok(Ok(1)) = tokio::time::timeout(PATIENCE, stream.peek(&mut first)).await else { return };
        const TLS_HANDSHAKE: u8 = 0x16;
        if first[0] == TLS_HANDSHAKE {
            let stream = Stalling::new(stream, stall::PATIENCE);
            match tokio::time::timeout(PATIENCE, self.shared.tls.accept(stream)).await {
                Ok(Ok(stream)) => self.http(stream, true, graceful).await,
                Ok(Err(error)) => debug!(peer = %self.address, %error, "the TLS handshake failed"),
                Err(_) => debug!(peer = %self.address, "the TLS handshake took too long"),
            }
        } else if self.may_speak_plainly() {
            self.http(Stalling::new(stream, stall::PATIENCE), false, graceful).await;
        } else {
            let text = "Client sent an HTTP request to an HTTPS server.\n";
            let answer = format!(
                "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    fn may_speak_plainly(&self) -> bool {
        let ip = self.address.ip().to_canonical();
        ip.is_loopback() || self.shared.trusted_proxies.iter().any(|range| range.contains(ip))
    }

    async fn http<S>(self, stream: S, tls: bool, graceful: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Peer { address: self.address, tls };
        let loopback = self.address.ip().to_canonical().is_loopback();
        let router = self.shared.router.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let router = router.clone();
            async move {
                let (parts, body) = request.into_parts();
                let (body, rest) = unread::watch(body);
                let mut request = Request::from_parts(parts, Body::new(body));
                request.extensions_mut().insert(peer);
                let response = match tls || !loopback || names_loopback(&request) {
                    true => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
                    false => misdirected(),
                };
                rest.discard().await;
                Ok::<Response, std::convert::Infallible>(response)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(1000)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(PATIENCE);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        if let Err(error) = watched.await {
            debug!(peer = %self.address, %error, "a connection ended");
        }
        drop(self.place);
    }
}

/// Whether the request is addressed to this machine by a name that no one else can point here.
fn names_loopback(request: &Request) -> bool {
    let host = request.headers().get(http::header::HOST).and_then(|h| h.to_str().ok()).or(request.uri().host());
    let Some(host) = host else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn misdirected() -> Response {
    let why = "plain HTTP is answered only under a loopback name (localhost, 127.0.0.1); use https";
    let status = Status::failure(421, "BadRequest", why);
    (http::StatusCode::MISDIRECTED_REQUEST, axum::Json(status)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_they_should() {
        let range: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(range.contains("10.1.200.3".parse().unwrap()));
        assert!(!range.contains("10.2.0.1".parse().unwrap()));
        assert!(!range.contains("::1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "10.0.0.0".parse::<Cidr>().is_err());
    }

    #[test]
    fn only_loopback_names_count_as_loopback() {
        let named = |host: &str| names_loopback(&Request::builder().header("host", host).body(Body::empty()).unwrap());
        for yes in ["localhost", "localhost:7480", "127.0.0.1:1", "[::1]:7480", "[::1]"] {
            assert!(named(yes), "{yes}");
        }
        for no in ["evil.example", "localhost.evil.example:80", "10.0.0.1:7480", ""] {
            assert!(!named(no), "{no}");
        }
    }
}
