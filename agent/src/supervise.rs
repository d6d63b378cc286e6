//! A task that panics is logged and made anew: one bug must not take a node's other pods down with it.

use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Between a panic and the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs what `make` makes on a task of its own until it returns. Dropping this ends that task.
pub async fn supervised<F>(name: &str, mut make: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match AbortOnDropHandle::new(tokio::spawn(make())).await {
            Err(error) if error.is_panic() => {
                tracing::error!(task = name, %error, "{name} panicked and is started again");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_survived_and_a_return_is_the_end() {
        let mut runs = 0;
        supervised("a test", || {
            runs += 1;
            let fail = runs < 3;
            async move { assert!(!fail, "on purpose") }
        })
        .await;
        assert_eq!(runs, 3);
    }
}
