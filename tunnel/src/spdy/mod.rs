//! SPDY/3.1's frames, as far as Kubernetes's streams use them: what `kubectl port-forward` speaks inside its WebSocket.
//!
//! Pure: bytes in, frames out, and back. Who keeps a [`Decoder`] and an [`Encoder`] for one connection drives them from
//! whatever carries it. Their memory is bounded whatever the other end sends: a control frame by [`LONGEST_CONTROL`], what
//! its headers unpack to by [`LONGEST_HEADERS`], and data is handed on in the pieces in which it comes.
//!
//! Flow control is read and never used: Kubernetes's own ends (moby/spdystream) send no `WINDOW_UPDATE` and heed none, so
//! who waited for one would wait for ever. What holds a fast sender back is the connection below.

mod decoder;
mod encoder;
mod headers;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::Encoder;
pub use headers::Headers;

use bytes::Bytes;

/// The longest control frame that is read, its own header left out.
pub const LONGEST_CONTROL: usize = 64 * 1024;
/// The most that the headers of one frame may unpack to.
pub const LONGEST_HEADERS: usize = 64 * 1024;
/// The longest data frame: its length has 24 bits.
const LONGEST_DATA: usize = (1 << 24) - 1;

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// One frame. `fin`: its sender says nothing more on that stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    /// Or a piece of one: a data frame is handed on as it comes, with `fin` on its last piece.
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
    Reset {
        stream: u32,
        status: Reset,
    },
    Ping {
        id: u32,
    },
    /// `last`: the last stream that was taken. `status`: 0 for a farewell, 1 for a protocol error.
    GoAway {
        last: u32,
        status: u32,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// Numbers and values.
    Settings(Vec<(u32, u32)>),
}

/// Why a stream was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset(pub u32);

impl Reset {
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const REFUSED_STREAM: Self = Self(3);
    pub const CANCEL: Self = Self(5);
}

/// What makes the rest of a connection unreadable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the frame is of SPDY version {0}, not 3")]
    Version(u16),
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("the headers of a frame are too long")]
    HeadersTooLong,
    #[error("the headers of a frame can't be unpacked")]
    Packing,
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}
