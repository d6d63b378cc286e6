//! Pulling images for one pod: in the background, so that a slow registry holds up nothing else, and ever more rarely
//! while it fails.

use super::backoff::{Backoff, Held};
use crate::runtime::{Credentials, ImageRecord, Runtime, RuntimeError};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio_util::task::AbortOnDropHandle;

/// One pull that has come to its end.
pub struct Pulled {
    pub container: String,
    pub image: String,
    pub took: Duration,
    pub result: Result<ImageRecord, String>,
}

struct UnderWay {
    image: String,
    since: Instant,
    result: oneshot::Receiver<Result<ImageRecord, String>>,
    _task: AbortOnDropHandle<()>,
}

impl UnderWay {
    /// None while it goes on.
    fn ended(&mut self) -> Option<Result<ImageRecord, String>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Closed) => Some(Err("the pull was interrupted".to_owned())),
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// Dropping it ends the pulls under way.
#[derive(Default)]
pub struct Pulls {
    under_way: BTreeMap<String, UnderWay>,
    /// Pulled and not used yet, by container.
    ready: BTreeMap<String, (String, ImageRecord)>,
    backoff: Backoff,
    /// The last failure of each image.
    failed: BTreeMap<String, (Timestamp, String)>,
}

impl Pulls {
    /// Starts one for `container`; `wake` is told when it has ended.
    pub fn start(
        &mut self,
        container: &str,
        image: &str,
        credentials: Vec<Credentials>,
        runtime: &Arc<dyn Runtime>,
        wake: &Arc<Notify>,
    ) {
        let (runtime, wake, name) = (runtime.clone(), wake.clone(), image.to_owned());
        let (told, result) = oneshot::channel();
        let task = tokio::spawn(async move {
            // Told before anybody is woken: who looks then finds it.
            let _ = told.send(pull(runtime.as_ref(), &name, credentials).await);
            wake.notify_one();
        });
        let (image, since, _task) = (image.into(), Instant::now(), AbortOnDropHandle::new(task));
        self.under_way.insert(container.into(), UnderWay { image, since, result, _task });
    }

    pub fn containers(&self) -> impl Iterator<Item = &String> {
        self.under_way.keys()
    }

    /// What has ended since it was last asked.
    pub fn ended(&mut self, now: Timestamp) -> Vec<Pulled> {
        let mut done = Vec::new();
        self.under_way.retain(|container, pull| match pull.ended() {
            Some(result) => {
                done.push((container.clone(), pull.image.clone(), pull.since, result));
                false
            }
            None => true,
        });
        let mut all = Vec::new();
        for (container, image, since, result) in done {
            match &result {
                Ok(found) => {
                    self.ready.insert(container.clone(), (image.clone(), found.clone()));
                    self.backoff.reset(&image);
                    self.failed.remove(&image);
                }
                Err(message) => {
                    self.backoff.attempt(&image, now, now);
                    self.failed.insert(image.clone(), (now, message.clone()));
                }
            }
            all.push(Pulled { container, image, took: since.elapsed(), result });
        }
        all
    }

    /// What was pulled for this start of a container; once.
    pub fn take(&mut self, container: &str, image: &str) -> Option<ImageRecord> {
        self.ready.remove(container).filter(|(of, _)| of == image).map(|(_, found)| found)
    }

    /// Whether another try has to wait, and why the last one failed.
    pub fn held(&self, image: &str, now: Timestamp) -> Option<(Held, &str)> {
        let (at, message) = self.failed.get(image)?;
        self.backoff.held(image, *at, now).map(|held| (held, message.as_str()))
    }
}

/// With each of the credentials in turn until one is good; without any, as nobody.
async fn pull(runtime: &dyn Runtime, image: &str, credentials: Vec<Credentials>) -> Result<ImageRecord, String> {
    let mut offers: Vec<Option<Credentials>> = credentials.into_iter().map(Some).collect();
    if offers.is_empty() {
        offers.push(None);
    }
    let mut failures: Vec<String> = Vec::new();
    for offer in offers {
        match runtime.pull(image, offer).await {
            Ok(()) => {
                let found = runtime.image(image).await.map_err(|e| e.to_string())?;
                return found.ok_or_else(|| format!("image {image:?} is gone again after its pull"));
            }
            Err(RuntimeError::Unreachable(message)) => return Err(message),
            Err(e) => failures.push(e.to_string()),
        }
    }
    failures.dedup();
    Err(match &failures[..] {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::hollow::Hollow;

    /// The end was told a moment before it could be seen: who looked in between waited for a minute.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_woken_by_the_end_of_a_pull_finds_it() {
        let (runtime, wake): (Arc<dyn Runtime>, _) = (Arc::new(Hollow::new(1)), Arc::new(Notify::new()));
        let mut pulls = Pulls::default();
        for _ in 0..2000 {
            pulls.start("c", "web:1", Vec::new(), &runtime, &wake);
            wake.notified().await;
            assert_eq!(pulls.ended(Timestamp::UNIX_EPOCH).len(), 1);
        }
    }
}
