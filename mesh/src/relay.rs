//! What the relay carries: opaque bytes between two nodes. The mesh gives and takes [`Relayed`] over bounded channels and
//! drops what finds no room; how they travel (a WebSocket of their own) is the caller's.

use bytes::Bytes;
use longshore_api::ids::NodeId;
use tokio::sync::mpsc;

/// Datagrams to or from a peer, of `segment` bytes each; the last may be shorter. At most 64 KB and 64 datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    pub peer: NodeId,
    pub segment: u16,
    pub bytes: Bytes,
}

/// The mesh's end. `incoming`: `peer` is who sent it, as the relay vouches.
pub struct Relay {
    pub outgoing: mpsc::Sender<Relayed>,
    pub incoming: mpsc::Receiver<Relayed>,
}
