//! One stream of a tunnel.

use crate::link::Shared;
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// Bytes both ways. Dropping it resets the stream; `shutdown` ends its own direction only.
///
/// An end of the other side's bytes is told from a cut: when the tunnel is gone or the stream was reset, reading and
/// writing fail with `ConnectionReset`, so that half a body is never taken for a whole one.
pub struct Stream {
    inner: Compat<yamux::Stream>,
    shared: Arc<Shared>,
    /// Whether the other end knows of the stream: it learns of it with the first bytes, never by an end alone.
    announced: bool,
    shut: bool,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    pub(crate) fn opened(inner: yamux::Stream, shared: Arc<Shared>, place: OwnedSemaphorePermit) -> Self {
        Self { inner: inner.compat(), shared, announced: false, shut: false, _place: place }
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
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        let cut = self.shared.ended().is_some() || (self.inner.get_ref().is_closed() && !self.shut);
        Poll::Ready(match read {
            Ok(()) if room && buf.filled().len() == before && cut => Err(self.reset()),
            Ok(()) => Ok(()),
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
        let done = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
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
