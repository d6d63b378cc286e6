//! Endpoints: which of them gets a request, the connections that are kept to it, and how one is passed over after failures.

use super::body::RequestBody;
use super::dial::{Dialer, Endpoint, Stream};
use super::{Settings, websocket};
use crate::model::{Policy, Protocol};
use crate::services::{Behind, Target};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use rand::Rng;
use std::collections::BTreeSet;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What one backend's requests are spread over.
#[derive(Default)]
pub struct Pool {
    upstreams: Vec<Arc<Upstream>>,
    standing: BTreeSet<Target>,
    /// What the Service says that they speak.
    protocol: Option<Protocol>,
    sticky: bool,
}

pub struct Upstream {
    pub endpoint: Endpoint,
    outstanding: AtomicUsize,
    health: Mutex<Health>,
    /// Connections of HTTP/1.1 that wait for a request; the last one was used last.
    idle: Mutex<Vec<Idle>>,
    /// One connection of HTTP/2 for each protocol that has it.
    shared: [tokio::sync::Mutex<Option<http2::SendRequest<RequestBody>>>; 2],
    removed: watch::Sender<bool>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    /// Passed over until then.
    until: Option<Instant>,
}

struct Idle {
    protocol: Protocol,
    since: Instant,
    sender: http1::SendRequest<RequestBody>,
}

/// The longest that an endpoint is passed over; the first time is a sixteenth of it.
const LONGEST_PENALTY: Duration = Duration::from_secs(16);

/// What drives a connection of HTTP/2.
pub type Http2 = http2::Connection<TokioIo<Box<dyn Stream>>, RequestBody, TokioExecutor>;

pub enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// A connection for a request.
pub struct Connection {
    pub sender: Sender,
    /// It has served others before, so that its end may have been on the way.
    pub reused: bool,
}

impl Pool {
    /// What is behind the backend from now on; endpoints that were there before keep their connections, the others lose the
    /// idle ones.
    pub fn replace(&self, cluster: &ClusterId, behind: Behind) -> Self {
        let known = |endpoint: &Endpoint| self.upstreams.iter().find(|u| u.endpoint == *endpoint).cloned();
        let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
        for Target { node, address } in behind.targets {
            let endpoint = Endpoint { cluster: cluster.clone(), node, address };
            upstreams.push(known(&endpoint).unwrap_or_else(|| Arc::new(Upstream::new(endpoint))));
        }
        for old in &self.upstreams {
            if !upstreams.iter().any(|kept| Arc::ptr_eq(kept, old)) {
                old.remove();
            }
        }
        Self { upstreams, standing: behind.standing, protocol: behind.protocol, sticky: behind.sticky }
    }

    /// Nothing is behind it any more.
    pub fn end(&self) {
        self.upstreams.iter().for_each(|upstream| upstream.remove());
    }

    /// Whether there is this endpoint still, in whatever state.
    pub fn stands(&self, endpoint: &Endpoint) -> bool {
        let same = |target: &Target| target.address == endpoint.address && target.node == endpoint.node;
        self.upstreams.iter().any(|upstream| upstream.endpoint == *endpoint) || self.standing.iter().any(same)
    }

    /// What is spoken to its endpoints: as the route says, or else as the Service does.
    pub fn protocol(&self, policy: &Policy) -> Protocol {
        match (policy.protocol, self.protocol) {
            (Protocol::Http, Some(said)) => said,
            (routed, _) => routed,
        }
    }

    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// The less busy of two that are taken by chance among those that work and aren't in `tried`; where none works, among all.
    /// Where clients stay, the one that is `client`'s: another only while that one doesn't work, or is gone.
    pub fn pick(&self, tried: &[Arc<Upstream>], client: IpAddr) -> Option<Arc<Upstream>> {
        if let ([only], []) = (&self.upstreams[..], tried) {
            return Some(only.clone());
        }
        let now = Instant::now();
        let untried = || self.upstreams.iter().filter(|u| !tried.iter().any(|t| Arc::ptr_eq(t, u)));
        let mut candidates: Vec<&Arc<Upstream>> = untried().filter(|u| u.works(now)).collect();
        if candidates.is_empty() {
            candidates = untried().collect();
        }
        if self.sticky {
            // Rendezvous hashing: when an endpoint comes or goes, only its own clients move.
            return candidates.into_iter().max_by_key(|upstream| weight(client, upstream)).cloned();
        }
        let mut random = rand::rng();
        match candidates.len() {
            0 => None,
            1 => Some(candidates[0].clone()),
            count => {
                let first = random.random_range(0..count);
                let second = (first + random.random_range(1..count)) % count;
                let busy = |at: usize| candidates[at].outstanding.load(Ordering::Relaxed);
                Some(candidates[if busy(second) < busy(first) { second } else { first }].clone())
            }
        }
    }
}

/// The same on every edge of one version.
fn weight(client: IpAddr, upstream: &Upstream) -> u64 {
    let mut hasher = DefaultHasher::new();
    (client, upstream.endpoint.address).hash(&mut hasher);
    hasher.finish()
}

impl Upstream {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            outstanding: AtomicUsize::new(0),
            health: Mutex::default(),
            idle: Mutex::default(),
            shared: Default::default(),
            removed: watch::Sender::new(false),
        }
    }

    fn works(&self, now: Instant) -> bool {
        self.health.lock().until.is_none_or(|until| until <= now)
    }

    /// It could not be connected to: passed over for a while, longer each time.
    pub fn failed(&self) {
        let mut health = self.health.lock();
        health.failures = (health.failures + 1).min(5);
        health.until = Some(Instant::now() + LONGEST_PENALTY / (1 << (5 - health.failures)));
    }

    pub fn worked(&self) {
        *self.health.lock() = Health::default();
    }

    pub fn is_removed(&self) -> bool {
        *self.removed.borrow()
    }

    /// Ends when it is removed.
    pub async fn removal(&self) {
        // The sender is our own, so that it can't be gone.
        let _ = self.removed.subscribe().wait_for(|removed| *removed).await;
    }

    fn remove(&self) {
        self.removed.send_replace(true);
        self.idle.lock().clear();
        for shared in &self.shared {
            if let Ok(mut shared) = shared.try_lock() {
                shared.take();
            }
        }
    }

    /// Ends connections that nobody used for this long.
    pub fn sweep(&self, age: Duration) {
        self.idle.lock().retain(|idle| idle.since.elapsed() < age && !idle.sender.is_closed());
    }

    /// One that is kept, or a new one. `fresh`: a new one in any case.
    pub async fn connect(
        self: &Arc<Self>,
        dialer: &dyn Dialer,
        protocol: Protocol,
        patience: Duration,
        settings: &Settings,
        fresh: bool,
    ) -> io::Result<Connection> {
        if !fresh
            && !protocol.http2()
            && let Some(sender) = self.take_idle(protocol, settings.upstream_idle)
        {
            return Ok(Connection { sender: Sender::Http1(sender), reused: true });
        }
        let dialed = async {
            if !protocol.http2() {
                let sender = self.dial_http1(dialer, protocol, settings).await?;
                return Ok(Connection { sender: Sender::Http1(sender), reused: false });
            }
            let mut shared = self.shared[usize::from(protocol.tls())].lock().await;
            if let Some(sender) = shared.as_ref().filter(|s| !s.is_closed() && !fresh) {
                return Ok(Connection { sender: Sender::Http2(sender.clone()), reused: true });
            }
            let sender = self.dial_http2(dialer, protocol, settings).await?;
            *shared = Some(sender.clone());
            Ok(Connection { sender: Sender::Http2(sender), reused: false })
        };
        in_time(patience, dialed).await
    }

    /// A connection of HTTP/2 for one tunnel: many of them would leave no room on the one that is shared. None: the endpoint
    /// doesn't take an extended `CONNECT`.
    pub async fn connect_alone(
        &self,
        dialer: &dyn Dialer,
        protocol: Protocol,
        patience: Duration,
        settings: &Settings,
    ) -> io::Result<Option<Connection>> {
        let (sender, connection) = in_time(patience, self.handshake_http2(dialer, protocol, settings)).await?;
        let announced = websocket::announced(connection, patience).await;
        Ok(announced.then_some(Connection { sender: Sender::Http2(sender), reused: false }))
    }

    fn take_idle(&self, protocol: Protocol, age: Duration) -> Option<http1::SendRequest<RequestBody>> {
        let (now, mut idle) = (Instant::now(), self.idle.lock());
        loop {
            let at = idle.iter().rposition(|kept| kept.protocol == protocol)?;
            let Idle { since, sender, .. } = idle.remove(at);
            if now.duration_since(since) >= age {
                // All before it are older.
                return None;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
    }

    /// Keeps a connection for the next request, as soon as the answer on it has been read.
    pub fn keep(self: Arc<Self>, mut sender: http1::SendRequest<RequestBody>, protocol: Protocol, most: usize) {
        if sender.is_ready() {
            self.put(sender, protocol, most);
            return;
        }
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                self.put(sender, protocol, most);
            }
        });
    }

    fn put(&self, sender: http1::SendRequest<RequestBody>, protocol: Protocol, most: usize) {
        let mut idle = self.idle.lock();
        // Looked at under the lock, so that nothing is kept after the removal emptied it.
        if idle.len() < most && !self.is_removed() {
            idle.push(Idle { protocol, since: Instant::now(), sender });
        }
    }

    async fn dial_http1(
        &self,
        dialer: &dyn Dialer,
        protocol: Protocol,
        settings: &Settings,
    ) -> io::Result<http1::SendRequest<RequestBody>> {
        let io = TokioIo::new(super::dial::dial(dialer, &self.endpoint, protocol).await?);
        let mut builder = http1::Builder::new();
        builder.max_headers(settings.headers).max_buf_size(settings.header_bytes.max(64 << 10));
        let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
        tokio::spawn(drive(connection.with_upgrades()));
        Ok(sender)
    }

    async fn dial_http2(
        &self,
        dialer: &dyn Dialer,
        protocol: Protocol,
        settings: &Settings,
    ) -> io::Result<http2::SendRequest<RequestBody>> {
        let (sender, connection) = self.handshake_http2(dialer, protocol, settings).await?;
        tokio::spawn(drive(connection));
        Ok(sender)
    }

    async fn handshake_http2(
        &self,
        dialer: &dyn Dialer,
        protocol: Protocol,
        settings: &Settings,
    ) -> io::Result<(http2::SendRequest<RequestBody>, Http2)> {
        let io = TokioIo::new(super::dial::dial(dialer, &self.endpoint, protocol).await?);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .adaptive_window(true);
        builder.handshake(io).await.map_err(io::Error::other)
    }
}

async fn in_time<T>(patience: Duration, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, connecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the endpoint can't be connected to in time")))
}

/// Until a connection to an endpoint ends.
pub(super) async fn drive(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to an endpoint broke");
    }
}

/// A request that an endpoint is at work on.
pub struct Busy(pub Arc<Upstream>);

impl Busy {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        upstream.outstanding.fetch_add(1, Ordering::Relaxed);
        Self(upstream)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: u16) -> Pool {
        behind((1..=count).collect(), false)
    }

    fn behind(ports: Vec<u16>, sticky: bool) -> Pool {
        let target = |port: u16| Target { node: "n".into(), address: ([10, 0, 0, 1], port).into() };
        let targets = ports.into_iter().map(target).collect();
        Pool::default().replace(&ClusterId::new("c-1"), Behind { targets, sticky, ..Behind::default() })
    }

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn what_failed_is_passed_over_while_another_works() {
        let pool = pool(3);
        pool.upstreams[0].failed();
        pool.upstreams[1].failed();
        for _ in 0..50 {
            assert!(Arc::ptr_eq(&pool.pick(&[], client(1)).unwrap(), &pool.upstreams[2]));
        }
        // With nothing left that works, one that failed is better than none.
        let next = pool.pick(&[pool.upstreams[2].clone()], client(1)).unwrap();
        assert!(!Arc::ptr_eq(&next, &pool.upstreams[2]));
        assert!(pool.pick(&pool.upstreams.clone(), client(1)).is_none());
        pool.upstreams[0].worked();
        let mut seen = [false; 3];
        for _ in 0..200 {
            let picked = pool.pick(&[], client(1)).unwrap();
            seen[pool.upstreams.iter().position(|u| Arc::ptr_eq(u, &picked)).unwrap()] = true;
        }
        assert_eq!(seen, [true, false, true]);
    }

    #[test]
    fn the_busiest_of_all_is_never_taken() {
        let pool = pool(3);
        let busy: Vec<Busy> = (0..2).map(|_| Busy::new(pool.upstreams[1].clone())).collect();
        for _ in 0..100 {
            assert!(!Arc::ptr_eq(&pool.pick(&[], client(1)).unwrap(), &pool.upstreams[1]));
        }
        drop(busy);
        assert_eq!(pool.upstreams[1].outstanding.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_penalty_grows_to_its_longest() {
        let pool = pool(1);
        let upstream = &pool.upstreams[0];
        let rest = || upstream.health.lock().until.unwrap().saturating_duration_since(Instant::now());
        upstream.failed();
        assert!(rest() <= LONGEST_PENALTY / 16);
        for _ in 0..9 {
            upstream.failed();
        }
        assert!(rest() > LONGEST_PENALTY / 2 && rest() <= LONGEST_PENALTY);
    }

    #[test]
    fn a_client_stays_with_its_endpoint_for_as_long_as_it_works() {
        let port = |pool: &Pool, from: u8| pool.pick(&[], client(from)).unwrap().endpoint.address.port();
        let (three, two) = (behind(vec![1, 2, 3], true), behind(vec![1, 3], true));
        let at = |pool: &Pool| (0..100).map(|from| port(pool, from)).collect::<Vec<_>>();
        let before = at(&three);
        assert_eq!(before, at(&three));
        assert!([1, 2, 3].iter().all(|port| before.contains(port)), "clients are spread");
        for (was, is) in before.iter().zip(at(&two)) {
            assert!(*was == is || *was == 2, "only those of the one that is gone move");
        }
        three.upstreams[1].failed();
        assert!(!at(&three).contains(&2));
        three.upstreams[1].worked();
        assert_eq!(before, at(&three));
    }

    #[test]
    fn a_route_says_what_is_spoken_before_the_service() {
        let of = |protocol| Pool { protocol, ..Pool::default() };
        let routed = |protocol| Policy { protocol, ..Policy::default() };
        assert_eq!(of(Some(Protocol::H2c)).protocol(&routed(Protocol::Http)), Protocol::H2c);
        assert_eq!(of(Some(Protocol::H2c)).protocol(&routed(Protocol::Https)), Protocol::Https);
        assert_eq!(of(None).protocol(&routed(Protocol::Http)), Protocol::Http);
    }
}
