//! Forwarding for clients that speak SPDY/3.1.
//!
//! A forwarded connection is two streams with the same `requestID`: `error`, on which the client says nothing and hears
//! why it failed, and `data`. A client waits for the end of both.

use super::copy::{from_pod, to_pod};
use super::{BEAT, FAREWELL, PodPlace, QUEUE, WAITING, connect};
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use longshore_tunnel::Messages;
use longshore_tunnel::spdy::{Decoder, Encoder, Error, Frame, Headers, Reset};
use std::collections::HashMap;
use std::io;
use std::pin::pin;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Streams of one client at once: two for each forwarded connection.
const MOST_STREAMS: usize = 512;
/// Our own beats' number: even, as we are the server. The client gives it back.
const OUR_PING: u32 = 2;
/// [`Frame::GoAway`]'s status for an end that the other end's frames have caused.
const PROTOCOL_ERROR: u32 = 1;

/// Serves a client until it goes away or can't be understood any more.
pub async fn serve(messages: impl Messages, pod: PodPlace) {
    let (mut sink, source) = messages.split();
    let (say, mut said) = mpsc::channel(QUEUE);
    let mut writing = pin!(async move {
        let mut encoder = Encoder::default();
        loop {
            let frame = match tokio::time::timeout(BEAT, said.recv()).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return sink.close().await,
                Err(_) => Frame::Ping { id: OUR_PING },
            };
            sink.send(encoder.encode(&frame)).await?;
        }
    });
    tokio::select! {
        _ = &mut writing => {}
        () = Session::new(pod, say).run(source) => {
            let _ = tokio::time::timeout(FAREWELL, writing).await;
        }
    }
}

enum Open {
    Error,
    Data {
        /// None once the client has said all, or nobody wants to hear it.
        to_pod: Option<DuplexStream>,
        cancel: CancellationToken,
    },
}

/// Two streams that wait for each other.
#[derive(Default)]
struct Pair {
    error: Option<u32>,
    data: Option<Waiting>,
}

struct Waiting {
    stream: u32,
    port: u16,
    from_client: DuplexStream,
    cancel: CancellationToken,
}

struct Session {
    pod: PodPlace,
    say: mpsc::Sender<Frame>,
    decoder: Decoder,
    streams: HashMap<u32, Open>,
    /// By `requestID`.
    pairs: HashMap<String, Pair>,
    /// Each answers its two streams.
    running: JoinSet<[u32; 2]>,
    last: u32,
}

impl Session {
    fn new(pod: PodPlace, say: mpsc::Sender<Frame>) -> Self {
        Self {
            pod,
            say,
            decoder: Decoder::default(),
            streams: HashMap::new(),
            pairs: HashMap::new(),
            running: JoinSet::new(),
            last: 0,
        }
    }

    /// Its end cuts all connections that are left.
    async fn run(mut self, source: impl Stream<Item = io::Result<Bytes>>) {
        let mut source = pin!(source);
        loop {
            tokio::select! {
                Some(ended) = self.running.join_next() => {
                    for stream in ended.into_iter().flatten() {
                        self.streams.remove(&stream);
                    }
                }
                message = source.next() => {
                    let Some(Ok(bytes)) = message else { return };
                    if let Err(error) = self.hear(&bytes).await {
                        tracing::debug!(%error, "a client that forwards ports speaks no SPDY");
                        return self.say(Frame::GoAway { last: self.last, status: PROTOCOL_ERROR }).await;
                    }
                }
            }
        }
    }

    async fn hear(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.decoder.push(bytes);
        while let Some(frame) = self.decoder.frame()? {
            match frame {
                Frame::SynStream { stream, fin, headers } => self.open(stream, fin, &headers).await,
                Frame::Data { stream, fin, bytes } => self.data(stream, fin, &bytes).await,
                Frame::Reset { stream, .. } => self.reset(stream).await,
                Frame::Ping { id } if !id.is_multiple_of(2) => self.say(Frame::Ping { id }).await,
                _ => {}
            }
        }
        Ok(())
    }

    /// Who can't be told any more is gone, and this session with it.
    async fn say(&self, frame: Frame) {
        let _ = self.say.send(frame).await;
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: &Headers) {
        let reply = match self.take(stream, fin, headers) {
            Ok(()) => Frame::SynReply { stream, fin: false, headers: Headers::default() },
            Err(status) => Frame::Reset { stream, status },
        };
        // The reply comes before anything else on the stream.
        self.say(reply).await;
        self.begin(&request_id(stream, headers));
    }

    fn take(&mut self, stream: u32, fin: bool, headers: &Headers) -> Result<(), Reset> {
        if stream <= self.last || stream.is_multiple_of(2) {
            return Err(Reset::PROTOCOL_ERROR);
        }
        self.last = stream;
        if self.streams.len() >= MOST_STREAMS {
            return Err(Reset::REFUSED_STREAM);
        }
        let port = headers.get("port").parse::<u16>().ok().filter(|port| *port > 0).ok_or(Reset::PROTOCOL_ERROR)?;
        let pair = self.pairs.entry(request_id(stream, headers)).or_default();
        match headers.get("streamType") {
            "error" if pair.error.is_none() => {
                pair.error = Some(stream);
                self.streams.insert(stream, Open::Error);
            }
            "data" if pair.data.is_none() => {
                let (near, from_client) = tokio::io::duplex(WAITING);
                let cancel = CancellationToken::new();
                let to_pod = (!fin).then_some(near);
                pair.data = Some(Waiting { stream, port, from_client, cancel: cancel.clone() });
                self.streams.insert(stream, Open::Data { to_pod, cancel });
            }
            _ => return Err(Reset::PROTOCOL_ERROR),
        }
        Ok(())
    }

    /// Starts the connection of a pair that is complete.
    fn begin(&mut self, id: &str) {
        match self.pairs.remove(id) {
            Some(Pair { error: Some(error), data: Some(data) }) => {
                let streams = [error, data.stream];
                let work = forward(self.pod.clone(), self.say.clone(), error, data);
                self.running.spawn(async move {
                    work.await;
                    streams
                });
            }
            Some(Pair { error: None, data: None }) | None => {}
            Some(half) => drop(self.pairs.insert(id.to_owned(), half)),
        }
    }

    async fn data(&mut self, stream: u32, fin: bool, bytes: &[u8]) {
        // What comes for a stream that is over was on its way when it ended.
        let Some(Open::Data { to_pod, .. }) = self.streams.get_mut(&stream) else { return };
        if let Some(open) = to_pod
            && (open.write_all(bytes).await.is_err() || fin)
        {
            *to_pod = None;
        }
    }

    async fn reset(&mut self, stream: u32) {
        let Some(Open::Data { cancel, .. }) = self.streams.get(&stream) else { return };
        cancel.cancel();
        // One whose other half never came has nobody else who ends it.
        let waits = |pair: &Pair| pair.data.as_ref().is_some_and(|data| data.stream == stream);
        let waiting = self.pairs.iter().find(|(_, pair)| waits(pair)).map(|(id, _)| id.clone());
        if let Some(pair) = waiting.and_then(|id| self.pairs.remove(&id)) {
            self.streams.remove(&stream);
            if let Some(error) = pair.error {
                self.streams.remove(&error);
                self.say(end(error)).await;
            }
        }
    }
}

/// What the two streams of a connection have in common. Clients of long ago gave none, and opened both one after the other.
fn request_id(stream: u32, headers: &Headers) -> String {
    match (headers.get("requestID"), headers.get("streamType")) {
        ("", "data") => format!("stream {}", stream.saturating_sub(2)),
        ("", _) => format!("stream {stream}"),
        (id, _) => id.into(),
    }
}

fn end(stream: u32) -> Frame {
    Frame::Data { stream, fin: true, bytes: Bytes::new() }
}

/// How a connection ended.
enum Ended {
    /// Both sides had said all.
    Well,
    /// It never stood: the sentence for the client.
    Failed(String),
    /// It stood and was cut. No failure to forward: clients take one of those for the end of all their connections.
    Cut,
    /// The client wants no more of it.
    Cancelled,
}

/// One connection from its beginning to its end, of which both streams are told.
async fn forward(pod: PodPlace, say: mpsc::Sender<Frame>, error: u32, data: Waiting) {
    let Waiting { stream, port, from_client, cancel } = data;
    let ended = tokio::select! {
        ended = carry(&pod, &say, stream, port, from_client) => ended,
        () = cancel.cancelled() => Ended::Cancelled,
    };
    let frames = match ended {
        Ended::Well | Ended::Cancelled => vec![end(error)],
        Ended::Failed(why) => vec![Frame::Data { stream: error, fin: true, bytes: why.into() }, end(stream)],
        Ended::Cut => vec![Frame::Reset { stream, status: Reset::CANCEL }, end(error)],
    };
    for frame in frames {
        let _ = say.send(frame).await;
    }
}

async fn carry(pod: &PodPlace, say: &mpsc::Sender<Frame>, stream: u32, port: u16, from_client: DuplexStream) -> Ended {
    let connection = match connect(pod, port).await {
        Ok(connection) => connection,
        Err(why) => return Ended::Failed(why),
    };
    let (read, write) = tokio::io::split(connection);
    let sending = async {
        to_pod(from_client, write).await;
        Ok(())
    };
    let receiving = async {
        from_pod(read, say, |bytes| Frame::Data { stream, fin: false, bytes }).await?;
        say.send(end(stream)).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    };
    match tokio::try_join!(sending, receiving) {
        Ok(_) => Ended::Well,
        Err(_) => Ended::Cut,
    }
}
