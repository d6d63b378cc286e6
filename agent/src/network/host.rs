//! The host's side: a transfer range that nobody uses, routes, forwarding.
//!
//! What others use on the host is never touched: a range that overlaps with any of their routes or addresses is avoided.

use super::links::{Netlink, Transfer};
use super::{Error, names};
use ipnet::{Ipv4Net, Ipv6Net};
use nlink::netlink::namespace::Netns;
use nlink::netlink::route::Ipv4Route;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where transfer ranges are taken from: link-local addresses, which are nobody's on the internet and in no office, without
/// the parts that clouds and node-local services are known to use (169.254.0, 169.254.20, 169.254.169, 169.254.170).
pub const TRANSFERS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 192, 0), 19);

/// The same of IPv6, of the unique local ones (RFC 4193); their last four bytes are those of an IPv4 one.
pub const TRANSFERS_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd5b, 0xe2c1, 0x9a37, 0, 0, 0, 0, 0), 96);

/// The ranges of the host's routes and addresses, by interface; those of the interface `except` left out.
pub async fn in_use(host: &Netlink, except: &str) -> Result<Vec<Ipv4Net>, Error> {
    let failed = |e| Error::netlink("look at the host's routes", e);
    let own = host.get_link_by_name(except).await.map_err(failed)?.map(|l| l.ifindex());
    let mut ranges = Vec::new();
    for route in host.get_routes().await.map_err(failed)? {
        if route.oif().is_some() && route.oif() == own {
            continue;
        }
        if let Some(IpAddr::V4(ip)) = route.destination()
            && route.dst_len() > 0
        {
            ranges.extend(Ipv4Net::new(*ip, route.dst_len()));
        }
    }
    for address in host.get_addresses().await.map_err(failed)? {
        if Some(address.ifindex()) == own {
            continue;
        }
        if let Some(IpAddr::V4(ip)) = address.local().or(address.address()) {
            ranges.extend(Ipv4Net::new(*ip, address.prefix_len()).map(|r| r.trunc()));
        }
    }
    Ok(ranges)
}

pub fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// A free /30, the wanted one where it still is, else looked for from `seed` on. A route for the whole of 169.254.0.0/16,
/// as some hosts have it on their network card, doesn't count: it means neighbours, and ours is more precise.
pub fn transfer(used: &[Ipv4Net], wanted: Option<Transfer>, seed: u32) -> Option<Transfer> {
    let free = |t: &Transfer| !used.iter().any(|r| r.prefix_len() > 16 && overlaps(*r, t.0));
    let count = 1u32 << (30 - TRANSFERS.prefix_len());
    let nth = |n: u32| Ipv4Net::new(Ipv4Addr::from(u32::from(TRANSFERS.network()) + 4 * n), 30).ok().map(Transfer);
    wanted.filter(free).or_else(|| (0..count).filter_map(|n| nth(seed.wrapping_add(n) % count)).find(free))
}

/// The route by which the host reaches its pods, where the range is free on it. `Ok(false)`: someone else has it.
pub async fn route(
    host: &Netlink,
    used: &[Ipv4Net],
    uplink: &str,
    via: Transfer,
    slice: Ipv4Net,
) -> Result<bool, Error> {
    let failed = |e| Error::netlink("set the host's route to its pods", e);
    if used.iter().any(|r| overlaps(*r, slice)) {
        return Ok(false);
    }
    let route = Ipv4Route::from_addr(slice.network(), slice.prefix_len()).gateway(via.inside()).dev(uplink);
    host.replace_route(route).await.map_err(failed)?;
    Ok(true)
}

/// The largest packets that leave the host whole: those of the way out.
pub async fn mtu(host: &Netlink) -> Result<u32, Error> {
    let failed = |e| Error::netlink("look at the host's way out", e);
    let routes = host.get_routes().await.map_err(failed)?;
    let way_out = routes.iter().filter(|r| r.is_ipv4() && r.dst_len() == 0).min_by_key(|r| r.priority().unwrap_or(0));
    let Some(index) = way_out.and_then(|r| r.oif()) else { return Ok(1500) };
    let link = host.get_link_by_index(index).await.map_err(failed)?;
    Ok(link.and_then(|l| l.mtu()).unwrap_or(1500).clamp(1280, 65_535))
}

/// Without it no packet of a pod leaves the machine. Docker sets it as well. And what the host sends to its own loopback
/// addresses may be meant for a pod's port.
pub fn forward(host: &Netns, names: &names::Names) -> Result<(), Error> {
    let failed = |e| Error::netlink("let the host forward packets", e);
    host.sysctl().set(&format!("net.ipv4.conf.{}.route_localnet", names.uplink()), "1").map_err(failed)?;
    if host.sysctl().get("net.ipv4.ip_forward").map_err(failed)?.trim() != "1" {
        host.sysctl().set("net.ipv4.ip_forward", "1").map_err(failed)?;
        tracing::warn!("net.ipv4.ip_forward is on from now on: {} needs it", names.uplink());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_transfer_range_is_kept_until_someone_else_has_it() {
        let first = transfer(&[], None, 7).unwrap();
        assert_eq!(first.0, net("169.254.192.28/30"));
        assert_eq!(transfer(&[net("169.254.0.0/16"), net("10.0.0.0/8")], Some(first), 99), Some(first));
        let taken = [net("169.254.192.30/31")];
        assert_eq!(transfer(&taken, Some(first), 7).unwrap().0, net("169.254.192.32/30"));
        assert_eq!(transfer(&[net("169.254.128.0/17")], Some(first), 7), None);
    }

    #[test]
    fn overlap_is_either_containing_the_other() {
        assert!(overlaps(net("10.0.0.0/8"), net("10.244.0.0/24")));
        assert!(overlaps(net("10.244.0.0/24"), net("10.244.0.0/16")));
        assert!(!overlaps(net("10.244.0.0/24"), net("10.244.1.0/24")));
    }

    proptest! {
        #[test]
        fn a_transfer_range_never_overlaps_with_others(
            seed: u32,
            used in prop::collection::vec((any::<u32>(), 17u8..=32), 0..60),
        ) {
            let base = u32::from(TRANSFERS.network());
            let used: Vec<_> = used
                .into_iter()
                .map(|(n, p)| Ipv4Net::new(Ipv4Addr::from(base + n % 0x2000), p.max(21)).unwrap().trunc())
                .collect();
            if let Some(found) = transfer(&used, None, seed) {
                prop_assert!(TRANSFERS.contains(&found.0));
                prop_assert!(!used.iter().any(|r| overlaps(*r, found.0)));
            }
        }
    }
}
