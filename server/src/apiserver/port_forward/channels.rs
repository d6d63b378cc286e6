//! Forwarding for clients that speak channels: one connection to each of the ports that they named.
//!
//! Of the i-th port, channel 2i carries the bytes and channel 2i + 1 says why it failed; the first message on each is the
//! port's number, lower byte first. There is no word for the end of one direction: a connection is over when the pod has
//! said all, and the WebSocket when all connections are.

use super::copy::{from_pod, to_pod};
use super::{BEAT, FAREWELL, PodPlace, QUEUE, WAITING, connect};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use std::pin::pin;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Serves a client until it goes away or nothing is left of what it asked for.
pub async fn serve(socket: WebSocket, pod: PodPlace, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (say, mut said) = mpsc::channel(QUEUE);
    let mut writing = pin!(async move {
        loop {
            let message = match tokio::time::timeout(BEAT, said.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => Message::Ping(Bytes::new()),
            };
            sink.send(message).await?;
        }
        sink.send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))).await
    });
    let mut running = JoinSet::new();
    let mut to_pods = Vec::new();
    for (channel, port) in (0u8..).step_by(2).zip(ports) {
        let (near, from_client) = tokio::io::duplex(WAITING);
        to_pods.push(Some(near));
        running.spawn(forward(pod.clone(), port, channel, from_client, say.clone()));
    }
    drop(say);
    tokio::select! {
        // Nothing more can be said: all connections are over, or the client is gone.
        written = &mut writing => {
            if written.is_ok() {
                // What was said last must arrive: the client ends its side first.
                let _ = tokio::time::timeout(FAREWELL, async { while let Some(Ok(_)) = source.next().await {} }).await;
            }
        }
        () = hear(&mut source, to_pods) => {}
    }
}

/// Passes on what the client says, until it is gone.
async fn hear(source: &mut SplitStream<WebSocket>, mut to_pods: Vec<Option<DuplexStream>>) {
    while let Some(Ok(message)) = source.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some((&channel, data)) = bytes.split_first() else { continue };
        let place = to_pods.get_mut(usize::from(channel / 2)).filter(|_| channel.is_multiple_of(2));
        if let Some(place) = place
            && let Some(open) = place
            && open.write_all(data).await.is_err()
        {
            *place = None;
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

/// One connection from its beginning to its end. Who can't be told any more is gone.
async fn forward(pod: PodPlace, port: u16, channel: u8, from_client: DuplexStream, say: mpsc::Sender<Message>) {
    for channel in [channel, channel + 1] {
        let _ = say.send(message(channel, &port.to_le_bytes())).await;
    }
    let connection = match connect(&pod, port).await {
        Ok(connection) => connection,
        Err(why) => return drop(say.send(message(channel + 1, why.as_bytes())).await),
    };
    let (read, write) = tokio::io::split(connection);
    let mut receiving = pin!(from_pod(read, &say, |bytes| message(channel, &bytes)));
    tokio::select! {
        _ = &mut receiving => {}
        () = to_pod(from_client, write) => drop(receiving.await),
    }
}
