//! The replica's lease: for how long what it has in memory is surely the newest there is.
//!
//! The owner of a cluster may answer reads from memory only while nobody else can have become its owner. Its row in
//! `replicas` says until when that is by Postgres's clock; a taker waits that out. Here the same is counted by the own
//! clock, from *before* the renewal was sent, so that this end always comes first.
//!
//! A lease that has run out is not yet a loss: as long as the row is there nobody has taken anything, and the next
//! renewal makes everything good again. So a Postgres that restarts for five seconds costs some 503s, not every watch.

use super::clock::boottime;
use super::replica::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a lease is good for.
pub const LEASE: Duration = Duration::from_secs(2);

/// A taker waits so much longer than the lease: clocks of machines differ by some 100 ppm, which is far less.
pub(super) const MARGIN: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Lease {
    /// Nanoseconds of boot time.
    until: AtomicU64,
    /// How often it was lost.
    losses: AtomicU64,
}

impl Lease {
    /// One that has run out.
    pub fn new() -> Self {
        Self { until: AtomicU64::new(0), losses: AtomicU64::new(0) }
    }

    /// One that never ends, for a log that nobody shares.
    pub fn endless() -> Self {
        Self { until: AtomicU64::new(u64::MAX), losses: AtomicU64::new(0) }
    }

    pub fn holds(&self) -> bool {
        nanos(boottime()) < self.until.load(Ordering::Acquire)
    }

    pub fn renewed(&self, until: Duration) {
        self.until.store(nanos(until), Ordering::Release);
    }

    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Another replica took what this one owned: it ends, and what is loaded or being loaded is worth nothing.
    pub fn lost(&self) {
        self.end();
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// Differs before and after a loss.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a renewal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Good, with Postgres's time in milliseconds.
    Renewed { now: i64 },
    /// The row is gone: another replica took what this one owned.
    Lost,
}

/// Renews the lease once. True when it has to be done again at once, under a new name.
pub(super) async fn renew(shared: &Shared) -> bool {
    let length = shared.options.lease;
    let asked = boottime();
    match tokio::time::timeout(length, shared.log.renew()).await {
        Ok(Ok(Renewal::Renewed { now })) => {
            shared.lease.renewed(asked + length);
            shared.clock.set(now);
        }
        Ok(Ok(Renewal::Lost)) => {
            tracing::error!("this replica's lease was taken over: dropping everything it has loaded");
            shared.lease.lost();
            shared.let_go_of_all(super::Ended::Moved);
            return true;
        }
        Ok(Err(why)) => tracing::debug!(%why, "the lease could not be renewed: {why}"),
        Err(_) => tracing::debug!("the lease could not be renewed in time"),
    }
    false
}

/// Renews the lease four times as often as needed, until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let pause = shared.options.lease / 4;
    loop {
        if !renew(&shared).await {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_its_own_clock() {
        let lease = Lease::new();
        assert!(!lease.holds());
        lease.renewed(boottime() + Duration::from_secs(60));
        assert!(lease.holds());
        lease.renewed(boottime().saturating_sub(Duration::from_nanos(1)));
        assert!(!lease.holds());
        assert!(Lease::endless().holds());
    }
}
