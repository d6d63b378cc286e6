//! Hooks: what a container wants done right after its start and right before its end.

use crate::probes::check::{self, Outcome, Target};
use k8s_openapi::api::core::v1::{LifecycleHandler, Probe};
use std::time::Duration;

/// Carries a hook out, at most for `limit`. `Err` says what went wrong, for the log: the event of a failed hook has a
/// fixed sentence, as a command's output may hold secrets.
pub async fn run(target: &Target<'_>, hook: &LifecycleHandler, limit: Duration) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    // A hook is a probe that is made once.
    let probe = Probe {
        exec: hook.exec.clone(),
        http_get: hook.http_get.clone(),
        tcp_socket: hook.tcp_socket.clone(),
        timeout_seconds: Some(i32::try_from(limit.as_secs()).unwrap_or(i32::MAX)),
        ..Default::default()
    };
    match check::check(target, &probe).await {
        Outcome::Success => Ok(()),
        Outcome::Failure(message) => Err(message),
    }
}
