//! The pods' network on this machine: a network namespace of the cluster's own, one cable from it to each pod and one to the
//! host, routes between them, and what [`map`] says of services. Docker never routes pod traffic, and clusters with the same
//! ranges share a host.
//!
//! Everything here carries the ids of cluster and node in its name ([`names`]), is made by steps that look before they
//! act, and is looked at again with each pod and each minute: an agent that was killed anywhere in between goes on where
//! it was, and what someone took away comes back. Intent is on disk before anything is made of it.

mod addresses;
pub mod dns;
mod firewall;
mod host;
mod iptables;
pub mod kubernetes;
mod links;
pub mod map;
pub mod mesh;
mod names;
mod namespace;
mod policy;
mod ruleset;
mod services;
mod v6;

pub use addresses::{Addresses, Slices, slice};
pub use links::MESH;
pub use namespace::{connect_localhost, connect_own, datagrams_to_own, of_pod};

use crate::pods::desired;
use crate::pods::network::{HostPort, Identity, Network, NetworkError};
use firewall::Published;
use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::{Ipv4Net, Ipv6Net};
use links::{Netlink, Transfer};
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::network::{Answer, Link, Service};
use map::{Known, Map};
use nlink::netlink::namespace::Netns;
use nlink::netlink::nftables::Family;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often it is looked at without a reason.
const MENDED_EVERY: Duration = Duration::from_secs(60);

/// Why pods wait.
pub const NO_RANGE: &str = "the node has no pod range yet";
const BEING_MADE: &str = "the pods' network is being made";
/// Without it pods would be told of no name server, for good.
const NO_MAP: &str = "the node has not been told of its cluster's network yet";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not {doing}: {source}")]
    Netlink { doing: String, source: nlink::Error },
    /// Someone took it away while we were at it; the next look makes it again.
    #[error("{0} is gone")]
    Gone(String),
    #[error("{0}")]
    Failed(String),
}

impl Error {
    fn netlink(doing: &str, source: nlink::Error) -> Self {
        Self::Netlink { doing: doing.to_owned(), source }
    }
}

/// What is on disk.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    slice: Option<Ipv4Net>,
    slice_v6: Option<Ipv6Net>,
    transfer: Option<Ipv4Net>,
    answered: Answered,
    addresses: Addresses,
    ports: BTreeMap<String, Vec<HostPort>>,
    identities: BTreeMap<String, Identity>,
}

impl Kept {
    /// Makes exactly these ports the pod's; whether that is new.
    fn lend(&mut self, uid: &str, mut ports: Vec<HostPort>) -> bool {
        ports.sort();
        ports.dedup();
        let before = match ports.is_empty() {
            true => self.ports.remove(uid),
            false => self.ports.insert(uid.to_owned(), ports),
        };
        before.as_ref() != self.ports.get(uid)
    }

    /// Who has which address.
    fn pods(&self) -> policy::Pods {
        let known = self.identities.iter();
        known.filter_map(|(uid, identity)| Some((self.addresses.of(uid)?.into(), identity.clone()))).collect()
    }

    fn slices(&self) -> Option<Slices> {
        Some(Slices { v4: self.slice?, v6: self.slice_v6 })
    }

    /// The ports of the host that lead to pods, by the pods' addresses as `of` has them.
    fn published(&self, of: impl Fn(Ipv4Addr) -> Option<IpAddr>) -> Vec<Published> {
        let pods = self.ports.iter().filter_map(|(uid, ports)| Some((ports, of(self.addresses.of(uid)?)?)));
        let each = pods.flat_map(|(ports, pod)| ports.iter().map(move |port| Published { port: port.clone(), pod }));
        // One that is for an address of the host is for its family alone.
        each.filter(|published| published.port.host_ip.is_none() || published.pod.is_ipv4()).collect()
    }
}

/// The services that the node answers itself, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// `kubernetes`.
    pub api: Option<SocketAddrV4>,
    /// `kube-dns`.
    pub dns: Option<SocketAddrV4>,
}

impl Answered {
    /// As the map has it; what it doesn't name stays where it is.
    fn of(map: &Map, before: Self) -> Self {
        let place = |what: Answer, before: Option<SocketAddrV4>| {
            let mut services = map.services.values().filter(|s| s.answered_by_node == Some(what));
            services.find_map(place).or(before)
        };
        Self { api: place(Answer::Api, before.api), dns: place(Answer::Dns, before.dns) }
    }
}

fn place(service: &Service) -> Option<SocketAddrV4> {
    let ip = service.addresses.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    Some(SocketAddrV4::new(ip?, service.ports.first()?.port))
}

/// The namespace as it was last looked at.
#[derive(Clone)]
struct Inside {
    netns: Arc<Netns>,
    netlink: Arc<Netlink>,
    transfer: Transfer,
    /// IPv6's only where there is IPv6.
    slices: Slices,
    /// The addresses that are set up.
    answered: Answered,
    mtu: u32,
}

/// Where a Service is answered that the node answers itself.
struct Places {
    netns: Arc<Netns>,
    service: SocketAddrV4,
    from_host: SocketAddrV4,
}

pub struct PodNetwork {
    names: names::Names,
    dir: PathBuf,
    host: Netns,
    slices: watch::Sender<Option<Slices>>,
    answered: watch::Sender<Answered>,
    map: Arc<Known>,
    /// The Node's name.
    node: String,
    /// The addresses that pods have.
    pods: watch::Sender<BTreeSet<Ipv4Addr>>,
    policies: policy::Policies,
    /// Held by whoever changes something.
    kept: tokio::sync::Mutex<Kept>,
    inside: watch::Sender<Option<Inside>>,
    /// What other nodes are to know of this one.
    annotations: watch::Sender<BTreeMap<String, String>>,
    links: mesh::Questions,
    not_ready: watch::Sender<Option<String>>,
    /// Whether the host's own route to the pods is someone else's; said once.
    shadowed: Mutex<Option<bool>>,
    /// Whether this host can IPv6; found out once, with the first slice of it.
    takes_v6: Mutex<Option<bool>>,
}

impl PodNetwork {
    /// Reads what is known from `data_dir`; makes nothing yet. The calling thread's network namespace is the host's.
    pub fn open(cluster: &ClusterId, node: &NodeId, name: &str, data_dir: &Path) -> Result<Arc<Self>, Error> {
        let host = Netns::current().map_err(|e| Error::netlink("look at the host's network namespace", e))?;
        Ok(Self::on(host, cluster, node, name, data_dir))
    }

    /// As [`PodNetwork::open`], on a host whose network namespace is `host`.
    pub fn on(host: Netns, cluster: &ClusterId, node: &NodeId, name: &str, data_dir: &Path) -> Arc<Self> {
        let dir = data_dir.join("network");
        let kept: Kept = desired::read(&dir.join("kept.json")).unwrap_or_default();
        let map = Known::open(dir.join("map.json"));
        Arc::new(Self {
            names: names::Names::new(cluster, node),
            host,
            slices: watch::Sender::new(kept.slices()),
            answered: watch::Sender::new(kept.answered),
            policies: policy::Policies::new(map.clone(), kept.pods()),
            map,
            node: name.to_owned(),
            pods: watch::Sender::new(kept.addresses.all().collect()),
            not_ready: watch::Sender::new(Some(if kept.slice.is_some() { BEING_MADE } else { NO_RANGE }.into())),
            kept: tokio::sync::Mutex::new(kept),
            inside: watch::Sender::new(None),
            annotations: watch::Sender::default(),
            links: mesh::Questions::default(),
            shadowed: Mutex::default(),
            takes_v6: Mutex::default(),
            dir,
        })
    }

    /// Makes the network as soon as the node's slice is known and mends it from then on; keeps service addresses. Runs until
    /// it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let host = match self.host.try_clone() {
            Ok(host) => host,
            Err(error) => return tracing::error!(%error, "the host's network namespace can't be held"),
        };
        let services = services::Keeper {
            map: self.map.clone(),
            node: self.node.clone(),
            host,
            names: self.names.clone(),
            insides: self.inside.subscribe(),
            pods: self.pods.subscribe(),
        };
        let policies = self.policies.keep(self.inside.subscribe());
        tokio::join!(self.stay_mended(), self.follow_map(), services.keep(), policies, self.map.clone().keep());
    }

    async fn stay_mended(&self) {
        let (mut slices, mut answered) = (self.slices.subscribe(), self.answered.subscribe());
        let mut map = self.map.changes();
        loop {
            answered.mark_unchanged();
            map.mark_unchanged();
            let waits = !self.map.read(Map::is_known);
            if slices.borrow_and_update().is_some() {
                // What is wrong is kept for the node's condition.
                let _ = self.mend(&mut *self.kept.lock().await).await;
            }
            let changed = async {
                tokio::select! {
                    _ = slices.changed() => {}
                    _ = answered.changed() => {}
                    _ = map.changed(), if waits => {}
                }
            };
            let _ = tokio::time::timeout(MENDED_EVERY, changed).await;
        }
    }

    /// What the map says of the node's own answers.
    async fn follow_map(&self) {
        let mut changes = self.map.changes();
        loop {
            let before = *self.answered.borrow();
            self.answer(self.map.read(|map| Answered::of(map, before)));
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The network map, for whoever brings its changes.
    pub fn map(&self) -> &Arc<Known> {
        &self.map
    }

    /// The Node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A port of the host's, at all its addresses.
    pub fn listen_on_host(&self, port: u16) -> io::Result<TcpListener> {
        let listener = self.host.run(|| longshore_edge::socket::listener((Ipv4Addr::UNSPECIFIED, port).into()));
        TcpListener::from_std(listener.map_err(io::Error::other)??)
    }

    /// Connects to a pod of any node of the cluster, from this node's own address in the cluster's network. An address that
    /// is no pod's is refused, whoever named it.
    pub async fn connect_to_pod(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let refused = |kind: io::ErrorKind, why: &str| io::Error::new(kind, why);
        let is_pods = |slices: Slices| match address.ip() {
            IpAddr::V4(ip) => addresses::usable(slices.v4, ip),
            IpAddr::V6(ip) => slices.v6.is_some_and(|slice| slice.contains(&ip)) && slices.gateway_v6() != Some(ip),
        };
        let is_pod = |map: &Map| {
            let mut slices = map.nodes.values().filter_map(Slices::of_node);
            slices.any(is_pods)
        };
        if !self.map.read(is_pod) {
            return Err(refused(io::ErrorKind::PermissionDenied, "no pod can have this address"));
        }
        let inside = self.inside.borrow().clone();
        let inside = inside.ok_or_else(|| refused(io::ErrorKind::NotConnected, BEING_MADE))?;
        let own = match address.ip() {
            IpAddr::V4(_) => Some(addresses::gateway(inside.slices.v4).into()),
            IpAddr::V6(_) => inside.slices.gateway_v6().map(IpAddr::from),
        };
        let own = own.ok_or_else(|| refused(io::ErrorKind::AddrNotAvailable, "this node has no IPv6"))?;
        namespace::connect_from(&inside.netns, own, address).await
    }

    /// Which services are answered here, and where. Kept over restarts.
    pub fn answer(&self, answered: Answered) {
        self.answered.send_if_modified(|now| std::mem::replace(now, answered) != answered);
    }

    /// Where to answer a Service, as soon as it can be, and what ends when that is no longer so.
    async fn places(&self, which: fn(&Answered) -> Option<SocketAddrV4>) -> (Places, impl Future<Output = ()> + use<>) {
        let (mut insides, mut services) = (self.inside.subscribe(), self.answered.subscribe());
        loop {
            let (inside, service) = (insides.borrow_and_update().clone(), which(&services.borrow_and_update()));
            // The network says which addresses it has set up: a listener can't come before them.
            if let (Some(inside), Some(service)) = (inside, service)
                && which(&inside.answered) == Some(service)
            {
                let from_host = SocketAddrV4::new(inside.transfer.inside(), service.port());
                let (id, netns) = (inside.netns.id(), inside.netns);
                let changed = async move {
                    let same = |i: &Option<Inside>| {
                        i.as_ref().is_some_and(|i| {
                            (i.netns.id(), which(&i.answered), i.transfer.inside())
                                == (id, Some(service), *from_host.ip())
                        })
                    };
                    let _ = insides.wait_for(|i| !same(i)).await;
                };
                return (Places { netns, service, from_host }, changed);
            }
            tokio::select! {
                _ = insides.changed() => {}
                _ = services.changed() => {}
            }
        }
    }

    /// Takes everything away that this node has on its host, for good. Its pods are gone by then.
    pub async fn teardown(&self) -> Result<(), Error> {
        let mut kept = self.kept.lock().await;
        self.slices.send_replace(None);
        self.answered.send_replace(Answered::default());
        self.pods.send_replace(BTreeSet::new());
        self.policies.know(policy::Pods::new());
        self.inside.send_replace(None);
        *kept = Kept::default();
        iptables::remove(&self.host, &self.names).await?;
        firewall::remove(&self.host, &self.names).await?;
        let failed = |e| Error::netlink("take away the cable to the host", e);
        let host = Netlink::new_in(&self.host).map_err(failed)?;
        host.del_link_if_exists(self.names.uplink().as_str()).await.map_err(failed)?;
        namespace::remove(&self.namespace_file())?;
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::Failed(e.to_string())),
            _ => Ok(()),
        }
    }

    fn namespace_file(&self) -> PathBuf {
        self.dir.join("netns")
    }

    fn keep_on_disk(&self, kept: &Kept) -> Result<(), Error> {
        desired::write(&self.dir.join("kept.json"), kept)
            .map_err(|e| Error::Failed(format!("the network's state could not be kept on disk: {e}")))
    }

    /// Brings everything but the pods' cables to what it should be.
    async fn mend(&self, kept: &mut Kept) -> Result<Inside, NetworkError> {
        let Some(slices) = *self.slices.borrow() else {
            return Err(NetworkError::NotReady(NO_RANGE.into()));
        };
        let done = match self.map.read(Map::is_known) {
            true => self.set_up(kept, slices).await,
            false => Err(Error::Failed(NO_MAP.into())),
        };
        let why = done.as_ref().err().map(ToString::to_string);
        let new = self.not_ready.send_if_modified(|before| std::mem::replace(before, why.clone()) != why);
        match done {
            Ok(inside) => {
                self.inside.send_replace(Some(inside.clone()));
                Ok(inside)
            }
            Err(error) => {
                if new {
                    tracing::error!(%error, "the pods' network is not ready");
                }
                Err(NetworkError::NotReady(error.to_string()))
            }
        }
    }

    async fn set_up(&self, kept: &mut Kept, told: Slices) -> Result<Inside, Error> {
        let reach = |e| Error::netlink("reach the kernel", e);
        let host = Netlink::new_in(&self.host).map_err(reach)?;
        let uplink = self.names.uplink();
        let used = host::in_use(&host, &uplink).await?;
        let transfer = host::transfer(&used, kept.transfer.map(Transfer), self.names.seed())
            .ok_or_else(|| Error::Failed("no transfer range is free on the host".into()))?;
        let answered = *self.answered.borrow();
        let wanted = (Some(told.v4), told.v6, Some(transfer.0), answered);
        if (kept.slice, kept.slice_v6, kept.transfer, kept.answered) != wanted {
            (kept.slice, kept.slice_v6, kept.transfer, kept.answered) = wanted;
            self.keep_on_disk(kept)?;
        }
        let netns = namespace::open(&self.namespace_file())?;
        let netlink = Netlink::new_in(&netns).map_err(reach)?;
        let mtu = host::mtu(&host).await?;
        let published = kept.published(|pod| Some(pod.into()));
        firewall::inside(&netns, &self.names, told.v4.into(), transfer.v4(), &published).await?;
        let published_v6 = kept.published(|pod| told.v6_of(pod).map(IpAddr::from));
        let slices = self.with_v6(told, (&netns, &netlink), transfer, &published_v6).await?;
        let own = [answered.api, answered.dns].into_iter().flatten().map(|at| *at.ip());
        let own: Vec<Ipv4Addr> = own.chain([addresses::gateway(slices.v4)]).collect();
        links::answer_for(&netlink, &own).await?;
        let pods = self.map.read(|map| (map.cluster.pod_range.parse().ok(), map.cluster.pod_range_v6.parse().ok()));
        links::ranges(&netlink, slices, pods).await?;
        firewall::on_host(&self.host, &self.names, transfer.v4(), &published).await?;
        let (inside, outside) = ((&netlink, &netns), (&host, &self.host));
        links::uplink(inside, outside, &self.names, transfer, slices.v6.is_some(), mtu).await?;
        if let Some(slice) = slices.v6 {
            firewall::on_host(&self.host, &self.names, transfer.v6(), &published_v6).await?;
            v6::route(&host, &uplink, transfer.v6(), slice).await?;
            v6::forward(&host, &self.host, &self.names).await?;
            iptables::accept(&self.host, &self.names, Family::Ip6).await?;
        }
        let routed = host::route(&host, &used, &uplink, transfer, slices.v4).await?;
        if self.shadowed.lock().replace(!routed) != Some(!routed) && !routed {
            tracing::warn!(range = %slices.v4, "the host itself can't reach its pods: it has another route for their range");
        }
        host::forward(&self.host, &self.names)?;
        if let Some(chain) = iptables::accept(&self.host, &self.names, Family::Ip).await? {
            tracing::debug!(chain, "the host's iptables lets packets of pods pass by a rule in its own chain");
        }
        Ok(Inside { netns: Arc::new(netns), netlink: Arc::new(netlink), transfer, slices, answered, mtu })
    }

    /// The slices with which this host can go on: both where the kernel can IPv6, otherwise IPv4's alone.
    async fn with_v6(
        &self,
        slices: Slices,
        (netns, netlink): (&Netns, &Netlink),
        transfer: Transfer,
        published: &[Published],
    ) -> Result<Slices, Error> {
        let takes = *self.takes_v6.lock();
        let Some(slice) = slices.v6.filter(|_| takes != Some(false)) else {
            return Ok(Slices { v6: None, ..slices });
        };
        let made = async {
            if !v6::is_on(&self.host) {
                return Err(Error::Failed("the host has none, or it is turned off".into()));
            }
            v6::prepare(netns, netlink, slices).await?;
            firewall::inside(netns, &self.names, slice.into(), transfer.v6(), published).await
        };
        match made.await {
            Ok(()) => {
                *self.takes_v6.lock() = Some(true);
                Ok(slices)
            }
            // It could before: pods have such addresses.
            Err(error) if takes == Some(true) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "pods of this node have IPv4 alone: IPv6 can't be set up here");
                *self.takes_v6.lock() = Some(false);
                Ok(Slices { v6: None, ..slices })
            }
        }
    }

    async fn attach(&self, uid: &str, netns: &Path, ports: Vec<HostPort>) -> Result<Vec<IpAddr>, NetworkError> {
        let mut kept = self.kept.lock().await;
        let failed = |e: Error| NetworkError::Failed(e.to_string());
        if let Some(Slices { v4: slice, .. }) = *self.slices.borrow() {
            let before = kept.addresses.of(uid);
            let address = kept
                .addresses
                .give(slice, uid)
                .ok_or_else(|| NetworkError::Failed(format!("no address is free in the node's pod range {slice}")))?;
            if kept.lend(uid, ports) || before != Some(address) {
                self.keep_on_disk(&kept).map_err(failed)?;
            }
        }
        let inside = self.mend(&mut kept).await?;
        let address = kept.addresses.of(uid).ok_or_else(|| NetworkError::NotReady("the pod range changes".into()))?;
        let pod = Netns::from_path(netns).map_err(|e| failed(Error::netlink("open a pod's network namespace", e)))?;
        // A process number may have been given to someone else in the meantime.
        let own = Netns::current().map_err(|e| failed(Error::netlink("look at the agent's network namespace", e)))?;
        if [self.host.id(), own.id(), inside.netns.id()].contains(&pod.id()) {
            return Err(NetworkError::Failed("the pod's network namespace is gone".into()));
        }
        // Whoever isolates it does so before anybody can reach it.
        self.policies.know(kept.pods());
        self.policies.bring(&inside).await.map_err(failed)?;
        let (netlink, slices) = (&inside.netlink, inside.slices);
        links::attach(netlink, &inside.netns, &pod, uid, address, slices, inside.mtu).await.map_err(failed)?;
        self.announce(&kept);
        Ok(slices.addresses_of(address))
    }

    async fn detach(&self, uid: &str) -> Result<(), Error> {
        let mut kept = self.kept.lock().await;
        kept.identities.remove(uid);
        let Some(inside) = self.existing()? else { return Ok(()) };
        links::detach(&inside, uid).await?;
        let had_ports = kept.lend(uid, Vec::new());
        if kept.addresses.take_back(uid).is_some() || had_ports {
            self.keep_on_disk(&kept)?;
        }
        self.announce(&kept);
        if had_ports {
            // What is wrong is kept for the node's condition and tried again.
            let _ = self.mend(&mut kept).await;
        }
        Ok(())
    }

    async fn retain(&self, uids: &[String]) -> Result<(), Error> {
        let mut kept = self.kept.lock().await;
        let Some(inside) = self.existing()? else { return Ok(()) };
        links::retain(&inside, uids).await?;
        kept.addresses.retain(uids);
        kept.ports.retain(|uid, _| uids.contains(uid));
        kept.identities.retain(|uid, _| uids.contains(uid));
        self.announce(&kept);
        self.keep_on_disk(&kept)
    }

    fn announce(&self, kept: &Kept) {
        let pods: BTreeSet<Ipv4Addr> = kept.addresses.all().collect();
        self.pods.send_if_modified(|now| std::mem::replace(now, pods.clone()) != pods);
        self.policies.know(kept.pods());
    }

    /// Also when it can't be kept on disk: then an agent started again hears of it anew.
    async fn describe(&self, uid: &str, identity: Identity) {
        let mut kept = self.kept.lock().await;
        if kept.identities.get(uid) == Some(&identity) {
            return;
        }
        kept.identities.insert(uid.to_owned(), identity);
        if let Err(error) = self.keep_on_disk(&kept) {
            tracing::warn!(%error, "who a pod is could not be kept on disk");
        }
        self.announce(&kept);
    }

    /// The namespace, where there is one.
    fn existing(&self) -> Result<Option<Netlink>, Error> {
        let file = self.namespace_file();
        if !nlink::netlink::namespace::is_namespace_path(&file) {
            return Ok(None);
        }
        Netlink::new_in(file.as_path()).map(Some).map_err(|e| Error::netlink("open the cluster's network namespace", e))
    }
}

impl Network for PodNetwork {
    fn describe<'a>(&'a self, pod_uid: &'a str, identity: Identity) -> BoxFuture<'a, ()> {
        self.describe(pod_uid, identity).boxed()
    }

    fn attach<'a>(
        &'a self,
        pod_uid: &'a str,
        netns: PathBuf,
        ports: Vec<HostPort>,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        async move { self.attach(pod_uid, &netns, ports).await }.boxed()
    }

    fn detach<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        async move { self.detach(pod_uid).await.map_err(|e| NetworkError::Failed(e.to_string())) }.boxed()
    }

    fn retain<'a>(&'a self, pod_uids: Vec<String>) -> BoxFuture<'a, Result<(), NetworkError>> {
        async move { self.retain(&pod_uids).await.map_err(|e| NetworkError::Failed(e.to_string())) }.boxed()
    }

    fn set_ranges(&self, pod_cidrs: &[String]) {
        match Slices::of(pod_cidrs) {
            None => {
                let first = pod_cidrs.first().map(String::as_str).unwrap_or_default();
                let why = Some(format!("the node's pod range {first:?} is of no use"));
                self.not_ready.send_if_modified(|now| std::mem::replace(now, why.clone()) != why);
            }
            wanted => drop(self.slices.send_if_modified(|now| std::mem::replace(now, wanted) != wanted)),
        }
    }

    fn not_ready(&self) -> watch::Receiver<Option<String>> {
        self.not_ready.subscribe()
    }

    fn annotations(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.annotations.subscribe()
    }

    fn links(&self) -> BoxFuture<'_, Vec<Link>> {
        self.links.ask().boxed()
    }

    fn dns_servers(&self, host_network: bool) -> Vec<IpAddr> {
        let inside = self.inside.borrow();
        let inside = inside.as_ref().and_then(|inside| Some((inside, inside.answered.dns?)));
        let server = inside.map(|(inside, dns)| if host_network { inside.transfer.inside() } else { *dns.ip() });
        server.map(IpAddr::from).into_iter().collect()
    }

    fn api_from_host(&self) -> Option<IpAddr> {
        let inside = self.inside.borrow();
        inside.as_ref().filter(|i| i.answered.api.is_some()).map(|i| i.transfer.inside().into())
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        async move {
            let made = self.inside.borrow().as_ref().map(|i| i.netns.clone());
            let netns = match made {
                Some(netns) => netns,
                // An agent that has just started finds the one of before.
                None => Arc::new(Netns::from_path(self.namespace_file()).map_err(io::Error::other)?),
            };
            namespace::connect(&netns, address).await
        }
        .boxed()
    }
}
