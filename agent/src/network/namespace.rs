//! The cluster's own network namespace on this host.
//!
//! It outlives the agent by a mount on a file in the agent's data folder, not by a process; an agent in a container needs
//! that folder shared with the host (`rshared`), as it does for volumes. Nobody enters it for good: netlink sockets and
//! TCP sockets are made on a thread inside it and used from anywhere.

use super::Error;
use nlink::netlink::namespace::{self, Netns};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Opens it, made anew where it isn't there (first start, or the machine was restarted).
pub fn open(path: &Path) -> Result<Netns, Error> {
    let failed = |e| Error::netlink("open the cluster's network namespace", e);
    if !namespace::is_namespace_path(path) {
        // What a restart of the machine leaves of the mount is an empty file.
        if path.exists() {
            namespace::delete_path(path).map_err(failed)?;
        }
        namespace::create_path(path).map_err(failed)?;
    }
    let netns = Netns::from_path(path).map_err(failed)?;
    for (key, value) in [("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.all.rp_filter", "0")] {
        netns.sysctl().set(key, value).map_err(failed)?;
    }
    Ok(netns)
}

pub fn remove(path: &Path) -> Result<(), Error> {
    match path.exists() {
        true => namespace::delete_path(path).map_err(|e| Error::netlink("remove the cluster's network namespace", e)),
        false => Ok(()),
    }
}

pub fn socket(netns: &Netns) -> io::Result<TcpSocket> {
    netns.run(TcpSocket::new_v4).map_err(io::Error::other)?
}

pub async fn connect(netns: &Netns, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket(netns)?.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub fn listen(netns: &Netns, address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = socket(netns)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    socket.listen(1024)
}
