//! What carries a machine's tunnel: messages in order, each way with a latency, that can be swallowed, held up or cut.

use bytes::Bytes;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::{Sink, Stream, StreamExt};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What becomes of messages on a road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Flows,
    /// Everything disappears: a lost route. A wire that has lost something never brings anything again in that direction,
    /// as TCP never brings what comes after a gap: it is for its ends to find out.
    Swallowed,
    /// Nothing moves, and everything arrives once it does again.
    Stalled,
}

/// A machine's two directions. What happens to them happens to every wire that is on it.
#[derive(Clone)]
pub struct Road {
    pub to_server: watch::Sender<Traffic>,
    pub to_machine: watch::Sender<Traffic>,
    /// Counts the resets: each ends all wires.
    pub resets: watch::Sender<u64>,
}

impl Default for Road {
    fn default() -> Self {
        let flows = || watch::Sender::new(Traffic::Flows);
        Self { to_server: flows(), to_machine: flows(), resets: watch::Sender::new(0) }
    }
}

impl Road {
    pub fn set(&self, both: Traffic) {
        self.to_server.send_replace(both);
        self.to_machine.send_replace(both);
    }

    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// Whether a connection can be made now.
    pub fn is_open(&self) -> bool {
        *self.to_server.borrow() == Traffic::Flows && *self.to_machine.borrow() == Traffic::Flows
    }

    /// A new wire: the machine's end and the server's. It breaks when `gone`, the server's process, ends.
    pub fn wire(&self, latency: Duration, gone: &CancellationToken) -> (End, End) {
        let (machine_out, from_machine) = mpsc::unbounded();
        let (server_out, from_server) = mpsc::unbounded();
        let (to_machine, machine_in) = mpsc::unbounded();
        let (to_server, server_in) = mpsc::unbounded();
        let broken = CancellationToken::new();
        let relays = [(from_machine, to_server, &self.to_server), (from_server, to_machine, &self.to_machine)];
        for (from, to, traffic) in relays {
            let (gone, broken, resets) = (gone.clone(), broken.clone(), self.resets.subscribe());
            tokio::spawn(relay(from, to, traffic.subscribe(), resets, gone, broken));
        }
        let end = |incoming, outgoing| End { incoming, outgoing, latency };
        (end(machine_in, machine_out), end(server_in, server_out))
    }
}

type Posted = (Instant, Bytes);

/// Brings messages from one end to the other until either goes away or the wire breaks.
async fn relay(
    mut from: UnboundedReceiver<Posted>,
    to: UnboundedSender<io::Result<Bytes>>,
    mut traffic: watch::Receiver<Traffic>,
    mut resets: watch::Receiver<u64>,
    gone: CancellationToken,
    broken: CancellationToken,
) {
    let _both = broken.clone().drop_guard();
    let carry = async {
        let mut lost = false;
        loop {
            if *traffic.borrow_and_update() == Traffic::Stalled {
                if traffic.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some((due, message)) = from.next().await else { return };
            tokio::time::sleep_until(due).await;
            if traffic.wait_for(|t| *t != Traffic::Stalled).await.is_err() {
                return;
            }
            lost |= *traffic.borrow() == Traffic::Swallowed;
            if !lost && to.unbounded_send(Ok(message)).is_err() {
                return;
            }
        }
    };
    let reset = tokio::select! {
        biased;
        () = gone.cancelled() => true,
        () = broken.cancelled() => true,
        _ = resets.changed() => true,
        () = carry => false,
    };
    if reset {
        let _ = to.unbounded_send(Err(io::ErrorKind::ConnectionReset.into()));
    }
}

/// One end, as a tunnel wants it.
pub struct End {
    incoming: UnboundedReceiver<io::Result<Bytes>>,
    outgoing: UnboundedSender<Posted>,
    latency: Duration,
}

impl Stream for End {
    type Item = io::Result<Bytes>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.poll_next_unpin(cx)
    }
}

impl Sink<Bytes> for End {
    type Error = io::Error;
    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn start_send(self: Pin<&mut Self>, message: Bytes) -> io::Result<()> {
        let due = Instant::now() + self.latency;
        self.outgoing.unbounded_send((due, message)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close_channel();
        Poll::Ready(Ok(()))
    }
}
