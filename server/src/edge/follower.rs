//! Keeps the edge in step with one cluster's log.

use super::hosts::Settled;
use super::nodes::{Served, Told};
use super::part::{INGRESSES, News, OTHERS, Part};
use super::ports::EdgePort;
use super::report::{self, Finding, Reporter};
use super::{ASKED_AGAIN, Room};
use crate::store::{Change, ChangeKind, Cluster, StoreError, Watch, WatchItem};
use futures::future::select_all;
use k8s_openapi::api::networking::v1::IngressTLS;
use longshore_api::network::Name;
use longshore_edge::Claims;
use longshore_edge::host::Host;
use longshore_edge::ingress::Compiled;
use longshore_edge::model::{Backend, CertificateSource, Routes};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Before a database that was away is asked again for the cluster's hosts.
const AGAIN: Duration = Duration::from_secs(2);

pub(super) struct Follower {
    room: Arc<Room>,
    cluster: Arc<Cluster>,
    part: Part,
    serving: Option<Serving>,
    /// For the nodes that are edges.
    told: Arc<Told>,
}

/// What there is while there is an Ingress.
struct Serving {
    reporter: Reporter,
    compiled: Compiled,
    settled: Settled,
    /// The same as a set of hosts, when it was last asked for.
    wanted: BTreeSet<Host>,
    backends: BTreeSet<Backend>,
    certificates: BTreeSet<CertificateSource>,
    /// Hosts that an authority is asked for; whoever asks it ends with this.
    ordered: Option<watch::Sender<BTreeSet<String>>>,
    /// When hosts are asked for again, at the latest.
    again: Option<Instant>,
    /// Changes when one may be free.
    freed: watch::Receiver<()>,
}

impl Follower {
    pub fn open(room: Arc<Room>, cluster: &Arc<Cluster>) -> Result<(Self, Watch), StoreError> {
        let told = cluster.companion::<Told>();
        let mut follower = Self { room, cluster: cluster.clone(), part: Part::default(), serving: None, told };
        let watch = cluster.follow(INGRESSES, |ingress| follower.part.take(ingress, false))?;
        Ok((follower, watch))
    }

    /// Until the cluster leaves this replica.
    pub async fn run(mut self, ingresses: Watch) {
        let mut watches = vec![ingresses];
        while self.settle(&mut watches).await.is_ok() {
            let next = select_all(watches.iter_mut().map(|watch| Box::pin(watch.next())));
            let item = tokio::select! {
                (item, _, _) = next => item,
                () = time_to_ask(&mut self.serving) => {
                    self.ask_again().await;
                    continue;
                }
            };
            match item {
                WatchItem::Changes(changes) => self.take(&changes),
                WatchItem::Progress(_) => {}
                WatchItem::Ended(_) => break,
            }
        }
        self.room.edge.remove(self.cluster.id());
    }

    fn take(&mut self, changes: &[Arc<Change>]) {
        for change in changes {
            self.part.take(&change.object, change.kind == ChangeKind::Deleted);
        }
    }

    /// Does what the news ask for. Err: the cluster is gone.
    async fn settle(&mut self, watches: &mut Vec<Watch>) -> Result<(), StoreError> {
        if self.part.is_empty() {
            if self.serving.take().is_some() {
                watches.truncate(1);
                self.part = Part::default();
                self.room.edge.remove(self.cluster.id());
                self.told.set(Served::default());
                self.let_go().await;
            }
            return Ok(());
        }
        if self.serving.is_none() {
            for resource in OTHERS {
                let watch = self.cluster.follow(resource, |object| self.part.take(object, false))?;
                watches.push(watch);
            }
            self.serving = Some(Serving::new(&self.room, &self.cluster));
        }
        let news = self.part.news();
        if news.routes {
            self.route().await;
        } else {
            self.refresh(&news);
        }
        Ok(())
    }

    /// With the last Ingress its hosts are free for others.
    async fn let_go(&self) {
        if let Err(error) = self.room.hosts.settle(self.cluster.id(), &BTreeSet::new()).await {
            tracing::warn!(%error, cluster = %self.cluster.id(), "hosts are kept that nobody asks for any more");
        }
    }

    /// Everything anew.
    async fn route(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        serving.compiled = self.part.compile();
        let wanted = hosts(&serving.compiled.routes);
        if wanted != serving.wanted || serving.again.is_some() {
            serving.wanted = wanted;
            serving.ask(&self.room, &self.cluster).await;
        }
        self.serve().await;
    }

    async fn ask_again(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        let before = serving.settled.clone();
        serving.ask(&self.room, &self.cluster).await;
        if serving.settled != before {
            self.serve().await;
        }
    }

    /// Routes, endpoints, certificates, and word of them.
    async fn serve(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        let (edge, id) = (&self.room.edge, self.cluster.id());
        let routes = serving.compiled.routes.granted(&serving.settled.granted);
        serving.backends = routes.backends().into_iter().cloned().collect();
        let before = std::mem::take(&mut serving.certificates);
        serving.certificates = routes.certificates.iter().map(|used| used.from.clone()).collect();
        serving.order(&self.room, &self.cluster, &routes);
        let (ingresses, classes) = self.part.ours(&serving.compiled.ours);
        let (hosts, certificates) = (serving.settled.granted.clone(), serving.certificates.clone());
        self.told.set(Served { ingresses, classes, hosts, certificates });
        edge.set_routes(id, Claims::of(&serving.settled.granted), routes);
        for backend in &serving.backends {
            edge.set_endpoints(id, backend, self.part.behind(backend));
        }
        for gone in before.difference(&serving.certificates) {
            edge.set_certificate(id, gone.clone(), None);
        }
        let mut wrong = Vec::new();
        // One that was made for its host is good for as long as the host is asked for.
        let made =
            |source: &&CertificateSource| matches!(source, CertificateSource::Automatic(_)) && before.contains(*source);
        for source in &serving.certificates {
            let set = match self.room.certificates.refuses(source) {
                Some(why) => Err(why),
                None if made(&source) => Ok(()),
                None => self.room.certificates.set(edge, &self.cluster, source),
            };
            if let Err(why) = set {
                wrong
                    .extend(users(&self.part, source).map(|ingress| Finding::new(ingress, "InvalidCertificate", &why)));
            }
        }
        for (host, why) in &serving.settled.refused {
            let of = self.part.ingresses().filter(|(name, ingress)| {
                serving.compiled.ours.contains(name) && report::hosts_of(ingress).contains(host)
            });
            wrong.extend(of.map(|(name, _)| Finding::new(name.clone(), why.reason(), &format!("host {host}: {why}"))));
        }
        let found = serving.compiled.findings.iter();
        wrong.extend(found.map(|f| Finding::new(f.ingress.clone(), f.reason.as_str(), &f.message)));
        serving.reporter.tell_all(wrong, |name| uid(&self.part, name));
        let places = addresses(&self.room, &self.part);
        for (name, ingress) in self.part.ingresses().filter(|(name, _)| serving.compiled.ours.contains(name)) {
            let granted = !report::hosts_of(ingress).is_disjoint(&serving.settled.granted);
            let wanted = match serving.compiled.served.contains(name) && granted {
                true => places.clone(),
                false => Vec::new(),
            };
            let told = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let told = serde_json::to_value(told.and_then(|told| told.ingress.as_deref()).unwrap_or_default());
            serving.reporter.address(name, &told.unwrap_or_default(), wanted.into()).await;
        }
    }

    /// Endpoints and certificates that are others now.
    fn refresh(&self, news: &News) {
        let Some(serving) = &self.serving else { return };
        for backend in serving.backends.iter().filter(|backend| news.services.contains(&backend.service)) {
            self.room.edge.set_endpoints(self.cluster.id(), backend, self.part.behind(backend));
        }
        for source in &serving.certificates {
            let CertificateSource::Secret(name) = source else { continue };
            if !news.secrets.contains(name) {
                continue;
            }
            self.told.look_again();
            if let Err(why) = self.room.certificates.set(&self.room.edge, &self.cluster, source) {
                let wrong = users(&self.part, source).map(|it| Finding::new(it, "InvalidCertificate", &why));
                wrong.for_each(|finding| serving.reporter.tell(finding, |name| uid(&self.part, name)));
            }
        }
    }
}

/// Where the world finds the edge: this server's, and nodes.
fn addresses(room: &Room, part: &Part) -> Vec<Value> {
    let ours =
        room.addresses.iter().map(|text| report::address(text, room.ports.iter().map(|port| EdgePort::tcp(*port))));
    let nodes = part.edges().flat_map(|(addresses, ports)| {
        let ports = [ports.http, ports.https].into_iter().filter(|port| *port > 0).map(EdgePort::tcp);
        addresses.iter().map(move |text| report::address(text, ports.clone()))
    });
    ours.chain(nodes).collect()
}

/// Ends when hosts that were refused are to be asked for again: it is time, or one became free.
async fn time_to_ask(serving: &mut Option<Serving>) {
    let Some((again, freed)) = serving.as_mut().and_then(|serving| Some((serving.again?, &mut serving.freed))) else {
        return std::future::pending().await;
    };
    let _ = tokio::time::timeout_at(again, freed.changed()).await;
}

impl Serving {
    fn new(room: &Room, cluster: &Arc<Cluster>) -> Self {
        Self {
            reporter: Reporter::new(room, cluster, INGRESSES),
            compiled: Compiled::default(),
            settled: Settled::default(),
            wanted: BTreeSet::new(),
            backends: BTreeSet::new(),
            certificates: BTreeSet::new(),
            ordered: None,
            again: None,
            freed: room.hosts.freed(),
        }
    }

    async fn ask(&mut self, room: &Room, cluster: &Cluster) {
        self.freed.mark_unchanged();
        match room.hosts.settle(cluster.id(), &self.wanted).await {
            Ok(settled) => {
                self.again = settled.may_change().then(|| Instant::now() + ASKED_AGAIN);
                self.settled = settled;
            }
            // What was granted goes on being served.
            Err(error) => {
                tracing::warn!(%error, cluster = %cluster.id(), "the cluster's hosts can't be asked for");
                self.again = Some(Instant::now() + AGAIN);
            }
        }
    }

    fn order(&mut self, room: &Arc<Room>, cluster: &Cluster, routes: &Routes) {
        let hosts = routes.automatic_hosts().into_iter().filter(|host| room.certificates.proves(host));
        let hosts: BTreeSet<String> = hosts.map(String::from).collect();
        match &self.ordered {
            Some(ordered) => {
                ordered.send_if_modified(|known| std::mem::replace(known, hosts.clone()) != hosts);
            }
            None if hosts.is_empty() || !room.certificates.has_authority() => {}
            None => {
                let (sender, ordered) = watch::channel(hosts);
                let (room, cluster) = (room.clone(), cluster.id().clone());
                tokio::spawn(async move { room.certificates.keep(&room.edge, &cluster, ordered).await });
                self.ordered = Some(sender);
            }
        }
    }
}

/// Of an Ingress.
fn uid(part: &Part, name: &Name) -> Option<String> {
    part.ingress(name).map(|ingress| ingress.metadata.uid.clone().unwrap_or_default())
}

/// All hosts that routes are for.
fn hosts(routes: &Routes) -> BTreeSet<Host> {
    let mut hosts: BTreeSet<Host> = routes.hosts.iter().map(|routes| routes.host.clone()).collect();
    if routes.default.is_some() {
        hosts.insert(Host::Any);
    }
    hosts
}

/// The Ingresses whose TLS a certificate of this source is for.
fn users<'a>(part: &'a Part, source: &'a CertificateSource) -> impl Iterator<Item = Name> + use<'a> {
    part.ingresses().filter_map(move |(name, ingress)| {
        let mut tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        let uses = match source {
            CertificateSource::Secret(secret) => {
                name.namespace == secret.namespace && tls.any(|tls| tls.secret_name.as_deref() == Some(&secret.name))
            }
            CertificateSource::Automatic(host) => {
                let named = |tls: &IngressTLS| tls.hosts.iter().flatten().any(|h| h.eq_ignore_ascii_case(host));
                tls.any(|tls| tls.secret_name.as_deref().unwrap_or_default().is_empty() && named(tls))
            }
        };
        uses.then(|| name.clone())
    })
}
