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
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// What is watched: a namespace's services, or only the one that leads to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Scope {
    Kubernetes,
    Namespace(String),
}

/// By name; none before they were first read.
type Known = watch::Sender<Option<BTreeMap<String, Service>>>;

/// How often they are written to disk, at most: there may be thousands, and changes of one after the other.
const KEPT_EVERY: Duration = Duration::from_secs(5);

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

async fn follow(mut events: Events, path: PathBuf, known: Known) {
    let name = |service: &Service| service.metadata.name.clone().unwrap_or_default();
    let mut listing = BTreeMap::new();
    // When what has changed is written to disk.
    let mut due: Option<Instant> = None;
    loop {
        let event = tokio::select! {
            biased;
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                let (path, known) = (path.clone(), known.clone());
                desired::keep("services", move || desired::write(&path, &*known.borrow())).await;
                continue;
            }
            event = events.next() => event,
        };
        match event {
            None => return,
            // What was known stays so while the server is away.
            Some(Err(error)) => {
                tracing::debug!(%error, "the watch of services was interrupted");
                continue;
            }
            Some(Ok(Event::Init)) => {
                listing.clear();
                continue;
            }
            Some(Ok(Event::InitApply(service))) => {
                listing.insert(name(&service), service);
                continue;
            }
            Some(Ok(Event::InitDone)) => {
                known.send_replace(Some(std::mem::take(&mut listing)));
                due = Some(Instant::now());
            }
            Some(Ok(Event::Apply(service))) => {
                known.send_modify(|all| drop(all.get_or_insert_default().insert(name(&service), service)));
            }
            Some(Ok(Event::Delete(service))) => {
                known.send_modify(|all| drop(all.get_or_insert_default().remove(&name(&service))));
            }
        }
        due.get_or_insert_with(|| Instant::now() + KEPT_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    #[tokio::test(start_paused = true)]
    async fn changes_are_known_at_once_and_written_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let kept = || desired::read::<BTreeMap<String, Service>>(&path).map(|all| all.len());
        let service = |number: u32| {
            let mut service = Service::default();
            service.metadata.name = Some(format!("s{number}"));
            service
        };
        let applied = (0..1000).map(move |number| Event::Apply(service(number)));
        let events = [Event::Init, Event::InitDone].into_iter().chain(applied).map(Ok);
        let known = Known::new(None);
        tokio::spawn(follow(stream::iter(events).chain(stream::pending()).boxed(), path.clone(), known.clone()));
        let mut told = known.subscribe();
        told.wait_for(|all| all.as_ref().is_some_and(|all| all.len() == 1000)).await.unwrap();
        assert_eq!(kept(), Some(0), "what was read first is kept at once, the rest later");
        tokio::time::sleep(KEPT_EVERY + Duration::from_secs(1)).await;
        assert_eq!(kept(), Some(1000));
    }
}
