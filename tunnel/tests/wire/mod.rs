//! A wire between two ends of a tunnel that can be cut, stalled, slowed and made to swallow, each way by itself.

// Each test binary uses a part of it.
#![allow(dead_code)]

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{Sink, SinkExt, Stream, StreamExt};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    Forward,
    /// Takes everything and delivers nothing: a lost route, a dead proxy.
    Swallow,
    /// Takes nothing: the other end's buffers are full and nobody reads.
    Stall,
    /// Delivers one message each time.
    Slow(Duration),
    /// Fails both ends at once: a reset.
    Cut,
}

/// One end, as a tunnel wants it.
pub struct End {
    incoming: mpsc::Receiver<io::Result<Bytes>>,
    outgoing: mpsc::Sender<Bytes>,
}

impl Stream for End {
    type Item = io::Result<Bytes>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.poll_next_unpin(cx)
    }
}

impl Sink<Bytes> for End {
    type Error = io::Error;
    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_ready_unpin(cx).map_err(gone)
    }
    fn start_send(mut self: Pin<&mut Self>, item: Bytes) -> io::Result<()> {
        self.outgoing.start_send_unpin(item).map_err(gone)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_flush_unpin(cx).map_err(gone)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_close_unpin(cx).map_err(gone)
    }
}

fn gone(_: mpsc::SendError) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// The two directions' modes.
pub struct Wire {
    pub to_server: watch::Sender<Mode>,
    pub to_agent: watch::Sender<Mode>,
}

impl Wire {
    /// `depth` messages may be under way each way.
    pub fn new(depth: usize) -> (Wire, End, End) {
        let (agent_out, from_agent) = mpsc::channel(0);
        let (server_out, from_server) = mpsc::channel(0);
        let (to_agent_in, agent_in) = mpsc::channel(depth);
        let (to_server_in, server_in) = mpsc::channel(depth);
        let (to_server, server_mode) = watch::channel(Mode::Forward);
        let (to_agent, agent_mode) = watch::channel(Mode::Forward);
        tokio::spawn(relay(from_agent, to_server_in, server_mode));
        tokio::spawn(relay(from_server, to_agent_in, agent_mode));
        let agent = End { incoming: agent_in, outgoing: agent_out };
        let server = End { incoming: server_in, outgoing: server_out };
        (Wire { to_server, to_agent }, agent, server)
    }

    pub fn set_both(&self, mode: Mode) {
        self.to_server.send_replace(mode);
        self.to_agent.send_replace(mode);
    }
}

async fn relay(
    mut from: mpsc::Receiver<Bytes>,
    mut to: mpsc::Sender<io::Result<Bytes>>,
    mut mode: watch::Receiver<Mode>,
) {
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Cut => {
                let _ = to.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                return;
            }
            Mode::Stall => {
                if mode.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Mode::Slow(pause) => tokio::time::sleep(pause).await,
            Mode::Forward | Mode::Swallow => {}
        }
        let message = tokio::select! {
            message = from.next() => message,
            Ok(()) = mode.changed() => continue,
        };
        let Some(message) = message else { return };
        if now != Mode::Swallow && to.send(Ok(message)).await.is_err() {
            return;
        }
    }
}
