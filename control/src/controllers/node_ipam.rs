//! Each node gets its slice of the cluster's pod range. One key for all nodes: two must never be given the same.

use super::{Change, Controller};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::Node;
use crate::view::{Applied, Kind, View};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

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
        let Some(range) = Range::parse(&view.settings.pod_range, view.settings.node_mask) else {
            return Outcome::default();
        };
        let taken: BTreeSet<u32> = view.list::<Node>().flat_map(|n| range.taken_by(&n.pod_cidrs)).collect();
        let mut free = (0..range.slices()).filter(|i| !taken.contains(i));
        let mut actions = Vec::new();
        let without = view.list::<Node>().filter(|n| n.pod_cidrs.is_empty() && !n.meta.is_terminating());
        for node in without.take(BATCH) {
            let Some(record) = view.record(&node.key) else { continue };
            let change = Change::of(record);
            actions.push(match free.next() {
                Some(index) => {
                    let cidr = range.slice(index);
                    change.exact(None, json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}))
                }
                None => {
                    let message = format!("Node {} status is now: CIDRNotAvailable", node.meta.name);
                    Action::Event(change.event(NAME, EventType::Normal, "CIDRNotAvailable", message))
                }
            });
        }
        Outcome { actions, again_at: None }
    }
}

/// An IPv4 range cut into slices of one size.
struct Range {
    base: u32,
    mask: u8,
    node_mask: u8,
}

impl Range {
    fn parse(text: &str, node_mask: u8) -> Option<Self> {
        let (address, mask) = text.split_once('/')?;
        let (address, mask) = (address.parse::<Ipv4Addr>().ok()?, mask.parse::<u8>().ok()?);
        if mask > node_mask || node_mask > 30 || node_mask - mask > 16 {
            return None;
        }
        let keep = u32::MAX.checked_shl(32 - u32::from(mask)).unwrap_or_default();
        Some(Self { base: u32::from(address) & keep, mask, node_mask })
    }

    fn slices(&self) -> u32 {
        1 << (self.node_mask - self.mask)
    }

    fn slice(&self, index: u32) -> String {
        let address = self.base + (index << (32 - self.node_mask));
        format!("{}/{}", Ipv4Addr::from(address), self.node_mask)
    }

    /// Every slice that any of these ranges touches, whatever its size.
    fn taken_by(&self, cidrs: &[String]) -> Vec<u32> {
        let touched = |cidr: &String| -> Option<std::ops::RangeInclusive<u32>> {
            let (address, mask) = cidr.split_once('/')?;
            let (address, mask) = (u32::from(address.parse::<Ipv4Addr>().ok()?), mask.parse::<u32>().ok()?);
            let size = 1u64.checked_shl(32 - mask.min(32))?;
            let (first, last) = (u64::from(address), u64::from(address) + size - 1);
            let (base, step) = (u64::from(self.base), 1u64 << (32 - self.node_mask));
            let end = base + step * u64::from(self.slices()) - 1;
            if last < base || first > end {
                return None;
            }
            let index = |a: u64| ((a.clamp(base, end) - base) / step) as u32;
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
}
