//! A cluster's objects while nobody looks at them: their JSON in one piece, packed.
//!
//! An object at hand costs several times its JSON: its key, labels, fields and projection, and a place in each index. Most
//! tenants do nothing most of the time, and with a connected node none of them is ever unloaded. Pure, as `memory` is.

use super::object::{Key, Object, Revision};
use bytes::{Buf, BufMut, Bytes};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Objects without anything around them.
#[derive(Debug)]
pub(super) struct Frozen {
    packed: Box<[u8]>,
    /// Its size unpacked.
    size: usize,
}

/// One of them.
pub(super) struct Text {
    pub key: Key,
    pub revision: Revision,
    pub json: Bytes,
}

impl Frozen {
    pub fn of<'a>(objects: impl Iterator<Item = &'a Object>) -> io::Result<Self> {
        let mut plain = Vec::new();
        for object in objects {
            let Key { resource, namespace, name } = &object.key;
            plain.put_i64(object.revision.0);
            for part in [resource.as_bytes(), namespace.as_bytes(), name.as_bytes(), &object.json] {
                plain.put_u64(part.len() as u64);
                plain.put_slice(part);
            }
        }
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain)?;
        Ok(Self { packed: encoder.finish()?.into_boxed_slice(), size: plain.len() })
    }

    /// All of them, as they were.
    pub fn texts(&self) -> io::Result<Vec<Text>> {
        let mut plain = Vec::with_capacity(self.size);
        DeflateDecoder::new(&*self.packed).read_to_end(&mut plain)?;
        let (mut rest, mut texts) = (&plain[..], Vec::new());
        while !rest.is_empty() {
            let revision = Revision(rest.try_get_i64()?);
            let key = Key { resource: name(&mut rest)?, namespace: name(&mut rest)?, name: name(&mut rest)? };
            // A copy, so that each goes when it goes.
            texts.push(Text { key, revision, json: Bytes::copy_from_slice(part(&mut rest)?) });
        }
        Ok(texts)
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let len = usize::try_from(rest.try_get_u64()?).map_err(io::Error::other)?;
    let (part, after) = rest.split_at_checked(len).ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = after;
    Ok(part)
}

fn name(rest: &mut &[u8]) -> io::Result<Arc<str>> {
    std::str::from_utf8(part(rest)?).map(Arc::from).map_err(io::Error::other)
}
