//! Which pods this node has: watched from the server, kept on disk, one worker each.

use super::worker::{Wanted, Worker};
use super::{desired, spec};
use crate::connection::backoff::Backoff;
use crate::node::context::Context;
use crate::runtime::{Change, Record};
use crate::supervise::supervised;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

struct Entry {
    wanted: watch::Sender<Wanted>,
    wake: Arc<Notify>,
    task: AbortOnDropHandle<()>,
}

/// Runs until it is dropped; containers stay.
pub async fn run(context: Arc<Context>) {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for pod in desired::pods(&context.data_dir) {
        apply(&context, &mut entries, pod);
    }
    let api: Api<Pod> = Api::all(context.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", context.name));
    let mut pods = std::pin::pin!(watcher::watcher(api, config).backoff(Backoff::watching()));
    let mut changes = context.runtime.changes();
    let mut listed = BTreeSet::new();
    // Looked at once, as soon as the runtime answers and the server has said which pods there are.
    let mut inherited = Inherited::default();
    loop {
        tokio::select! {
            event = pods.next() => match event {
                None => return,
                Some(Err(e)) => tracing::debug!(error = %e, "the watch of pods was interrupted"),
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(pod))) => {
                    listed.insert(spec::uid(&pod).to_owned());
                    apply(&context, &mut entries, pod);
                }
                Some(Ok(Event::Apply(pod))) => apply(&context, &mut entries, pod),
                Some(Ok(Event::Delete(pod))) => removed(&entries, spec::uid(&pod)),
                Some(Ok(Event::InitDone)) => {
                    entries.keys().filter(|uid| !listed.contains(*uid)).for_each(|uid| removed(&entries, uid));
                    inherited.listed = true;
                }
            },
            change = changes.next() => match change {
                None => return,
                Some(Change::Pod(uid)) => { entries.get(&uid).inspect(|e| e.wake.notify_one()); }
                Some(Change::Relist) => entries.values().for_each(|e| e.wake.notify_one()),
            },
            () = inherited.due() => inherited.look(&context, &entries).await,
        }
        entries.retain(|_, entry| !entry.task.is_finished());
    }
}

fn apply(context: &Arc<Context>, entries: &mut BTreeMap<String, Entry>, pod: Pod) {
    let uid = spec::uid(&pod).to_owned();
    if context.runtime.is_real()
        && let Err(e) = desired::write(&desired::pod_file(&context.data_dir, &uid), &pod)
    {
        tracing::warn!(error = %e, "a pod could not be kept on disk");
    }
    let pod = Arc::new(pod);
    context.pods.wanted(pod.clone());
    let wanted = Wanted { pod, removed: false };
    if let Some(entry) = entries.get(&uid) {
        entry.wanted.send_replace(wanted);
        return;
    }
    let wake = Arc::new(Notify::new());
    let (sender, receiver) = watch::channel(wanted);
    let worker = {
        let (context, wake) = (context.clone(), wake.clone());
        supervised("a pod's worker", move || Worker::new(context.clone(), receiver.clone(), wake.clone()).run())
    };
    let task = AbortOnDropHandle::new(tokio::spawn(worker));
    entries.insert(uid, Entry { wanted: sender, wake, task });
}

fn removed(entries: &BTreeMap<String, Entry>, uid: &str) {
    if let Some(entry) = entries.get(uid) {
        entry.wanted.send_modify(|wanted| wanted.removed = true);
    }
}

/// What an earlier run of this agent left behind: addresses of pods that are no more, and containers that nobody wants
/// any more (their pod was deleted while the agent was away and its note of it was lost).
struct Inherited {
    /// The server has said which pods this node has.
    listed: bool,
    addresses_done: bool,
    done: bool,
    /// Between two attempts while the runtime doesn't answer.
    again: Interval,
}

impl Default for Inherited {
    fn default() -> Self {
        let mut again = tokio::time::interval(Duration::from_secs(2));
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { listed: false, addresses_done: false, done: false, again }
    }
}

impl Inherited {
    /// Never, while there is nothing to do.
    async fn due(&mut self) {
        match self.done || (self.addresses_done && !self.listed) {
            true => std::future::pending().await,
            false => drop(self.again.tick().await),
        }
    }

    async fn look(&mut self, context: &Context, entries: &BTreeMap<String, Entry>) {
        let Ok(records) = context.runtime.containers(None).await else { return };
        if !self.addresses_done {
            let running = records.iter().filter(|r| r.is_running()).map(|r| r.pod_uid.clone());
            let pods: BTreeSet<String> = running.chain(entries.keys().cloned()).collect();
            if let Err(error) = context.network.retain(pods.into_iter().collect()).await {
                tracing::warn!(%error, "addresses of earlier pods were not given back");
            }
            self.addresses_done = true;
        }
        if self.listed {
            let mut removed = true;
            for record in records.iter().filter(|r| !entries.contains_key(&r.pod_uid)) {
                removed &= remove_unwanted(context, record).await;
            }
            self.done = removed;
        }
    }
}

/// Whether nothing of it is left.
async fn remove_unwanted(context: &Context, record: &Record) -> bool {
    tracing::warn!(pod = record.pod_name, container = record.name, "removing a container of a pod that is no more");
    let removed = async {
        context.runtime.stop(&record.id, Duration::from_secs(2)).await?;
        context.runtime.remove(&record.id).await
    };
    if let Err(error) = removed.await {
        tracing::warn!(%error, "a container of a pod that is no more was not removed");
        return false;
    }
    if let Err(error) = context.network.detach(&record.pod_uid).await {
        tracing::warn!(%error, "an address of a pod that is no more was not given back");
        return false;
    }
    true
}
