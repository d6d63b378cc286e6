//! A wire that takes its time: two Ethernet interfaces, and threads that carry each frame from one to the other when it is due.

#![allow(unsafe_code, reason = "one ioctl has no safe wrapper")]

use crate::internet::{Netns, run};
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

mod kernel {
    use nix::libc;
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
}

/// The longest frame, with room to spare: the interfaces' MTU is 1500.
const FRAME: usize = 2048;
/// What a wire holds at most, one way: more is lost, as in any queue.
const QUEUE: usize = 10_000;

/// Joins two namespaces; what goes in at one end comes out at the other after `delay`. It ends with its namespaces.
pub fn wire(a: &Netns, a_name: &str, b: &Netns, b_name: &str, delay: Duration) {
    let (at_a, at_b) = (end(a, a_name), end(b, b_name));
    carry(at_a.try_clone().expect("it can be done"), at_b.try_clone().expect("it can be done"), delay);
    carry(at_b, at_a, delay);
}

/// An end of a wire. Made here and moved there: made there, it would keep the namespace alive.
fn end(netns: &Netns, name: &str) -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let made = format!("lsw{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let file = tap(&made);
    run("ip", &["link", "set", &made, "netns", &netns.name, "name", name], "");
    netns.ip(&format!("link set {name} up"));
    file
}

/// An Ethernet interface whose other side is this file. Frames are whole: the kernel fills in checksums and cuts segments.
fn tap(name: &str) -> File {
    let fd = open("/dev/net/tun", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).expect("/dev/net/tun can be opened");
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short },
    };
    assert!(name.len() < libc::IFNAMSIZ, "{name}: an interface's name has at most 15 bytes");
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = byte as libc::c_char;
    }
    // SAFETY: `request` is what TUNSETIFF reads, and outlives the call.
    unsafe { kernel::set_interface(fd.as_raw_fd(), &raw const request) }.expect("the interface can be made");
    fd.into()
}

fn carry(mut from: File, mut to: File, delay: Duration) {
    let (sender, frames) = mpsc::sync_channel::<(Instant, Vec<u8>)>(QUEUE);
    std::thread::spawn(move || {
        let mut buffer = [0; FRAME];
        // An interface that is gone is an error.
        while let Ok(length) = from.read(&mut buffer) {
            let frame = (Instant::now() + delay, buffer[..length].into());
            if let Err(mpsc::TrySendError::Disconnected(_)) = sender.try_send(frame) {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, frame) in frames {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // What can't be delivered is lost.
            let _ = to.write(&frame);
        }
    });
}
