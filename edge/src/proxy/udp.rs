//! Datagrams between the clients of a port and endpoints. A client's stay with one endpoint for as long as its flow lives, and
//! that endpoint does.

use super::Shared;
use super::dial::Endpoint;
use super::metrics::count;
use super::tcp::{CONNECT, Forward};
use super::upstream::{Busy, Upstream};
use crate::datagrams::flows::{self, Flows};
use crate::datagrams::{LONGEST, read, write};
use crate::socket::{Datagrams, Speaker};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Bytes that may wait for one endpoint, while its stream is opened above all.
const ROOM: usize = 256 << 10;

/// Told why an endpoint's node can't carry datagrams.
pub type Unsupported = Box<dyn Fn(String) + Send + Sync>;

/// An open port.
struct Port {
    socket: Datagrams,
    flows: Mutex<Flows<Speaker, Flow>>,
    unsupported: Unsupported,
}

/// Who speaks by which number on one stream.
type Speakers = Arc<Mutex<HashMap<u32, Speaker>>>;

/// The stream to an endpoint; it ends with the last flow that has it.
struct Carrier {
    queue: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
    speakers: Speakers,
    next: AtomicU32,
}

struct Waiting {
    flow: u32,
    datagram: Box<[u8]>,
    _room: OwnedSemaphorePermit,
}

struct Flow {
    carrier: Arc<Carrier>,
    number: u32,
    busy: Busy,
}

impl Flow {
    fn begin(carrier: Arc<Carrier>, upstream: Arc<Upstream>, speaker: Speaker) -> Self {
        let number = carrier.next.fetch_add(1, Ordering::Relaxed);
        carrier.speakers.lock().insert(number, speaker);
        Self { carrier, number, busy: Busy::new(upstream) }
    }

    /// Whether what is sent can arrive.
    fn stands(&self) -> bool {
        !self.carrier.queue.is_closed() && !self.busy.0.is_removed()
    }

    fn send(&self, datagram: &[u8]) {
        // The emptiest one takes room, too.
        let bytes = u32::try_from(datagram.len() + size_of::<Waiting>()).unwrap_or(u32::MAX);
        if let Ok(room) = self.carrier.room.clone().try_acquire_many_owned(bytes) {
            let waiting = Waiting { flow: self.number, datagram: datagram.into(), _room: room };
            // It fails where the stream has just ended.
            let _ = self.carrier.queue.send(waiting);
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.carrier.speakers.lock().remove(&self.number);
    }
}

/// The streams of one port.
#[derive(Default)]
struct Carriers {
    known: HashMap<Endpoint, Weak<Carrier>>,
    tasks: JoinSet<()>,
}

impl Forward {
    /// Serves datagrams until `stop` turns true, or its sender is gone.
    pub async fn serve_datagrams(&self, socket: Datagrams, unsupported: Unsupported, mut stop: watch::Receiver<bool>) {
        let port = Arc::new(Port { socket, flows: Mutex::new(Flows::new(flows::MOST)), unsupported });
        // What it carries ends with this future.
        let mut carriers = Carriers::default();
        let mut datagram = vec![0; LONGEST];
        loop {
            let next_end = port.flows.lock().next_end();
            tokio::select! {
                (length, speaker) = arrival(&port.socket, &mut datagram) => {
                    self.pass(&port, &mut carriers, speaker, &datagram[..length]);
                }
                () = tokio::time::sleep_until(next_end.unwrap_or_else(Instant::now)), if next_end.is_some() => {
                    port.flows.lock().expire(Instant::now());
                }
                Some(_) = carriers.tasks.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        carriers.tasks.shutdown().await;
    }

    fn pass(&self, port: &Arc<Port>, carriers: &mut Carriers, speaker: Speaker, datagram: &[u8]) {
        if !self.may_come(speaker.ip()) {
            count(&self.shared.metrics.refused);
            return;
        }
        let now = Instant::now();
        let mut flows = port.flows.lock();
        if !flows.get(&speaker).is_some_and(Flow::stands) {
            let Some(upstream) = self.pool.read().pick(&[], speaker.ip()) else { return };
            let carrier = self.carrier(port, carriers, &upstream);
            flows.begin(speaker, Flow::begin(carrier, upstream, speaker), now);
        }
        if let Some(flow) = flows.asked(speaker, now) {
            flow.send(datagram);
        }
    }

    /// The one that stands, or a new one.
    fn carrier(&self, port: &Arc<Port>, carriers: &mut Carriers, upstream: &Arc<Upstream>) -> Arc<Carrier> {
        let known = carriers.known.get(&upstream.endpoint).and_then(Weak::upgrade);
        if let Some(carrier) = known.filter(|carrier| !carrier.queue.is_closed()) {
            return carrier;
        }
        let (queue, queued) = mpsc::unbounded_channel();
        let speakers = Speakers::default();
        let room = Arc::new(Semaphore::new(ROOM));
        carriers.tasks.spawn(carry(self.shared.clone(), port.clone(), upstream.clone(), queued, speakers.clone()));
        let carrier = Arc::new(Carrier { queue, room, speakers, next: AtomicU32::new(0) });
        carriers.known.retain(|_, carrier| carrier.strong_count() > 0);
        carriers.known.insert(upstream.endpoint.clone(), Arc::downgrade(&carrier));
        carrier
    }
}

/// The next datagram.
async fn arrival(socket: &Datagrams, datagram: &mut [u8]) -> (usize, Speaker) {
    loop {
        match socket.receive(datagram).await {
            Ok(received) => return received,
            Err(error) => {
                warn!(%error, "the edge can't receive a datagram");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Until no flow has it any more, or the stream breaks.
async fn carry(
    shared: Arc<Shared>,
    port: Arc<Port>,
    upstream: Arc<Upstream>,
    mut queue: mpsc::UnboundedReceiver<Waiting>,
    speakers: Speakers,
) {
    let endpoint = &upstream.endpoint;
    let dialed = tokio::time::timeout(CONNECT, shared.dialer.dial_datagrams(endpoint)).await;
    let stream = match dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, endpoint = %endpoint.address, "an endpoint can't be reached by datagrams");
            count(&shared.metrics.connects_failed);
            upstream.failed();
            if error.kind() == io::ErrorKind::Unsupported {
                (port.unsupported)(error.to_string());
            }
            return;
        }
    };
    upstream.worked();
    let (from, mut to) = tokio::io::split(stream);
    let there = async {
        while let Some(waiting) = queue.recv().await {
            write(&mut to, waiting.flow, &waiting.datagram).await?;
            if queue.is_empty() {
                to.flush().await?;
            }
        }
        Ok(())
    };
    let back = async {
        let (mut from, mut datagram) = (BufReader::new(from), Vec::new());
        loop {
            let flow = read(&mut from, &mut datagram).await?;
            let speaker = speakers.lock().get(&flow).copied();
            if let Some(speaker) = speaker.filter(|s| port.flows.lock().answered(*s, Instant::now()).is_some()) {
                // Lost where it can't be sent.
                let _ = port.socket.send(&datagram, speaker).await;
            }
        }
    };
    let ended: io::Result<()> = tokio::select! {
        sent = there => sent,
        read = back => read,
    };
    if let Err(error) = ended {
        debug!(%error, endpoint = %endpoint.address, "a stream of datagrams broke");
    }
}
