//! Pretended containers: a node for scale tests that costs a few kilobytes.
//!
//! Only the bottom is pretended. The same planner, status, events and watch run above it, so what goes over the wire is
//! what a real node sends: images are always there, containers start at once and run until they are stopped. Commands
//! can't be run in them, and they have no logs.

use super::*;
use crate::network::{self, Addresses};
use crate::pods::network::{HostPort, Network, NetworkError};
use futures::{FutureExt, StreamExt};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;
use tokio::sync::watch;

pub struct Hollow {
    containers: Mutex<BTreeMap<String, Record>>,
    next: Mutex<u64>,
    /// Tells different nodes' containers apart in ids.
    seed: u64,
}

impl Hollow {
    pub fn new(seed: u64) -> Self {
        Self { containers: Mutex::default(), next: Mutex::new(0), seed }
    }

    fn id(&self) -> String {
        let mut next = self.next.lock();
        *next += 1;
        format!("{:016x}{:016x}{:032x}", self.seed, *next, 0)
    }

    fn unsupported<T>() -> Result<T, RuntimeError> {
        Err(RuntimeError::Other(
            "this node's containers are pretended: there is nothing to run or to read in them".into(),
        ))
    }
}

impl Runtime for Hollow {
    fn info(&self) -> Answer<'_, Info> {
        async {
            Ok(Info {
                name: "docker".into(),
                version: "hollow".into(),
                kernel: "hollow".into(),
                os: "Longshore hollow node".into(),
                arch: std::env::consts::ARCH.into(),
                cpus: 32,
                memory: 256 << 30,
                root: "/".into(),
            })
        }
        .boxed()
    }

    fn is_real(&self) -> bool {
        false
    }

    fn containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<Record>> {
        let all = self.containers.lock();
        let found = all.values().filter(|r| pod_uid.is_none_or(|uid| r.pod_uid == uid)).cloned().collect();
        async { Ok(found) }.boxed()
    }

    fn run_sandbox<'a>(&'a self, spec: &'a SandboxSpec) -> Answer<'a, Record> {
        let now = Timestamp::now();
        let id = self.id();
        let record = Record::of_sandbox(id.clone(), spec, now);
        self.containers.lock().insert(id, record.clone());
        async { Ok(record) }.boxed()
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> Answer<'a, String> {
        let id = self.id();
        let record = Record::of_container(id.clone(), spec, Timestamp::now());
        self.containers.lock().insert(id.clone(), record);
        async { Ok(id) }.boxed()
    }

    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        if let Some(record) = self.containers.lock().get_mut(id) {
            let now = Timestamp::now();
            // An init container's work is to end.
            record.state = match record.role {
                Role::Init => State::Exited(Exit {
                    code: 0,
                    reason: "Completed".into(),
                    message: String::new(),
                    started_at: Some(now),
                    finished_at: now,
                }),
                _ => State::Running { started_at: now, pid: 0 },
            };
        }
        async { Ok(()) }.boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, _grace: Duration) -> Answer<'a, ()> {
        if let Some(record) = self.containers.lock().get_mut(id)
            && let State::Running { started_at, .. } = record.state
        {
            record.state = State::Exited(Exit {
                code: 0,
                reason: "Completed".into(),
                message: String::new(),
                started_at: Some(started_at),
                finished_at: Timestamp::now(),
            });
        }
        async { Ok(()) }.boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.containers.lock().remove(id);
        async { Ok(()) }.boxed()
    }

    fn images(&self) -> Answer<'_, Vec<ImageRecord>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ImageRecord>> {
        let image =
            ImageRecord { id: format!("sha256:{:064x}", 0), names: vec![name.to_owned()], ..Default::default() };
        async { Ok(Some(image)) }.boxed()
    }

    fn pull<'a>(&'a self, _name: &'a str, _credentials: Option<Credentials>) -> Answer<'a, ()> {
        async { Ok(()) }.boxed()
    }

    fn exec<'a>(&'a self, _id: &'a str, _spec: &'a ExecSpec) -> Answer<'a, Session> {
        async { Self::unsupported() }.boxed()
    }

    fn attach<'a>(&'a self, _id: &'a str, _spec: &'a ExecSpec) -> Answer<'a, Session> {
        async { Self::unsupported() }.boxed()
    }

    fn logs<'a>(
        &'a self,
        _id: &'a str,
        _options: &'a LogOptions,
    ) -> Answer<'a, BoxStream<'static, std::io::Result<Output>>> {
        async { Self::unsupported() }.boxed()
    }

    fn usage<'a>(&'a self, _id: &'a str) -> Answer<'a, Usage> {
        async { Ok(Usage::default()) }.boxed()
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        futures::stream::iter([Change::Relist]).chain(futures::stream::pending()).boxed()
    }
}

/// Addresses for pretended pods: of the node's slice; nobody can reach them.
pub struct HollowNetwork {
    state: Mutex<(Option<Ipv4Net>, Addresses)>,
    not_ready: watch::Sender<Option<String>>,
}

impl Default for HollowNetwork {
    fn default() -> Self {
        Self { state: Mutex::default(), not_ready: watch::Sender::new(Some(network::NO_RANGE.into())) }
    }
}

impl Network for HollowNetwork {
    fn attach<'a>(
        &'a self,
        pod_uid: &'a str,
        _: PathBuf,
        _: Vec<HostPort>,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        let (slice, addresses) = &mut *self.state.lock();
        let answer = match slice {
            None => Err(NetworkError::NotReady(network::NO_RANGE.into())),
            Some(slice) => match addresses.give(*slice, pod_uid) {
                Some(ip) => Ok(vec![ip.into()]),
                None => Err(NetworkError::Failed("no address is free in the node's pod range".into())),
            },
        };
        async { answer }.boxed()
    }

    fn detach<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        self.state.lock().1.take_back(pod_uid);
        async { Ok(()) }.boxed()
    }

    fn retain<'a>(&'a self, pod_uids: Vec<String>) -> BoxFuture<'a, Result<(), NetworkError>> {
        self.state.lock().1.retain(&pod_uids);
        async { Ok(()) }.boxed()
    }

    fn set_ranges(&self, pod_cidrs: &[String]) {
        if let Some(slice) = pod_cidrs.first().and_then(|cidr| network::slice(cidr)) {
            self.state.lock().0 = Some(slice);
            // The reporter looks again at each change: telling what is no news would keep it looking for ever.
            self.not_ready.send_if_modified(|why| why.take().is_some());
        }
    }

    fn not_ready(&self) -> watch::Receiver<Option<String>> {
        self.not_ready.subscribe()
    }

    fn dns_servers(&self, _: bool) -> Vec<IpAddr> {
        Vec::new()
    }

    fn api_from_host(&self) -> Option<IpAddr> {
        None
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_known_is_no_news() {
        let network = HollowNetwork::default();
        let mut not_ready = network.not_ready();
        network.set_ranges(&["10.244.1.0/24".into()]);
        assert!(not_ready.has_changed().unwrap() && not_ready.borrow_and_update().is_none());
        network.set_ranges(&["10.244.1.0/24".into()]);
        assert!(!not_ready.has_changed().unwrap());
    }
}
