//! Who waits for a node, in the order in which they are looked at.

use super::profile::DEFAULT;
use crate::action::ObjectKey;
use crate::projection::{Pod, PodScheduled};
use crate::view::Item;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pod's place: the most important first; of equals those that nobody looked at yet, so that many hopeless ones don't
/// keep others waiting; then in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    importance: Reverse<i32>,
    pub told: bool,
    created: Timestamp,
    key: Arc<ObjectKey>,
}

impl Place {
    fn of(pod: &Item<Pod>) -> Self {
        Self {
            importance: Reverse(pod.priority),
            told: is_told(pod),
            created: pod.meta.created(),
            key: pod.key.clone(),
        }
    }
}

/// Whether a pod was told already that no node will do.
pub fn is_told(pod: &Pod) -> bool {
    matches!(&pod.scheduled, PodScheduled::No { reason, .. } if reason == "Unschedulable")
}

/// The profile that a pod asks for.
pub(super) fn profile_of(pod: &Pod) -> &str {
    if pod.scheduler_name.is_empty() { DEFAULT } else { &pod.scheduler_name }
}

/// Whether a pod waits to be bound by somebody: it has no node, is not on its way out, and no gate holds it back.
pub(super) fn waits(pod: &Pod) -> bool {
    pod.node_name.is_empty() && pod.is_active() && pod.scheduling_gates.is_empty()
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pods: BTreeMap<Place, Item<Pod>>,
    /// How many of them may be helped by pods that come, not only by those that go.
    sociable: usize,
}

/// Whether other pods' coming can make place for it: where it needs company or balance.
fn is_sociable(pod: &Pod) -> bool {
    !pod.affinity.required.is_empty() || pod.spread.iter().any(|c| c.required)
}

impl Queue {
    pub fn insert(&mut self, pod: &Item<Pod>) {
        if self.pods.insert(Place::of(pod), pod.clone()).is_none() {
            self.sociable += usize::from(is_sociable(pod));
        }
    }

    pub fn remove(&mut self, pod: &Item<Pod>) {
        if self.pods.remove(&Place::of(pod)).is_some() {
            self.sociable -= usize::from(is_sociable(pod));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Place, &Item<Pod>)> {
        self.pods.iter()
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    pub fn has_sociable(&self) -> bool {
        self.sociable > 0
    }
}
