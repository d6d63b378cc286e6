//! What agent and server say to each other: one connection that carries many HTTP streams both ways, and what is needed to
//! speak HTTP over them; beside it, packets that the server relays between nodes ([`relay`]) and UDP's question for one's
//! own address ([`reflect`]).
//!
//! A [`Tunnel`] runs over anything that carries binary messages (a WebSocket, a pipe in tests) and gives streams of
//! bytes, opened by either end, on which plain HTTP/1.1 is spoken ([`http`], and [`lasting`] for answers without an end). Beside it stands the framing of clients that
//! multiplex streams in their own way ([`spdy`]). This crate knows no Kubernetes object, no TLS and no WebSocket library:
//! server and agent use different ones, and each adapts its own to [`Messages`].

mod frame;
pub mod http;
pub mod lasting;
mod link;
mod pipe;
pub mod reflect;
pub mod relay;
pub mod spdy;
mod stream;

pub use frame::{LONGEST as LONGEST_MESSAGE, READ_BUFFER};
pub use link::{Config, Ended, Incoming, OpenError, Opener, Side, Tunnel};
pub use stream::Stream;

use bytes::Bytes;

/// What carries a tunnel: binary messages in order, each way. An end of the stream is the other side's close.
pub trait Messages:
    futures::Stream<Item = std::io::Result<Bytes>> + futures::Sink<Bytes, Error = std::io::Error> + Send + Unpin + 'static
{
}

impl<T> Messages for T where
    T: futures::Stream<Item = std::io::Result<Bytes>>
        + futures::Sink<Bytes, Error = std::io::Error>
        + Send
        + Unpin
        + 'static
{
}
