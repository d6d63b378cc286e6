//! The load generator: the same work against any Kubernetes API, ours, the peer's, or the null server's.
//!
//! Connections are opened before the clock starts: what is measured is requests, not handshakes.

pub mod bodies;
pub mod pods;
pub mod pool;
pub mod watchers;

use std::time::Duration;

/// What many requests took.
#[derive(Clone, Debug, Default)]
pub struct Timed {
    /// One for each request that succeeded, sorted.
    latencies: Vec<Duration>,
    pub elapsed: Duration,
    pub errors: usize,
}

impl Timed {
    pub fn new(mut latencies: Vec<Duration>, elapsed: Duration, errors: usize) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed, errors }
    }

    pub fn count(&self) -> usize {
        self.latencies.len()
    }

    pub fn per_second(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of requests did not exceed, in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = (share * self.count().saturating_sub(1) as f64) as usize;
        self.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted() {
        let latencies = (1..=100).rev().map(Duration::from_millis).collect();
        let timed = Timed::new(latencies, Duration::from_secs(2), 0);
        assert_eq!((timed.per_second(), timed.quantile(0.5), timed.quantile(1.0)), (50.0, 50.0, 100.0));
        assert!(Timed::default().quantile(0.5).is_nan());
    }
}
