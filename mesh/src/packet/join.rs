//! Joins TCP segments that arrived together into one large packet for the kernel (GRO): one write and one walk through its
//! network code instead of up to fifty.
//!
//! Payloads are not copied: a joined packet is written as a list of slices. Only what surely belongs together is joined:
//! same connection, in sequence, equal headers, a checksum that holds. Everything else passes as it came, in its order.

use super::header::{self, Ip, Tcp, flag, put16};
use super::virtio::Virtio;
use std::io::IoSlice;
use std::ops::Range;

/// Connections that are looked back for. More at once than one batch of arrivals is likely to mix.
const LOOK_BACK: usize = 16;

/// A batch of packets, each a range of one buffer.
#[derive(Default)]
pub struct Batch {
    groups: Vec<Group>,
    used: usize,
}

#[derive(Default)]
struct Group {
    parts: Vec<Range<usize>>,
    /// Of the first packet. None: nothing may follow.
    open: Option<Open>,
    ip: usize,
    headers: usize,
    /// Bytes of the whole, with headers.
    total: usize,
    push: bool,
    /// Whether it stands for more than its first packet.
    segment: Option<u16>,
}

struct Open {
    next: u32,
    segment: usize,
}

impl Batch {
    /// Takes a packet that lies at `range` of `buffer`, the same for the whole batch.
    pub fn push(&mut self, buffer: &[u8], range: Range<usize>, ip: &Ip) {
        let packet = &buffer[range.clone()];
        let tcp = Tcp::parse(ip, packet).filter(|_| ip.is_plain());
        let Some(tcp) = tcp else { return self.begin(range, 0, 0, None) };
        let payload = ip.total - tcp.headers;
        let plain = tcp.flags & !flag::PSH == flag::ACK;
        let joinable = plain && payload > 0 && ip.pseudo(ip.total - tcp.at).add(&packet[tcp.at..]).finish() == 0;
        if let Some(group) = self.latest(buffer, packet, &tcp) {
            if joinable && group.takes(&buffer[group.parts[0].clone()], packet, &tcp, payload) {
                return group.take(range, &tcp, payload);
            }
            group.open = None;
        }
        let whole = tcp.flags & flag::PSH == 0;
        let open =
            (joinable && whole).then(|| Open { next: tcp.sequence.wrapping_add(payload as u32), segment: payload });
        self.begin(range, tcp.at, tcp.headers, open);
    }

    /// Takes one that stands for many already, which will be cut to `mtu` bytes where somebody has to.
    pub fn push_segments(&mut self, buffer: &[u8], range: Range<usize>, tcp: &Tcp, mtu: u16) {
        let packet = &buffer[range.clone()];
        if let Some(group) = self.latest(buffer, packet, tcp) {
            group.open = None;
        }
        self.begin(range, tcp.at, tcp.headers, None);
        self.groups[self.used - 1].segment = Some(mtu.saturating_sub(tcp.headers as u16).max(1));
    }

    /// The last packet of the same connection.
    fn latest(&mut self, buffer: &[u8], packet: &[u8], tcp: &Tcp) -> Option<&mut Group> {
        self.groups[..self.used].iter_mut().rev().take(LOOK_BACK).find(|group| {
            let first = &buffer[group.parts[0].clone()];
            group.headers > 0 && group.ip == tcp.at && first[between(tcp.at)] == packet[between(tcp.at)]
        })
    }

    fn begin(&mut self, range: Range<usize>, ip: usize, headers: usize, open: Option<Open>) {
        if self.used == self.groups.len() {
            self.groups.push(Group::default());
        }
        let group = &mut self.groups[self.used];
        self.used += 1;
        group.parts.clear();
        group.total = range.len();
        group.parts.push(range);
        (group.open, group.ip, group.headers) = (open, ip, headers);
        (group.push, group.segment) = (false, None);
    }

    /// Hands `write` each packet with its virtio header as slices, in order, and begins anew. The first headers of joined
    /// packets in `buffer` are changed.
    pub fn flush(&mut self, buffer: &mut [u8], mut write: impl FnMut(&[IoSlice<'_>])) {
        for group in &self.groups[..self.used] {
            let virtio = group.finish(buffer).encode();
            let mut slices = [IoSlice::new(&[]); 66];
            slices[0] = IoSlice::new(&virtio);
            let mut count = 1;
            for part in &group.parts {
                slices[count] = IoSlice::new(&buffer[part.clone()]);
                count += 1;
            }
            write(&slices[..count]);
        }
        self.used = 0;
    }
}

/// Where addresses and ports stand, by where TCP begins.
fn between(tcp: usize) -> Range<usize> {
    let addresses = if tcp == header::V6 { 32 } else { 8 };
    tcp - addresses..tcp + 4
}

impl Group {
    /// Whether `packet` continues this group, whose first packet is `first`.
    fn takes(&self, first: &[u8], packet: &[u8], tcp: &Tcp, payload: usize) -> bool {
        let Some(open) = &self.open else { return false };
        let at = tcp.at;
        open.next == tcp.sequence
            && payload <= open.segment
            && self.headers == tcp.headers
            && self.total + payload <= usize::from(u16::MAX)
            && self.parts.len() < 64
            && match at {
                header::V6 => first[..4] == packet[..4] && first[6..8] == packet[6..8],
                _ => first[..2] == packet[..2] && first[6..10] == packet[6..10],
            }
            && first[at + 8..at + 13] == packet[at + 8..at + 13]
            && first[at + 14..at + 16] == packet[at + 14..at + 16]
            && first[at + 18..tcp.headers] == packet[at + 18..tcp.headers]
    }

    fn take(&mut self, range: Range<usize>, tcp: &Tcp, payload: usize) {
        let Some(open) = &mut self.open else { return };
        open.next = open.next.wrapping_add(payload as u32);
        self.segment = Some(open.segment as u16);
        self.push = tcp.flags & flag::PSH != 0;
        // A short one, or one that wants to be delivered, is the last.
        if payload < open.segment || self.push {
            self.open = None;
        }
        self.parts.push(range.start + tcp.headers..range.end);
        self.total += payload;
    }

    fn finish(&self, buffer: &mut [u8]) -> Virtio {
        let Some(segment) = self.segment else { return Virtio::default() };
        let first = &mut buffer[self.parts[0].clone()];
        header::seal(first, self.ip, self.total);
        if self.push {
            first[self.ip + 13] |= flag::PSH;
        }
        // The kernel counts it as proven, and adds the rest should it have to cut the packet again.
        let sum = Ip::parse_header(first).map_or(0, |ip| ip.pseudo(self.total - self.ip).partial());
        put16(first, self.ip + 16, sum);
        let v6 = self.ip == header::V6;
        Virtio { checksum: Some((self.ip as u16, 16)), segment: Some(segment), v6, headers: self.headers as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::be16;
    use super::super::samples::{tcp, tcp6};
    use super::super::segment::Outgoing;
    use super::*;
    use proptest::prelude::*;

    /// What is written for these packets.
    fn joined(packets: &[Vec<u8>]) -> Vec<(Virtio, Vec<u8>)> {
        written(packets, |batch, buffer, range| batch.push(buffer, range.clone(), &Ip::parse(&buffer[range]).unwrap()))
    }

    fn written(packets: &[Vec<u8>], push: impl Fn(&mut Batch, &[u8], Range<usize>)) -> Vec<(Virtio, Vec<u8>)> {
        let (mut buffer, mut batch) = (Vec::new(), Batch::default());
        let mut ranges = Vec::new();
        for packet in packets {
            ranges.push(buffer.len()..buffer.len() + packet.len());
            buffer.extend_from_slice(packet);
        }
        for range in ranges {
            push(&mut batch, &buffer, range);
        }
        let mut written = Vec::new();
        batch.flush(&mut buffer, |slices| {
            let virtio = Virtio::decode(slices[0].first_chunk().unwrap()).unwrap();
            written.push((virtio, slices[1..].iter().flat_map(|s| s.to_vec()).collect()));
        });
        assert_eq!(batch.used, 0);
        written
    }

    fn of_port(mut packet: Vec<u8>, port: u16) -> Vec<u8> {
        put16(&mut packet, 20, port);
        put16(&mut packet, 36, 0);
        let ip = Ip::parse(&packet).unwrap();
        let sum = ip.pseudo(ip.total - 20).add(&packet[20..]).finish();
        put16(&mut packet, 36, sum);
        packet
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Joining is the inverse of cutting, whatever came in between and however connections were mixed.
        #[test]
        fn every_connection_gets_its_bytes_in_order(
            sizes in proptest::collection::vec((0u16..3, 1usize..5000, any::<bool>()), 1..20), segment in 100u16..1400,
        ) {
            let mut packets = Vec::new();
            let mut sent = [const { Vec::<u8>::new() }; 3];
            for (port, size, push) in sizes {
                let bytes = &mut sent[usize::from(port)];
                let payload: Vec<u8> = (0..size).map(|i| (i + bytes.len()) as u8).collect();
                let flags = flag::ACK | if push { flag::PSH } else { 0 };
                let mut packet = of_port(tcp(bytes.len() as u32, flags, &payload), port);
                let virtio = Virtio { segment: Some(segment), ..Virtio::default() };
                let outgoing = Outgoing::new(virtio, &mut packet).unwrap();
                outgoing.cut(1500, &mut Vec::new(), |p| packets.push(p.to_vec())).unwrap();
                bytes.extend(payload);
            }
            let mut arrived = [const { Vec::<u8>::new() }; 3];
            for (virtio, mut packet) in joined(&packets) {
                // The kernel may cut it again: each piece must be sound.
                let ip = Ip::parse(&packet).unwrap();
                prop_assert_eq!(ip.total, packet.len());
                let outgoing = Outgoing::new(virtio, &mut packet).unwrap();
                outgoing.cut(1500, &mut Vec::new(), |piece| {
                    let ip = Ip::parse(piece).unwrap();
                    assert_eq!(ip.pseudo(ip.total - 20).add(&piece[20..]).finish(), 0);
                    let tcp = Tcp::parse(&ip, piece).unwrap();
                    let bytes = &mut arrived[usize::from(be16(piece, 20))];
                    assert_eq!(tcp.sequence as usize, bytes.len());
                    bytes.extend_from_slice(&piece[40..]);
                }).unwrap();
            }
            prop_assert_eq!(arrived, sent);
        }
    }

    #[test]
    fn a_burst_becomes_one_packet() {
        let burst: Vec<_> = (0..40).map(|i| tcp(i * 1000, flag::ACK, &[i as u8; 1000])).collect();
        let written = joined(&burst);
        assert_eq!(written.len(), 1);
        assert_eq!((written[0].0.segment, written[0].1.len()), (Some(1000), 40_040));
    }

    #[test]
    fn a_burst_of_ipv6_becomes_one_packet_of_its_own() {
        let burst = (0..10).flat_map(|i| {
            let (sequence, payload) = (i * 1000, [i as u8; 1000]);
            [tcp6(sequence, flag::ACK, &payload), tcp(sequence, flag::ACK, &payload)]
        });
        let written = joined(&burst.collect::<Vec<_>>());
        let told: Vec<_> = written.iter().map(|(virtio, packet)| (virtio.v6, virtio.segment, packet.len())).collect();
        assert_eq!(told, [(true, Some(1000), 10_060), (false, Some(1000), 10_040)]);
        let ip = Ip::parse(&written[0].1).unwrap();
        assert_eq!((ip.total, ip.header), (10_060, 40));
    }

    #[test]
    fn what_was_never_cut_passes_whole_and_in_its_order() {
        for make in [tcp, tcp6] {
            let (before, after) = (make(0, flag::ACK, &[1; 1000]), make(31_000, flag::ACK, &[3; 1000]));
            let mut whole = make(1000, flag::ACK | flag::PSH, &[2; 30_000]);
            let headers = whole.len() - 30_000;
            // Its sender's kernel has not summed it.
            put16(&mut whole, headers - 4, 0);
            let packets = [before, whole, after];
            let written = written(&packets, |batch, buffer, range| {
                let ip = Ip::parse(&buffer[range.clone()]).unwrap();
                match range.len() > 1420 {
                    true => batch.push_segments(buffer, range.clone(), &Tcp::parse(&ip, &buffer[range]).unwrap(), 1420),
                    false => batch.push(buffer, range, &ip),
                }
            });
            assert_eq!(written.iter().map(|w| w.1.len() - headers).collect::<Vec<_>>(), [1000, 30_000, 1000]);
            let (virtio, mut packet) = written[1].clone();
            assert_eq!(virtio.segment, Some(1420 - headers as u16));
            let mut pieces = Vec::new();
            Outgoing::new(virtio, &mut packet).unwrap().cut(1500, &mut Vec::new(), |p| pieces.push(p.len())).unwrap();
            assert_eq!(pieces.iter().map(|piece| piece - headers).sum::<usize>(), 30_000);
            assert!(pieces.iter().all(|piece| *piece <= 1420));
        }
    }

    #[test]
    fn what_is_not_in_sequence_starts_anew() {
        let written =
            joined(&[tcp(0, flag::ACK, &[0; 100]), tcp(500, flag::ACK, &[0; 100]), tcp(600, flag::ACK, &[0; 100])]);
        assert_eq!(written.iter().map(|w| w.1.len()).collect::<Vec<_>>(), [140, 240]);
    }

    #[test]
    fn a_packet_that_was_damaged_before_it_came_to_us_is_not_made_good() {
        let mut damaged = tcp(100, flag::ACK, &[0; 100]);
        damaged[90] ^= 1;
        let written = joined(&[tcp(0, flag::ACK, &[0; 100]), damaged.clone(), tcp(200, flag::ACK, &[0; 100])]);
        assert_eq!(written.len(), 3);
        assert_eq!(written[1], (Virtio::default(), damaged));
    }

    #[test]
    fn acknowledgements_pass_as_they_are() {
        let acks = [tcp(0, flag::ACK, &[]), tcp(0, flag::ACK, &[]), tcp(0, flag::ACK | flag::FIN, &[])];
        let written = joined(&acks);
        assert_eq!(written.into_iter().map(|w| w.1).collect::<Vec<_>>(), acks);
    }
}
