//! Back-off with a clock from outside: 10 s, doubling to 5 minutes, forgotten after 10 quiet minutes.
//!
//! The rules are the kubelet's: an attempt is held back when less than the current delay has passed since *the thing
//! that failed*, the first retry is immediate, and each permitted retry doubles the delay for the next one.

use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

pub const INITIAL: SignedDuration = SignedDuration::from_secs(10);
pub const MAX: SignedDuration = SignedDuration::from_mins(5);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

/// Not before `until`; `delay` is what the message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub until: Timestamp,
    pub delay: SignedDuration,
}

impl Backoff {
    /// Whether another attempt after a failure at `failed` has to wait.
    pub fn held(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<Held> {
        let entry = self.entries.get(key).filter(|e| !e.expired(failed))?;
        let until = failed + entry.delay;
        (now < until).then_some(Held { until, delay: entry.delay })
    }

    /// An attempt after a failure at `failed` is being made.
    pub fn attempt(&mut self, key: &str, failed: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key).filter(|e| !e.expired(failed)) {
            Some(entry) => (entry.delay * 2).min(MAX),
            None => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

impl Entry {
    fn expired(&self, failed: Timestamp) -> bool {
        failed.duration_since(self.updated) > MAX * 2
    }
}

/// As Go prints a duration: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(d: SignedDuration) -> String {
    let seconds = d.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_first_retry_is_immediate_and_delays_double_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = at(0);
        let mut delays = Vec::new();
        for _ in 0..8 {
            if let Some(held) = backoff.held("web", now, now) {
                delays.push(held.delay.as_secs());
                let failed = now;
                now = held.until;
                assert_eq!(backoff.held("web", failed, now), None, "free at the end of the delay");
                backoff.attempt("web", failed, now);
            } else {
                delays.push(0);
                backoff.attempt("web", now, now);
            }
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_forgive() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.attempt("web", at(0), at(0));
        }
        assert!(backoff.held("web", at(599), at(600)).is_some());
        assert_eq!(backoff.held("web", at(601), at(601)), None);
        backoff.attempt("web", at(601), at(601));
        assert_eq!(backoff.held("web", at(602), at(602)).unwrap().delay, INITIAL);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        let text = |s| go_duration(SignedDuration::from_secs(s));
        assert_eq!([text(10), text(80), text(300), text(3661)], ["10s", "1m20s", "5m0s", "1h1m1s"]);
    }
}
