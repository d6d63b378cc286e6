//! Which nodes' pods may be moved: `NoExecute` taints on nodes that are not ready or unreachable, zone by zone.
//!
//! A zone's nodes get the taint one every ten seconds, not all at once; when most of a zone is out, it is likelier that
//! something between us and it broke than that all of them did, and no further taint is given; when nobody at all is
//! ready, taints given before are taken back. So a fault of ours or of a network never becomes a stampede of pods.

use super::node_lifecycle::{NAME, NOT_READY, UNREACHABLE, readiness, set_taints};
use super::{Controller, sooner, whole_seconds};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::{Effect, Node, Status, Taint};
use crate::view::{Applied, Item, Kind, View};
use jiff::{SignedDuration, Timestamp};

pub struct NodeEvictionController;

/// Between two nodes of a zone (Kubernetes's `node-eviction-rate` of 0.1 a second).
const PACE: SignedDuration = SignedDuration::from_secs(10);
/// The same for a large zone of which most is out.
const SLOW_PACE: SignedDuration = SignedDuration::from_secs(100);
/// How many nodes make a zone large.
const LARGE: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneState {
    Normal,
    /// More than 55 % of at least three nodes are out.
    MostlyOut,
    AllOut,
}

/// How a zone is doing: its nodes, and how many of them are ready.
#[derive(Clone, Copy, Debug, Default)]
struct Zone {
    ready: usize,
    out: usize,
}

impl Zone {
    fn state(self) -> ZoneState {
        if self.ready == 0 && self.out > 0 {
            ZoneState::AllOut
        } else if self.out > 2 && self.out * 100 >= (self.out + self.ready) * 55 {
            ZoneState::MostlyOut
        } else {
            ZoneState::Normal
        }
    }

    /// How long to wait between two nodes; none: no further node.
    fn pace(self) -> Option<SignedDuration> {
        match self.state() {
            ZoneState::Normal | ZoneState::AllOut => Some(PACE),
            ZoneState::MostlyOut if self.out + self.ready > LARGE => Some(SLOW_PACE),
            ZoneState::MostlyOut => None,
        }
    }
}

/// Whether pods may be taken off nodes of this zone for being out: not while nobody anywhere is ready, nor while most of
/// a small zone is out.
pub(super) fn may_evict(view: &View, node: &Node) -> bool {
    let key = node.zone_key();
    let (mut zone, mut all) = (Zone::default(), Zone::default());
    for other in view.list::<Node>() {
        let ready = readiness(&other) == Status::True;
        for z in [Some(&mut all), (other.zone_key() == key).then_some(&mut zone)].into_iter().flatten() {
            if ready { z.ready += 1 } else { z.out += 1 }
        }
    }
    all.ready > 0 && zone.pace().is_some()
}

impl Controller for NodeEvictionController {
    fn name(&self) -> &'static str {
        "node-eviction-controller"
    }

    fn account(&self) -> &'static str {
        NAME
    }

    fn keys(&self, _view: &View, change: &Applied) -> Vec<ObjectKey> {
        let relevant = change.key.resource == Node::RESOURCE && {
            let shape = |r: Option<&crate::view::Record>| {
                r.and_then(|r| r.get::<Node>()).map(|n| (readiness(&n), n.taints.clone(), n.zone_key()))
            };
            shape(change.before.as_ref()) != shape(change.after.as_ref())
        };
        if relevant { vec![ObjectKey::all_of(Node::RESOURCE)] } else { Vec::new() }
    }

    fn reconcile(&self, view: &View, _key: &ObjectKey, now: Timestamp) -> Outcome {
        let mut zones: std::collections::BTreeMap<String, Vec<Item<Node>>> = Default::default();
        for node in view.list::<Node>() {
            zones.entry(node.zone_key()).or_default().push(node);
        }
        let nobody_ready = zones.values().flatten().all(|n| readiness(n) != Status::True);
        let mut outcome = Outcome::default();
        for nodes in zones.values() {
            let looked = look(view, nodes, nobody_ready, now);
            outcome.actions.extend(looked.actions);
            outcome.again_at = sooner(outcome.again_at, looked.again_at);
        }
        outcome
    }
}

fn look(view: &View, nodes: &[Item<Node>], nobody_ready: bool, now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    let mut zone = Zone::default();
    for node in nodes {
        if readiness(node) == Status::True { zone.ready += 1 } else { zone.out += 1 }
    }
    let ours = |t: &&Taint| t.effect == Effect::NoExecute && (t.key == NOT_READY || t.key == UNREACHABLE);
    let last = nodes.iter().flat_map(|n| n.taints.iter().filter(ours)).filter_map(|t| t.time_added).max();
    let mut next = match (zone.pace(), nobody_ready) {
        (Some(pace), false) => Some((pace, last.map_or(now, |last| (last + pace).max(now)))),
        _ => None,
    };
    for node in nodes {
        let wanted = match readiness(node) {
            Status::True => None,
            Status::False => Some(NOT_READY),
            Status::Unknown => Some(UNREACHABLE),
        };
        let present = node.taints.iter().find(ours);
        let taints = match (wanted, present) {
            (None, None) => continue,
            (Some(wanted), Some(present)) if present.key == wanted && !nobody_ready => continue,
            // Ready again, or nobody is: take it back.
            (None, Some(_)) => without(node),
            (Some(_), Some(_)) if nobody_ready => without(node),
            (Some(_), None) if nobody_ready => continue,
            // Not ready became unreachable or the reverse: no second wait.
            (Some(wanted), Some(present)) => with(node, wanted, present.time_added.unwrap_or(now)),
            (Some(wanted), None) => match &mut next {
                None => continue,
                Some((_, at)) if *at > now => {
                    outcome.again_at = sooner(outcome.again_at, Some(*at));
                    continue;
                }
                Some((pace, at)) => {
                    *at = now + *pace;
                    with(node, wanted, now)
                }
            },
        };
        let Some(record) = view.record(&node.key) else { continue };
        if wanted.is_some() && present.is_none() {
            let message = format!("Node {} status is now: NodeNotReady", node.meta.name);
            let event = super::Change::of(record).event(NAME, EventType::Normal, "NodeNotReady", message);
            outcome.actions.push(Action::Event(event));
        }
        outcome.actions.extend(set_taints(node, record, taints));
    }
    outcome
}

fn without(node: &Node) -> Vec<Taint> {
    let ours = |t: &Taint| t.effect == Effect::NoExecute && (t.key == NOT_READY || t.key == UNREACHABLE);
    node.taints.iter().filter(|t| !ours(t)).cloned().collect()
}

fn with(node: &Node, key: &str, since: Timestamp) -> Vec<Taint> {
    let mut taints = without(node);
    let time_added = Some(whole_seconds(since));
    taints.push(Taint { key: key.into(), value: String::new(), effect: Effect::NoExecute, time_added });
    taints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_mostly_out_is_left_alone() {
        let zone = |ready, out| Zone { ready, out };
        assert_eq!(zone(3, 1).pace(), Some(PACE));
        assert_eq!(zone(1, 1).pace(), Some(PACE));
        assert_eq!(zone(2, 3).pace(), None);
        assert_eq!(zone(20, 40).pace(), Some(SLOW_PACE));
        assert_eq!(zone(0, 3).state(), ZoneState::AllOut);
    }
}
