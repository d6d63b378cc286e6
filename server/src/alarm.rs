//! A timer that is put off far more often than it rings.
//!
//! A watch waits for its next change *or* its next bookmark, thousands of times between two bookmarks. Entering a timer
//! into the runtime's wheel and taking it out again each time is two locks that all watches share; here the entry stays
//! where it is, setting the alarm later costs nothing, and an entry that comes due too early enters itself anew.

use std::pin::Pin;
use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug)]
pub struct Alarm {
    at: Instant,
    entry: Pin<Box<Sleep>>,
}

impl Alarm {
    pub fn new(at: Instant) -> Self {
        Self { at, entry: Box::pin(sleep_until(at)) }
    }

    /// Rings at `at` from now on, be it later or earlier than before.
    pub fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.entry.deadline() {
            self.entry.as_mut().reset(at);
        }
    }

    /// Waits until it rings; at once, again and again, until it is set anew. Dropping the future loses nothing.
    pub async fn rings(&mut self) {
        loop {
            self.entry.as_mut().await;
            if self.at <= self.entry.deadline() {
                return;
            }
            self.entry.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn rings_when_it_was_last_set_to() {
        let begun = Instant::now();
        let after = |millis| begun + Duration::from_millis(millis);
        let mut alarm = Alarm::new(after(10));
        alarm.set(after(60_000));
        alarm.set(after(30));
        alarm.rings().await;
        assert!(Instant::now() >= after(30), "later than it was set to at first");
        alarm.rings().await;
        alarm.set(after(60_000));
        assert!(futures::poll!(std::pin::pin!(alarm.rings())).is_pending(), "only until it is set anew");
        alarm.set(after(40));
        alarm.rings().await;
        assert!(Instant::now() < after(60_000), "earlier, too");
    }
}
