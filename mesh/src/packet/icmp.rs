//! "Fragmentation needed" (RFC 792, RFC 1191) and "packet too big" (RFC 4443), to whoever sent a packet that is too large
//! for its path and may not be cut.

use super::checksum::Sum;
use super::header::{self, ICMP, ICMPV6, Ip, V6, put16};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What every link carries of IPv6: nobody is told of less, the relay takes such packets.
const LEAST_V6: u16 = 1280;

/// None where nothing may be answered: to ICMP, or to fragments.
pub fn too_big(ip: &Ip, packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    if [ICMP, ICMPV6].contains(&ip.protocol) || ip.fragment || !ip.dont_fragment {
        return None;
    }
    // In the name of whom it was for: its address is routed to us.
    match (ip.destination, ip.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(v4(from, to, &packet[..packet.len().min(ip.header + 8)], mtu)),
        (IpAddr::V6(from), IpAddr::V6(to)) if mtu >= LEAST_V6 => Some(v6(from, to, packet, mtu)),
        _ => None,
    }
}

fn v4(from: Ipv4Addr, to: Ipv4Addr, quoted: &[u8], mtu: u16) -> Vec<u8> {
    let mut answer = vec![0; 28];
    answer.extend_from_slice(quoted);
    answer[0] = 0x45;
    answer[8] = 64;
    answer[9] = ICMP;
    answer[12..16].copy_from_slice(&from.octets());
    answer[16..20].copy_from_slice(&to.octets());
    answer[20] = 3;
    answer[21] = 4;
    put16(&mut answer, 26, mtu);
    let sum = Sum::default().add(&answer[20..]).finish();
    put16(&mut answer, 22, sum);
    let total = answer.len();
    header::seal(&mut answer, 20, total);
    answer
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, packet: &[u8], mtu: u16) -> Vec<u8> {
    let mut answer = vec![0; V6 + 8];
    answer[0] = 0x60;
    answer[6] = ICMPV6;
    answer[7] = 64;
    answer[8..24].copy_from_slice(&from.octets());
    answer[24..40].copy_from_slice(&to.octets());
    answer[V6] = 2;
    put16(&mut answer, V6 + 6, mtu);
    answer.extend_from_slice(&packet[..packet.len().min(usize::from(LEAST_V6) - answer.len())]);
    let total = answer.len();
    header::seal(&mut answer, V6, total);
    let sum = Ip::parse(&answer).map_or(0, |ip| ip.pseudo(total - V6).add(&answer[V6..]).finish());
    put16(&mut answer, V6 + 2, sum);
    answer
}

#[cfg(test)]
mod tests {
    use super::super::header::be16;
    use super::super::samples;
    use super::*;

    #[test]
    fn the_sender_learns_what_the_path_carries() {
        let mut packet = samples::tcp(5, 0, &[0; 1400]);
        packet[9] = 17;
        let ip = Ip::parse(&packet).unwrap();
        let answer = too_big(&ip, &packet, 1280).unwrap();
        let parsed = Ip::parse(&answer).unwrap();
        assert_eq!((parsed.source, parsed.destination), (ip.destination, ip.source));
        assert_eq!((answer[20], answer[21], be16(&answer, 26)), (3, 4, 1280));
        assert_eq!(answer[28..], packet[..28]);
        assert_eq!(Sum::default().add(&answer[20..]).finish(), 0);
        packet[9] = ICMP;
        assert_eq!(too_big(&Ip::parse(&packet).unwrap(), &packet, 1280), None);
    }

    #[test]
    fn the_sender_learns_it_of_ipv6_too() {
        let mut packet = samples::tcp6(5, 0, &[0; 1400]);
        packet[6] = 17;
        let ip = Ip::parse(&packet).unwrap();
        let answer = too_big(&ip, &packet, 1400).unwrap();
        let parsed = Ip::parse(&answer).unwrap();
        assert_eq!((parsed.source, parsed.destination), (ip.destination, ip.source));
        assert_eq!((answer[40], answer[41], be16(&answer, 46), answer.len()), (2, 0, 1400, 1280));
        assert_eq!(answer[48..], packet[..1280 - 48]);
        assert_eq!(parsed.pseudo(answer.len() - 40).add(&answer[40..]).finish(), 0);
        assert_eq!(too_big(&ip, &packet, 1279), None);
        packet[6] = ICMPV6;
        assert_eq!(too_big(&Ip::parse(&packet).unwrap(), &packet, 1400), None);
    }
}
