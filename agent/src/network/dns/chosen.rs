//! Name servers that the cluster's users chose, for domains of theirs or for all names that aren't the cluster's.
//!
//! Whoever chooses may be a stranger to the host, so they are asked from inside the cluster's network namespace alone: what
//! is sent leaves as a pod's does, by the same routes, translations and rules of the host, and reaches what a pod would
//! reach: pods, Services, the world, the host by its addresses; never the host's loopback, nor another cluster.
//!
//! Each set of servers has a resolver and a cache of its own, so that no domain's servers answer for another's names.

use super::upstream::{CACHED, resolver};
use crate::network::namespace;
use hickory_proto::rr::Name;
use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use longshore_api::name_servers::NameServers;
use nlink::netlink::namespace::Netns;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// For a connection, where the resolver doesn't say.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

type Sender<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Sockets in the cluster's network namespace.
#[derive(Clone)]
pub struct Inside {
    netns: Arc<Netns>,
    tokio: TokioRuntimeProvider,
}

impl RuntimeProvider for Inside {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(&self, server: SocketAddr, _: Option<SocketAddr>, patience: Option<Duration>) -> Sender<Self::Tcp> {
        let netns = self.netns.clone();
        Box::pin(async move {
            let connected = namespace::connect(&netns, server);
            Ok(AsyncIoTokioAsStd(timeout(patience.unwrap_or(CONNECTED_WITHIN), connected).await??))
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Sender<UdpSocket> {
        let netns = self.netns.clone();
        Box::pin(async move { namespace::bind(&netns, local) })
    }
}

#[derive(Default)]
pub struct Chosen(Mutex<State>);

#[derive(Default)]
struct State {
    /// Where they are asked from.
    netns: Option<Arc<Netns>>,
    /// Where this name server itself answers: asked by itself it would ask itself.
    own: Vec<SocketAddr>,
    of: Arc<NameServers>,
    /// By their servers. None: there is nobody to be asked.
    made: HashMap<Vec<SocketAddr>, Option<Arc<Resolver<Inside>>>>,
}

impl Chosen {
    /// From where questions are asked from now on, and where our own answers are.
    pub fn ask_from(&self, netns: Arc<Netns>, own: [SocketAddr; 2]) {
        let mut state = self.0.lock();
        state.netns = Some(netns);
        state.own = own.to_vec();
        state.made.clear();
    }

    /// Who is asked for a name. None: whoever is asked where nobody chose; `Some(None)`: nobody can be.
    pub fn of(&self, chosen: &Arc<NameServers>, name: &Name) -> Option<Option<Arc<Resolver<Inside>>>> {
        let text = name.to_ascii().to_ascii_lowercase();
        let servers = chosen.of(text.trim_end_matches('.'))?;
        let mut state = self.0.lock();
        if !Arc::ptr_eq(&state.of, chosen) {
            // Who is still asked keeps what it knows.
            let sets: HashSet<&Vec<SocketAddr>> = chosen.sets().collect();
            state.made.retain(|servers, _| sets.contains(servers));
            state.of = chosen.clone();
        }
        if let Some(made) = state.made.get(servers) {
            return Some(made.clone());
        }
        let made = state.make(servers, chosen.sets().count());
        state.made.insert(servers.clone(), made.clone());
        Some(made)
    }
}

impl State {
    /// `sets`: all have room for as many answers as the host's resolvers have.
    fn make(&self, servers: &[SocketAddr], sets: usize) -> Option<Arc<Resolver<Inside>>> {
        let netns = self.netns.clone()?;
        let config = |server: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        };
        let servers: Vec<_> = servers.iter().filter(|server| !self.own.contains(server)).map(config).collect();
        if servers.is_empty() {
            return None;
        }
        let cached = CACHED / u64::try_from(sets.max(1)).unwrap_or(1);
        let inside = Inside { netns, tokio: TokioRuntimeProvider::default() };
        let made = resolver(servers, ResolverOpts::default(), cached, inside);
        made.map(Arc::new).map_err(|error| tracing::warn!(%error, "chosen name servers can't be used")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(upstream: &str) -> Arc<NameServers> {
        let stubs = [("acme.local".to_owned(), vec!["10.0.0.1:53".parse().unwrap()])].into();
        Arc::new(NameServers { stubs, upstreams: vec![upstream.parse().unwrap()] })
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[tokio::test]
    async fn each_set_of_servers_has_a_resolver_that_stays_while_it_is_chosen() {
        let here = Chosen::default();
        let one = chosen("10.0.0.2:53");
        assert!(here.of(&one, &name("example.")).unwrap().is_none(), "there is no network yet");
        let own = ["10.96.0.10:53".parse().unwrap(), "169.254.192.1:53".parse().unwrap()];
        here.ask_from(Arc::new(Netns::current().unwrap()), own);
        let resolver = |chosen: &Arc<NameServers>, text: &str| here.of(chosen, &name(text)).unwrap().unwrap();
        let (stub, upstream) = (resolver(&one, "WWW.Acme.local."), resolver(&one, "example."));
        assert!(Arc::ptr_eq(&stub, &resolver(&one, "acme.local.")) && !Arc::ptr_eq(&stub, &upstream));

        let other = chosen("10.0.0.3:53");
        assert!(Arc::ptr_eq(&stub, &resolver(&other, "acme.local.")), "its cache stays");
        assert!(!Arc::ptr_eq(&upstream, &resolver(&other, "example.")));
        assert_eq!(here.0.lock().made.len(), 2, "who isn't asked any more is forgotten");
        assert!(here.of(&Arc::default(), &name("example.")).is_none());
    }

    #[tokio::test]
    async fn the_name_server_never_asks_itself() {
        let here = Chosen::default();
        let own = ["10.96.0.10:53".parse().unwrap(), "169.254.192.1:53".parse().unwrap()];
        here.ask_from(Arc::new(Netns::current().unwrap()), own);
        for address in ["10.96.0.10:53", "169.254.192.1:53"] {
            assert!(here.of(&chosen(address), &name("example.")).unwrap().is_none(), "{address}");
        }
    }
}
