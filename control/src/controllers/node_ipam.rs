//! Each node gets its slice of the cluster's pod range, of each family that this has. One key for all nodes: two must never be given the same.

use super::{Change, Controller};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::Node;
use crate::view::{Applied, Kind, View};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub struct NodeIpamController;

const NAME: &str = "node-ipam-controller";
/// Nodes given a slice in one look.
const BATCH: usize = 100;

impl Controller for NodeIpamController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, _view: &View, change: &Applied) -> Vec<ObjectKey> {
        let without = change.after.as_ref().and_then(|r| r.get::<Node>()).is_some_and(|n| n.pod_cidrs.is_empty());
        let freed = change.key.resource == Node::RESOURCE && change.after.is_none();
        if without || freed { vec![ObjectKey::all_of(Node::RESOURCE)] } else { Vec::new() }
    }

    fn reconcile(&self, view: &View, _key: &ObjectKey, _now: Timestamp) -> Outcome {
        let ranges: Option<Vec<Range>> =
            view.settings.pod_ranges.iter().map(|(text, mask)| Range::parse(text, *mask)).collect();
        let Some(ranges) = ranges.filter(|ranges| !ranges.is_empty()) else { return Outcome::default() };
        let taken = |range: &Range| -> BTreeSet<u32> {
            view.list::<Node>().flat_map(|n| range.taken_by(&n.pod_cidrs)).collect()
        };
        let taken: Vec<BTreeSet<u32>> = ranges.iter().map(taken).collect();
        let free = ranges.iter().zip(&taken);
        let mut free: Vec<_> = free.map(|(range, taken)| (0..range.slices()).filter(|i| !taken.contains(i))).collect();
        let mut actions = Vec::new();
        let without = view.list::<Node>().filter(|n| n.pod_cidrs.is_empty() && !n.meta.is_terminating());
        for node in without.take(BATCH) {
            let Some(record) = view.record(&node.key) else { continue };
            let change = Change::of(record);
            let slice = |(range, free): (&Range, &mut _)| Iterator::next(free).map(|index| range.slice(index));
            let slices: Option<Vec<String>> = ranges.iter().zip(&mut free).map(slice).collect();
            actions.push(match slices {
                Some(slices) => change.exact(None, json!({"spec": {"podCIDR": slices[0], "podCIDRs": slices}})),
                None => {
                    let message = format!("Node {} status is now: CIDRNotAvailable", node.meta.name);
                    Action::Event(change.event(NAME, EventType::Normal, "CIDRNotAvailable", message))
                }
            });
        }
        Outcome { actions, again_at: None }
    }
}

/// A range of either family cut into slices of one size. Addresses are numbers.
struct Range {
    v6: bool,
    base: u128,
    mask: u8,
    node_mask: u8,
}

/// The number of an address, the family's length, and the prefix's.
fn numbered(cidr: &str) -> Option<(u128, u8, u8)> {
    let (address, mask) = cidr.split_once('/')?;
    let (number, bits) = match address.parse().ok()? {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (ip.into(), 128),
    };
    Some((number, bits, mask.parse().ok().filter(|mask| *mask <= bits)?))
}

impl Range {
    fn parse(text: &str, node_mask: u8) -> Option<Self> {
        let (address, bits, mask) = numbered(text)?;
        if mask == 0 || mask > node_mask || node_mask > bits - 2 || node_mask - mask > 16 {
            return None;
        }
        let host = bits - mask;
        Some(Self { v6: bits == 128, base: address >> host << host, mask, node_mask })
    }

    fn slices(&self) -> u32 {
        1 << (self.node_mask - self.mask)
    }

    /// How many addresses are in one, as a power of two.
    fn step(&self) -> u8 {
        if self.v6 { 128 - self.node_mask } else { 32 - self.node_mask }
    }

    fn slice(&self, index: u32) -> String {
        let address = self.base + (u128::from(index) << self.step());
        match self.v6 {
            true => format!("{}/{}", Ipv6Addr::from(address), self.node_mask),
            false => format!("{}/{}", Ipv4Addr::from(address as u32), self.node_mask),
        }
    }

    /// Every slice that any of these ranges touches, whatever its size.
    fn taken_by(&self, cidrs: &[String]) -> Vec<u32> {
        let touched = |cidr: &String| -> Option<std::ops::RangeInclusive<u32>> {
            let (address, bits, mask) = numbered(cidr)?;
            if (bits == 128) != self.v6 || mask == 0 {
                return None;
            }
            let (first, last) = (address, address | ((1 << (bits - mask)) - 1));
            let end = self.base + (u128::from(self.slices()) << self.step()) - 1;
            if last < self.base || first > end {
                return None;
            }
            let index = |a: u128| ((a.clamp(self.base, end) - self.base) >> self.step()) as u32;
            Some(index(first)..=index(last))
        };
        cidrs.iter().filter_map(touched).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_a_range_into_slices() {
        let range = Range::parse("10.244.0.0/16", 24).unwrap();
        assert_eq!(range.slices(), 256);
        assert_eq!(range.slice(0), "10.244.0.0/24");
        assert_eq!(range.slice(255), "10.244.255.0/24");
        assert_eq!(range.taken_by(&["10.244.3.0/24".into(), "10.0.0.0/24".into()]), [3]);
        assert_eq!(range.taken_by(&["10.244.4.0/23".into()]), [4, 5]);
        assert!(range.taken_by(&["not a range".into(), "::/0".into(), "1.2.3.4/99".into()]).is_empty());
        assert!(Range::parse("10.0.0.0/25", 24).is_none());
    }

    #[test]
    fn cuts_a_range_of_ipv6_as_well() {
        let range = Range::parse("fd12:3456:789a::/48", 64).unwrap();
        assert_eq!(range.slices(), 65_536);
        assert_eq!(range.slice(0), "fd12:3456:789a::/64");
        assert_eq!(range.slice(65_535), "fd12:3456:789a:ffff::/64");
        assert_eq!(range.taken_by(&["10.244.3.0/24".into(), "fd12:3456:789a:3::/64".into()]), [3]);
        assert!(range.taken_by(&["fd00::/64".into(), "::/0".into()]).is_empty());
    }
}
