//! One end of a tunnel and the task that drives it.
//!
//! yamux has no task of its own: whoever holds its connection must poll it. The driver is that task, and the only one
//! that touches the messages, so that everything that happens on the wire is ordered by it: beats first, then what the
//! streams have to say. It judges liveness by what this very path carried:
//!
//! - *silence*: nothing has arrived for [`Config::silence`];
//! - *deafness*: the other end's beats arrive and say that it gets nothing from us (a link that is open one way only).
//!
//! Each beat tells how many bytes its sender has received, so a slow uplink full of bulk counts as alive as long as it
//! moves, and one that swallows everything counts as dead though the other direction is well. Whichever end finds the
//! link dead first drops it, all its streams fail at once, and the task ends; nothing waits for a peer that may be gone.

use crate::Messages;
use crate::frame::Frame;
use crate::pipe::{Pipe, Socket};
use crate::stream::Stream;
use futures::task::{ArcWake, AtomicWaker, waker};
use futures::{FutureExt, SinkExt, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

/// Which end this is: stream numbers are odd from one and even from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Agent,
    Server,
}

impl Side {
    /// How long this end is quiet before it sends a beat by itself.
    fn pace(self, config: &Config) -> Duration {
        match self {
            Self::Agent => config.beat,
            Self::Server => config.beat * 3 / 2,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How often an agent sends a beat. The server's follow on them, so that each end wakes once; alone it sends them half
    /// as far again apart.
    pub beat: Duration,
    /// How long without a sign of life until the link is given up. A cut is noticed within this and one beat.
    pub silence: Duration,
    /// What a clean close may take until it is cut short.
    pub goodbye: Duration,
    /// Streams at once that this end opens, and as many that it takes. Each may hold 256 KiB of unread bytes.
    pub streams: usize,
    /// How long opening waits for a place among them.
    pub patience: Duration,
}

impl Default for Config {
    /// 6 s and 15 s: a dead link is noticed by both ends within 21 s, and a stall of nine is forgiven. Beats are all that an idle
    /// node costs, so there are no more of them than that takes.
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(6),
            silence: Duration::from_secs(15),
            goodbye: Duration::from_secs(2),
            streams: 1024,
            patience: Duration::from_secs(5),
        }
    }
}

/// Why a tunnel is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("the tunnel was closed")]
    Closed,
    #[error("the other end closed the tunnel")]
    ClosedByPeer,
    #[error("the tunnel is dead: nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the tunnel is dead: the other end has received nothing for {} s", .0.as_secs())]
    Deaf(Duration),
    #[error("the tunnel broke: {0}")]
    Broken(String),
}

/// Why no stream could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error("too many streams are open")]
    Busy,
}

/// What both handles and all streams of one tunnel share with its driver.
#[derive(Debug)]
pub(crate) struct Shared {
    ended: watch::Sender<Option<Ended>>,
    contact: watch::Sender<Instant>,
}

impl Shared {
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    fn end(&self, why: Ended) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(why);
            first
        });
    }
}

/// Starts one end of a tunnel over `messages`, on a task of its own. It lives until the link dies, either end closes it,
/// or this end's [`Incoming`] is dropped.
pub struct Tunnel;

impl Tunnel {
    pub fn start(messages: impl Messages, side: Side, config: Config) -> (Opener, Incoming) {
        let now = Instant::now();
        let (ended, _) = watch::channel(None);
        let (contact, _) = watch::channel(now);
        let shared = Arc::new(Shared { ended, contact });
        let (ask, asked) = mpsc::channel(64);
        let (close, closed) = mpsc::channel(1);
        let (deliver, delivered) = mpsc::channel(256);
        let (pipe, socket) = Pipe::new();
        let mode = match side {
            Side::Agent => yamux::Mode::Client,
            Side::Server => yamux::Mode::Server,
        };
        let mut beat = tokio::time::interval(side.pace(&config));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let call = Arc::new(Call::default());
        let driver = Driver {
            messages,
            stirred: true,
            gathered: false,
            multiplexer_waker: waker(call.clone()),
            call,
            multiplexer: Some(yamux::Connection::new(socket, multiplexer_config(&config), mode)),
            pipe,
            side,
            shared: shared.clone(),
            places: Arc::new(Semaphore::new(config.streams)),
            asked,
            closed,
            deliver,
            waiting: None,
            beat,
            beat_due: false,
            received: 0,
            heard: 0,
            last_received: now,
            last_heard: now,
            check: Box::pin(tokio::time::sleep(config.silence)),
            config,
            goodbye: None,
        };
        tokio::spawn(driver);
        let places = Arc::new(Semaphore::new(config.streams));
        let opener = Opener { ask, close, places, patience: config.patience, shared: shared.clone() };
        (opener, Incoming { delivered })
    }
}

/// yamux's own limits end the whole connection, so ours stand well below them: streams that were dropped here may still
/// count there for a moment. The window is what yamux demands for so many streams, and 64 MiB by which fast streams may
/// grow beyond 256 KiB.
fn multiplexer_config(config: &Config) -> yamux::Config {
    let streams = config.streams * 4;
    let mut yamux = yamux::Config::default();
    yamux.set_max_connection_receive_window(None);
    yamux.set_max_num_streams(streams);
    yamux.set_max_connection_receive_window(Some(streams * yamux::DEFAULT_CREDIT as usize + 64 * 1024 * 1024));
    yamux
}

type Reply = oneshot::Sender<yamux::Stream>;

/// Opens streams; cheap to clone. Holding one doesn't keep the tunnel alive.
#[derive(Clone)]
pub struct Opener {
    ask: mpsc::Sender<Reply>,
    close: mpsc::Sender<()>,
    places: Arc<Semaphore>,
    patience: Duration,
    shared: Arc<Shared>,
}

impl Opener {
    /// A new stream. Costs no round trip: the other end learns of it with the first bytes.
    pub async fn open(&self) -> Result<Stream, OpenError> {
        let opened = async {
            let place = self.places.clone().acquire_owned().await.ok()?;
            let (reply, answer) = oneshot::channel();
            self.ask.send(reply).await.ok()?;
            Some(Stream::opened(answer.await.ok()?, self.shared.clone(), place))
        };
        tokio::select! {
            biased;
            ended = self.ended() => Err(ended.into()),
            opened = tokio::time::timeout(self.patience, opened) => match opened {
                Ok(Some(stream)) => Ok(stream),
                Ok(None) => Err(self.ended().await.into()),
                Err(_) => Err(OpenError::Busy),
            },
        }
    }

    /// Asks for a clean close; [`Opener::ended`] tells when it is done. All streams fail at once.
    pub fn close(&self) {
        let _ = self.close.try_send(());
    }

    /// Waits until the tunnel is over.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or(Ended::Closed),
            Err(_) => Ended::Closed,
        }
    }

    pub fn is_open(&self) -> bool {
        self.shared.ended().is_none()
    }

    /// When something last arrived from the other end.
    pub fn last_contact(&self) -> Instant {
        *self.shared.contact.borrow()
    }

    /// Changes with each beat that arrives.
    pub fn contacts(&self) -> watch::Receiver<Instant> {
        self.shared.contact.subscribe()
    }

    pub fn same_tunnel(&self, other: &Opener) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// The streams that the other end opens. Dropping it closes the tunnel.
pub struct Incoming {
    /// Boxed, as the places of a channel take their room from the start, 32 at a time.
    delivered: mpsc::Receiver<Box<Stream>>,
}

impl Incoming {
    /// The next one; none once the tunnel is over. Take them up quickly: what waits beyond a few hundred is refused.
    pub async fn next(&mut self) -> Option<Stream> {
        self.delivered.recv().await.map(|stream| *stream)
    }
}

/// How the multiplexer's streams call for the driver.
///
/// Each time yamux is polled it may find that a ping of its own is due, which wakes the other end, and by the answer this
/// one. So beats alone, which are all that an idle tunnel carries, leave it asleep.
#[derive(Default)]
struct Call {
    made: AtomicBool,
    driver: AtomicWaker,
}

impl ArcWake for Call {
    fn wake_by_ref(call: &Arc<Self>) {
        call.made.store(true, Ordering::Release);
        call.driver.wake();
    }
}

struct Driver<M> {
    messages: M,
    /// None once the end has begun: dropping it fails all streams.
    multiplexer: Option<yamux::Connection<Socket>>,
    multiplexer_waker: Waker,
    call: Arc<Call>,
    /// The pipe to the multiplexer has moved.
    stirred: bool,
    /// What is to be sent has let the other tasks have their turn once: they may have more for the same message.
    gathered: bool,
    pipe: Pipe,
    side: Side,
    shared: Arc<Shared>,
    /// For streams that the other end opens.
    places: Arc<Semaphore>,
    asked: mpsc::Receiver<Reply>,
    closed: mpsc::Receiver<()>,
    deliver: mpsc::Sender<Box<Stream>>,
    /// Who asked for a stream that the multiplexer holds back until earlier ones are acknowledged.
    waiting: Option<Reply>,
    beat: Interval,
    beat_due: bool,
    /// Bytes of messages that arrived here.
    received: u64,
    /// Bytes of ours that have arrived there, by its last beat.
    heard: u64,
    last_received: Instant,
    last_heard: Instant,
    check: Pin<Box<Sleep>>,
    config: Config,
    /// Set while the messages are being closed.
    goodbye: Option<(Ended, Pin<Box<Sleep>>)>,
}

/// Rounds of one poll before the task lets others run.
const ROUNDS: usize = 32;
/// Messages taken in one round, so that reading never starves sending.
const BATCH: usize = 16;

impl<M: Messages> Future for Driver<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.goodbye.is_none() {
            match this.work(cx) {
                Ok(()) => return Poll::Pending,
                Err(why) => this.begin_end(why),
            }
        }
        let Some((why, patience)) = &mut this.goodbye else { return Poll::Ready(()) };
        let clean = matches!(why, Ended::Closed | Ended::ClosedByPeer);
        // A dead or broken link gets no goodbye: it would only hang.
        if clean && patience.poll_unpin(cx).is_pending() {
            ready!(this.messages.poll_close_unpin(cx)).ok();
        }
        Poll::Ready(())
    }
}

impl<M: Messages> Driver<M> {
    fn begin_end(&mut self, why: Ended) {
        self.shared.end(why.clone());
        self.multiplexer = None;
        self.waiting = None;
        self.asked.close();
        self.goodbye = Some((why, Box::pin(tokio::time::sleep(self.config.goodbye))));
    }

    /// Moves whatever can be moved. An error is the tunnel's end.
    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        if let Poll::Ready(Some(())) = self.closed.poll_recv(cx) {
            return Err(Ended::Closed);
        }
        while self.beat.poll_tick(cx).is_ready() {
            self.beat_due = true;
        }
        let gathered = std::mem::take(&mut self.gathered);
        for _ in 0..ROUNDS {
            let arrived = self.take_arrived(cx)?;
            if self.beat_due && self.deliver.is_closed() {
                return Err(Ended::Closed);
            }
            self.run_multiplexer(cx)?;
            if !gathered && !self.beat_due && self.pipe.has_little_outgoing() {
                self.gathered = true;
            }
            let sent = !self.gathered && self.send(cx)?;
            if !arrived && !sent {
                if self.gathered {
                    cx.waker().wake_by_ref();
                }
                // After reading, so that a pause of this process is not taken for the peer's.
                return self.judge(cx);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn take_arrived(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        for taken in 0..BATCH {
            if !self.pipe.has_room() {
                return Ok(taken > 0);
            }
            let message = match self.messages.poll_next_unpin(cx) {
                Poll::Pending => return Ok(taken > 0),
                Poll::Ready(None) => return Err(Ended::ClosedByPeer),
                Poll::Ready(Some(message)) => message.map_err(|e| Ended::Broken(e.to_string()))?,
            };
            self.received += message.len() as u64;
            self.last_received = Instant::now();
            match Frame::decode(message).map_err(|e| Ended::Broken(e.to_string()))? {
                Frame::Data(bytes) => {
                    self.stirred = true;
                    self.pipe.push_incoming(bytes);
                }
                Frame::Beat { received } => {
                    if received > self.heard {
                        self.heard = received;
                        self.last_heard = self.last_received;
                    }
                    self.shared.contact.send_replace(self.last_received);
                    if self.side == Side::Server {
                        self.beat_due = true;
                        self.beat.reset();
                    }
                }
            }
        }
        Ok(true)
    }

    fn run_multiplexer(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        let Some(multiplexer) = &mut self.multiplexer else { return Ok(()) };
        self.call.driver.register(cx.waker());
        let called = self.call.made.swap(false, Ordering::AcqRel);
        if !std::mem::take(&mut self.stirred) && !called {
            return Ok(());
        }
        let cx = &mut Context::from_waker(&self.multiplexer_waker);
        loop {
            let stream = match multiplexer.poll_next_inbound(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => return Err(Ended::ClosedByPeer),
                Poll::Ready(Some(stream)) => stream.map_err(|e| Ended::Broken(e.to_string()))?,
            };
            // Without a place, or nobody to take it up: dropped, which resets it.
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                match self.deliver.try_send(Box::new(Stream::accepted(stream, self.shared.clone(), place))) {
                    Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                    Err(mpsc::error::TrySendError::Closed(_)) => return Err(Ended::Closed),
                }
            }
        }
        loop {
            let reply = match self.waiting.take() {
                Some(reply) => reply,
                None => match self.asked.poll_recv(cx) {
                    Poll::Ready(Some(reply)) => reply,
                    Poll::Ready(None) | Poll::Pending => return Ok(()),
                },
            };
            if reply.is_closed() {
                continue;
            }
            match multiplexer.poll_new_outbound(cx) {
                Poll::Ready(stream) => {
                    let _ = reply.send(stream.map_err(|e| Ended::Broken(e.to_string()))?);
                    // The multiplexer only hears of what is written to a stream once it was polled with it: without
                    // this, the stream's first bytes would wait for the next beat.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending => {
                    self.waiting = Some(reply);
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let broken = |e: std::io::Error| Ended::Broken(e.to_string());
        let mut sent = false;
        while self.beat_due || self.pipe.has_outgoing() {
            match self.messages.poll_ready_unpin(cx) {
                Poll::Pending => return Ok(sent),
                Poll::Ready(ready) => ready.map_err(broken)?,
            }
            let frame = if std::mem::take(&mut self.beat_due) {
                Frame::Beat { received: self.received }
            } else {
                match self.pipe.take_outgoing() {
                    Some(bytes) => {
                        self.stirred = true;
                        Frame::Data(bytes)
                    }
                    None => break,
                }
            };
            self.messages.start_send_unpin(frame.encode()).map_err(broken)?;
            sent = true;
        }
        match self.messages.poll_flush_unpin(cx) {
            Poll::Ready(flushed) => flushed.map_err(broken)?,
            Poll::Pending => {}
        }
        Ok(sent)
    }

    fn judge(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        while self.check.poll_unpin(cx).is_ready() {
            let now = Instant::now();
            if now - self.last_received >= self.config.silence {
                return Err(Ended::Silent(now - self.last_received));
            }
            if now - self.last_heard >= self.config.silence {
                return Err(Ended::Deaf(now - self.last_heard));
            }
            let next = self.last_received.min(self.last_heard) + self.config.silence;
            self.check.as_mut().reset(next);
        }
        Ok(())
    }
}

impl<M> Drop for Driver<M> {
    /// Also when the task is aborted or its runtime ends: whoever waits must learn of it.
    fn drop(&mut self) {
        self.shared.end(Ended::Closed);
    }
}
