//! The PROXY protocol, version 2 (haproxy's proxy-protocol.txt, §2.2): a proxy that passes on bytes says before them who the
//! client is.
//!
//! It is for whom the operator named, on all ports of TCP, and there it must come: a port that took both would let every client
//! of such a proxy say who it is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const HEAD: usize = 16;

/// Reads the header: the client's address; None where the proxy speaks for itself (health checks), or of another family.
pub async fn client(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let wrong =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("no header of the PROXY protocol: {what}"));
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    if head[..12] != SIGNATURE {
        return Err(wrong("another signature"));
    }
    let mut rest = vec![0; u16::from_be_bytes([head[14], head[15]]).into()];
    stream.read_exact(&mut rest).await?;
    match head[12] {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(wrong("another version or command")),
    }
    let address = match head[13] {
        0x11 => rest.first_chunk::<12>().map(|r| (Ipv4Addr::from([r[0], r[1], r[2], r[3]]).into(), [r[8], r[9]])),
        0x21 => rest
            .first_chunk::<36>()
            .and_then(|r| Some((IpAddr::from(Ipv6Addr::from(*r.first_chunk::<16>()?)).to_canonical(), [r[32], r[33]]))),
        _ => return Ok(None),
    };
    let (ip, port): (IpAddr, [u8; 2]) = address.ok_or_else(|| wrong("it is too short"))?;
    Ok(Some((ip, u16::from_be_bytes(port)).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is told, and how many bytes are left.
    async fn told(command: u8, family: u8, rest: &[u8]) -> Result<(Option<String>, usize), String> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let bytes = [&SIGNATURE[..], &[command, family], &length, rest, b"GET"].concat();
        let mut stream = &bytes[..];
        let client = client(&mut stream).await.map_err(|error| error.to_string())?;
        Ok((client.map(|client| client.to_string()), stream.len()))
    }

    #[tokio::test]
    async fn a_header_tells_the_client_and_nothing_after_it_is_read() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0, 80];
        let tail = [&v4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        let of_v6 = |ip: &str| [&ip.parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 16], &[0, 7, 0, 80]].concat();
        for (command, family, rest, client) in [
            (0x21, 0x11, &v4[..], Some("192.0.2.1:4660")),
            (0x21, 0x11, &tail, Some("192.0.2.1:4660")),
            (0x21, 0x21, &of_v6("2001:db8::1"), Some("[2001:db8::1]:7")),
            (0x21, 0x21, &of_v6("::ffff:192.0.2.1"), Some("192.0.2.1:7")),
            (0x20, 0x11, &v4, None),
            (0x20, 0x00, &[], None),
            (0x21, 0x31, &[0; 216], None),
        ] {
            assert_eq!(told(command, family, rest).await, Ok((client.map(String::from), 3)));
        }
        assert!(told(0x21, 0x11, &v4[..11]).await.is_err(), "too short");
        assert!(told(0x11, 0x11, &v4).await.is_err(), "another version");
        assert!(told(0x22, 0x11, &v4).await.is_err(), "another command");
        assert!(client(&mut &b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n"[..]).await.is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let bytes = [&SIGNATURE[..], &bytes].concat();
            let _ = runtime.block_on(client(&mut &bytes[..]));
        }
    }
}
