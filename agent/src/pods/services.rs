//! The services whose variables containers get: those of a pod's namespace, and `kubernetes`, watched while pods need
//! them and kept on disk, so that a node without its server can still start containers.

use super::desired;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What is watched: a namespace's services, or only the one that leads to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Scope {
    Kubernetes,
    Namespace(String),
}

struct Entry {
    known: watch::Receiver<Option<BTreeMap<String, Service>>>,
    users: BTreeSet<String>,
    _task: AbortOnDropHandle<()>,
}

pub struct Services {
    client: kube::Client,
    dir: PathBuf,
    entries: Mutex<HashMap<Scope, Entry>>,
}

impl Services {
    pub fn new(client: kube::Client, data_dir: &Path) -> Self {
        Self { client, dir: data_dir.join("desired").join("services"), entries: Mutex::default() }
    }

    /// What pod `uid` in `namespace` is told of; with `links` also its namespace's services. Waits at most `patience` for
    /// what was never read. `Err`: the message of a `CreateContainerConfigError`.
    pub async fn of(
        &self,
        uid: &str,
        namespace: &str,
        links: bool,
        patience: Duration,
    ) -> Result<Vec<Service>, String> {
        let scopes = [Some(Scope::Kubernetes), links.then(|| Scope::Namespace(namespace.to_owned()))];
        let mut services = BTreeMap::new();
        for scope in scopes.into_iter().flatten() {
            let mut known = {
                let mut entries = self.entries.lock();
                let entry = entries.entry(scope.clone()).or_insert_with(|| self.watch(scope));
                entry.users.insert(uid.to_owned());
                entry.known.clone()
            };
            let read = tokio::time::timeout(patience, known.wait_for(Option::is_some)).await;
            let Ok(Ok(read)) = read else {
                return Err("services have not yet been read at least once, cannot construct envvars".into());
            };
            for service in read.iter().flat_map(BTreeMap::values) {
                let meta = &service.metadata;
                services.insert((meta.namespace.clone(), meta.name.clone()), service.clone());
            }
        }
        Ok(services.into_values().collect())
    }

    pub fn unsubscribe(&self, uid: &str) {
        self.entries.lock().retain(|scope, entry| {
            let last = entry.users.remove(uid) && entry.users.is_empty();
            if last {
                let _ = std::fs::remove_file(self.file(scope));
            }
            !last
        });
    }

    fn file(&self, scope: &Scope) -> PathBuf {
        self.dir.join(match scope {
            // No namespace has an underscore.
            Scope::Kubernetes => "_kubernetes.json".to_owned(),
            Scope::Namespace(name) => format!("{name}.json"),
        })
    }

    fn watch(&self, scope: Scope) -> Entry {
        let path = self.file(&scope);
        let (sender, known) = watch::channel(desired::read(&path));
        let task = AbortOnDropHandle::new(tokio::spawn(follow(events(self.client.clone(), &scope), path, sender)));
        Entry { known, users: BTreeSet::new(), _task: task }
    }
}

type Events = BoxStream<'static, Result<Event<Service>, watcher::Error>>;

fn events(client: kube::Client, scope: &Scope) -> Events {
    let (namespace, config) = match scope {
        Scope::Kubernetes => ("default", watcher::Config::default().fields("metadata.name=kubernetes")),
        Scope::Namespace(name) => (name.as_str(), watcher::Config::default()),
    };
    watcher::watcher(Api::namespaced(client, namespace), config).default_backoff().boxed()
}

async fn follow(mut events: Events, path: PathBuf, known: watch::Sender<Option<BTreeMap<String, Service>>>) {
    let name = |service: &Service| service.metadata.name.clone().unwrap_or_default();
    let mut all = BTreeMap::new();
    let mut listing = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            // What was known stays so while the server is away.
            Err(error) => {
                tracing::debug!(%error, "the watch of services was interrupted");
                continue;
            }
            Ok(Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(Event::InitApply(service)) => {
                listing.insert(name(&service), service);
                continue;
            }
            Ok(Event::InitDone) => all = std::mem::take(&mut listing),
            Ok(Event::Apply(service)) => drop(all.insert(name(&service), service)),
            Ok(Event::Delete(service)) => drop(all.remove(&name(&service))),
        }
        if let Err(error) = desired::write(&path, &all) {
            tracing::warn!(%error, "services could not be kept on disk");
        }
        known.send_replace(Some(all.clone()));
    }
}
