//! The device through which the kernel hands over packets: TUN with segmentation offload, so that one read or write moves
//! up to 64 KB of TCP.

#![allow(unsafe_code, reason = "two ioctls and the descriptor's registration have no safe wrapper")]

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

mod kernel {
    use nix::libc;
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
}

/// An interface that was made, before the mesh runs on it. Addresses, MTU, routes and "up" are the caller's.
pub struct Tun(OwnedFd);

impl Tun {
    /// Makes interface `name` (at most 15 bytes) in the network namespace `netns`. It lives as long as the mesh on it.
    pub fn create(netns: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        // A thread of its own, which ends there: this one's namespace stays as it is.
        std::thread::scope(|scope| {
            let made = scope.spawn(|| -> io::Result<Self> {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                Self::create_here(name)
            });
            made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes the interface failed")))
        })
    }

    fn create_here(name: &str) -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = open("/dev/net/tun", flags, Mode::empty())?;
        if name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface's name has at most 15 bytes"));
        }
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
            },
        };
        for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = byte as libc::c_char;
        }
        // SAFETY: `request` is what TUNSETIFF reads, and outlives the call; TUNSETOFFLOAD takes a number.
        unsafe {
            kernel::set_interface(fd.as_raw_fd(), &raw const request)?;
            kernel::set_offload(
                fd.as_raw_fd(),
                (libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6) as libc::c_int,
            )?;
        }
        Ok(Self(fd))
    }

    pub(crate) fn open(self) -> io::Result<Device> {
        // SAFETY: the descriptor is owned, and stays the same one for as long as it is registered.
        Ok(Device(unsafe { AsyncFd::register_with_interest(self.0, READ) }?))
    }
}

/// An interface that someone deletes is an error and never readable.
const READ: Interest = Interest::READABLE.add(Interest::ERROR);

pub(crate) struct Device(AsyncFd<OwnedFd>);

impl Device {
    /// Waits for a packet: header and packet into `buffer`.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(READ, |fd| nix::unistd::read(fd, buffer).map_err(Into::into)).await
    }

    /// None: there is none now.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(self.0.as_fd(), buffer) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// One packet with its header. What the kernel doesn't take is dropped, as any router would.
    pub fn write(&self, slices: &[IoSlice<'_>]) {
        if let Err(error) = nix::sys::uio::writev(self.0.as_fd(), slices) {
            tracing::trace!(%error, "the kernel took no packet");
        }
    }
}
