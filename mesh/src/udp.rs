//! Sockets of the host's network that send and take many datagrams in one call (UDP GSO and GRO).

use crate::path::Refusal;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams of one size in one send, and bytes of them, as the kernel has it.
pub const MOST_SEGMENTS: usize = 64;
pub const MOST_BYTES: usize = 65_507;
/// Of each socket, both ways: what arrives while a loaded machine lets us wait for 10 ms.
const KERNEL_BUFFER: usize = 4 << 20;

pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Beyond the host's limit where we may; within it otherwise.
        if setsockopt(&socket, sockopt::RcvBufForce, &KERNEL_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &KERNEL_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &KERNEL_BUFFER).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &KERNEL_BUFFER)?;
        }
        let io = UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self { io, state })
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Waits for datagrams: how many of `buffers` were filled, as their `meta` says.
    pub async fn receive(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        self.io.async_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, meta)).await
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter), waiting for room.
    pub async fn send(&self, to: SocketAddr, segment: usize, bytes: &[u8]) -> Result<(), Refusal> {
        let at_once = self.state.max_gso_segments().clamp(1, MOST_SEGMENTS);
        for part in bytes.chunks(segment * at_once) {
            let sent = self
                .io
                .async_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), &transmit(to, segment, part)));
            judged(sent.await)?;
        }
        Ok(())
    }

    /// One datagram, dropped where there is no room.
    pub fn try_send(&self, to: SocketAddr, bytes: &[u8]) -> Result<(), Refusal> {
        let send = || self.state.try_send((&self.io).into(), &transmit(to, bytes.len(), bytes));
        judged(self.io.try_io(Interest::WRITABLE, send))
    }
}

fn transmit(to: SocketAddr, segment: usize, bytes: &[u8]) -> Transmit<'_> {
    Transmit {
        destination: to,
        ecn: None,
        contents: bytes,
        segment_size: (segment < bytes.len()).then_some(segment),
        src_ip: None,
    }
}

fn judged(sent: io::Result<()>) -> Result<(), Refusal> {
    let Err(error) = sent else { return Ok(()) };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMSGSIZE) => Err(Refusal::TooBig),
        Some(
            Errno::ENETUNREACH
            | Errno::EHOSTUNREACH
            | Errno::EPERM
            | Errno::EADDRNOTAVAIL
            | Errno::ENETDOWN
            | Errno::EAFNOSUPPORT,
        ) => Err(Refusal::Unreachable),
        _ => {
            tracing::trace!(%error, "the kernel sent nothing");
            Ok(())
        }
    }
}
