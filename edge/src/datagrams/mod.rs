//! Datagrams over a stream of bytes: those of all clients of a port to one endpoint, each with its flow's number before it.
//!
//! A flow is a client's address, and a resolver has a new one for each question: with a stream for each, questions alone would
//! take all of a tunnel's places and a round trip more. So the stream is the endpoint's. Each end forgets flows by itself
//! ([`flows`]); a number that the far end has forgotten is a new flow to it.
//!
//! Nothing is kept for an end that doesn't keep up: what finds no room is dropped, as routers do.

pub mod flows;

use flows::Flows;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a datagram's length is told in reaches this far.
pub const LONGEST: usize = u16::MAX as usize;

/// A frame: flow (four bytes), length (two; both big-endian), and the datagram.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), flow: u32, datagram: &[u8]) -> io::Result<()> {
    let length = u16::try_from(datagram.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(6 + datagram.len());
    frame.extend_from_slice(&flow.to_be_bytes());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(datagram);
    to.write_all(&frame).await
}

/// The flow of the next datagram, which `datagram` becomes.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin), datagram: &mut Vec<u8>) -> io::Result<u32> {
    let flow = from.read_u32().await?;
    datagram.resize(from.read_u16().await?.into(), 0);
    from.read_exact(datagram).await?;
    Ok(flow)
}

/// What a flow is on the far end; its end ends the task that waits for answers.
struct Open {
    socket: Arc<UdpSocket>,
    _open: oneshot::Sender<()>,
}

struct Far<S> {
    flows: Mutex<Flows<u32, Open>>,
    /// With room for one datagram, which all flows share.
    back: tokio::sync::Mutex<(WriteHalf<S>, Vec<u8>)>,
}

/// The far end: each flow has a socket that `open` makes, connected to the endpoint. Err where one can't be made, or once the
/// stream has ended.
pub async fn answer<S>(stream: S, open: impl Fn() -> io::Result<UdpSocket>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from, to) = tokio::io::split(stream);
    let far = Far { flows: Mutex::new(Flows::new(flows::MOST)), back: tokio::sync::Mutex::new((to, vec![0; LONGEST])) };
    let far = Arc::new(far);
    let mut from = BufReader::new(from);
    let (mut tasks, mut datagram) = (JoinSet::new(), Vec::new());
    loop {
        let flow = read(&mut from, &mut datagram).await?;
        let now = Instant::now();
        let known = {
            let mut flows = far.flows.lock();
            flows.expire(now);
            flows.asked(flow, now).map(|open| open.socket.clone())
        };
        let socket = match known {
            Some(socket) => socket,
            None => {
                while tasks.try_join_next().is_some() {}
                let socket = Arc::new(open()?);
                let (open, ended) = oneshot::channel();
                tasks.spawn(pass_back(far.clone(), flow, socket.clone(), ended));
                far.flows.lock().begin(flow, Open { socket: socket.clone(), _open: open }, now);
                socket
            }
        };
        // Lost where nobody listens, as datagrams are.
        let _ = socket.send(&datagram).await;
    }
}

/// Until the flow has ended, or the stream.
async fn pass_back<S: AsyncWrite>(
    far: Arc<Far<S>>,
    flow: u32,
    socket: Arc<UdpSocket>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            ready = socket.readable() => if ready.is_err() { return },
            _ = &mut ended => return,
        }
        // From here on nothing ends it: half a frame would spoil all others.
        let mut back = far.back.lock().await;
        let (to, datagram) = &mut *back;
        // An error says that nobody listens there.
        let Ok(length) = socket.try_recv(datagram) else { continue };
        far.flows.lock().answered(flow, Instant::now());
        let sent = async {
            write(to, flow, &datagram[..length]).await?;
            to.flush().await
        };
        if sent.await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(sent in prop::collection::vec((any::<u32>(), 0..=LONGEST), 0..4)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut bytes = Vec::new();
                for (flow, length) in &sent {
                    write(&mut bytes, *flow, &vec![*flow as u8; *length]).await.unwrap();
                }
                let (mut bytes, mut datagram) = (&bytes[..], Vec::new());
                for (flow, length) in sent {
                    assert_eq!(read(&mut bytes, &mut datagram).await.unwrap(), flow);
                    assert_eq!(datagram, vec![flow as u8; length]);
                }
                assert!(read(&mut bytes, &mut datagram).await.is_err());
            });
        }
    }
}
