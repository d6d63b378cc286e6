//! The byte pipe between the multiplexer and the messages: what yamux takes for its socket.
//!
//! Both ends are polled by one task (the link's driver), which moves on as long as any part of it makes progress, so the
//! pipe needs no wakers of its own. Writing is bounded, so that back-pressure reaches the streams. Reading is bounded far
//! higher: a multiplexer that can't write its answer to a ping stops reading, and if both ends did so while both
//! directions are full, neither would ever go on (rancher#51509). Taking in more than the other side can have under way
//! on its part lets it finish its write, and so ends the wait.

use bytes::{Buf, Bytes};
use futures::{AsyncRead, AsyncWrite};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What the multiplexer may have waiting to be sent: enough to fill messages, little enough that beats, window updates
/// and short requests are not held up behind bulk.
pub const MOST_OUTGOING: usize = 128 * 1024;
/// What may have arrived and not been taken: see the module's words; usually empty.
pub const MOST_INCOMING: usize = 16 * 1024 * 1024;
/// The longest piece that is sent as one message.
pub const PIECE: usize = 32 * 1024;

#[derive(Default)]
struct Buffers {
    incoming: VecDeque<Bytes>,
    incoming_len: usize,
    outgoing: VecDeque<u8>,
}

/// The driver's end.
#[derive(Clone, Default)]
pub struct Pipe(Arc<Mutex<Buffers>>);

/// The multiplexer's end.
pub struct Socket(Pipe);

impl Pipe {
    pub fn new() -> (Self, Socket) {
        let pipe = Self::default();
        (pipe.clone(), Socket(pipe))
    }

    pub fn push_incoming(&self, bytes: Bytes) {
        let mut buffers = self.0.lock();
        if !bytes.is_empty() {
            buffers.incoming_len += bytes.len();
            buffers.incoming.push_back(bytes);
        }
    }

    pub fn has_room(&self) -> bool {
        self.0.lock().incoming_len < MOST_INCOMING
    }

    pub fn has_outgoing(&self) -> bool {
        !self.0.lock().outgoing.is_empty()
    }

    /// There is something to send, and it isn't a whole piece.
    pub fn has_little_outgoing(&self) -> bool {
        (1..PIECE).contains(&self.0.lock().outgoing.len())
    }

    /// The next piece to send, none when there is nothing.
    pub fn take_outgoing(&self) -> Option<Bytes> {
        let mut buffers = self.0.lock();
        let len = buffers.outgoing.len().min(PIECE);
        if len == 0 {
            return None;
        }
        // The buffer goes with the last piece: links are idle most of the time, and there are thousands of them.
        let piece: Vec<u8> = match len == buffers.outgoing.len() {
            true => std::mem::take(&mut buffers.outgoing).into(),
            false => buffers.outgoing.drain(..len).collect(),
        };
        Some(piece.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.0.lock();
        let mut filled = 0;
        while filled < buf.len() {
            let Some(front) = buffers.incoming.front_mut() else { break };
            let len = front.len().min(buf.len() - filled);
            front.copy_to_slice(&mut buf[filled..filled + len]);
            if front.is_empty() {
                buffers.incoming.pop_front();
            }
            filled += len;
        }
        buffers.incoming_len -= filled;
        if filled > 0 { Poll::Ready(Ok(filled)) } else { Poll::Pending }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.0.lock();
        let len = buf.len().min(MOST_OUTGOING.saturating_sub(buffers.outgoing.len()));
        if len == 0 && !buf.is_empty() {
            return Poll::Pending;
        }
        buffers.outgoing.extend(&buf[..len]);
        Poll::Ready(Ok(len))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
