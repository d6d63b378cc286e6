//! Sockets that clients come to.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, bind,
    listen, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A TCP port, of IPv4 and IPv6 where the address is neither's in particular and the host has both. Clients of IPv4 have
/// addresses of IPv6 there ([`IpAddr::to_canonical`]). It doesn't block, as tokio wants it.
pub fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bound(address, SockType::Stream)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

/// A client as the socket knows it, and the address it spoke to, which the answer must come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Speaker {
    address: SocketAddr,
    to: Option<IpAddr>,
}

impl Speaker {
    /// IPv4's own, also where the socket is IPv6's.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// A UDP port. On a host with several addresses an answer comes from the one that was asked: a client takes none from another.
pub struct Datagrams(UdpSocket);

impl Datagrams {
    /// Of both families as [`listener`]'s.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::from(bound(address, SockType::Datagram)?);
        Ok(Self(UdpSocket::from_std(socket)?))
    }

    /// The next datagram's length, and who sent it.
    pub async fn receive(&self, datagram: &mut [u8]) -> io::Result<(usize, Speaker)> {
        self.0.async_io(Interest::READABLE, || Ok(receive(&self.0, datagram)?)).await
    }

    /// Waits for room.
    pub async fn send(&self, datagram: &[u8], to: Speaker) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || Ok(send(&self.0, datagram, to)?)).await
    }
}

fn receive(socket: &UdpSocket, datagram: &mut [u8]) -> nix::Result<(usize, Speaker)> {
    let (mut room, mut told) = ([IoSliceMut::new(datagram)], cmsg_space!(in6_pktinfo));
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut room, Some(&mut told), MsgFlags::MSG_DONTWAIT)?;
    let from = received.address.ok_or(Errno::EINVAL)?;
    let of_v4 = || from.as_sockaddr_in().map(|from| SocketAddr::V4((*from).into()));
    let of_v6 = || from.as_sockaddr_in6().map(|from| SocketAddr::V6((*from).into()));
    let address = of_v4().or_else(of_v6).ok_or(Errno::EINVAL)?;
    let to = received.cmsgs()?.find_map(|told| match told {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
        _ => None,
    });
    Ok((received.bytes, Speaker { address, to }))
}

fn send(socket: &UdpSocket, datagram: &[u8], Speaker { address, to }: Speaker) -> nix::Result<()> {
    let (datagram, address) = ([IoSlice::new(datagram)], SockaddrStorage::from(address));
    let sent = |from: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &datagram, from, MsgFlags::MSG_DONTWAIT, Some(&address)).map(drop)
    };
    match to {
        Some(IpAddr::V4(ip)) => {
            let ipi_spec_dst = nix::libc::in_addr { s_addr: u32::from(ip).to_be() };
            let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: nix::libc::in_addr { s_addr: 0 } };
            sent(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(ip)) => {
            let ipi6_addr = nix::libc::in6_addr { s6_addr: ip.octets() };
            sent(&[ControlMessage::Ipv6PacketInfo(&in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 })])
        }
        None => sent(&[]),
    }
}

fn bound(address: SocketAddr, kind: SockType) -> nix::Result<OwnedFd> {
    of_both(address, |address| bound_at(address, kind))
}

/// An address that is nobody's in particular is of both families; where the host has no IPv6, of IPv4 alone.
fn of_both<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> nix::Result<T>) -> nix::Result<T> {
    if !address.ip().is_unspecified() {
        return bind(address);
    }
    match bind((Ipv6Addr::UNSPECIFIED, address.port()).into()) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if address.is_ipv4() => bind(address),
        bound => bound,
    }
}

fn bound_at(address: SocketAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    match (kind, address.is_ipv4()) {
        (SockType::Datagram, true) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        (SockType::Datagram, false) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        // So that connections of before, which still end, don't hold the port.
        _ => setsockopt(&socket, sockopt::ReuseAddr, &true)?,
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_ipv6_serves_ipv4() {
        let at = |address: &str, without: bool| {
            let bound = of_both(address.parse().unwrap(), |address| match without && address.is_ipv6() {
                true => Err(Errno::EAFNOSUPPORT),
                false => Ok(address.to_string()),
            });
            bound.map_err(|error| error.to_string())
        };
        assert_eq!(at("0.0.0.0:80", false), Ok("[::]:80".into()));
        assert_eq!(at("0.0.0.0:80", true), Ok("0.0.0.0:80".into()));
        assert!(at("[::]:80", true).is_err());
        assert_eq!(at("192.0.2.1:80", false), Ok("192.0.2.1:80".into()));
    }

    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_asked() {
        for unspecified in ["0.0.0.0:0", "[::]:0"] {
            let socket = Datagrams::bind(unspecified.parse().unwrap()).unwrap();
            let port = socket.0.local_addr().unwrap().port();
            for (own, asked) in [("127.0.0.1", "127.0.0.9"), ("::1", "::1")] {
                // Not everybody has IPv6.
                let Ok(client) = UdpSocket::bind((own, 0)).await else { continue };
                // Connected: it hears nobody else.
                client.connect((asked, port)).await.unwrap();
                client.send(b"who?").await.unwrap();
                let mut datagram = [0; 16];
                let (length, from) = socket.receive(&mut datagram).await.unwrap();
                assert_eq!((&datagram[..length], from.ip()), (&b"who?"[..], own.parse().unwrap()));
                socket.send(b"you", from).await.unwrap();
                assert_eq!(client.recv(&mut datagram).await.unwrap(), 3);
            }
            assert!(Datagrams::bind(([0, 0, 0, 0], port).into()).is_err(), "it is taken");
        }
    }
}
