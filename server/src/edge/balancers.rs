//! Services of type LoadBalancer: each port of theirs, TCP's or UDP's, is opened at the edge's address, and leads to their
//! endpoints through the tunnels of their nodes.

use super::backends::{Backends, SERVICES, SLICES};
use super::ports::{self, EdgePort, PortRules};
use super::report::{Finding, Reporter, address};
use super::{ASKED_AGAIN, Room};
use crate::store::{Change, ChangeKind, Cluster, Object, StoreError, Watch, WatchItem};
use futures::future::{join_all, select_all};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use longshore_api::network::{Name, Protocol};
use longshore_edge::Forward;
use longshore_edge::model::{Backend, Port};
use longshore_edge::services::Behind;
use longshore_edge::socket::{Datagrams, listener};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// `spec.loadBalancerClass` of those that name us; those that name nobody are ours as well.
const CLASS: &str = "longshore.dev/edge";
const REASON: &str = "SyncLoadBalancerFailed";

/// One of ours.
#[derive(Clone, Debug, PartialEq)]
struct Balanced {
    uid: String,
    ports: BTreeSet<EdgePort>,
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
                ("TCP", Ok(number)) => drop(ports.insert(EdgePort::tcp(number))),
                ("UDP", Ok(number)) => drop(ports.insert(EdgePort { number, protocol: Protocol::Udp })),
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
    open: BTreeMap<(Name, EdgePort), Open>,
    /// While there is any.
    reporter: Option<Reporter>,
    /// Services with endpoints on nodes that can't carry their datagrams, and why.
    unsupported: (mpsc::Sender<(Name, String)>, mpsc::Receiver<(Name, String)>),
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
            unsupported: mpsc::channel(1),
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
                Some((name, why)) = self.unsupported.1.recv() => {
                    self.tell_one(Finding::new(name, REASON, &why));
                    continue;
                }
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
            open.forward.set_endpoints(self.behind(name, *port));
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
                wrong.push(Finding::new(name.clone(), REASON, &format!("port {other}: only TCP and UDP are served")));
            }
            for port in &service.ports {
                if !self.rules.allow(port.number) {
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
        let numbers = wanted.keys().map(|port: &EdgePort| port.number).collect();
        let had = match ports::settle(&self.room.pool, self.cluster.id(), &numbers).await {
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
            wanted.get(port) != Some(name) || !had.contains(&port.number) || sources != Some(&open.sources)
        });
        join_all(closed.map(|(_, open)| open.close())).await;
        for (port, name) in &wanted {
            let key = (name.clone(), *port);
            let opened = match (had.contains(&port.number), self.open.contains_key(&key)) {
                (true, true) => Ok(()),
                (true, false) => self.listen(key),
                (false, _) => Err(format!("port {port} is served for another cluster")),
            };
            if let Err(why) = opened {
                self.again = Some(Instant::now() + ASKED_AGAIN);
                wrong.push(Finding::new(name.clone(), REASON, &why));
            }
        }
        self.tell(wrong).await;
    }

    fn behind(&self, name: &Name, EdgePort { number, protocol }: EdgePort) -> Behind {
        self.backends.behind(&Backend { service: name.clone(), port: Port::Number(number) }, protocol)
    }

    fn listen(&mut self, (name, port): (Name, EdgePort)) -> Result<(), String> {
        let address = SocketAddr::new(self.rules.ip, port.number);
        let taken = |error| format!("port {port}: {error}");
        let sources = self.services.get(&name).map(|service| service.sources.clone()).unwrap_or_default();
        let forward = self.room.edge.forward(self.cluster.id(), sources.clone());
        forward.set_endpoints(self.behind(&name, port));
        let (stop, stopped) = watch::channel(false);
        let serving = forward.clone();
        let serving = if port.protocol == Protocol::Udp {
            let socket = Datagrams::bind(address).map_err(taken)?;
            let (tell, about) = (self.unsupported.0.clone(), name.clone());
            // Once is enough: what finds no room is said again.
            let unsupported = Box::new(move |why| drop(tell.try_send((about.clone(), format!("port {port}: {why}")))));
            tokio::spawn(async move { serving.serve_datagrams(socket, unsupported, stopped).await })
        } else {
            let listener = listener(address).and_then(TcpListener::from_std).map_err(taken)?;
            tokio::spawn(async move { serving.serve(listener, stopped).await })
        };
        self.open.insert((name, port), Open { forward, sources, stop, serving });
        Ok(())
    }

    fn uid(&self, name: &Name) -> Option<String> {
        self.services.get(name).map(|service| service.uid.clone())
    }

    fn tell_one(&self, wrong: Finding) {
        if let Some(reporter) = &self.reporter {
            reporter.tell(wrong, |name| self.uid(name));
        }
    }

    async fn tell(&self, wrong: Vec<Finding>) {
        let Some(reporter) = &self.reporter else { return };
        reporter.tell_all(wrong, |name| self.uid(name));
        for (name, service) in &self.services {
            let ports: Vec<EdgePort> =
                service.ports.iter().copied().filter(|p| self.open.contains_key(&(name.clone(), *p))).collect();
            let mut told: Vec<Value> = match ports.is_empty() {
                true => Vec::new(),
                false => self.room.addresses.iter().map(|text| address(text, ports.iter().copied())).collect(),
            };
            // Nodes must not take what goes there for what comes to them.
            for one in told.iter_mut().filter(|one| one["ip"].is_string()) {
                one["ipMode"] = json!("Proxy");
            }
            reporter.address(name, &service.told, Value::from(told)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced(spec: Value) -> Option<Balanced> {
        Balanced::of(serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).expect("a Service"))
    }

    #[test]
    fn ours_are_those_that_name_nobody_else() {
        let ports = json!([{"port": 53}, {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "SCTP"}]);
        let ranges = json!(["192.0.2.0/24 "]);
        let ours = balanced(json!({"type": "LoadBalancer", "ports": ports, "loadBalancerSourceRanges": ranges}))
            .expect("ours");
        let told: Vec<String> = ours.ports.iter().map(ToString::to_string).collect();
        assert_eq!((told, ours.other), (vec!["53/TCP".into(), "53/UDP".into()], vec!["53/SCTP".to_string()]));
        assert_eq!(ours.sources, ["192.0.2.0/24".parse().expect("a range")]);
        assert!(balanced(json!({"type": "LoadBalancer", "loadBalancerClass": CLASS})).is_some());
        assert_eq!(balanced(json!({"type": "LoadBalancer", "loadBalancerClass": "other.example/lb"})), None);
        assert_eq!(balanced(json!({"type": "NodePort", "ports": ports})), None);
    }
}
