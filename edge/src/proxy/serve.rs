//! Connections of clients: accepted, TLS ended, spoken to in HTTP/1.1 or HTTP/2.

use super::body::ResponseBody;
use super::counts::{Counted, counted_as};
use super::metrics::count;
use super::{Shared, handle, proxied};
use crate::tls::{ACME_TLS_ALPN, Certificate};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

/// Streams of one HTTP/2 connection at once.
const MOST_STREAMS: u32 = 128;

/// The connection a request came by.
pub struct Client {
    pub address: SocketAddr,
    /// The port it came to.
    pub port: u16,
    pub tls: bool,
    /// The name it asked for in its handshake, lower case.
    pub name: Option<String>,
}

pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, tls: bool, mut stop: watch::Receiver<bool>) {
    // Closed once the last connection is gone.
    let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
    let port = listener.local_addr().map_or(0, |address| address.port());
    while let Some(arrived) = arrival(&shared, &listener, &mut stop).await {
        let (shared, stop, alive) = (shared.clone(), stop.clone(), alive.clone());
        tokio::spawn(async move {
            let _alive = alive;
            let Some(Admitted { stream, address, held: _held }) = arrived.admit(&shared, |_| true).await else {
                return;
            };
            let client = Client { address, port, tls, name: None };
            if tls {
                with_tls(&shared, stream, client, stop).await;
            } else {
                speak(&shared, stream, client, stop).await;
            }
        });
    }
    drop((listener, alive));
    let _ = tokio::time::timeout(shared.settings.drain, all_gone.recv()).await;
}

/// A connection that was accepted.
pub(super) struct Arrived {
    stream: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
}

/// A client that was let in.
pub(super) struct Admitted {
    pub stream: TcpStream,
    pub address: SocketAddr,
    pub held: Held,
}

/// A connection's place among those of the edge and of its address, for as long as it stands.
pub(super) struct Held {
    shared: Arc<Shared>,
    _places: (OwnedSemaphorePermit, Counted<IpAddr>),
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The next connection for which there is a place; None once `stop` turns true, or its sender is gone.
pub(super) async fn arrival(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    stop: &mut watch::Receiver<bool>,
) -> Option<Arrived> {
    loop {
        let accepted = async {
            let place = shared.places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted?,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        match accepted {
            Ok((stream, address)) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                return Some(Arrived { stream, address, place });
            }
            Err(error) => {
                // Out of file descriptors, most likely: waiting is all that helps.
                warn!(%error, "the edge can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Arrived {
    /// Lets in who may come and isn't here too often.
    pub async fn admit(self, shared: &Arc<Shared>, may_come: impl Fn(IpAddr) -> bool) -> Option<Admitted> {
        let Self { mut stream, mut address, place } = self;
        let settings = &shared.settings;
        if settings.proxies.iter().any(|range| range.contains(&address.ip())) {
            match tokio::time::timeout(settings.head, proxied::client(&mut stream)).await {
                Ok(Ok(client)) => address = client.unwrap_or(address),
                failed => {
                    count(&shared.metrics.refused);
                    debug!(?failed, proxy = %address, "a proxy didn't say who its client is");
                    return None;
                }
            }
        }
        let counted = shared.addresses.take(counted_as(address.ip()), settings.connections_per_address);
        let Some(counted) = counted.filter(|_| may_come(address.ip())) else {
            count(&shared.metrics.refused);
            return None;
        };
        count(&shared.metrics.connections);
        let _ = stream.set_nodelay(true);
        Some(Admitted { stream, address, held: Held { shared: shared.clone(), _places: (place, counted) } })
    }
}

async fn with_tls(shared: &Arc<Shared>, stream: TcpStream, mut client: Client, stop: watch::Receiver<bool>) {
    match tokio::time::timeout(shared.settings.head, handshake(shared, stream)).await {
        Ok(Ok(Some(stream))) => {
            client.name = stream.get_ref().1.server_name().map(str::to_ascii_lowercase);
            speak(shared, stream, client, stop).await;
        }
        // A challenge was shown.
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            count(&shared.metrics.handshakes_failed);
            debug!(%error, client = %client.address, "a TLS handshake failed");
        }
        Err(_) => count(&shared.metrics.handshakes_failed),
    }
}

async fn handshake(shared: &Arc<Shared>, stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    if hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_TLS_ALPN)) {
        let host = hello.server_name().map(str::to_ascii_lowercase).unwrap_or_default();
        let Some(shown) = shared.challenges.tls(&host).await else {
            return Err(io::Error::other("no challenge is open for this name"));
        };
        let mut stream = start.into_stream(challenge_config(shown)).await?;
        stream.shutdown().await?;
        return Ok(None);
    }
    start.into_stream(shared.tls.clone()).await.map(Some)
}

fn challenge_config(shown: Certificate) -> Arc<ServerConfig> {
    let mut config = builder().with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown.0)));
    config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
    Arc::new(config)
}

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks both versions")
        .with_no_client_auth()
}

pub(super) fn tls_config(shared: Weak<Shared>) -> Arc<ServerConfig> {
    let mut config = builder().with_cert_resolver(Arc::new(Resolver(shared)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

struct Resolver(Weak<Shared>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_ascii_lowercase();
        self.0.upgrade()?.certificate(&host).map(|certificate| certificate.0)
    }
}

/// Requests that a connection is at work on, and whether one came since it was last looked at.
#[derive(Default)]
pub struct Activity {
    running: AtomicUsize,
    begun: AtomicUsize,
    ended: Notify,
}

pub struct Running(Arc<Activity>);

impl Running {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::Relaxed);
        activity.begun.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

impl Activity {
    /// Ends when nothing happened for `length`.
    async fn idle(&self, length: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            if self.running.load(Ordering::Relaxed) > 0 {
                self.ended.notified().await;
                continue;
            }
            tokio::time::sleep(length).await;
            if self.running.load(Ordering::Relaxed) == 0 && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

async fn speak<S>(shared: &Arc<Shared>, stream: S, client: Client, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &shared.settings;
    let activity = Arc::new(Activity::default());
    let client = Arc::new(client);
    let service = {
        let (shared, activity) = (shared.clone(), activity.clone());
        hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let (shared, client, running) = (shared.clone(), client.clone(), Running::new(&activity));
            async move {
                Ok::<http::Response<ResponseBody>, Infallible>(handle::handle(shared, client, running, request).await)
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head)
        .max_headers(settings.headers)
        .max_buf_size(settings.header_bytes.max(8 << 10));
    builder
        .http2()
        .enable_connect_protocol()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .adaptive_window(true);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut idle = pin!(activity.idle(settings.idle));
    let mut ending = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(%error, "a client's connection broke");
                }
                break;
            }
            () = idle.as_mut(), if !ending => {}
            _ = stop.wait_for(|stop| *stop), if !ending => {}
        }
        ending = true;
        connection.as_mut().graceful_shutdown();
    }
}
