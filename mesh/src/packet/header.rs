//! IPv4 and TCP headers where they lie in a packet. Nothing is copied; what doesn't hold together is no packet.

use super::checksum::Sum;
use std::net::Ipv4Addr;

pub const TCP: u8 = 6;
pub const ICMP: u8 = 1;

pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const CWR: u8 = 128;
}

/// What an IPv4 header says. Lengths are in bytes and were checked against the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub header: usize,
    /// Header and payload.
    pub total: usize,
    pub dont_fragment: bool,
    /// Part of a packet that was cut.
    pub fragment: bool,
}

impl Ipv4 {
    pub fn parse(packet: &[u8]) -> Option<Self> {
        Self::parse_header(packet).filter(|ip| packet.len() >= ip.total)
    }

    /// Where the payload lies elsewhere.
    pub fn parse_header(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; 20] = packet.first_chunk()?;
        let header = usize::from(fixed[0] & 15) * 4;
        let total = usize::from(be16(fixed, 2));
        if fixed[0] >> 4 != 4 || header < 20 || total < header {
            return None;
        }
        let fragments = be16(fixed, 6);
        Some(Self {
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            protocol: fixed[9],
            header,
            total,
            dont_fragment: fragments & 0x4000 != 0,
            fragment: fragments & 0x3fff != 0,
        })
    }

    /// What a TCP checksum covers of the IP header, with the TCP length.
    pub fn pseudo(&self, length: usize) -> Sum {
        let sum = Sum::default().add(&self.source.octets()).add(&self.destination.octets());
        sum.add_u16(u16::from(self.protocol)).add_u16(length as u16)
    }
}

/// Where TCP stands in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub at: usize,
    /// Of both headers together: where the payload begins.
    pub headers: usize,
    pub sequence: u32,
    pub flags: u8,
}

impl Tcp {
    /// None where it isn't TCP, or not a whole packet's.
    pub fn parse(ip: &Ipv4, packet: &[u8]) -> Option<Self> {
        if ip.protocol != TCP || ip.fragment {
            return None;
        }
        let fixed: &[u8; 20] = packet.get(ip.header..ip.total)?.first_chunk()?;
        let headers = ip.header + usize::from(fixed[12] >> 4) * 4;
        if headers < ip.header + 20 || headers > ip.total {
            return None;
        }
        Some(Self { at: ip.header, headers, sequence: be32(fixed, 4), flags: fixed[13] })
    }
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Writes total length, and the checksum over a header of `length` bytes.
pub fn seal_ipv4(packet: &mut [u8], length: usize, total: usize) {
    put16(packet, 2, total as u16);
    put16(packet, 10, 0);
    let sum = Sum::default().add(&packet[..length]).finish();
    put16(packet, 10, sum);
}
