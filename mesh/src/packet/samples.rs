//! Packets for tests.

use super::header::{self, Ip, put16, put32};

pub fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp_with(sequence, flags, &[], payload)
}

/// `options`: a multiple of four bytes.
pub fn tcp_with(sequence: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x45;
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = header::TCP;
    packet[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 1, 1, 3]);
    put16(&mut packet, 20, 40_000);
    put16(&mut packet, 22, 80);
    put32(&mut packet, 24, sequence);
    packet[32] = ((20 + options.len()) as u8 / 4) << 4;
    packet[33] = flags;
    packet.extend_from_slice(options);
    packet.extend_from_slice(payload);
    let total = packet.len();
    header::seal(&mut packet, 20, total);
    let ip = Ip::parse(&packet).unwrap();
    let sum = ip.pseudo(total - 20).add(&packet[20..]).finish();
    put16(&mut packet, 36, sum);
    packet
}

/// As [`tcp`], over IPv6.
pub fn tcp6(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp6_with(sequence, flags, &[], payload)
}

pub fn tcp6_with(sequence: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let v4 = tcp_with(sequence, flags, options, payload);
    let mut packet = vec![0; header::V6];
    packet[0] = 0x60;
    packet[6] = header::TCP;
    packet[7] = 64;
    for (at, last) in [(8, 2), (24, 3)] {
        (packet[at], packet[at + 1], packet[at + 15]) = (0xfd, last, last);
    }
    packet.extend_from_slice(&v4[20..]);
    let total = packet.len();
    header::seal(&mut packet, header::V6, total);
    put16(&mut packet, 56, 0);
    let ip = Ip::parse(&packet).unwrap();
    let sum = ip.pseudo(total - 40).add(&packet[40..]).finish();
    put16(&mut packet, 56, sum);
    packet
}
