//! What is known of this node's pods, for those who ask from outside: the kubelet's API and the node's figures.
//!
//! The manager says which pods there are, each worker what it last found out; nobody here decides anything.

use super::spec;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Default)]
pub struct Pods {
    known: RwLock<BTreeMap<String, Known>>,
}

#[derive(Clone)]
pub struct Known {
    /// As the server last sent it.
    pub pod: Arc<Pod>,
    /// As this node sees it now; the server may not have it yet.
    pub status: Arc<PodStatus>,
}

impl Pods {
    pub fn wanted(&self, pod: Arc<Pod>) {
        let mut known = self.known.write();
        match known.get_mut(spec::uid(&pod)) {
            Some(entry) => entry.pod = pod,
            None => {
                let status = Arc::new(pod.status.clone().unwrap_or_default());
                known.insert(spec::uid(&pod).to_owned(), Known { pod, status });
            }
        }
    }

    pub fn said(&self, uid: &str, status: &PodStatus) {
        if let Some(entry) = self.known.write().get_mut(uid) {
            entry.status = Arc::new(status.clone());
        }
    }

    pub fn gone(&self, uid: &str) {
        self.known.write().remove(uid);
    }

    /// A name can be taken again while its former owner still ends: the newest is meant.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Known> {
        self.newest(|known| spec::namespace(&known.pod) == namespace && spec::name(&known.pod) == name)
    }

    /// The running pod that has an address; of those in the host's network, who share one, the newest.
    pub fn by_address(&self, address: IpAddr) -> Option<Known> {
        let has = |known: &&Known| {
            let said = known.status.pod_ips.iter().flatten().filter_map(|said| said.ip.parse::<IpAddr>().ok());
            let said = said.chain(known.status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()));
            said.into_iter().any(|said| said == address) && known.status.phase.as_deref() == Some("Running")
        };
        self.newest(has)
    }

    fn newest(&self, wanted: impl Fn(&&Known) -> bool) -> Option<Known> {
        let known = self.known.read();
        let found = known.values().filter(wanted);
        found.max_by_key(|k| k.pod.metadata.creation_timestamp.as_ref().map(|t| t.0)).cloned()
    }

    pub fn all(&self) -> Vec<Known> {
        self.known.read().values().cloned().collect()
    }
}
