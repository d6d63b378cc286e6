//! WireGuard's protocol with one peer under one pair of keys (boringtun's, which does no I/O), and what authenticates
//! messages about paths under the same pair.

use crate::keys::{PrivateKey, PublicKey, Tag};
use crate::path::message::Message;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use ring::hmac;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// By what a data message is longer than the packet in it.
pub const OVERHEAD: usize = 32;
/// Room that a message needs at least: a handshake.
pub const LEAST_ROOM: usize = 148;
/// A handshake without an answer is begun again after so long. WireGuard waits for 5 s; here a path that just died is a
/// usual cause, and there is another.
const AGAIN: Duration = Duration::from_secs(1);
/// boringtun's own timers count in such steps.
const TIMERS: Duration = Duration::from_millis(500);

/// Our own key, with what is computed from it once.
#[derive(Clone)]
pub struct OwnKey {
    pub private: PrivateKey,
    pub public: PublicKey,
    pub tag: Tag,
    limiter: Arc<RateLimiter>,
}

/// First byte of a message with a packet in it.
const DATA: u8 = 4;
/// Handshakes a second before cookies are demanded.
const HANDSHAKES: u64 = 400;

impl OwnKey {
    pub fn new(private: PrivateKey) -> Self {
        Self::limited(private, HANDSHAKES)
    }

    fn limited(private: PrivateKey, handshakes: u64) -> Self {
        let public = private.public();
        let limiter = Arc::new(RateLimiter::new(&public.to_x25519(), handshakes));
        Self { private, public, tag: public.tag(), limiter }
    }

    /// Who begins a handshake with this key. Whoever doesn't know our public key costs one hash; when there are too many
    /// who do, the sender must show that it receives at `from`.
    pub fn greeted(&self, datagram: &[u8], from: IpAddr) -> Greeting {
        self.limiter.reset_count();
        let mut cookie = [0; 64];
        match self.limiter.verify_packet(Some(from), datagram, &mut cookie) {
            Ok(Packet::HandshakeInit(init)) => {
                match parse_handshake_anon(self.private.secret(), &self.public.to_x25519(), &init) {
                    Ok(half) => Greeting::By(PublicKey::from_bytes(half.peer_static_public)),
                    Err(_) => Greeting::None,
                }
            }
            Err(TunnResult::WriteToNetwork(cookie)) => Greeting::Cookie(cookie.to_vec()),
            _ => Greeting::None,
        }
    }
}

/// How a handshake begins.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    By(PublicKey),
    /// To be sent back instead of an answer.
    Cookie(Vec<u8>),
    /// Not with this key.
    None,
}

pub struct Tunnel {
    tunn: Tunn,
    pub own: PublicKey,
    pub theirs: PublicKey,
    own_tag: Tag,
    their_tag: Tag,
    paths: hmac::Key,
    /// 24 bits; ours among all tunnels of this node.
    pub index: u32,
    /// Whether packets may wait in it for a session.
    waiting: bool,
    handshake_sent: Option<Instant>,
    timers_due: Instant,
}

/// What came out of a datagram.
pub enum Opened {
    /// A packet: the first `length` bytes of the room.
    Packet {
        length: usize,
    },
    /// The first `length` bytes of the room are to be sent to the peer.
    Answer {
        length: usize,
    },
    Nothing,
    /// Not authentic, a repetition, or of no session.
    Wrong,
}

impl Tunnel {
    pub fn new(now: Instant, own: &OwnKey, theirs: PublicKey, index: u32) -> Self {
        let (private, limiter) = (own.private.secret().clone(), own.limiter.clone());
        Self {
            tunn: Tunn::new(private, theirs.to_x25519(), None, None, index, Some(limiter)),
            own: own.public,
            theirs,
            own_tag: own.tag,
            their_tag: theirs.tag(),
            paths: own.private.shared_with(&theirs),
            index,
            waiting: false,
            handshake_sent: None,
            timers_due: now,
        }
    }

    pub fn is_of(&self, own: &PublicKey, theirs: &PublicKey) -> bool {
        self.own == *own && self.theirs == *theirs
    }

    /// Whether packets can be sent now.
    pub fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    pub fn last_handshake(&self) -> Option<Duration> {
        self.tunn.time_since_last_handshake()
    }

    /// Seals a packet into `room` ([`OVERHEAD`] longer, at least [`LEAST_ROOM`]): how many bytes are to be sent. Without a
    /// session the packet waits, and what is sent is a handshake or nothing.
    pub fn seal(&mut self, now: Instant, packet: &[u8], room: &mut [u8]) -> usize {
        let length = written(self.tunn.encapsulate(packet, room));
        if length == 0 || room[0] != DATA {
            self.waiting = true;
            if length > 0 {
                self.handshake_sent = Some(now);
            }
        }
        length
    }

    /// Opens a datagram into `room`, which is at least as long and no shorter than [`LEAST_ROOM`]. `from`: as for
    /// [`OwnKey::greeted`].
    pub fn open(&mut self, from: IpAddr, datagram: &[u8], room: &mut [u8]) -> Opened {
        match self.tunn.decapsulate(Some(from), datagram, room) {
            TunnResult::Done => Opened::Nothing,
            TunnResult::Err(error) => {
                tracing::trace!(?error, "a datagram was not opened");
                Opened::Wrong
            }
            TunnResult::WriteToNetwork(bytes) => Opened::Answer { length: bytes.len() },
            TunnResult::WriteToTunnelV4(bytes, _) => Opened::Packet { length: bytes.len() },
            TunnResult::WriteToTunnelV6(bytes, _) => Opened::Packet { length: bytes.len() },
        }
    }

    /// The next packet that waited for a session, sealed; none: no more, or still no session.
    pub fn next_waiting(&mut self, room: &mut [u8]) -> Option<usize> {
        if !self.waiting || !self.has_session() {
            return None;
        }
        self.handshake_sent = None;
        match written(self.tunn.decapsulate(None, &[], room)) {
            0 => {
                self.waiting = false;
                None
            }
            length => Some(length),
        }
    }

    /// Begins a handshake, unless one was begun lately.
    pub fn shake_hands(&mut self, now: Instant, room: &mut [u8]) -> usize {
        if self.handshake_sent.is_some_and(|sent| now < sent + AGAIN) {
            return 0;
        }
        self.handshake_sent = Some(now);
        written(self.tunn.format_handshake_initiation(room, true))
    }

    /// Does what is due by time. `wanted`: somebody waits for it to work.
    pub fn tick(&mut self, now: Instant, wanted: bool, room: &mut [u8]) -> usize {
        if now >= self.timers_due {
            self.timers_due = now + TIMERS;
            let length = written(self.tunn.update_timers(room));
            if length > 0 {
                return length;
            }
        }
        if self.has_session() {
            self.handshake_sent = None;
        } else if wanted {
            return self.shake_hands(now, room);
        }
        0
    }

    pub fn encode(&self, message: &Message, size: usize) -> Vec<u8> {
        message.encode(self.own_tag, self.their_tag, &self.paths, size)
    }

    pub fn decode(&self, bytes: &[u8]) -> Option<Message> {
        Message::decode(bytes, &self.paths)
    }
}

fn written(result: TunnResult<'_>) -> usize {
    match result {
        TunnResult::WriteToNetwork(bytes) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::message::Message;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pair(now: Instant) -> [Tunnel; 2] {
        let [a, b] = [(); 2].map(|()| OwnKey::new(PrivateKey::generate()));
        [Tunnel::new(now, &a, b.public, 1), Tunnel::new(now, &b, a.public, 2)]
    }

    /// The smallest packet: an IPv4 header.
    fn packet() -> Vec<u8> {
        let mut packet = vec![0; 20];
        (packet[0], packet[3]) = (0x45, 20);
        packet
    }

    fn answer(tunnel: &mut Tunnel, datagram: &[u8]) -> Vec<u8> {
        let mut room = [0; 256];
        let Opened::Answer { length } = tunnel.open(HERE, datagram, &mut room) else { panic!("no answer") };
        room[..length].to_vec()
    }

    #[test]
    fn the_first_packet_waits_for_a_session_and_arrives_once() {
        let now = Instant::now();
        let [mut a, mut b] = pair(now);
        let mut room = [0; 256];
        let length = a.seal(now, &packet(), &mut room);
        assert!(length > 0 && !a.has_session(), "a handshake");
        let response = answer(&mut b, &room[..length]);
        let confirmation = answer(&mut a, &response);
        assert!(matches!(b.open(HERE, &confirmation, &mut room), Opened::Nothing));
        let length = a.next_waiting(&mut room).unwrap();
        let datagram = room[..length].to_vec();
        assert_eq!(a.next_waiting(&mut room), None);
        assert!(matches!(b.open(HERE, &datagram, &mut room), Opened::Packet { length: 20 }));
        assert_eq!(room[..20], packet());
        assert!(matches!(b.open(HERE, &datagram, &mut room), Opened::Wrong), "a repetition");
    }

    #[test]
    fn what_waited_at_the_end_that_answered_goes_too() {
        let now = Instant::now();
        let [mut a, mut b] = pair(now);
        let mut room = [0; 256];
        // Its own handshake is lost.
        assert!(b.seal(now, &packet(), &mut room) > 0);
        let length = a.shake_hands(now, &mut room);
        let response = answer(&mut b, &room[..length]);
        let confirmation = answer(&mut a, &response);
        assert_eq!(b.next_waiting(&mut room), None, "it isn't proven yet that the other has the session");
        b.open(HERE, &confirmation, &mut room);
        let length = b.next_waiting(&mut room).unwrap();
        let datagram = room[..length].to_vec();
        assert!(matches!(a.open(HERE, &datagram, &mut room), Opened::Packet { length: 20 }));
    }

    #[test]
    fn a_lost_handshake_is_begun_again_after_a_second_and_not_before() {
        let now = Instant::now();
        let [mut a, _] = pair(now);
        let mut room = [0; 256];
        assert!(a.shake_hands(now, &mut room) > 0);
        assert_eq!(a.shake_hands(now + Duration::from_millis(900), &mut room), 0);
        assert!(a.tick(now + Duration::from_millis(1100), true, &mut room) > 0);
        assert_eq!(a.tick(now + Duration::from_secs(5), false, &mut room), 0, "nobody waits for it");
    }

    #[test]
    fn many_handshakes_cost_their_sender_a_cookie_and_only_for_a_moment() {
        let now = Instant::now();
        let [own, other] = [(); 2].map(|()| OwnKey::limited(PrivateKey::generate(), 3));
        let mut tunnel = Tunnel::new(now, &other, own.public, 1);
        let mut room = [0; 256];
        let length = tunnel.shake_hands(now, &mut room);
        let greeting = room[..length].to_vec();
        assert_eq!(own.greeted(&greeting, HERE), Greeting::By(other.public));
        let mut greetings = (0..20).map(|_| own.greeted(&greeting, HERE));
        let Some(Greeting::Cookie(cookie)) = greetings.find(|g| matches!(g, Greeting::Cookie(_))) else {
            panic!("no limit")
        };
        // Who shows the cookie is served, and so is anybody when the moment has passed.
        assert!(matches!(tunnel.open(HERE, &cookie, &mut room), Opened::Nothing));
        let length = tunnel.shake_hands(now + AGAIN, &mut room);
        assert_eq!(own.greeted(&room[..length], HERE), Greeting::By(other.public));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !matches!(own.greeted(&greeting, HERE), Greeting::By(_)) {
            assert!(Instant::now() < deadline, "it is never forgiven");
        }
        assert_eq!(other.greeted(&greeting, HERE), Greeting::None, "it was for another key");
    }

    #[test]
    fn both_ends_understand_each_other_about_paths() {
        let [a, b] = pair(Instant::now());
        let message = Message::Ping([7; 12]);
        assert_eq!(b.decode(&a.encode(&message, 1200)), Some(message));
    }
}
