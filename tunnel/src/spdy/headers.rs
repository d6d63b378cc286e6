//! The header blocks of frames: names and values, packed by zlib with a dictionary that both ends know.
//!
//! All blocks of one direction are one zlib stream. Ours is made of stored blocks, which every reader takes and which cost
//! no memory (zlib's packer holds a quarter of a megabyte): we send a handful of empty blocks in a connection's life.

use super::{Error, LONGEST_HEADERS};
use bytes::{Buf, BufMut, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

/// SPDY/3's own, of its specification's section 2.6.10.1.
pub(super) const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

const CUT: Error = Error::Malformed("a header block ends early");

/// Names (any case; lower-case on the wire) and values in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of a name; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    fn read(mut block: &[u8]) -> Result<Self, Error> {
        let count = block.try_get_u32().map_err(|_| CUT)?;
        // The count is not believed for an allocation.
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((text(&mut block)?, text(&mut block)?));
        }
        match block.is_empty() {
            true => Ok(Self(pairs)),
            false => Err(Error::Malformed("a header block has a tail")),
        }
    }

    fn write(&self) -> BytesMut {
        let mut block = BytesMut::new();
        block.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for text in [&name.to_ascii_lowercase(), value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text.as_bytes());
            }
        }
        block
    }
}

fn text(block: &mut &[u8]) -> Result<String, Error> {
    let length = block.try_get_u32().map_err(|_| CUT)? as usize;
    let text = String::from_utf8_lossy(block.get(..length).ok_or(CUT)?).into_owned();
    block.advance(length);
    Ok(text)
}

/// Unpacks the blocks of one direction, in their order.
pub(super) struct Unpacker(Decompress);

impl Default for Unpacker {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Unpacker {
    pub fn unpack(&mut self, block: &[u8]) -> Result<Headers, Error> {
        Headers::read(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        loop {
            out.reserve(1024);
            let before = (self.0.total_in(), out.len());
            let done = self.0.decompress_vec(packed, &mut out, FlushDecompress::Sync);
            let taken = (self.0.total_in() - before.0) as usize;
            packed = packed.get(taken..).ok_or(Error::Packing)?;
            if out.len() > LONGEST_HEADERS {
                return Err(Error::HeadersTooLong);
            }
            match done {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| Error::Packing)?;
                }
                // Nothing may follow the end of the zlib stream, and there are more frames to come.
                Err(_) | Ok(Status::StreamEnd) => return Err(Error::Packing),
                Ok(_) if packed.is_empty() && out.len() < out.capacity() => return Ok(out),
                Ok(_) if (taken, out.len()) == (0, before.1) => return Err(Error::Packing),
                Ok(_) => {}
            }
        }
    }
}

/// Packs the blocks of one direction, in their order.
#[derive(Default)]
pub(super) struct Packer {
    begun: bool,
}

impl Packer {
    pub fn pack(&mut self, headers: &Headers) -> BytesMut {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.begun, true) {
            // zlib's own head: a window of 32 KiB, no dictionary.
            out.put_slice(&[0x78, 0x01]);
        }
        for stored in headers.write().chunks(usize::from(u16::MAX)) {
            put_stored(&mut out, stored);
        }
        // An empty block tells the reader to hand on what it has.
        put_stored(&mut out, &[]);
        out
    }
}

fn put_stored(out: &mut BytesMut, bytes: &[u8]) {
    let length = bytes.len() as u16;
    out.put_u8(0);
    out.put_u16_le(length);
    out.put_u16_le(!length);
    out.put_slice(bytes);
}
