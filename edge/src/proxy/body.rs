//! Bodies on their way: nothing is gathered, limits and patience are kept as the pieces pass.

use super::exchange::Exchange;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Why a body ended early.
#[derive(Debug)]
pub enum Broken {
    TooLarge,
    /// Nothing came for as long as is allowed.
    Silent,
    Hyper(hyper::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the body is larger than allowed"),
            Self::Silent => f.write_str("the body stopped for longer than allowed"),
            Self::Hyper(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Broken {}

/// Ends a body between whose pieces there is too much silence.
struct Patience {
    length: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(length: Duration) -> Self {
        Self { length, waiting: None }
    }

    /// The next piece; an error once it took too long.
    fn next(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Broken::Hyper)));
        }
        let length = self.length;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + length)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Some(Err(Broken::Silent)))
    }
}

/// What others may know of a request's body while it is being sent.
pub struct Progress {
    begun: Instant,
    /// Milliseconds after `begun` at which the last piece passed.
    last: AtomicU64,
    too_large: AtomicBool,
    silent: AtomicBool,
}

impl Progress {
    fn moved(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }
    pub fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
    pub fn too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }
    pub fn silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

/// A request's body on its way to an endpoint.
pub struct RequestBody {
    inner: Option<Incoming>,
    left: u64,
    patience: Patience,
    progress: Arc<Progress>,
}

impl RequestBody {
    /// `limit` in bytes.
    pub fn new(body: Incoming, limit: u64, patience: Duration) -> Self {
        let inner = (!body.is_end_stream()).then_some(body);
        let progress = Progress {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            too_large: AtomicBool::new(false),
            silent: AtomicBool::new(false),
        };
        Self { inner, left: limit, patience: Patience::new(patience), progress: Arc::new(progress) }
    }

    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Another one like this, which must be empty.
    pub fn again(&self) -> Option<Self> {
        self.inner.is_none().then(|| Self {
            inner: None,
            left: 0,
            patience: Patience::new(self.patience.length),
            progress: self.progress.clone(),
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let frame = ready!(this.patience.next(inner, cx));
        this.progress.moved();
        match &frame {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = this.left.checked_sub(size) else {
                    this.progress.too_large.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(Broken::TooLarge)));
                };
                this.left = left;
            }
            Some(Err(Broken::Silent)) => this.progress.silent.store(true, Ordering::Relaxed),
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body on its way to the client; with it ends the exchange.
pub enum ResponseBody {
    /// Of an answer whose exchange goes on elsewhere.
    Empty,
    Ours {
        text: Bytes,
        exchange: Box<Exchange>,
    },
    Theirs {
        body: Incoming,
        patience: TheirPatience,
        exchange: Box<Exchange>,
    },
}

pub struct TheirPatience(Patience);

impl ResponseBody {
    pub fn ours(text: impl Into<Bytes>, exchange: Box<Exchange>) -> Self {
        Self::Ours { text: text.into(), exchange }
    }
    pub fn theirs(body: Incoming, patience: Duration, exchange: Box<Exchange>) -> Self {
        Self::Theirs { body, patience: TheirPatience(Patience::new(patience)), exchange }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Ours { text, exchange } => {
                let text = std::mem::take(text);
                exchange.sent += text.len() as u64;
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
            }
            Self::Theirs { body, patience, exchange } => {
                let frame = ready!(patience.0.next(body, cx));
                match &frame {
                    Some(Ok(frame)) => exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
                    Some(Err(error)) => exchange.broken = Some(error.to_string()),
                    None => exchange.whole = true,
                }
                if body.is_end_stream() {
                    exchange.whole = true;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Ours { text, .. } => text.is_empty(),
            Self::Theirs { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Ours { text, .. } => SizeHint::with_exact(text.len() as u64),
            Self::Theirs { body, .. } => body.size_hint(),
        }
    }
}
