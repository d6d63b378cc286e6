//! From bytes to frames.

use super::headers::Unpacker;
use super::*;
use bytes::{Buf, BytesMut};

const KNOWN: [u16; 8] = [SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE];

/// Reads the frames of one direction of one connection. After an error nothing more can be read.
#[derive(Default)]
pub struct Decoder {
    buffer: BytesMut,
    unpacker: Unpacker,
    /// The data frame whose bytes are coming.
    data: Option<Coming>,
    /// Bytes of a frame of an unknown kind that are still to be passed over.
    skip: usize,
}

struct Coming {
    stream: u32,
    fin: bool,
    left: usize,
}

impl Decoder {
    /// Adds what came. Read all frames before adding more, and no more than that and one control frame is kept.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or none until more bytes come.
    pub fn frame(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            if let Some(coming) = self.data.take() {
                return Ok(self.piece(coming));
            }
            let Some(&head) = self.buffer.first_chunk::<8>() else { return Ok(None) };
            let [a, b, c, d, flags, ref length @ ..] = head;
            let fin = flags & FIN != 0;
            let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            if a & 0x80 == 0 {
                self.buffer.advance(head.len());
                let stream = u32::from_be_bytes([a, b, c, d]);
                let whole = Coming { stream, fin, left: length };
                match length {
                    0 => return Ok(Some(Frame::Data { stream, fin, bytes: Bytes::new() })),
                    _ => self.data = Some(whole),
                }
                continue;
            }
            let version = u16::from_be_bytes([a, b]) & !CONTROL;
            if version != VERSION {
                return Err(Error::Version(version));
            }
            let kind = u16::from_be_bytes([c, d]);
            if !KNOWN.contains(&kind) {
                self.buffer.advance(head.len());
                self.skip = length;
                continue;
            }
            if length > LONGEST_CONTROL {
                return Err(Error::TooLong(length));
            }
            if self.buffer.len() < head.len() + length {
                return Ok(None);
            }
            self.buffer.advance(head.len());
            let body = self.buffer.split_to(length);
            return self.control(kind, fin, &body).map(Some);
        }
    }

    /// What is there of a data frame.
    fn piece(&mut self, mut coming: Coming) -> Option<Frame> {
        let length = coming.left.min(self.buffer.len());
        coming.left -= length;
        let piece = (length > 0).then(|| Frame::Data {
            stream: coming.stream,
            fin: coming.fin && coming.left == 0,
            bytes: self.buffer.split_to(length).freeze(),
        });
        if coming.left > 0 {
            self.data = Some(coming);
        }
        piece
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: &[u8]) -> Result<Frame, Error> {
        const SHORT: Error = Error::Malformed("a control frame is too short");
        let mut number = || body.try_get_u32().map_err(|_| SHORT);
        let first = number()?;
        // The highest bit of a stream's number is reserved.
        let stream = first & !(1 << 31);
        Ok(match kind {
            SYN_STREAM => {
                // The stream that it belongs to, priority and slot: nothing that is used here.
                let block = body.get(6..).ok_or(SHORT)?;
                Frame::SynStream { stream, fin, headers: self.unpacker.unpack(block)? }
            }
            SYN_REPLY => Frame::SynReply { stream, fin, headers: self.unpacker.unpack(body)? },
            HEADERS => Frame::Headers { stream, fin, headers: self.unpacker.unpack(body)? },
            RST_STREAM => Frame::Reset { stream, status: Reset(number()?) },
            GOAWAY => Frame::GoAway { last: stream, status: number()? },
            WINDOW_UPDATE => Frame::WindowUpdate { stream, delta: number()? & !(1 << 31) },
            PING => Frame::Ping { id: first },
            _ => {
                let mut settings = Vec::new();
                for _ in 0..first {
                    settings.push((number()? & 0x00ff_ffff, number()?));
                }
                Frame::Settings(settings)
            }
        })
    }
}
