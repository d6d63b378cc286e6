//! The cluster's own network namespace on this host.
//!
//! It outlives the agent by a mount on a file in the agent's data folder, not by a process; an agent in a container needs
//! that folder shared with the host (`rshared`), as it does for volumes. Nobody enters it for good: netlink sockets and
//! TCP sockets are made on a thread inside it and used from anywhere.

use super::Error;
use nlink::netlink::namespace::{self, Netns};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// After a failure to listen or accept that no change will announce the end of.
pub const RETRY: Duration = Duration::from_secs(2);

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
    // No redirects: that two pods could reach each other more directly is not so.
    for (key, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.default.send_redirects", "0"),
    ] {
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

/// Of the address's family.
fn socket(netns: &Netns, address: SocketAddr) -> io::Result<TcpSocket> {
    let new = if address.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
    netns.run(new).map_err(io::Error::other)?
}

pub async fn connect(netns: &Netns, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket(netns, address)?.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A pod's own network namespace, at `path` (below /proc). `host`: it shares the host's.
pub fn of_pod(path: &Path, host: bool) -> io::Result<Netns> {
    let pod = Netns::from_path(path).map_err(io::Error::other)?;
    let own = Netns::current().map_err(io::Error::other)?;
    // A process number may have been given to someone else in the meantime.
    match host || pod.id() != own.id() {
        true => Ok(pod),
        false => Err(io::Error::new(io::ErrorKind::NotFound, "the pod's network namespace is gone")),
    }
}

/// Connects to a port on the localhost of a namespace.
pub async fn connect_localhost(netns: &Netns, port: u16) -> io::Result<TcpStream> {
    let refused = match connect(netns, (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    // Some programs listen on ::1 only; where that fails as well, the first refusal says more.
    connect_own(netns, (Ipv6Addr::LOCALHOST, port).into()).await.map_err(|_| refused)
}

/// Connects to an address of the namespace itself, from that very address: one that is somebody else's can't be bound, so
/// that nothing leaves the namespace whatever it is told.
pub async fn connect_own(netns: &Netns, address: SocketAddr) -> io::Result<TcpStream> {
    connect_from(netns, address.ip(), address).await
}

/// A UDP socket that speaks with an address of the namespace itself alone, from that very address, as [`connect_own`] does.
pub fn datagrams_to_own(netns: &Netns, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = netns.run(|| std::net::UdpSocket::bind((address.ip(), 0))).map_err(io::Error::other)??;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// A UDP socket at an address of the namespace.
pub fn bind(netns: &Netns, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = netns.run(|| std::net::UdpSocket::bind(address)).map_err(io::Error::other)??;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Connects from an address of the namespace.
pub async fn connect_from(netns: &Netns, from: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(netns, address)?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub fn listen(netns: &Netns, address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = socket(netns, address.into())?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    socket.listen(1024)
}

/// Gives each connection to `answer`, on a task of its own, as many at once as there are `places`. Never returns.
pub async fn accept<F>(listener: TcpListener, places: Arc<Semaphore>, what: &str, answer: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let answered = answer(client);
                tokio::spawn(async move {
                    answered.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "{what} was not accepted");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
