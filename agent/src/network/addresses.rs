//! Which pod has which address of the node's slice. Pure.
//!
//! Addresses are given in turn, not the lowest first: what still talks to a pod that is gone must not reach the next one.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use longshore_api::network::Node;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Addresses {
    given: BTreeMap<String, Ipv4Addr>,
    /// The one given last.
    last: Option<Ipv4Addr>,
}

/// The node's slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    pub v4: Ipv4Net,
    pub v6: Option<Ipv6Net>,
}

impl Slices {
    /// As a Node object has them, IPv4's first. `None` when that has no room for a gateway and a pod, or isn't there.
    pub fn of(pod_cidrs: &[String]) -> Option<Self> {
        let v4 = slice(pod_cidrs.first()?)?;
        Some(Self { v4, v6: pod_cidrs.iter().find_map(|cidr| slice_v6(cidr)) })
    }

    /// As the network map has them.
    pub fn of_node(node: &Node) -> Option<Self> {
        Some(Self { v4: slice(&node.pod_range)?, v6: slice_v6(&node.pod_range_v6) })
    }

    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        self.v6_of(gateway(self.v4))
    }

    /// A pod's IPv6 address ends as its IPv4 address does: who has the one has the other, and nobody else.
    pub fn v6_of(&self, pod: Ipv4Addr) -> Option<Ipv6Addr> {
        let within = u32::from(pod).wrapping_sub(u32::from(self.v4.network()));
        Some(Ipv6Addr::from(u128::from(self.v6?.network()) + u128::from(within)))
    }

    /// All addresses of a pod, IPv4's first.
    pub fn addresses_of(&self, pod: Ipv4Addr) -> Vec<IpAddr> {
        std::iter::once(pod.into()).chain(self.v6_of(pod).map(IpAddr::from)).collect()
    }

    pub fn all(&self) -> Vec<IpNet> {
        std::iter::once(self.v4.into()).chain(self.v6.map(IpNet::from)).collect()
    }
}

/// `None` when there is no room in it for a gateway and a pod, or when it isn't IPv4.
pub fn slice(pod_cidr: &str) -> Option<Ipv4Net> {
    pod_cidr.parse::<Ipv4Net>().ok().map(|r| r.trunc()).filter(|r| (1..=30).contains(&r.prefix_len()))
}

/// `None` when it has less room than any of IPv4, or when it isn't IPv6.
pub fn slice_v6(pod_cidr: &str) -> Option<Ipv6Net> {
    pod_cidr.parse::<Ipv6Net>().ok().map(|r| r.trunc()).filter(|r| (1..=96).contains(&r.prefix_len()))
}

/// The first address of a slice is the node's own.
pub fn gateway(slice: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(slice.network()) + 1)
}

impl Addresses {
    /// The pod's address in `slice`: the one it has, or the next that is free. `None` when all are taken.
    pub fn give(&mut self, slice: Ipv4Net, uid: &str) -> Option<Ipv4Addr> {
        if let Some(ip) = self.given.get(uid).filter(|ip| usable(slice, **ip)) {
            return Some(*ip);
        }
        self.given.remove(uid);
        let taken: BTreeSet<u32> = self.given.values().map(|ip| u32::from(*ip)).collect();
        let (first, last) = (u32::from(slice.network()) + 2, u32::from(slice.broadcast()) - 1);
        let from = self.last.filter(|ip| usable(slice, *ip)).map_or(first, |ip| u32::from(ip) + 1);
        let free = (from..=last).chain(first..from).find(|ip| !taken.contains(ip))?;
        let ip = Ipv4Addr::from(free);
        self.given.insert(uid.to_owned(), ip);
        self.last = Some(ip);
        Some(ip)
    }

    pub fn of(&self, uid: &str) -> Option<Ipv4Addr> {
        self.given.get(uid).copied()
    }

    pub fn all(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.given.values().copied()
    }

    pub fn take_back(&mut self, uid: &str) -> Option<Ipv4Addr> {
        self.given.remove(uid)
    }

    pub fn retain(&mut self, uids: &[String]) {
        self.given.retain(|uid, _| uids.contains(uid));
    }
}

/// Whether it is a pod's: not the network itself, its gateway or its broadcast address.
pub fn usable(slice: Ipv4Net, ip: Ipv4Addr) -> bool {
    slice.contains(&ip) && ip != slice.network() && ip != gateway(slice) && ip != slice.broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slices_without_room_are_refused() {
        for (text, good) in [
            ("10.244.1.0/24", true),
            ("10.244.1.7/24", true),
            ("10.0.0.0/30", true),
            ("10.0.0.0/31", false),
            ("0.0.0.0/0", false),
            ("fd00::/64", false),
            ("10.0.0.0", false),
        ] {
            assert_eq!(slice(text).is_some(), good, "{text}");
        }
        assert_eq!(gateway(slice("10.244.1.7/24").unwrap()), Ipv4Addr::new(10, 244, 1, 1));
    }

    #[test]
    fn a_pod_has_addresses_that_end_alike() {
        let of = |cidrs: &[&str]| Slices::of(&cidrs.iter().map(ToString::to_string).collect::<Vec<_>>());
        let both = of(&["10.244.1.128/25", "fd12:3456:789a:7::/64"]).unwrap();
        let ips = |slices: &Slices| slices.addresses_of(Ipv4Addr::new(10, 244, 1, 138));
        assert_eq!(ips(&both), ["10.244.1.138".parse::<IpAddr>().unwrap(), "fd12:3456:789a:7::a".parse().unwrap()]);
        assert_eq!(both.gateway_v6(), Some("fd12:3456:789a:7::1".parse().unwrap()));
        let one = of(&["10.244.1.0/24"]).unwrap();
        assert_eq!((ips(&one).len(), one.gateway_v6(), one.all().len()), (1, None, 1));
        assert_eq!(of(&["fd12::/64", "10.244.1.0/24"]), None);
        assert_eq!(of(&["10.244.1.0/24", "fd12::/100"]), Some(one));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn an_address_given_back_is_the_last_to_be_given_again() {
        let slice = slice("10.0.0.0/29").unwrap();
        let mut addresses = Addresses::default();
        let a = addresses.give(slice, "a").unwrap();
        addresses.take_back("a");
        let others: Vec<_> = (0..4).map(|n| addresses.give(slice, &format!("o{n}")).unwrap()).collect();
        assert!(!others.contains(&a), "{others:?}");
        assert_eq!(addresses.give(slice, "b"), Some(a));
        assert_eq!(addresses.give(slice, "c"), None, "all are taken");
    }

    #[test]
    fn another_slice_means_other_addresses() {
        let mut addresses = Addresses::default();
        addresses.give(slice("10.0.0.0/29").unwrap(), "a").unwrap();
        let moved = addresses.give(slice("10.9.0.0/29").unwrap(), "a").unwrap();
        assert_eq!(moved, Ipv4Addr::new(10, 9, 0, 2));
    }

    proptest! {
        #[test]
        fn nobody_ever_shares_and_nobody_ever_moves(
            prefix in 26u8..=30,
            steps in prop::collection::vec((0u8..4, 0usize..40), 1..200),
        ) {
            let slice = Ipv4Net::new(Ipv4Addr::new(10, 1, 2, 0), prefix).unwrap();
            let room = (1usize << (32 - prefix)) - 3;
            let mut addresses = Addresses::default();
            let mut expected = BTreeMap::new();
            for (what, pod) in steps {
                let uid = format!("pod-{pod}");
                if what == 0 {
                    prop_assert_eq!(addresses.take_back(&uid), expected.remove(&uid));
                } else {
                    let had = expected.get(&uid).copied();
                    match addresses.give(slice, &uid) {
                        Some(ip) => {
                            prop_assert!(usable(slice, ip));
                            prop_assert_eq!(had.unwrap_or(ip), ip);
                            expected.insert(uid, ip);
                        }
                        None => prop_assert_eq!(expected.len(), room),
                    }
                }
                let distinct: BTreeSet<_> = expected.values().collect();
                prop_assert_eq!(distinct.len(), expected.len());
                let text = serde_json::to_string(&addresses).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Addresses>(&text).unwrap(), &addresses);
            }
        }
    }
}
