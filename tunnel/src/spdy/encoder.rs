//! From frames to bytes.

use super::headers::Packer;
use super::*;
use bytes::{BufMut, BytesMut};

/// Writes the frames of one direction of one connection.
#[derive(Default)]
pub struct Encoder {
    packer: Packer,
}

impl Encoder {
    pub fn encode(&mut self, frame: &Frame) -> Bytes {
        let mut out = BytesMut::new();
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                let block = self.packer.pack(headers);
                head(&mut out, SYN_STREAM, *fin, 10 + block.len());
                out.put_u32(*stream);
                out.put_slice(&[0; 6]);
                out.put(block);
            }
            Frame::SynReply { stream, fin, headers } => self.with_headers(&mut out, SYN_REPLY, *stream, *fin, headers),
            Frame::Headers { stream, fin, headers } => self.with_headers(&mut out, HEADERS, *stream, *fin, headers),
            Frame::Data { stream, fin, bytes } => data(&mut out, *stream, *fin, bytes),
            Frame::Reset { stream, status } => numbers(&mut out, RST_STREAM, &[*stream, status.0]),
            Frame::Ping { id } => numbers(&mut out, PING, &[*id]),
            Frame::GoAway { last, status } => numbers(&mut out, GOAWAY, &[*last, *status]),
            Frame::WindowUpdate { stream, delta } => numbers(&mut out, WINDOW_UPDATE, &[*stream, *delta]),
            Frame::Settings(settings) => {
                let mut body = vec![settings.len() as u32];
                body.extend(settings.iter().flat_map(|(number, value)| [*number, *value]));
                numbers(&mut out, SETTINGS, &body);
            }
        }
        out.freeze()
    }

    fn with_headers(&mut self, out: &mut BytesMut, kind: u16, stream: u32, fin: bool, headers: &Headers) {
        let block = self.packer.pack(headers);
        head(out, kind, fin, 4 + block.len());
        out.put_u32(stream);
        out.put(block);
    }
}

fn head(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    put_length(out, fin, length);
}

fn put_length(out: &mut BytesMut, fin: bool, length: usize) {
    out.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | length as u32);
}

fn numbers(out: &mut BytesMut, kind: u16, body: &[u32]) {
    head(out, kind, false, 4 * body.len());
    body.iter().for_each(|number| out.put_u32(*number));
}

/// One frame, or as many as its length needs.
fn data(out: &mut BytesMut, stream: u32, fin: bool, mut bytes: &[u8]) {
    loop {
        let (now, later) = bytes.split_at(bytes.len().min(LONGEST_DATA));
        out.reserve(8 + now.len());
        out.put_u32(stream);
        put_length(out, fin && later.is_empty(), now.len());
        out.put_slice(now);
        if later.is_empty() {
            return;
        }
        bytes = later;
    }
}
