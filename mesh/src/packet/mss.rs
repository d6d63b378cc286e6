//! Connections are told at their beginning what fits: the MSS in a SYN is lowered to what the mesh's device carries.

use super::header::{Tcp, be16, flag, put16};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;

/// Lowers the MSS option to fit packets of `mtu` bytes. The checksum is adjusted, not made anew: a wrong one stays wrong.
pub fn clamp(packet: &mut [u8], tcp: &Tcp, mtu: u16) {
    if tcp.flags & flag::SYN == 0 {
        return;
    }
    let most = mtu.saturating_sub(tcp.at as u16 + 20);
    let mut at = tcp.at + 20;
    while at < tcp.headers {
        match packet[at] {
            END => return,
            NOP => at += 1,
            kind => {
                let Some(length) = packet.get(at + 1).map(|l| usize::from(*l)).filter(|l| *l >= 2) else { return };
                if kind == MSS && length == 4 && at + 4 <= tcp.headers {
                    let old = be16(packet, at + 2);
                    if old > most {
                        put16(packet, at + 2, most);
                        let sum = adjusted(be16(packet, tcp.at + 16), old, most, (at - tcp.at) % 2 == 1);
                        put16(packet, tcp.at + 16, sum);
                    }
                    return;
                }
                at += length;
            }
        }
    }
}

/// RFC 1624, equation 3. `odd`: the value straddles two of the summed words.
fn adjusted(sum: u16, old: u16, new: u16, odd: bool) -> u16 {
    let turn = |v: u16| if odd { v.swap_bytes() } else { v };
    let mut total = u32::from(!sum) + u32::from(!turn(old)) + u32::from(turn(new));
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::super::header::Ip;
    use super::super::samples;
    use super::*;

    fn clamped(options: &[u8], mtu: u16) -> Vec<u8> {
        clamped_in(samples::tcp_with(1, flag::SYN, options, &[]), mtu)
    }

    fn clamped_in(mut packet: Vec<u8>, mtu: u16) -> Vec<u8> {
        let ip = Ip::parse(&packet).unwrap();
        let tcp = Tcp::parse(&ip, &packet).unwrap();
        clamp(&mut packet, &tcp, mtu);
        let sum = ip.pseudo(ip.total - ip.header).add(&packet[ip.header..]).finish();
        assert_eq!(sum, 0, "the checksum still holds");
        packet[tcp.at + 20..].to_vec()
    }

    #[test]
    fn too_large_a_size_is_lowered_and_a_small_one_stays() {
        assert_eq!(clamped(&[2, 4, 0x05, 0xb4], 1420), [2, 4, 0x05, 0x64]);
        assert_eq!(clamped(&[2, 4, 0x02, 0x18], 1420), [2, 4, 0x02, 0x18]);
        // IPv6's header is longer by twenty bytes.
        let of_v6 = clamped_in(samples::tcp6_with(1, flag::SYN, &[2, 4, 0x05, 0xb4], &[]), 1420);
        assert_eq!(of_v6, [2, 4, 0x05, 0x50]);
    }

    #[test]
    fn it_is_found_behind_others_and_at_odd_places() {
        assert_eq!(clamped(&[1, 2, 4, 0x05, 0xb4, 1, 1, 0], 1420), [1, 2, 4, 0x05, 0x64, 1, 1, 0]);
        assert_eq!(clamped(&[4, 2, 2, 4, 0x23, 0x00, 1, 1], 1420), [4, 2, 2, 4, 0x05, 0x64, 1, 1]);
    }

    #[test]
    fn broken_options_are_left_alone() {
        for options in [[2, 0, 0, 0], [2, 9, 0xff, 0xff], [9, 1, 2, 4], [1, 1, 1, 2]] {
            assert_eq!(clamped(&options, 1420), options);
        }
    }
}
