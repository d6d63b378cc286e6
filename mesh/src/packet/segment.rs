//! Cuts what the kernel hands over in one piece into packets that fit a path.
//!
//! The kernel leaves cutting TCP to us (TSO), so we cut to whatever the path carries at this moment: a path that becomes
//! narrower costs TCP neither a loss nor an ICMP.

use super::checksum::Sum;
use super::header::{self, Ip, Tcp, flag, put16, put32};
use super::virtio::Virtio;

/// A packet from the TUN device, ready to be cut.
pub struct Outgoing<'a> {
    packet: &'a mut [u8],
    pub ip: Ip,
    tcp: Option<Tcp>,
    /// Payload of each segment; none: it is one packet.
    segment: Option<usize>,
}

/// Larger than the path carries, and not ours to cut.
#[derive(Debug, PartialEq, Eq)]
pub struct TooBig;

impl<'a> Outgoing<'a> {
    /// Completes the checksum where the kernel left it to us. None where it isn't a sound IP packet.
    pub fn new(virtio: Virtio, packet: &'a mut [u8]) -> Option<Self> {
        let ip = Ip::parse(packet)?;
        let packet = &mut packet[..ip.total];
        let tcp = Tcp::parse(&ip, packet);
        let segment = virtio.segment.map(usize::from);
        if segment.is_some() && tcp.is_none() {
            return None;
        }
        // Segments get their sums when they are cut.
        if let (Some((start, offset)), None) = (virtio.checksum, segment) {
            let (start, offset) = (usize::from(start), usize::from(offset));
            let sum = Sum::default().add(packet.get(start..)?).finish();
            // A sum of zero means none in UDP; all ones is the same number.
            let sum = if sum == 0 { 0xffff } else { sum };
            packet.get_mut(start + offset..)?.first_chunk_mut::<2>()?.copy_from_slice(&sum.to_be_bytes());
        }
        Some(Self { packet, ip, tcp, segment })
    }

    /// As it is.
    pub fn whole(&self) -> &[u8] {
        self.packet
    }

    /// Segments of TCP that were not cut yet, together at most `most` bytes. Of their checksum only the pseudo header's part
    /// is there.
    pub fn segments(&self, most: usize) -> Option<&[u8]> {
        (self.segment.is_some() && self.packet.len() <= most).then_some(&*self.packet)
    }

    pub fn tcp(&self) -> Option<&Tcp> {
        self.tcp.as_ref()
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.packet
    }

    /// Hands `each` packets of at most `limit` bytes, made in `scratch`, in order.
    pub fn cut(&self, limit: usize, scratch: &mut Vec<u8>, mut each: impl FnMut(&[u8])) -> Result<(), TooBig> {
        let fits = self.packet.len() <= limit;
        let Some(tcp) = self.tcp.filter(|_| self.segment.is_some() || !fits) else {
            if fits {
                each(self.packet);
            }
            return if fits { Ok(()) } else { Err(TooBig) };
        };
        // A SYN with data or urgent data would not survive cutting; neither is ever that large.
        let room = limit.saturating_sub(tcp.headers);
        let size = self.segment.unwrap_or(room).min(room);
        if size < 64 || tcp.flags & flag::SYN != 0 {
            return Err(TooBig);
        }
        let payload = &self.packet[tcp.headers..];
        let count = payload.len().div_ceil(size).max(1);
        for index in 0..count {
            let from = index * size;
            let part = &payload[from..payload.len().min(from + size)];
            scratch.clear();
            scratch.extend_from_slice(&self.packet[..tcp.headers]);
            scratch.extend_from_slice(part);
            self.finish(&tcp, scratch, index, from, index + 1 == count);
            each(scratch);
        }
        Ok(())
    }

    fn finish(&self, tcp: &Tcp, packet: &mut [u8], index: usize, from: usize, last: bool) {
        if packet[0] >> 4 == 4 {
            let identification = header::be16(packet, 4).wrapping_add(index as u16);
            put16(packet, 4, identification);
        }
        header::seal(packet, tcp.at, packet.len());
        put32(packet, tcp.at + 4, tcp.sequence.wrapping_add(from as u32));
        let mut flags = tcp.flags;
        if !last {
            flags &= !(flag::FIN | flag::PSH);
        }
        if index > 0 {
            flags &= !flag::CWR;
        }
        packet[tcp.at + 13] = flags;
        put16(packet, tcp.at + 16, 0);
        let sum = self.ip.pseudo(packet.len() - tcp.at).add(&packet[tcp.at..]).finish();
        put16(packet, tcp.at + 16, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{tcp, tcp6};
    use super::*;
    use proptest::prelude::*;

    fn cut(packet: &mut [u8], virtio: Virtio, limit: usize) -> Result<Vec<Vec<u8>>, TooBig> {
        let mut cut = Vec::new();
        Outgoing::new(virtio, packet).unwrap().cut(limit, &mut Vec::new(), |p| cut.push(p.to_vec()))?;
        Ok(cut)
    }

    fn sound(packet: &[u8]) -> (Ip, Tcp) {
        let ip = Ip::parse(packet).unwrap();
        assert_eq!(ip.total, packet.len());
        if ip.source.is_ipv4() {
            assert_eq!(Sum::default().add(&packet[..ip.header]).finish(), 0, "the IP header's checksum");
        }
        assert_eq!(ip.pseudo(ip.total - ip.header).add(&packet[ip.header..]).finish(), 0, "TCP's checksum");
        (ip, Tcp::parse(&ip, packet).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever the kernel hands over and whatever the path carries: the bytes arrive, in order, in sound packets.
        #[test]
        fn what_was_cut_is_the_whole(
            payload in proptest::collection::vec(any::<u8>(), 1..20_000), size in 100u16..1460, limit in 300usize..1500,
            sequence: u32, v6: bool,
        ) {
            let flags = flag::ACK | flag::PSH | flag::FIN | flag::CWR;
            let mut packet = if v6 { tcp6(sequence, flags, &payload) } else { tcp(sequence, flags, &payload) };
            let packets = cut(&mut packet, Virtio { segment: Some(size), ..Virtio::default() }, limit).unwrap();
            let mut joined = Vec::new();
            for (index, packet) in packets.iter().enumerate() {
                let (_, tcp) = sound(packet);
                prop_assert!(packet.len() <= limit && packet.len() - tcp.headers <= usize::from(size));
                prop_assert_eq!(tcp.sequence, sequence.wrapping_add(joined.len() as u32));
                let last = index + 1 == packets.len();
                prop_assert_eq!(tcp.flags & (flag::FIN | flag::PSH) != 0, last);
                prop_assert_eq!(tcp.flags & flag::CWR != 0, index == 0);
                joined.extend_from_slice(&packet[tcp.headers..]);
            }
            prop_assert_eq!(joined, payload);
        }
    }

    #[test]
    fn one_packet_too_large_for_the_path_is_cut_as_well() {
        let packets = cut(&mut tcp(7, flag::ACK, &[1; 1300]), Virtio::default(), 700).unwrap();
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [700, 680]);
    }

    #[test]
    fn what_is_not_tcp_is_never_cut() {
        let mut packet = tcp(0, flag::ACK, &[0; 1000]);
        packet[9] = 17;
        assert_eq!(cut(&mut packet, Virtio::default(), 900), Err(TooBig));
        assert_eq!(cut(&mut packet, Virtio::default(), 1040).unwrap(), [packet.clone()]);
    }

    #[test]
    fn a_checksum_left_to_us_is_completed() {
        let mut packet = tcp(9, flag::ACK, b"hello");
        let ip = Ip::parse(&packet).unwrap();
        put16(&mut packet, 36, ip.pseudo(25).partial());
        let virtio = Virtio { checksum: Some((20, 16)), ..Virtio::default() };
        sound(Outgoing::new(virtio, &mut packet).unwrap().whole());
    }

    #[test]
    fn nonsense_is_no_packet() {
        let far = Virtio { checksum: Some((60_000, 60_000)), ..Virtio::default() };
        assert!(Outgoing::new(far, &mut tcp(0, flag::ACK, b"x")).is_none());
        let mut udp = tcp(0, flag::ACK, b"x");
        udp[9] = 17;
        assert!(Outgoing::new(Virtio { segment: Some(1000), ..Virtio::default() }, &mut udp).is_none());
        assert!(Outgoing::new(Virtio::default(), &mut [0x45; 19]).is_none());
        assert!(Outgoing::new(Virtio::default(), &mut [0x60; 100]).is_none());
    }
}
