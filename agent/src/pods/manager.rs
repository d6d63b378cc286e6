//! Which pods this node has: watched from the server, kept on disk, one worker each.

use super::worker::{Wanted, Worker};
use super::{desired, spec};
use crate::node::context::Context;
use crate::runtime::Change;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{Notify, watch};
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
    let mut pods = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    let mut changes = context.runtime.changes();
    let mut listed = BTreeSet::new();
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
                }
            },
            change = changes.next() => match change {
                None => return,
                Some(Change::Pod(uid)) => { entries.get(&uid).inspect(|e| e.wake.notify_one()); }
                Some(Change::Relist) => entries.values().for_each(|e| e.wake.notify_one()),
            },
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
    let worker = Worker::new(context.clone(), receiver, wake.clone());
    let task = AbortOnDropHandle::new(tokio::spawn(worker.run()));
    entries.insert(uid, Entry { wanted: sender, wake, task });
}

fn removed(entries: &BTreeMap<String, Entry>, uid: &str) {
    if let Some(entry) = entries.get(uid) {
        entry.wanted.send_modify(|wanted| wanted.removed = true);
    }
}
