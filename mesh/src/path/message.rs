//! What nodes say to each other about paths, beside WireGuard's own messages on the same socket or relay.
//!
//! ```text
//! 0   magic "LSm1"            told apart from WireGuard's, which begin with 1 to 4 and three zeros
//! 4   sender's tag            first 8 bytes of SHA-256 of its public key
//! 12  receiver's tag
//! 20  kind, body
//!     mac                     HMAC-SHA256 of all before it, by the keys' shared secret
//!     zeros                   up to the size that is probed
//! ```
//!
//! They are authentic, not secret: addresses and random numbers. A replayed ping makes us answer once more, with no more
//! bytes than it has; nothing but an answer to a number that we chose ourselves proves a path.

use crate::keys::Tag;
use longshore_tunnel::reflect::{address, put_address};
use ring::hmac;
use std::net::SocketAddr;

pub const MAGIC: [u8; 4] = *b"LSm1";
const HEADER: usize = 20;
const MAC: usize = 32;
/// Addresses that one call names at most.
pub const MOST_ADDRESSES: usize = 16;

/// A ping's number: chosen at random, so that only who received it can answer.
pub type Number = [u8; 12];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Answer, over the way that this came by.
    Ping(Number),
    Pong(Number),
    /// Over the relay: "I am at these addresses, and try yours now: try mine as well".
    Call(Vec<SocketAddr>),
}

/// The tags of sender and receiver, of what may be a message. The mac is not checked.
pub fn tags(bytes: &[u8]) -> Option<(Tag, Tag)> {
    let header = bytes.get(..HEADER)?;
    (header[..4] == MAGIC)
        .then(|| (header[4..12].try_into().unwrap_or_default(), header[12..20].try_into().unwrap_or_default()))
}

impl Message {
    /// `size`: padded to so many bytes, where it is shorter.
    pub fn encode(&self, sender: Tag, receiver: Tag, key: &hmac::Key, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size.max(64));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&sender);
        bytes.extend_from_slice(&receiver);
        match self {
            Message::Ping(number) => {
                bytes.push(1);
                bytes.extend_from_slice(number);
            }
            Message::Pong(number) => {
                bytes.push(2);
                bytes.extend_from_slice(number);
            }
            Message::Call(addresses) => {
                let addresses = &addresses[..addresses.len().min(MOST_ADDRESSES)];
                bytes.extend_from_slice(&[3, addresses.len() as u8]);
                addresses.iter().for_each(|address| put_address(&mut bytes, *address));
            }
        }
        let mac = hmac::sign(key, &bytes);
        bytes.extend_from_slice(mac.as_ref());
        if bytes.len() < size {
            bytes.resize(size, 0);
        }
        bytes
    }

    /// None where it isn't sound, or not made with this key.
    pub fn decode(bytes: &[u8], key: &hmac::Key) -> Option<Self> {
        tags(bytes)?;
        let (kind, body) = bytes[HEADER..].split_first()?;
        let (message, length) = match kind {
            1 => (Message::Ping(*body.first_chunk()?), 12),
            2 => (Message::Pong(*body.first_chunk()?), 12),
            3 => {
                let count = usize::from(*body.first()?);
                let addresses = body.get(1..1 + count * 18).filter(|_| count <= MOST_ADDRESSES)?;
                (Message::Call(addresses.chunks(18).map(address).collect()), 1 + count * 18)
            }
            _ => return None,
        };
        let (signed, rest) = bytes.split_at(HEADER + 1 + length);
        hmac::verify(key, signed, rest.get(..MAC)?).ok()?;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;
    use proptest::prelude::*;

    fn key() -> hmac::Key {
        PrivateKey::from_bytes([7; 32]).shared_with(&PrivateKey::from_bytes([8; 32]).public())
    }

    fn samples() -> [Message; 3] {
        let addresses = vec!["192.0.2.1:5".parse().unwrap(), "[2001:db8::1]:65535".parse().unwrap()];
        [Message::Ping([3; 12]), Message::Pong([9; 12]), Message::Call(addresses)]
    }

    #[test]
    fn what_is_said_is_heard() {
        for message in samples() {
            for size in [0, 1200] {
                let bytes = message.encode([1; 8], [2; 8], &key(), size);
                assert!(bytes.len() >= size);
                assert_eq!(tags(&bytes), Some(([1; 8], [2; 8])));
                assert_eq!(Message::decode(&bytes, &key()), Some(message.clone()));
            }
        }
    }

    #[test]
    fn one_changed_bit_makes_it_nothing() {
        for message in samples() {
            let bytes = message.encode([1; 8], [2; 8], &key(), 0);
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Message::decode(&changed, &key()), None, "bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_a_message(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if bytes.len() > 4 {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            prop_assert_eq!(Message::decode(&bytes, &key()), None);
        }
    }
}
