//! Packets as bytes: headers, checksums, cutting and joining. No I/O, no state beyond one batch.

pub mod checksum;
pub mod header;
pub mod icmp;
pub mod join;
pub mod mss;
#[cfg(test)]
mod samples;
pub mod segment;
pub mod virtio;
