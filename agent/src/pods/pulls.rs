//! Pulling images for one pod: in the background, so that a slow registry holds up nothing else, and ever more rarely
//! while it fails.

use super::backoff::{Backoff, Held};
use crate::runtime::{Credentials, ImageRecord, Runtime, RuntimeError};
use futures::FutureExt;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
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
    task: AbortOnDropHandle<Result<ImageRecord, String>>,
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
        let task = tokio::spawn(async move {
            let result = pull(runtime.as_ref(), &name, credentials).await;
            wake.notify_one();
            result
        });
        let task = AbortOnDropHandle::new(task);
        self.under_way.insert(container.into(), UnderWay { image: image.into(), since: Instant::now(), task });
    }

    pub fn containers(&self) -> impl Iterator<Item = &String> {
        self.under_way.keys()
    }

    /// What has ended since it was last asked.
    pub fn ended(&mut self, now: Timestamp) -> Vec<Pulled> {
        let names: Vec<String> =
            self.under_way.iter().filter(|(_, u)| u.task.is_finished()).map(|(name, _)| name.clone()).collect();
        let mut all = Vec::new();
        for container in names {
            let Some(UnderWay { image, since, task }) = self.under_way.remove(&container) else { continue };
            // It has finished: this doesn't wait.
            let result = match task.now_or_never() {
                Some(Ok(result)) => result,
                _ => Err("the pull was interrupted".to_owned()),
            };
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
