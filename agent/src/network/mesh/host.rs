//! What the mesh has on the host: its sockets, and the addresses at which others may find them.

use crate::network::Error;
use crate::network::links::Netlink;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt};
use nlink::netlink::RtnetlinkGroup;
use nlink::netlink::namespace::Netns;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

/// Interfaces whose addresses mean something else on every host: those of containers, machines in this machine, and ours.
const INWARD: [&str; 8] = ["ls-", "docker", "br-", "veth", "virbr", "cni", "flannel", "lxc"];
/// Addresses of the host that are told, at most.
const MOST: usize = 12;

/// Sockets of both families, where the host has them, at one port: the wanted one where it is free.
pub fn sockets(host: &Netns, wanted: u16) -> io::Result<(UdpSocket, Option<UdpSocket>)> {
    let both = || {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, wanted))
            .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        let port = v4.local_addr()?.port();
        Ok((v4, v6(port).or_else(|_| v6(0)).ok()))
    };
    host.run(both).map_err(io::Error::other)?
}

/// For IPv6 only: IPv4 has a socket of its own.
fn v6(port: u16) -> io::Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
    Ok(fd.into())
}

/// The addresses by which others on the same networks may reach the host.
pub async fn addresses(host: &Netlink) -> Result<Vec<IpAddr>, Error> {
    let failed = |e| Error::netlink("look at the host's addresses", e);
    let links = host.get_links().await.map_err(failed)?;
    let outward = links.iter().filter(|link| {
        let name = link.name_or("");
        link.is_up() && !link.is_loopback() && !INWARD.iter().any(|inward| name.starts_with(inward))
    });
    let outward: Vec<u32> = outward.map(|link| link.ifindex()).collect();
    let addresses = host.get_addresses().await.map_err(failed)?;
    let own = addresses.iter().filter(|a| outward.contains(&a.ifindex()) && !a.is_deprecated() && !a.is_tentative());
    let mut own: Vec<IpAddr> = own.filter_map(|a| a.local().or(a.address()).copied()).filter(reaches).collect();
    own.sort();
    own.dedup();
    own.truncate(MOST);
    Ok(own)
}

fn reaches(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback() && !ip.is_unspecified(),
    }
}

/// What says when they may have changed.
pub fn watched(host: &Netns) -> Result<Netlink, Error> {
    let failed = |e| Error::netlink("watch the host's addresses", e);
    let netlink = Netlink::new_in(host).map_err(failed)?;
    netlink.subscribe(&[RtnetlinkGroup::Link, RtnetlinkGroup::Ipv4Addr, RtnetlinkGroup::Ipv6Addr]).map_err(failed)?;
    Ok(netlink)
}
