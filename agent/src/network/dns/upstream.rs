//! Names that aren't the cluster's: by the host's own resolvers, with a cache.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf::parse_resolv_conf;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the host's file is looked at again: a machine that moved has other resolvers.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
/// Answers kept.
const CACHED: u64 = 10_000;
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

impl Upstream {
    pub fn new(path: PathBuf) -> Self {
        Self { path, now: Mutex::default() }
    }

    pub async fn ask(&self, name: Name, kind: RecordType) -> Told {
        let failed = || Told { code: ResponseCode::ServFail, ..Told::default() };
        let Some(resolver) = self.resolver() else { return failed() };
        match resolver.lookup(name, kind).await {
            Ok(found) => Told { answers: found.answers().to_vec(), ..Told::default() },
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Told {
                code: nothing.response_code,
                authority: nothing.soa.map(|soa| soa.into_record_of_rdata()),
                ..Told::default()
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Told { code, ..Told::default() },
            Err(error) => {
                tracing::debug!(%error, "a name was not resolved");
                failed()
            }
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
    let (config, mut options) = parse_resolv_conf(text).ok()?;
    if config.name_servers().is_empty() {
        return None;
    }
    // Names come whole: whoever asks has a search list of its own.
    let servers = config.name_servers().to_vec();
    let config = hickory_resolver::config::ResolverConfig::from_parts(None, Vec::new(), servers);
    options.cache_size = CACHED;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.timeout = PATIENCE;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let made = builder.with_options(options).build();
    made.map(Arc::new).map_err(|error| tracing::warn!(%error, "the host's resolvers can't be used")).ok()
}
