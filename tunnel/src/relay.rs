//! What the relay carries: opaque bytes between two nodes, on a WebSocket of their own beside the tunnel's, so that they
//! hold up nothing else. What finds no room is dropped, as routers do.

use bytes::{BufMut, Bytes, BytesMut};
use longshore_api::ids::NodeId;

/// Datagrams to or from a peer, of `segment` bytes each; the last may be shorter. At most 64 KB and 64 datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    pub peer: NodeId,
    pub segment: u16,
    pub bytes: Bytes,
}

/// Bytes that one message carries at most.
pub const MOST_RELAYED: usize = 65_536;
/// A message with what stands before those: segment, and an id of up to 255 bytes with its length.
pub const LONGEST: usize = MOST_RELAYED + 2 + 1 + 255;

impl Relayed {
    /// As a message between node and server: segment (two bytes, big-endian), the peer's id with its length before it (one
    /// byte), datagrams. None where the id is longer than 255 bytes.
    pub fn encode(&self) -> Option<Bytes> {
        let id = self.peer.as_str().as_bytes();
        let mut message = BytesMut::with_capacity(3 + id.len() + self.bytes.len());
        message.put_u16(self.segment);
        message.put_u8(u8::try_from(id.len()).ok()?);
        message.put_slice(id);
        message.put_slice(&self.bytes);
        Some(message.freeze())
    }

    /// The server puts the sender in the receiver's place. Datagrams are not copied; what is none, or more than
    /// [`MOST_RELAYED`], is no message.
    pub fn decode(message: &Bytes) -> Option<Self> {
        let (segment, rest) = message.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first()?;
        let id = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        let segment = u16::from_be_bytes(*segment);
        let bytes = message.slice(3 + id.len()..);
        let sound = segment > 0 && !id.is_empty() && !bytes.is_empty() && bytes.len() <= MOST_RELAYED;
        sound.then(|| Self { peer: NodeId::new(id), segment, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_sent_is_what_arrives() {
        let relayed = Relayed { peer: NodeId::new("n-abc"), segment: 1452, bytes: Bytes::from_static(&[7; 3000]) };
        let message = relayed.encode().unwrap();
        assert_eq!(message[..8], [0x05, 0xac, 5, b'n', b'-', b'a', b'b', b'c']);
        assert_eq!(Relayed::decode(&message), Some(relayed));
    }

    #[test]
    fn nonsense_is_no_message() {
        let nothing: [&'static [u8]; 6] =
            [b"", b"\x05", b"\x05\xac\x05n-a", b"\x05\xac\x03n-a", b"\0\0\x03n-aX", b"\x05\xac\x01\xffX"];
        for bytes in nothing {
            assert_eq!(Relayed::decode(&Bytes::from_static(bytes)), None, "{bytes:?}");
        }
        let huge = Relayed { peer: NodeId::new("n-a"), segment: 1, bytes: vec![0; MOST_RELAYED + 1].into() };
        assert_eq!(Relayed::decode(&huge.encode().unwrap()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(relayed) = Relayed::decode(&bytes.clone().into()) {
                prop_assert_eq!(relayed.encode().unwrap(), bytes);
            }
        }
    }
}
