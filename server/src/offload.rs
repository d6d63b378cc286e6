//! Work that would hold up the reactor goes to a thread of its own.
//!
//! On a runtime of one thread it is done on the spot: such a runtime runs simulations and tests, where nobody else waits,
//! and where a second thread would be the only thing that happens in no fixed order.

use std::panic::AssertUnwindSafe;
use tokio::runtime::{Handle, RuntimeFlavor};

/// `Err`: the work panicked (it is told in words), or the process is ending.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| "it panicked".to_string());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}
