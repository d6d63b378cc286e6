//! For tests: agents that hold a tunnel, in memory, and do nothing else.

use super::Sessions;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use longshore_api::ids::{ClusterId, NodeId};
use longshore_tunnel::{Config, Incoming, Messages, Opener, Side, Tunnel};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

/// Dropping it closes the tunnel.
pub struct Agent {
    pub opener: Opener,
    _incoming: Incoming,
}

impl Agent {
    /// Connects as the node `name`.
    pub fn connect(sessions: &Sessions, cluster: &ClusterId, name: &str) -> Self {
        let (near, far) = pair(64 * 1024);
        let (server, mut unused) = Tunnel::start(near, Side::Server, Config::default());
        let (opener, incoming) = Tunnel::start(far, Side::Agent, Config::default());
        sessions.attach(cluster, &NodeId::new(format!("n-{name}")), name, server);
        tokio::spawn(async move { while unused.next().await.is_some() {} });
        Self { opener, _incoming: incoming }
    }
}

/// Two ends of a WebSocket in memory, with room for so many bytes on the way.
pub fn pair(room: usize) -> (impl Messages, impl Messages) {
    let (near, far) = tokio::io::duplex(room);
    (messages(near), messages(far))
}

fn messages(end: tokio::io::DuplexStream) -> impl Messages {
    let framed = LengthDelimitedCodec::new().framed(end);
    framed.map_ok(BytesMut::freeze).with(|bytes: Bytes| futures::future::ready(Ok::<_, std::io::Error>(bytes)))
}
