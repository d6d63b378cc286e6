//! How long to wait before the next attempt. An agent never gives up; it only slows down.

use rand::Rng;
use std::time::Duration;

/// A server that comes back is found within this; a thousand agents then make a hundred connections a second.
const LONGEST: Duration = Duration::from_secs(15);
/// After a refusal: it takes a person to change that, so there is no hurry.
const LONGEST_REFUSED: Duration = Duration::from_secs(60);
/// A tunnel that lived this long was good: its end begins a new count. A shorter one counts as one more failure, so that
/// a server that takes connections and drops them is not hammered.
pub const GOOD: Duration = Duration::from_secs(10);

/// Doubling delays up to a bound, each drawn from its upper half, so that agents that lost their server together come
/// back apart.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// For connections.
    pub fn connecting() -> Self {
        Self { first: Duration::from_millis(500), longest: LONGEST, failures: 0 }
    }

    /// For watches: while the tunnel is down their attempts fail at once and cost nothing, so they may come often, and a
    /// node has caught up seconds after its tunnel is back.
    pub fn watching() -> Self {
        Self { first: Duration::from_millis(300), longest: Duration::from_secs(3), failures: 0 }
    }

    pub fn after(&mut self, refused: bool) -> Duration {
        let longest = if refused { LONGEST_REFUSED } else { self.longest };
        let full = self.first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after(false))
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::utils::Backoff as _;

    #[test]
    fn delays_grow_to_a_bound_and_begin_anew() {
        for (refused, longest) in [(false, LONGEST), (true, LONGEST_REFUSED)] {
            let mut backoff = Backoff::connecting();
            let first = backoff.first;
            let mut full = first;
            for _ in 0..100 {
                let delay = backoff.after(refused);
                assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
                full = (full * 2).min(longest);
            }
            backoff.reset();
            assert!(backoff.after(refused) <= first);
        }
    }
}
