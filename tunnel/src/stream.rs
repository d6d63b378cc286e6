//! One stream of a tunnel.

use crate::link::Shared;
use futures::{AsyncRead as _, AsyncWrite as _};
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

/// Bounds of what is read at once. A reader's memory is cleared for it, and readers bring much more than most messages need.
const LEAST: usize = 2 * 1024;
const MOST: usize = 64 * 1024;

/// Bytes both ways. Dropping it resets the stream; `shutdown` ends its own direction only.
///
/// An end of the other side's bytes is told from a cut: when the tunnel is gone or the stream was reset, reading and
/// writing fail with `ConnectionReset`, so that half a body is never taken for a whole one.
pub struct Stream {
    inner: yamux::Stream,
    /// What the next read may bring, by what the last ones did.
    expected: usize,
    shared: Arc<Shared>,
    /// Whether the other end knows of the stream: it learns of it with the first bytes, never by an end alone.
    announced: bool,
    shut: bool,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    pub(crate) fn opened(inner: yamux::Stream, shared: Arc<Shared>, place: OwnedSemaphorePermit) -> Self {
        Self { inner, expected: LEAST, shared, announced: false, shut: false, _place: place }
    }

    pub(crate) fn accepted(inner: yamux::Stream, shared: Arc<Shared>, place: OwnedSemaphorePermit) -> Self {
        Self { announced: true, ..Self::opened(inner, shared, place) }
    }

    fn reset(&self) -> io::Error {
        let why = match self.shared.ended() {
            Some(ended) => ended.to_string(),
            None => "the other end reset the stream".to_string(),
        };
        io::Error::new(io::ErrorKind::ConnectionReset, why)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let window = buf.initialize_unfilled_to(buf.remaining().min(self.expected));
        let size = window.len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, window));
        Poll::Ready(match read {
            Ok(0) if size > 0 && (self.shared.ended().is_some() || (self.inner.is_closed() && !self.shut)) => {
                Err(self.reset())
            }
            Ok(read) => {
                buf.advance(read);
                self.expected = match read {
                    all if all == self.expected => (self.expected * 2).min(MOST),
                    few if few < self.expected / 4 => (self.expected / 2).max(LEAST),
                    _ => self.expected,
                };
                Ok(())
            }
            Err(_) => Err(self.reset()),
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        self.announced = true;
        Poll::Ready(written.map_err(|_| self.reset()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(flushed.map_err(|_| self.reset()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.announced {
            ready!(self.as_mut().poll_write(cx, &[]))?;
        }
        let done = ready!(Pin::new(&mut self.inner).poll_close(cx));
        self.shut = true;
        Poll::Ready(done.map_err(|_| self.reset()))
    }
}

/// So that an HTTP client can keep streams for its next requests.
impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
