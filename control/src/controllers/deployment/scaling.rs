//! Scaling, also in the middle of a rollout: then all sets grow or shrink in proportion, so that a rollout that is
//! half-way stays half-way.

use super::plan::{Plan, Set};
use super::revision::{DESIRED, MAX};
use crate::projection::Strategy;
use std::cmp::Reverse;

fn number(set: &Set, annotation: &str) -> Option<i32> {
    set.item.annotations.get(annotation).and_then(|v| v.parse().ok())
}

impl Plan<'_> {
    /// Whether the Deployment asks for another number than its sets were last told. Several sets of one that recreates (it
    /// rolled before, or adopted them) aren't scaled: they go. Kubernetes stands still there for ever.
    pub fn is_scaling(&self) -> bool {
        let wanted = self.deployment.replicas;
        let rolls = matches!(self.deployment.strategy, Strategy::RollingUpdate { .. });
        if !rolls && self.active_or_latest().is_none() {
            return false;
        }
        self.sets.iter().any(|s| s.replicas > 0 && number(s, DESIRED).is_some_and(|told| told != wanted))
    }

    pub fn scale(&mut self) {
        if let Some(only) = self.active_or_latest() {
            self.scale_set(only, self.deployment.replicas);
        } else if self.is_saturated() {
            for index in self.active_old() {
                self.scale_set(index, 0);
            }
        } else if matches!(self.deployment.strategy, Strategy::RollingUpdate { .. }) {
            self.scale_in_proportion();
        }
    }

    /// The one set with replicas, or where there is none the newest; none if several have.
    fn active_or_latest(&self) -> Option<usize> {
        let active: Vec<usize> = (0..self.sets.len()).filter(|i| self.sets[*i].replicas > 0).collect();
        match active[..] {
            [] => self.new.or_else(|| self.old().last().copied()),
            [only] => Some(only),
            _ => None,
        }
    }

    /// The new set has all the replicas there should be, and they work.
    fn is_saturated(&self) -> bool {
        let wanted = self.deployment.replicas;
        self.new.map(|i| &self.sets[i]).is_some_and(|set| {
            set.replicas == wanted && number(set, DESIRED) == Some(wanted) && set.status.available_replicas == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let mut active: Vec<usize> = (0..self.sets.len()).filter(|i| self.sets[*i].replicas > 0).collect();
        let wanted = self.deployment.replicas;
        let allowed = if wanted > 0 { wanted + self.max_surge() } else { 0 };
        let missing = allowed - self.total_replicas();
        // Growing favours the newer of two equal sets, shrinking the older one.
        if missing > 0 {
            active.sort_by_key(|i| (Reverse(self.sets[*i].replicas), Reverse(*i)));
        } else {
            active.sort_by_key(|i| (Reverse(self.sets[*i].replicas), *i));
        }
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for &index in &active {
            let share = self.share(&self.sets[index], missing, added);
            sizes.push(self.sets[index].replicas + share);
            added += share;
        }
        // What rounding left over goes to the largest set.
        if let Some(first) = sizes.first_mut() {
            *first = (*first + missing - added).max(0);
        }
        for (index, size) in active.into_iter().zip(sizes) {
            self.scale_set(index, size);
        }
    }

    /// A set's share of what is to be added (or, negative, taken).
    fn share(&self, set: &Set, missing: i32, added: i32) -> i32 {
        if set.replicas == 0 || missing == 0 || missing == added {
            return 0;
        }
        let (fraction, left) = (self.fraction(set), missing - added);
        if missing > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, set: &Set) -> i32 {
        if self.deployment.replicas == 0 {
            return -set.replicas;
        }
        let before = number(set, MAX).filter(|n| *n != 0).unwrap_or(self.deployment.status.replicas);
        if before == 0 {
            return 0;
        }
        let allowed = self.deployment.replicas + self.max_surge();
        let size = f64::from(set.replicas) * f64::from(allowed) / f64::from(before);
        size.round() as i32 - set.replicas
    }
}
