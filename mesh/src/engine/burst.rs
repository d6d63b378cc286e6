//! Datagrams for one destination, gathered so that one call sends them all: all of one size but the last.

use crate::path::Via;
use crate::peer::Peer;
use crate::udp::{MOST_BYTES, MOST_SEGMENTS};
use std::sync::Arc;

/// Room for one more datagram behind the fullest burst.
const ROOM: usize = 66_000;

pub struct Burst {
    pub peer: Arc<Peer>,
    pub via: Via,
    bytes: Vec<u8>,
    length: usize,
    segment: usize,
    count: usize,
    closed: bool,
}

impl Burst {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub fn segment(&self) -> usize {
        self.segment
    }

    /// Whether a datagram of `length` bytes can follow.
    fn takes(&self, peer: &Arc<Peer>, via: Via, length: usize) -> bool {
        !self.closed
            && self.via == via
            && Arc::ptr_eq(&self.peer, peer)
            && length <= self.segment
            && self.count < MOST_SEGMENTS
            && self.length + length <= MOST_BYTES
    }
}

/// Bursts in the order in which they are to be sent. Their buffers are used again.
#[derive(Default)]
pub struct Bursts {
    ready: Vec<Burst>,
    spare: Vec<Vec<u8>>,
}

impl Bursts {
    /// Adds a datagram of at most `most` bytes: `write` fills it and says how long it became (0: none).
    pub fn add(&mut self, peer: &Arc<Peer>, via: Via, most: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        // Its length is known only afterwards: it is written behind the last burst, and moved where that can't take it.
        if !self.ready.last().is_some_and(|burst| burst.takes(peer, via, most)) {
            self.begin(peer, via);
        }
        let Some(burst) = self.ready.last_mut() else { return };
        let length = write(&mut burst.bytes[burst.length..]);
        if length == 0 {
            if burst.count == 0
                && let Some(empty) = self.ready.pop()
            {
                self.spare.push(empty.bytes);
            }
            return;
        }
        if burst.count == 0 {
            burst.segment = length;
        } else if length > burst.segment {
            // A handshake came in the place of a small packet.
            let longer = burst.bytes[burst.length..][..length].to_vec();
            self.begin(peer, via);
            if let Some(burst) = self.ready.last_mut() {
                burst.bytes[..length].copy_from_slice(&longer);
                (burst.segment, burst.length, burst.count) = (length, length, 1);
            }
            return;
        }
        burst.closed = length < burst.segment;
        burst.length += length;
        burst.count += 1;
    }

    fn begin(&mut self, peer: &Arc<Peer>, via: Via) {
        let bytes = self.spare.pop().unwrap_or_else(|| vec![0; MOST_BYTES + ROOM]);
        self.ready.push(Burst { peer: peer.clone(), via, bytes, length: 0, segment: 0, count: 0, closed: false });
    }

    /// Whether so much is gathered that it should go.
    pub fn is_full(&self) -> bool {
        self.ready.len() >= 8
    }

    pub fn drain(&mut self) -> Vec<Burst> {
        std::mem::take(&mut self.ready)
    }

    pub fn give_back(&mut self, burst: Burst) {
        if self.spare.len() < 8 {
            self.spare.push(burst.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::PeerInfo;
    use longshore_api::ids::NodeId;
    use std::time::SystemTime;

    fn peer() -> Arc<Peer> {
        let slices = vec!["10.1.1.0/24".parse().unwrap()];
        let info = PeerInfo { keys: vec![], slices, candidates: vec![], relayed: 0, expires: SystemTime::UNIX_EPOCH };
        Arc::new(Peer { id: NodeId::new("n-a"), info, live: Arc::default() })
    }

    /// Sizes of the bursts' datagrams, as a receiver would cut them.
    fn gathered(sizes: &[(usize, usize)]) -> Vec<Vec<usize>> {
        let (mut bursts, peer) = (Bursts::default(), peer());
        for (most, length) in sizes {
            bursts.add(&peer, Via::Relay, *most, |room| {
                room[..*length].fill(*length as u8);
                *length
            });
        }
        let datagrams = |burst: Burst| {
            let cut = burst.bytes().chunks(burst.segment()).map(|datagram| {
                assert!(datagram.iter().all(|byte| *byte == datagram.len() as u8), "cut at a wrong place");
                datagram.len()
            });
            cut.collect()
        };
        bursts.drain().into_iter().map(datagrams).collect()
    }

    #[test]
    fn equal_sizes_go_together_and_a_shorter_one_is_the_last() {
        assert_eq!(gathered(&[(100, 100), (100, 100), (60, 60), (60, 60)]), [vec![100, 100, 60], vec![60]]);
        assert_eq!(gathered(&[(60, 60), (100, 100)]), [vec![60], vec![100]]);
    }

    #[test]
    fn what_became_longer_than_it_was_said_to_is_a_burst_of_its_own() {
        assert_eq!(gathered(&[(72, 72), (72, 148), (72, 72)]), [vec![72], vec![148, 72]]);
    }

    #[test]
    fn nothing_written_is_no_burst() {
        assert!(gathered(&[(72, 0)]).is_empty());
    }

    #[test]
    fn a_burst_is_never_more_than_the_kernel_takes_at_once() {
        let all = gathered(&[(1452, 1452); 200]);
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 200);
        assert!(all.iter().all(|burst| burst.len() * 1452 <= MOST_BYTES));
        assert!(gathered(&[(40, 40); 200]).iter().all(|burst| burst.len() <= MOST_SEGMENTS));
    }
}
