//! What is measured of this machine for its Node object.

use crate::runtime::{ImageRecord, Info};
use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

/// Less free memory than this is a pressure: the kubelet's default.
pub const KEPT_MEMORY: u64 = 100 << 20;
/// A smaller share of a disk than this (percent) is a pressure, unless [`ROOMY`] is left. The kubelet's defaults of 10 and
/// 15 are for machines that do nothing else; ours are anybody's, often with large disks that are nearly full.
pub const KEPT_DISK: u64 = 5;
const KEPT_INODES: u64 = 5;
/// Bytes that are room enough on any disk.
const ROOMY: u64 = 4 << 30;
/// A pressure that has passed is still told for this long, so that pods don't come back into it at once.
const PRESSURE_STAYS: SignedDuration = SignedDuration::from_mins(5);

/// Something that is told for a while after it was last seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure(Option<Timestamp>);

impl Pressure {
    pub fn look(&mut self, seen: bool, now: Timestamp) -> bool {
        if seen {
            self.0 = Some(now);
        }
        self.0.is_some_and(|last| now.duration_since(last) < PRESSURE_STAYS)
    }
}

/// Whether a disk with volumes, or one with images, is short of room.
pub fn disk_is_short(volumes: Option<Disk>, images: Option<Disk>) -> bool {
    [volumes, images].into_iter().flatten().any(|disk| disk.is_short_of(KEPT_DISK, KEPT_INODES))
}

/// The machine as it was found at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    pub ids: Ids,
    pub address: Option<IpAddr>,
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    /// Where pods' volumes lie.
    pub volumes: Option<Disk>,
    pub memory_pressure: bool,
    pub disk_pressure: bool,
    pub runtime: Info,
    /// Why the container runtime can't be used.
    pub runtime_down: Option<String>,
    /// Why pods can't have addresses.
    pub network_down: Option<String>,
    pub images: Vec<ImageRecord>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ids {
    pub machine: String,
    pub system: String,
    pub boot: String,
}

impl Measured {
    /// What is known without asking anybody.
    pub fn at_once(towards_server: Option<IpAddr>) -> Self {
        Self {
            address: address(towards_server),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
            memory: memory().0.unwrap_or(0) as i64,
            ..Default::default()
        }
    }
}

/// A file system: bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Disk {
    pub size: u64,
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Disk {
    /// None where `path` can't be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        let stat = statvfs(path).ok()?;
        let block = stat.fragment_size() as u64;
        Some(Self {
            size: stat.blocks() as u64 * block,
            available: stat.blocks_available() as u64 * block,
            inodes: stat.files() as u64,
            inodes_free: stat.files_free() as u64,
        })
    }

    /// Whether less than these shares (percent) of bytes and inodes are left. File systems without a count of inodes say 0.
    fn is_short_of(&self, bytes: u64, inodes: u64) -> bool {
        let below = |left: u64, all: u64, percent: u64| {
            all > 0 && u128::from(left) * 100 < u128::from(all) * u128::from(percent)
        };
        (self.available < ROOMY && below(self.available, self.size, bytes))
            || below(self.inodes_free, self.inodes, inodes)
    }
}

impl Ids {
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        let machine = ["/etc/machine-id", "/var/lib/dbus/machine-id"].into_iter().map(text).find(|id| !id.is_empty());
        let machine = machine.unwrap_or_default();
        let system = text("/sys/class/dmi/id/product_uuid");
        Self {
            system: if system.is_empty() { machine.clone() } else { system },
            machine,
            boot: text("/proc/sys/kernel/random/boot_id"),
        }
    }
}

/// `MemTotal` and `MemAvailable`, in bytes.
pub fn memory() -> (Option<u64>, Option<u64>) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (meminfo(&text, "MemTotal"), meminfo(&text, "MemAvailable"))
}

fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The address that other machines should know: what the connection to the server leaves from, unless that stays on this
/// machine; else what the default route leaves from.
pub fn address(towards_server: Option<IpAddr>) -> Option<IpAddr> {
    towards_server.filter(|ip| !ip.is_loopback()).or_else(default_route).or_else(any)
}

/// Asks the kernel, without sending anything: the target is an address for documentation (RFC 5737).
fn default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// The first address of any interface; loopback's when there is no other.
fn any() -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let mut found: Vec<IpAddr> =
        interfaces.filter_map(|interface| Some(IpAddr::V4(interface.address?.as_sockaddr_in()?.ip()))).collect();
    found.sort_by_key(|ip| ip.is_loopback());
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_meminfo() {
        let text = "MemTotal:       24597812 kB\nMemFree:          123 kB\nMemAvailable:   22334455 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(24_597_812 * 1024));
        assert_eq!(meminfo(text, "MemAvailable"), Some(22_334_455 * 1024));
        assert_eq!(meminfo(text, "Mem"), None);
    }

    #[test]
    fn a_disk_is_short_below_its_shares() {
        let disk = Disk { size: 1000, available: 100, inodes: 0, inodes_free: 0 };
        assert!(!disk.is_short_of(10, 5) && disk.is_short_of(11, 5));
        let disk = Disk { size: 1000, available: 1000, inodes: 100, inodes_free: 4 };
        assert!(disk.is_short_of(10, 5));
        let large = Disk { size: 1 << 40, available: 5 << 30, inodes: 0, inodes_free: 0 };
        assert!(!large.is_short_of(5, 5), "half a percent, and yet room enough");
        assert!(Disk::of(Path::new("/")).is_some_and(|disk| disk.size > 0));
    }

    #[test]
    fn a_pressure_is_told_for_a_while_after_it_has_passed() {
        let mut pressure = Pressure::default();
        let begin = Timestamp::UNIX_EPOCH;
        assert!(!pressure.look(false, begin));
        assert!(pressure.look(true, begin));
        assert!(pressure.look(false, begin + SignedDuration::from_secs(299)));
        assert!(!pressure.look(false, begin + SignedDuration::from_secs(300)));
    }

    #[test]
    fn the_address_towards_the_server_counts_unless_it_is_loopback() {
        let lan: IpAddr = "10.1.2.3".parse().unwrap();
        assert_eq!(address(Some(lan)), Some(lan));
        assert_ne!(address(Some(Ipv4Addr::LOCALHOST.into())), None);
    }
}
