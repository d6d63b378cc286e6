//! The replica's clocks.
//!
//! Leases and idleness are counted by `CLOCK_BOOTTIME`, which goes on while the machine sleeps: a replica on a laptop
//! that was shut for an hour must not believe that its two-second lease is still good. What is written down is in
//! Postgres's time, estimated from the lease's renewals, so that replicas with wrong clocks agree.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the machine's start, suspended time included.
pub(super) fn boottime() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Milliseconds since the epoch.
#[derive(Debug)]
pub(super) struct DatabaseClock {
    /// Added to the boot time.
    offset: AtomicI64,
}

impl DatabaseClock {
    /// Until Postgres has said otherwise, the machine's own time.
    pub fn new() -> Self {
        let clock = Self { offset: AtomicI64::new(0) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        clock.set(millis(now));
        clock
    }

    pub fn set(&self, now: i64) {
        self.offset.store(now - millis(boottime()), Ordering::Relaxed);
    }

    pub fn now(&self) -> i64 {
        millis(boottime()) + self.offset.load(Ordering::Relaxed)
    }
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
