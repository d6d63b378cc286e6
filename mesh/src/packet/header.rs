//! IP and TCP headers where they lie in a packet. Nothing is copied; what doesn't hold together is no packet.

use super::checksum::Sum;
use std::net::{IpAddr, Ipv4Addr};

pub const TCP: u8 = 6;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
/// IPv6: the packet is a part of one.
const FRAGMENT: u8 = 44;
/// Bytes of IPv6's header.
pub const V6: usize = 40;

pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const CWR: u8 = 128;
}

/// What an IP header says, of either version. Lengths are in bytes and were checked against the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// What follows the header; of IPv6 perhaps an extension of it.
    pub protocol: u8,
    pub header: usize,
    /// Header and payload.
    pub total: usize,
    /// IPv6 is never cut on its way.
    pub dont_fragment: bool,
    /// Part of a packet that was cut.
    pub fragment: bool,
}

impl Ip {
    pub fn parse(packet: &[u8]) -> Option<Self> {
        Self::parse_header(packet).filter(|ip| packet.len() >= ip.total)
    }

    /// Where the payload lies elsewhere.
    pub fn parse_header(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::v4(packet.first_chunk()?),
            6 => Some(Self::v6(packet.first_chunk()?)),
            _ => None,
        }
    }

    fn v4(fixed: &[u8; 20]) -> Option<Self> {
        let header = usize::from(fixed[0] & 15) * 4;
        let total = usize::from(be16(fixed, 2));
        if header < 20 || total < header {
            return None;
        }
        let fragments = be16(fixed, 6);
        Some(Self {
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
            protocol: fixed[9],
            header,
            total,
            dont_fragment: fragments & 0x4000 != 0,
            fragment: fragments & 0x3fff != 0,
        })
    }

    fn v6(fixed: &[u8; V6]) -> Self {
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&fixed[at..at + 16]);
            IpAddr::from(octets)
        };
        Self {
            source: address(8),
            destination: address(24),
            protocol: fixed[6],
            header: V6,
            total: V6 + usize::from(be16(fixed, 4)),
            dont_fragment: true,
            fragment: fixed[6] == FRAGMENT,
        }
    }

    /// Whether nothing but what every header has stands in it.
    pub fn is_plain(&self) -> bool {
        self.header == if self.source.is_ipv4() { 20 } else { V6 }
    }

    /// What a TCP checksum covers of the IP header, with the TCP length.
    pub fn pseudo(&self, length: usize) -> Sum {
        let add = |sum: Sum, ip: IpAddr| match ip {
            IpAddr::V4(ip) => sum.add(&ip.octets()),
            IpAddr::V6(ip) => sum.add(&ip.octets()),
        };
        let sum = add(add(Sum::default(), self.source), self.destination);
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
    pub fn parse(ip: &Ip, packet: &[u8]) -> Option<Self> {
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

/// Writes the length of the whole into a header of `length` bytes, and of IPv4 its checksum.
pub fn seal(packet: &mut [u8], length: usize, total: usize) {
    if packet[0] >> 4 == 6 {
        return put16(packet, 4, (total - V6) as u16);
    }
    put16(packet, 2, total as u16);
    put16(packet, 10, 0);
    let sum = Sum::default().add(&packet[..length]).finish();
    put16(packet, 10, sum);
}
