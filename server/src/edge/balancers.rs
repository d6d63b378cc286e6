//! Services of type LoadBalancer: each TCP port of theirs is opened at the edge's address, and leads to their endpoints through
//! the tunnels of their nodes.

use super::backends::{Backends, SERVICES, SLICES};
use super::ports::{self, PortRules};
use super::report::{Finding, Reporter, address};
use super::{ASKED_AGAIN, Room};
use crate::store::{Change, ChangeKind, Cluster, Object, StoreError, Watch, WatchItem};
use futures::future::{join_all, select_all};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use longshore_api::network::Name;
use longshore_edge::Forward;
use longshore_edge::model::{Backend, Port};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// `spec.loadBalancerClass` of those that name us; those that name nobody are ours as well.
const CLASS: &str = "longshore.dev/edge";
const REASON: &str = "SyncLoadBalancerFailed";

/// One of ours.
#[derive(Clone, Debug, PartialEq)]
struct Balanced {
    uid: String,
    ports: BTreeSet<u16>,
    /// Ports that can't be served, with their protocol.
    other: Vec<String>,
    sources: Vec<IpNet>,
    /// What its status tells.
    told: Value,
}

impl Balanced {
    /// None for a Service of another type, or another balancer's.
    fn of(service: Service) -> Option<Self> {
        let spec = service.spec?;
        let ours = spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS);
        if spec.type_.as_deref() != Some("LoadBalancer") || !ours {
            return None;
        }
        let (mut ports, mut other) = (BTreeSet::new(), Vec::new());
        for port in spec.ports.into_iter().flatten() {
            match (port.protocol.as_deref().unwrap_or("TCP"), u16::try_from(port.port)) {
                ("TCP", Ok(number)) => drop(ports.insert(number)),
                (protocol, _) => other.push(format!("{}/{protocol}", port.port)),
            }
        }
        let sources = spec.load_balancer_source_ranges.into_iter().flatten();
        let told = service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
        Some(Self {
            uid: service.metadata.uid.unwrap_or_default(),
            ports,
            other,
            sources: sources.filter_map(|range| range.trim().parse().ok()).collect(),
            told: serde_json::to_value(told.unwrap_or_default()).unwrap_or_default(),
        })
    }
}

/// A port that is open; it closes when this is dropped.
struct Open {
    forward: Forward,
    sources: Vec<IpNet>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Open {
    /// Ends when others may have the port.
    async fn close(self) {
        drop(self.stop);
        // It fails only where the runtime ends.
        let _ = self.serving.await;
    }
}

pub(super) struct Balancers {
    room: Arc<Room>,
    rules: PortRules,
    cluster: Arc<Cluster>,
    services: BTreeMap<Name, Balanced>,
    backends: Backends,
    open: BTreeMap<(Name, u16), Open>,
    /// While there is any.
    reporter: Option<Reporter>,
    changed: bool,
    again: Option<Instant>,
}

impl Balancers {
    pub fn open(room: Arc<Room>, rules: PortRules, cluster: &Arc<Cluster>) -> Result<(Self, Watch), StoreError> {
        let mut new = Self {
            room,
            rules,
            cluster: cluster.clone(),
            services: BTreeMap::new(),
            backends: Backends::default(),
            open: BTreeMap::new(),
            reporter: None,
            changed: false,
            again: None,
        };
        let watch = cluster.follow(SERVICES, |service| new.take(service, false))?;
        Ok((new, watch))
    }

    /// Until the cluster leaves this replica.
    pub async fn run(mut self, services: Watch) {
        let mut watches = vec![services];
        while self.settle(&mut watches).await.is_ok() {
            let again = self.again;
            let next = select_all(watches.iter_mut().map(|watch| Box::pin(watch.next())));
            let item = tokio::select! {
                (item, _, _) = next => item,
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.changed = true;
                    continue;
                }
            };
            match item {
                WatchItem::Changes(changes) => self.take_all(&changes),
                WatchItem::Progress(_) => {}
                WatchItem::Ended(_) => return,
            }
        }
    }

    fn take_all(&mut self, changes: &[Arc<Change>]) {
        for change in changes {
            self.take(&change.object, change.kind == ChangeKind::Deleted);
        }
    }

    fn take(&mut self, object: &Object, deleted: bool) {
        if *object.key.resource == *SERVICES {
            let name = Name::new(&*object.key.namespace, &*object.key.name);
            let read = serde_json::from_slice::<Service>(&object.json).ok().filter(|_| !deleted);
            let balanced = read.and_then(Balanced::of);
            if balanced.as_ref() != self.services.get(&name) {
                self.changed = true;
                match balanced {
                    Some(balanced) => self.services.insert(name, balanced),
                    None => self.services.remove(&name),
                };
            }
        }
        self.backends.take(object, deleted);
    }

    /// Err: the cluster is gone.
    async fn settle(&mut self, watches: &mut Vec<Watch>) -> Result<(), StoreError> {
        if self.services.is_empty() {
            if self.reporter.take().is_some() {
                watches.truncate(1);
                self.backends.forget_slices();
                self.changed = true;
            }
        } else if self.reporter.is_none() {
            watches.push(self.cluster.follow(SLICES, |slice| self.backends.take(slice, false))?);
            self.reporter = Some(Reporter::new(&self.room, &self.cluster, SERVICES));
            self.changed = true;
        }
        let news = self.backends.news();
        if std::mem::take(&mut self.changed) {
            self.sync().await;
        }
        for ((name, port), open) in self.open.iter().filter(|((name, _), _)| news.contains(name)) {
            open.forward.set_endpoints(self.backends.behind(&backend(name, *port)));
        }
        Ok(())
    }

    /// Ports opened and closed as Services want them, and word of it.
    async fn sync(&mut self) {
        self.again = None;
        let mut wanted = BTreeMap::new();
        let mut wrong = Vec::new();
        for (name, service) in &self.services {
            for other in &service.other {
                wrong.push(Finding::new(name.clone(), REASON, &format!("port {other}: only TCP is served")));
            }
            for port in &service.ports {
                if !self.rules.allow(*port) {
                    let (first, last) = (self.rules.range.start(), self.rules.range.end());
                    let why = format!(
                        "port {port} can't be had here: ports from {first} to {last} can, unless the server uses them itself"
                    );
                    wrong.push(Finding::new(name.clone(), REASON, &why));
                } else if let Some(other) = wanted.get(port) {
                    let Name { namespace, name: first } = other;
                    let why = format!("port {port} is served for Service {namespace}/{first}");
                    wrong.push(Finding::new(name.clone(), REASON, &why));
                } else {
                    wanted.insert(*port, name.clone());
                }
            }
        }
        let had = match ports::settle(&self.room.pool, self.cluster.id(), &wanted.keys().copied().collect()).await {
            Ok(had) => had,
            // What is open stays open.
            Err(error) => {
                tracing::warn!(%error, cluster = %self.cluster.id(), "ports can't be asked for");
                self.again = Some(Instant::now() + ASKED_AGAIN);
                return;
            }
        };
        let closed = self.open.extract_if(.., |(name, port), open| {
            let sources = self.services.get(name).map(|service| &service.sources);
            wanted.get(port) != Some(name) || !had.contains(port) || sources != Some(&open.sources)
        });
        join_all(closed.map(|(_, open)| open.close())).await;
        for (port, name) in &wanted {
            let key = (name.clone(), *port);
            let opened = match (had.contains(port), self.open.contains_key(&key)) {
                (true, true) => Ok(()),
                (true, false) => self.listen(key).await,
                (false, _) => Err(format!("port {port} is served for another cluster")),
            };
            if let Err(why) = opened {
                self.again = Some(Instant::now() + ASKED_AGAIN);
                wrong.push(Finding::new(name.clone(), REASON, &why));
            }
        }
        self.tell(wrong).await;
    }

    async fn listen(&mut self, (name, port): (Name, u16)) -> Result<(), String> {
        let address = SocketAddr::new(self.rules.ip, port);
        let listener = TcpListener::bind(address).await.map_err(|error| format!("port {port}: {error}"))?;
        let sources = self.services.get(&name).map(|service| service.sources.clone()).unwrap_or_default();
        let forward = self.room.edge.forward(self.cluster.id(), sources.clone());
        forward.set_endpoints(self.backends.behind(&backend(&name, port)));
        let (stop, stopped) = watch::channel(false);
        let serving = forward.clone();
        let serving = tokio::spawn(async move { serving.serve(listener, stopped).await });
        self.open.insert((name, port), Open { forward, sources, stop, serving });
        Ok(())
    }

    async fn tell(&self, wrong: Vec<Finding>) {
        let Some(reporter) = &self.reporter else { return };
        reporter.tell_all(wrong, |name| self.services.get(name).map(|service| service.uid.clone()));
        for (name, service) in &self.services {
            let ports: Vec<u16> =
                service.ports.iter().copied().filter(|p| self.open.contains_key(&(name.clone(), *p))).collect();
            let mut told: Vec<Value> = match ports.is_empty() {
                true => Vec::new(),
                false => self.room.addresses.iter().map(|text| address(text, &ports)).collect(),
            };
            // Nodes must not take what goes there for what comes to them.
            for one in told.iter_mut().filter(|one| one["ip"].is_string()) {
                one["ipMode"] = json!("Proxy");
            }
            reporter.address(name, &service.told, Value::from(told)).await;
        }
    }
}

fn backend(name: &Name, port: u16) -> Backend {
    Backend { service: name.clone(), port: Port::Number(port) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced(spec: Value) -> Option<Balanced> {
        Balanced::of(serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).expect("a Service"))
    }

    #[test]
    fn ours_are_those_that_name_nobody_else() {
        let ports = json!([{"port": 5432}, {"port": 53, "protocol": "UDP"}]);
        let ranges = json!(["192.0.2.0/24 "]);
        let ours = balanced(json!({"type": "LoadBalancer", "ports": ports, "loadBalancerSourceRanges": ranges}))
            .expect("ours");
        assert_eq!((ours.ports, ours.other), (BTreeSet::from([5432]), vec!["53/UDP".to_string()]));
        assert_eq!(ours.sources, ["192.0.2.0/24".parse().expect("a range")]);
        assert!(balanced(json!({"type": "LoadBalancer", "loadBalancerClass": CLASS})).is_some());
        assert_eq!(balanced(json!({"type": "LoadBalancer", "loadBalancerClass": "other.example/lb"})), None);
        assert_eq!(balanced(json!({"type": "NodePort", "ports": ports})), None);
    }
}
