//! How a node learns its address as the world sees it: it asks a reflector (the server, by UDP at its own port) over the very
//! socket that its peers will send to, and gets the address that the question came from.
//!
//! Two messages, as STUN's binding has them, without its attributes. The answer carries the random number of the question,
//! so that only who saw the question can answer it; it is shorter than the question, so that the reflector amplifies
//! nothing. Who sits on the way can lie, and gains that a peer pings a wrong address: paths are proven by peers' keys.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;

/// A question's own random number.
pub type Number = [u8; 12];

const QUESTION: [u8; 4] = *b"LSr1";
const ANSWER: [u8; 4] = *b"LSr2";
const QUESTION_LENGTH: usize = 40;

pub fn question(number: Number) -> Vec<u8> {
    let mut bytes = QUESTION.to_vec();
    bytes.extend_from_slice(&number);
    bytes.resize(QUESTION_LENGTH, 0);
    bytes
}

/// The reflector's whole mind. None: it wasn't asked.
pub fn answer(question: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    if question.len() != QUESTION_LENGTH || question[..4] != QUESTION {
        return None;
    }
    let mut bytes = ANSWER.to_vec();
    bytes.extend_from_slice(&question[4..16]);
    put_address(&mut bytes, from);
    Some(bytes)
}

/// Number of the question and our address, of what may be an answer.
pub fn answered(bytes: &[u8]) -> Option<(Number, SocketAddr)> {
    if bytes.len() != 34 || bytes[..4] != ANSWER {
        return None;
    }
    Some((*bytes[4..].first_chunk()?, address(&bytes[16..])))
}

/// Answers on `socket` until it is dropped; the error is the socket's.
pub async fn serve(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = [0; QUESTION_LENGTH + 1];
    loop {
        // What came of an earlier answer (an ICMP) is told by the next receive.
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return Err(e),
        };
        if let Some(answer) = answer(&buffer[..length], from) {
            // Dropped where the socket is full: they ask again.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

/// 16 bytes of address (IPv4 as IPv6 knows it), two of port.
pub fn put_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    bytes.extend_from_slice(&ip.octets());
    bytes.extend_from_slice(&address.port().to_be_bytes());
}

/// Of exactly 18 bytes.
pub fn address(bytes: &[u8]) -> SocketAddr {
    let ip: [u8; 16] = bytes[..16].try_into().unwrap_or_default();
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_address_and_is_shorter_than_the_question() {
        let from = "198.51.100.7:4000".parse().unwrap();
        let question = question([5; 12]);
        let answer = answer(&question, from).unwrap();
        assert!(answer.len() <= question.len());
        assert_eq!(answered(&answer), Some(([5; 12], from)));
    }

    #[test]
    fn only_questions_are_answered() {
        let from = "198.51.100.7:4000".parse().unwrap();
        assert_eq!(answer(&question([5; 12])[..39], from), None);
        assert_eq!(answer(&[0; 40], from), None);
        let bytes = answer(&question([5; 12]), from).unwrap();
        assert_eq!(answer(&bytes, from), None, "two reflectors never talk to each other");
    }
}
