//! When one probe is due and what its results add up to. Pure: the clock comes from outside.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Probe;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few results so far.
    Undecided,
    Success,
    Failure,
}

#[derive(Clone, Debug)]
pub struct Tracker {
    period: SignedDuration,
    successes_needed: u32,
    failures_needed: u32,
    due: Timestamp,
    last: Option<bool>,
    run: u32,
}

impl Tracker {
    /// `since`: when the container started.
    pub fn new(probe: &Probe, since: Timestamp) -> Self {
        let positive = |value: Option<i32>, default: i64| value.map(i64::from).filter(|v| *v > 0).unwrap_or(default);
        Self {
            period: SignedDuration::from_secs(positive(probe.period_seconds, 10)),
            successes_needed: positive(probe.success_threshold, 1) as u32,
            failures_needed: positive(probe.failure_threshold, 3) as u32,
            due: since + SignedDuration::from_secs(i64::from(probe.initial_delay_seconds.unwrap_or(0).max(0))),
            last: None,
            run: 0,
        }
    }

    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// A result at `now`; the next probe is due a period after this one was.
    pub fn record(&mut self, success: bool, now: Timestamp) -> Verdict {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        // A probe that took longer than its period doesn't make up for lost time.
        self.due = (self.due + self.period).max(now);
        let needed = if success { self.successes_needed } else { self.failures_needed };
        match (self.run >= needed, success) {
            (false, _) => Verdict::Undecided,
            (true, true) => Verdict::Success,
            (true, false) => Verdict::Failure,
        }
    }
}

/// At least a second, as in Kubernetes.
pub fn timeout(probe: &Probe) -> std::time::Duration {
    std::time::Duration::from_secs(probe.timeout_seconds.and_then(|t| u64::try_from(t).ok()).unwrap_or(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).unwrap()
    }

    fn tracker(json: serde_json::Value) -> Tracker {
        Tracker::new(&serde_json::from_value(json).unwrap(), at(0))
    }

    #[test]
    fn defaults_are_kubernetes_defaults() {
        let mut t = tracker(serde_json::json!({}));
        assert_eq!(t.due(), at(0));
        assert_eq!(t.record(false, at(0)), Verdict::Undecided);
        assert_eq!(t.due(), at(10));
        assert_eq!(t.record(false, at(10)), Verdict::Undecided);
        assert_eq!(t.record(false, at(20)), Verdict::Failure);
        assert_eq!(t.record(true, at(30)), Verdict::Success);
        assert_eq!(t.record(false, at(40)), Verdict::Undecided, "a success starts the count anew");
    }

    #[test]
    fn delay_period_and_thresholds_are_followed() {
        let mut t = tracker(
            serde_json::json!({"initialDelaySeconds": 5, "periodSeconds": 2, "successThreshold": 2, "failureThreshold": 1}),
        );
        assert_eq!(t.due(), at(5));
        assert_eq!(t.record(true, at(5)), Verdict::Undecided);
        assert_eq!(t.record(true, at(7)), Verdict::Success);
        assert_eq!(t.record(false, at(9)), Verdict::Failure);
        assert_eq!(t.due(), at(11));
    }

    #[test]
    fn a_slow_probe_doesnt_pile_up() {
        let mut t = tracker(serde_json::json!({"periodSeconds": 1}));
        t.record(true, at(30));
        assert_eq!(t.due(), at(30));
    }
}
