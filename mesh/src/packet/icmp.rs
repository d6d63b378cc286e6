//! "Fragmentation needed" (RFC 792, RFC 1191), to whoever sent a packet that is too large for its path and may not be cut.

use super::checksum::Sum;
use super::header::{self, ICMP, Ipv4, put16};

/// None where nothing may be answered: to ICMP, or to fragments.
pub fn too_big(ip: &Ipv4, packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    if ip.protocol == ICMP || ip.fragment || !ip.dont_fragment {
        return None;
    }
    let quoted = &packet[..packet.len().min(ip.header + 8)];
    let mut answer = vec![0; 28];
    answer.extend_from_slice(quoted);
    answer[0] = 0x45;
    answer[8] = 64;
    answer[9] = ICMP;
    // In the name of whom it was for: its address is routed to us.
    answer[12..16].copy_from_slice(&ip.destination.octets());
    answer[16..20].copy_from_slice(&ip.source.octets());
    answer[20] = 3;
    answer[21] = 4;
    put16(&mut answer, 26, mtu);
    let sum = Sum::default().add(&answer[20..]).finish();
    put16(&mut answer, 22, sum);
    let total = answer.len();
    header::seal_ipv4(&mut answer, 20, total);
    Some(answer)
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
        let ip = Ipv4::parse(&packet).unwrap();
        let answer = too_big(&ip, &packet, 1280).unwrap();
        let parsed = Ipv4::parse(&answer).unwrap();
        assert_eq!((parsed.source, parsed.destination), (ip.destination, ip.source));
        assert_eq!((answer[20], answer[21], be16(&answer, 26)), (3, 4, 1280));
        assert_eq!(answer[28..], packet[..28]);
        assert_eq!(Sum::default().add(&answer[20..]).finish(), 0);
        packet[9] = ICMP;
        assert_eq!(too_big(&Ipv4::parse(&packet).unwrap(), &packet, 1280), None);
    }
}
