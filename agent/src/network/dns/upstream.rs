//! Names that aren't the cluster's: by the host's own resolvers, with a cache, unless the cluster's users chose others
//! ([`super::chosen`]).

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{ConnectionProvider, Resolver, TokioResolver};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the host's file is looked at again: a machine that moved has other resolvers.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
/// Answers kept.
pub const CACHED: u64 = 10_000;
/// How long one of several resolvers may take. Programs ask again after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Upstream {
    /// The host's `resolv.conf`.
    path: PathBuf,
    now: Mutex<Option<Known>>,
}

struct Known {
    looked: Instant,
    text: String,
    /// None where the file names no resolver.
    resolver: Option<Arc<TokioResolver>>,
}

/// What is sent on.
#[derive(Debug, Default)]
pub struct Told {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authority: Option<Record>,
}

impl Told {
    pub fn failed() -> Self {
        Self { code: ResponseCode::ServFail, ..Self::default() }
    }

    pub async fn by<P: ConnectionProvider>(resolver: &Resolver<P>, name: Name, kind: RecordType) -> Self {
        match resolver.lookup(name, kind).await {
            Ok(found) => Self { answers: found.answers().to_vec(), ..Self::default() },
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Self {
                code: nothing.response_code,
                authority: nothing.soa.map(|soa| soa.into_record_of_rdata()),
                ..Self::default()
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Self { code, ..Self::default() },
            Err(error) => {
                tracing::debug!(%error, "a name was not resolved");
                Self::failed()
            }
        }
    }
}

impl Upstream {
    pub fn new(path: PathBuf) -> Self {
        Self { path, now: Mutex::default() }
    }

    pub async fn ask(&self, name: Name, kind: RecordType) -> Told {
        match self.resolver() {
            Some(resolver) => Told::by(&resolver, name, kind).await,
            None => Told::failed(),
        }
    }

    fn resolver(&self) -> Option<Arc<TokioResolver>> {
        let mut now = self.now.lock();
        if let Some(known) = now.as_ref().filter(|known| known.looked.elapsed() < LOOKED_AT_EVERY) {
            return known.resolver.clone();
        }
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let resolver = match now.take() {
            Some(known) if known.text == text => known.resolver,
            _ => make(&text),
        };
        *now = Some(Known { looked: Instant::now(), text, resolver: resolver.clone() });
        resolver
    }
}

fn make(text: &str) -> Option<Arc<TokioResolver>> {
    let (config, options) = parse_resolv_conf(text).ok()?;
    if config.name_servers().is_empty() {
        return None;
    }
    let made = resolver(config.name_servers().to_vec(), options, CACHED, TokioRuntimeProvider::default());
    made.map(Arc::new).map_err(|error| tracing::warn!(%error, "the host's resolvers can't be used")).ok()
}

/// One that asks `servers` and keeps so many answers.
pub fn resolver<P: ConnectionProvider>(
    servers: Vec<NameServerConfig>,
    mut options: ResolverOpts,
    cached: u64,
    provider: P,
) -> Result<Resolver<P>, NetError> {
    // Names come whole: whoever asks has a search list of its own.
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    options.cache_size = cached;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.timeout = PATIENCE;
    Resolver::builder_with_config(config, provider).with_options(options).build()
}
