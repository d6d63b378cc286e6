//! The second WebSocket: packets for nodes that aren't reached directly.

use crate::connection::Link;
use crate::connection::backoff::Backoff;
use crate::connection::exchange::Exchange;
use crate::connection::websocket::Carrier;
use futures::{SinkExt, StreamExt};
use kube::runtime::utils::Backoff as _;
use longshore_tunnel::relay::Relayed;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The line's end of the relay.
pub struct Line {
    pub outgoing: mpsc::Receiver<Relayed>,
    pub incoming: mpsc::Sender<Relayed>,
}

/// Keeps a line to the server while there is a tunnel; what can't be sent meanwhile is dropped. Never returns.
pub async fn keep(mut line: Line, link: Link, exchange: Arc<Exchange>) {
    let mut backoff = Backoff::connecting();
    let mut seen = None;
    loop {
        let Some(opener) = link.opener() else {
            tokio::select! {
                () = link.changed(&mut seen) => {}
                () = discard(&mut line.outgoing) => {}
            }
            continue;
        };
        seen = Some(opener.clone());
        let opened = tokio::select! {
            opened = exchange.open_relay() => opened,
            () = discard(&mut line.outgoing) => continue,
        };
        match opened {
            Ok(carrier) => {
                backoff.reset();
                tracing::debug!("packets can be relayed");
                let why = tokio::select! {
                    ended = carry(carrier, &mut line) => ended.err().map_or("the server ended it".into(), |e| e.to_string()),
                    ended = opener.ended() => ended.to_string(),
                };
                tracing::debug!(%why, "packets can't be relayed any more");
            }
            Err(error) => tracing::debug!(%error, "no line for relayed packets"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.after(false)) => {}
            () = discard(&mut line.outgoing) => {}
        }
    }
}

/// Never returns.
async fn discard(outgoing: &mut mpsc::Receiver<Relayed>) {
    while outgoing.recv().await.is_some() {}
    std::future::pending().await
}

async fn carry(carrier: Carrier, line: &mut Line) -> io::Result<()> {
    let Line { outgoing, incoming } = line;
    let (mut sink, mut stream) = carrier.split();
    let send = async {
        while let Some(relayed) = outgoing.recv().await {
            let mut next = Some(relayed);
            while let Some(relayed) = next {
                if let Some(message) = relayed.encode() {
                    sink.feed(message).await?;
                }
                next = outgoing.try_recv().ok();
            }
            sink.flush().await?;
        }
        Ok(())
    };
    let take = async {
        while let Some(message) = stream.next().await {
            let relayed = Relayed::decode(&message?).ok_or(io::ErrorKind::InvalidData)?;
            // A full queue drops, as routers do.
            let _ = incoming.try_send(relayed);
        }
        Ok(())
    };
    tokio::select! {
        ended = send => ended,
        ended = take => ended,
    }
}
