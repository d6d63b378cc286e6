//! The ConfigMaps and Secrets that this node's pods name: each watched once while a pod needs it, copied to disk.
//!
//! One watch per object (with `metadata.name=…`), as the kubelet does it: a node may read what its pods name and never
//! lists. The copies on disk (0600) let a node that starts while the server is away start its containers again.

use crate::connection::backoff::Backoff;
use crate::pods::desired;
use crate::pods::services::Services;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// What is known of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// The server hasn't answered yet, or refuses; with the reason where there is one.
    Not(Option<String>),
    Absent,
    Present(Arc<Value>),
}

#[derive(Clone)]
pub struct References {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    dir: PathBuf,
    entries: Mutex<HashMap<Key, Entry>>,
    services: Services,
    changes: AtomicU64,
}

struct Entry {
    known: watch::Sender<Known>,
    /// Pods that need it, and how to wake them.
    users: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    _task: AbortOnDropHandle<()>,
}

impl References {
    pub fn new(client: kube::Client, data_dir: &Path) -> Self {
        let dir = data_dir.join("desired").join("objects");
        let services = Services::new(client.clone(), data_dir);
        let (entries, changes) = (Mutex::default(), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { client, dir, entries, services, changes }) }
    }

    pub fn services(&self) -> &Services {
        &self.inner.services
    }

    /// Goes up whenever something new is known of any object.
    pub fn changes(&self) -> u64 {
        self.inner.changes.load(Ordering::Acquire)
    }

    /// From now on pod `uid` needs exactly `keys`; it is woken whenever one of them changes.
    pub fn subscribe(&self, uid: &str, keys: &BTreeSet<Key>, wake: &Arc<Notify>) {
        let mut entries = self.inner.entries.lock();
        entries.retain(|key, entry| {
            let mut users = entry.users.lock();
            if !keys.contains(key) && users.remove(uid).is_some() && users.is_empty() {
                let _ = std::fs::remove_file(file(&self.inner.dir, key));
                return false;
            }
            true
        });
        for key in keys {
            let entry = entries.entry(key.clone()).or_insert_with(|| self.watch(key.clone()));
            entry.users.lock().insert(uid.to_owned(), wake.clone());
        }
    }

    pub fn unsubscribe(&self, uid: &str) {
        self.subscribe(uid, &BTreeSet::new(), &Arc::default());
        self.inner.services.unsubscribe(uid);
    }

    /// Waits until something is known about all of `keys`, at most `patience`.
    pub async fn settle(&self, keys: &BTreeSet<Key>, patience: std::time::Duration) {
        let receivers: Vec<_> = {
            let entries = self.inner.entries.lock();
            keys.iter().filter_map(|k| entries.get(k)).map(|e| e.known.subscribe()).collect()
        };
        let all = futures::future::join_all(receivers.into_iter().map(|mut receiver| async move {
            let _ = receiver.wait_for(|known| !matches!(known, Known::Not(None))).await;
        }));
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// The object, `None` when the cluster has none; from disk when the server can't be asked.
    pub fn get(&self, key: &Key) -> Result<Option<Arc<Value>>, String> {
        let known = self.inner.entries.lock().get(key).map(|e| e.known.borrow().clone());
        match known {
            Some(Known::Present(value)) => Ok(Some(value)),
            Some(Known::Absent) => Ok(None),
            Some(Known::Not(reason)) => match desired::read::<Value>(&file(&self.inner.dir, key)) {
                Some(value) => Ok(Some(Arc::new(value))),
                None => Err(reason.unwrap_or_else(|| format!("{} is not known yet", key.words()))),
            },
            None => Err(format!("{} is not known yet", key.words())),
        }
    }

    fn watch(&self, key: Key) -> Entry {
        let (known, _) = watch::channel(Known::Not(None));
        let users: Arc<Mutex<HashMap<String, Arc<Notify>>>> = Arc::default();
        let task = follow(self.inner.clone(), key, known.clone(), users.clone());
        Entry { known, users, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }
}

async fn follow(
    inner: Arc<Inner>,
    key: Key,
    known: watch::Sender<Known>,
    users: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
) {
    let client = inner.client.clone();
    let mut stream = match key.kind {
        Kind::ConfigMap => objects::<ConfigMap>(client, &key),
        Kind::Secret => objects::<Secret>(client, &key),
    };
    while let Some(next) = stream.next().await {
        let path = file(&inner.dir, &key);
        let now = match next {
            Ok(Some(value)) => {
                if let Err(e) = desired::write(&path, &value) {
                    tracing::warn!(error = %e, "{} could not be kept on disk", key.words());
                }
                Known::Present(Arc::new(value))
            }
            Ok(None) => {
                let _ = std::fs::remove_file(&path);
                Known::Absent
            }
            // What was known stays so while the server is away.
            Err(reason) => match &*known.borrow() {
                Known::Not(_) => Known::Not(Some(reason)),
                other => other.clone(),
            },
        };
        if known.send_replace(now.clone()) != now {
            inner.changes.fetch_add(1, Ordering::AcqRel);
            users.lock().values().for_each(|wake| wake.notify_one());
        }
    }
}

type Objects = futures::stream::BoxStream<'static, Result<Option<Value>, String>>;

fn objects<K>(client: kube::Client, key: &Key) -> Objects
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client, &key.namespace);
    watcher::watch_object(api, &key.name)
        .backoff(Backoff::watching())
        .map(|next| match next {
            Ok(Some(object)) => serde_json::to_value(object).map(Some).map_err(|e| e.to_string()),
            Ok(None) => Ok(None),
            Err(e) => Err(e.to_string()),
        })
        .boxed()
}

fn file(dir: &Path, key: &Key) -> PathBuf {
    let kind = match key.kind {
        Kind::ConfigMap => "configmaps",
        Kind::Secret => "secrets",
    };
    // Both are DNS names: no separator of paths can be in them.
    dir.join(kind).join(format!("{}_{}.json", key.namespace, key.name))
}

impl Key {
    pub fn words(&self) -> String {
        let kind = match self.kind {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        };
        format!("{kind} {}/{}", self.namespace, self.name)
    }
}

/// [`super::environment::Lookup`] in one pod's namespace.
pub struct InNamespace<'a> {
    pub references: &'a References,
    pub namespace: &'a str,
}

impl InNamespace<'_> {
    fn get<T: serde::de::DeserializeOwned>(&self, kind: Kind, name: &str) -> Result<Option<T>, String> {
        let key = Key { kind, namespace: self.namespace.to_owned(), name: name.to_owned() };
        match self.references.get(&key)? {
            None => Ok(None),
            Some(value) => T::deserialize(&*value).map(Some).map_err(|e| format!("{}: {e}", key.words())),
        }
    }
}

impl super::environment::Lookup for InNamespace<'_> {
    fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, String> {
        self.get(Kind::ConfigMap, name)
    }
    fn secret(&self, name: &str) -> Result<Option<Secret>, String> {
        self.get(Kind::Secret, name)
    }
}
