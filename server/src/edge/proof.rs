//! Whether a name server says that a host is a cluster's.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use std::net::SocketAddr;
use std::time::Duration;

/// What a name server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether `record` is a TXT record that says `value`. `resolver`: none for those of this machine. Whoever can't be asked has
/// said nothing.
pub async fn holds(resolver: Option<SocketAddr>, record: &str, value: &str) -> bool {
    // A new one each time: it remembers nothing, not even that a record was missing.
    let resolver = match resolver_at(resolver) {
        Ok(resolver) => resolver,
        Err(error) => {
            tracing::warn!(%error, "there is no name server to ask: no host can be proven");
            return false;
        }
    };
    // With a dot at its end: no search list.
    let asked = tokio::time::timeout(PATIENCE, resolver.txt_lookup(format!("{record}."))).await;
    let Ok(Ok(found)) = asked else { return false };
    found.answers().iter().any(|record| match &record.data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    })
}

fn resolver_at(address: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let Some(address) = address else { return TokioResolver::builder_tokio()?.build() };
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
}
