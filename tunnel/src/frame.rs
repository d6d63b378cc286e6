//! The messages of a tunnel: pieces of the multiplexer's byte stream, and beats.
//!
//! WebSocket's own ping and pong are not used for liveness: libraries answer them beneath the program, and proxies in
//! between may answer them by themselves, so that they stay green while the other end is dead. A beat is made and read
//! by the very task that moves the data, and tells how much of the data has arrived.

use bytes::{BufMut, Bytes, BytesMut};

const DATA: u8 = 0;
const BEAT: u8 = 1;

/// The longest message that is accepted. Ours are far shorter; this bounds what a broken peer can make us hold.
pub const LONGEST: usize = 256 * 1024;
/// What a carrier should read at once. Most of what comes is beats of a few bytes on thousands of links that are idle, and
/// WebSocket libraries hold this much for each link, and clear it before each read.
pub const READ_BUFFER: usize = 4 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Data(Bytes),
    /// The sender has received this many bytes of messages so far, beats included.
    Beat {
        received: u64,
    },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    #[error("a message of an unknown kind")]
    Unknown,
}

impl Frame {
    pub fn encode(self) -> Bytes {
        match self {
            Frame::Data(bytes) => {
                let mut message = BytesMut::with_capacity(1 + bytes.len());
                message.put_u8(DATA);
                message.put(bytes);
                message.freeze()
            }
            Frame::Beat { received } => {
                let mut message = BytesMut::with_capacity(9);
                message.put_u8(BEAT);
                message.put_u64(received);
                message.freeze()
            }
        }
    }

    pub fn decode(mut message: Bytes) -> Result<Self, FrameError> {
        if message.len() > LONGEST {
            return Err(FrameError::TooLong(message.len()));
        }
        match message.first() {
            Some(&DATA) => Ok(Frame::Data(message.split_off(1))),
            Some(&BEAT) => {
                let count: [u8; 8] = message[1..].try_into().map_err(|_| FrameError::Unknown)?;
                Ok(Frame::Beat { received: u64::from_be_bytes(count) })
            }
            _ => Err(FrameError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        for frame in
            [Frame::Data(Bytes::from_static(b"")), Frame::Data(Bytes::from_static(b"abc")), Frame::Beat { received: 7 }]
        {
            assert_eq!(Frame::decode(frame.clone().encode()), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bad in [&b""[..], b"\x02", b"\x01\0\0", b"\x01\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(Frame::decode(Bytes::copy_from_slice(bad)), Err(FrameError::Unknown));
        }
        assert!(matches!(Frame::decode(Bytes::from(vec![0; LONGEST + 1])), Err(FrameError::TooLong(_))));
    }
}
