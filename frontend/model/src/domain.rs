//! Domains: what an Ingress makes reachable, by what address, and what is wrong with it.

use crate::kube::{EndpointSlice, Event, Ingress, IngressBackend, Service};
use crate::state::{Action, Sentence, State};
use crate::time;
use crate::words::{Word, t};
use serde_json::{Value, json};
use std::sync::Arc;

/// A host of an Ingress.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Empty: any that nobody else has.
    pub name: String,
    /// Where a browser finds it; none while it is served nowhere, or stands for many names.
    pub url: Option<String>,
    pub tls: Tls,
    pub paths: Vec<Lead>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    None,
    /// The edge gets a certificate itself.
    Automatic,
    Secret(String),
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    pub path: String,
    pub service: String,
    /// A number or a name.
    pub port: String,
    pub backing: Backing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    Endpoints { ready: usize, all: usize },
    NoService,
    NoPort,
}

impl Backing {
    pub fn state(self) -> State {
        match self {
            Self::Endpoints { ready, all } if ready == all && all > 0 => State::Good,
            Self::Endpoints { ready: 1.., .. } => State::Degraded,
            _ => State::Failing,
        }
    }
    pub fn text(self) -> String {
        match self {
            Self::Endpoints { ready, all } => Word::DomainReady.with(&[("ready", &ready), ("all", &all)]),
            Self::NoService => t(Word::DomainNoSuchService).into(),
            Self::NoPort => t(Word::DomainNoSuchPort).into(),
        }
    }
}

/// What there is in the namespace of the Ingress.
pub struct Around<'a> {
    pub services: &'a [Service],
    pub slices: &'a [Arc<EndpointSlice>],
}

impl Around<'_> {
    fn lead(&self, path: &str, backend: &IngressBackend) -> Lead {
        let wanted = &backend.service;
        let port = if wanted.port.name.is_empty() { wanted.port.number.to_string() } else { wanted.port.name.clone() };
        let service = self.services.iter().find(|s| s.metadata.name == wanted.name);
        let found = service.map(|s| {
            s.spec
                .ports
                .iter()
                .find(|p| p.port == wanted.port.number || !p.name.is_empty() && p.name == wanted.port.name)
        });
        let backing = match found {
            None => Backing::NoService,
            Some(None) => Backing::NoPort,
            Some(Some(port)) => {
                let (ready, all) = endpoints(&wanted.name, &port.name, self.slices);
                Backing::Endpoints { ready, all }
            }
        };
        let path = if path.is_empty() { "/" } else { path };
        Lead { path: path.into(), service: wanted.name.clone(), port, backing }
    }
}

/// Of a Service's port: how many endpoints are ready, of how many.
fn endpoints(service: &str, port: &str, slices: &[Arc<EndpointSlice>]) -> (usize, usize) {
    let of =
        slices.iter().filter(|s| s.metadata.labels.get("kubernetes.io/service-name").is_some_and(|n| n == service));
    let all = of.filter(|s| s.ports.iter().any(|p| p.name == port)).flat_map(|s| &s.endpoints);
    all.fold((0, 0), |(ready, all), e| (ready + usize::from(e.conditions.ready.unwrap_or(true)), all + 1))
}

/// All hosts of an Ingress, in its order.
pub fn hosts(ingress: &Ingress, around: &Around) -> Vec<Host> {
    let mut all: Vec<Host> = Vec::new();
    let paths = ingress.spec.rules.iter().map(|rule| {
        let leads = rule.http.paths.iter().map(|p| around.lead(&p.path, &p.backend)).collect();
        (rule.host.clone(), leads)
    });
    let default = ingress.spec.default_backend.iter().map(|b| (String::new(), vec![around.lead("", b)]));
    for (name, leads) in paths.chain(default) {
        match all.iter_mut().find(|host| host.name == name) {
            Some(host) => host.paths.extend::<Vec<Lead>>(leads),
            None => {
                let tls = tls(ingress, &name);
                all.push(Host { url: url(ingress, &name, &tls), tls, paths: leads, name });
            }
        }
    }
    all
}

/// A wildcard stands for one label.
fn covers(pattern: &str, host: &str) -> bool {
    let below = pattern.strip_prefix("*.").zip(host.split_once('.'));
    pattern == host || below.is_some_and(|(domain, (_, parent))| domain == parent)
}

fn tls(ingress: &Ingress, host: &str) -> Tls {
    let found = ingress.spec.tls.iter().find(|tls| tls.hosts.is_empty() || tls.hosts.iter().any(|h| covers(h, host)));
    match found {
        None => Tls::None,
        Some(tls) if tls.secret_name.is_empty() => Tls::Automatic,
        Some(tls) => Tls::Secret(tls.secret_name.clone()),
    }
}

/// The edge tells its ports in one order: HTTP, then HTTPS, as far as there are such.
fn url(ingress: &Ingress, host: &str, tls: &Tls) -> Option<String> {
    let entrance = ingress.status.load_balancer.ingress.first()?;
    let address = if entrance.hostname.is_empty() { &entrance.ip } else { &entrance.hostname };
    let name = if host.is_empty() { address } else { host };
    if name.contains('*') || name.is_empty() {
        return None;
    }
    let ports: Vec<i64> = entrance.ports.iter().map(|p| p.port).collect();
    let secure = *tls != Tls::None;
    let (scheme, usual, port) = match ports[..] {
        [_, https, ..] if secure => ("https", 443, https),
        [only] if secure && only != 80 => ("https", 443, only),
        [http, ..] => ("http", 80, http),
        [] if secure => ("https", 443, 443),
        [] => ("http", 80, 80),
    };
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_string() };
    Some(if port == usual { format!("{scheme}://{name}") } else { format!("{scheme}://{name}:{port}") })
}

/// A record for whoever manages the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub r#type: &'static str,
    pub value: String,
}

/// What leads the world to its hosts, and proves that they are ours where that was asked for.
pub fn records(ingress: &Ingress, warnings: &[Arc<Event>]) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    let mut add = |record: Record| {
        if !all.contains(&record) {
            all.push(record);
        }
    };
    for event in warnings.iter().filter(|e| e.reason == "HostUnproven") {
        // … add the DNS record NAME TXT "VALUE"
        let said = event.message.split_once(" TXT \"").and_then(|(before, after)| {
            Some((before.rsplit(' ').next()?.to_string(), after.split('"').next()?.to_string()))
        });
        if let Some((name, value)) = said {
            add(Record { name, r#type: "TXT", value });
        }
    }
    for rule in ingress.spec.rules.iter().filter(|rule| !rule.host.is_empty()) {
        for entrance in &ingress.status.load_balancer.ingress {
            let (r#type, value) = match (&entrance.ip, &entrance.hostname) {
                (_, name) if !name.is_empty() => ("CNAME", name),
                (ip, _) if ip.contains(':') => ("AAAA", ip),
                (ip, _) => ("A", ip),
            };
            // A name at its own address needs nothing.
            if *value != rule.host {
                add(Record { name: rule.host.clone(), r#type, value: value.clone() });
            }
        }
    }
    all
}

/// The Ingress's warnings, newest first, each text once.
pub fn warnings(ingress: &Ingress, events: impl Iterator<Item = Arc<Event>>) -> Vec<Arc<Event>> {
    let of_this = |e: &Arc<Event>| e.r#type == "Warning" && e.involved_object.uid == ingress.metadata.uid;
    let mut all: Vec<Arc<Event>> = events.filter(of_this).collect();
    all.sort_by(|a, b| b.last_seen().cmp(a.last_seen()));
    let mut seen: Vec<String> = Vec::new();
    all.retain(|e| {
        let new = !seen.contains(&e.message);
        seen.push(e.message.clone());
        new
    });
    all
}

/// How long the edge is given before its silence means something, in milliseconds.
const SOON: i64 = 15_000;

pub fn sentence(ingress: &Ingress, hosts: &[Host], warnings: &[Arc<Event>], now: i64) -> Sentence {
    let entrances = &ingress.status.load_balancer.ingress;
    let addresses: Vec<&str> =
        entrances.iter().map(|e| if e.ip.is_empty() { e.hostname.as_str() } else { e.ip.as_str() }).collect();
    let address = addresses.join(", ");
    if let Some(warning) = warnings.first() {
        let ago = time::ago_text(warning.last_seen(), now);
        let (state, text) = match (address.is_empty(), warning.reason.as_str()) {
            (false, _) => (State::Degraded, Word::DomainPartly.with(&[("address", &address), ("ago", &ago)])),
            (_, "HostTaken") => (State::Failing, t(Word::DomainTaken).into()),
            (_, "HostUnproven") => (State::Failing, t(Word::DomainUnproven).into()),
            _ => (State::Failing, Word::DomainRefused.with(&[("ago", &ago)])),
        };
        let (next, action) = match warning.reason.as_str() {
            "HostTaken" => (Word::NextAnotherHost, Some(Action::EditYaml)),
            "HostUnproven" => (Word::NextProveHost, None),
            "Conflict" => (Word::NextConflict, Some(Action::EditYaml)),
            "InvalidCertificate" => (Word::NextCertificate, None),
            _ => (Word::NextEdit, Some(Action::EditYaml)),
        };
        return Sentence::new(state, text).evidence(&warning.message).next(next, action);
    }
    if address.is_empty() {
        let made = time::parse(&ingress.metadata.creation_timestamp).unwrap_or_default();
        if now - made < SOON {
            return Sentence::new(State::Progressing, t(Word::DomainJustMade));
        }
        return Sentence::new(State::Unknown, t(Word::DomainNoAddress)).next(Word::NextEdge, None);
    }
    match hosts.iter().flat_map(|h| &h.paths).find(|lead| lead.backing.state() == State::Failing) {
        Some(lead) => {
            let values: [(&str, &dyn std::fmt::Display); 2] = [("address", &address), ("service", &lead.service)];
            Sentence::new(State::Degraded, Word::DomainNobody.with(&values)).next(Word::NextLookAtPods, None)
        }
        None => Sentence::new(State::Good, Word::DomainServed.with(&[("address", &address)])),
    }
}

/// An Ingress for a Service.
pub fn new_ingress(service: &Service, host: &str, port: i64, tls: bool) -> Value {
    let backend = json!({"service": {"name": service.metadata.name, "port": {"number": port}}});
    let mut spec = json!({
        "ingressClassName": "longshore",
        "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
    });
    if tls {
        spec["tls"] = json!([{"hosts": [host]}]);
    }
    let name = host.replace("*.", "any.").replace('.', "-");
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": service.metadata.namespace},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;

    fn ingress(status: Value) -> Ingress {
        let to = |port: Value| json!({"service": {"name": "web", "port": port}});
        Read::read(&json!({
            "metadata": {"name": "shop", "uid": "u"},
            "spec": {
                "tls": [{"hosts": ["shop.example.com"]}, {"hosts": ["*.example.org"], "secretName": "wild"}],
                "rules": [
                    {"host": "shop.example.com", "http": {"paths": [
                        {"path": "/", "backend": to(json!({"number": 80}))},
                        {"path": "/api", "backend": to(json!({"name": "grpc"}))},
                        {"path": "/old", "backend": {"service": {"name": "gone", "port": {"number": 1}}}}]}},
                    {"host": "a.example.org", "http": {"paths": [{"backend": to(json!({"number": 81}))}]}},
                    {"host": "a.b.example.org", "http": {"paths": []}}],
            },
            "status": {"loadBalancer": {"ingress": status}},
        }))
    }

    fn look(ingress: &Ingress) -> Vec<Host> {
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}, {"name": "grpc", "port": 90}]}});
        let endpoint = |ready: Value| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}});
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [endpoint(Value::Null), endpoint(json!(false))],
        });
        hosts(ingress, &Around { services: &[Read::read(&service)], slices: &[Arc::new(Read::read(&slice))] })
    }

    fn warning(reason: &str, message: &str) -> Arc<Event> {
        Arc::new(Read::read(&json!({
            "type": "Warning", "reason": reason, "message": message, "involvedObject": {"uid": "u"}
        })))
    }

    #[test]
    fn each_host_says_where_its_paths_lead() {
        let shown = look(&ingress(json!([])));
        let backings: Vec<Backing> = shown.iter().flat_map(|h| &h.paths).map(|p| p.backing).collect();
        let found = |ready, all| Backing::Endpoints { ready, all };
        assert_eq!(backings, [found(1, 2), found(0, 0), Backing::NoService, Backing::NoPort]);
        let tls: Vec<&Tls> = shown.iter().map(|h| &h.tls).collect();
        assert_eq!(tls, [&Tls::Automatic, &Tls::Secret("wild".into()), &Tls::None]);
        assert!(shown.iter().all(|h| h.url.is_none()));
    }

    #[test]
    fn links_take_scheme_and_port_from_status() {
        let urls = |status| look(&ingress(status)).into_iter().map(|h| h.url.unwrap_or_default()).collect::<Vec<_>>();
        let ports = |ports: &[u16]| ports.iter().map(|port| json!({"port": port})).collect::<Vec<_>>();
        assert_eq!(
            urls(json!([{"ip": "192.0.2.1", "ports": ports(&[80, 443])}])),
            ["https://shop.example.com", "https://a.example.org", "http://a.b.example.org"]
        );
        assert_eq!(
            urls(json!([{"hostname": "edge.example.net", "ports": ports(&[8080, 8443])}])),
            ["https://shop.example.com:8443", "https://a.example.org:8443", "http://a.b.example.org:8080"]
        );
        assert_eq!(urls(json!([{"ip": "192.0.2.1", "ports": ports(&[443])}]))[0], "https://shop.example.com");
        assert_eq!(urls(json!([{"ip": "192.0.2.1"}]))[2], "http://a.b.example.org");
    }

    #[test]
    fn records_lead_to_the_address_and_prove_the_host() {
        let unproven = "host shop.example.com: it is not proven to be yours: add the DNS record _longshore.shop.example.com TXT \"abc\"";
        let said = |status| {
            let records = records(&ingress(status), &[warning("HostUnproven", unproven)]);
            records.into_iter().map(|r| format!("{} {} {}", r.name, r.r#type, r.value)).collect::<Vec<_>>()
        };
        assert_eq!(said(json!([])), ["_longshore.shop.example.com TXT abc"]);
        assert_eq!(said(json!([{"ip": "192.0.2.1"}]))[1], "shop.example.com A 192.0.2.1");
        assert_eq!(said(json!([{"ip": "2001:db8::1"}]))[2], "a.example.org AAAA 2001:db8::1");
        assert_eq!(said(json!([{"hostname": "e.example.net"}]))[3], "a.b.example.org CNAME e.example.net");
    }

    #[test]
    fn the_sentence_says_what_is_wrong_first() {
        let served = ingress(json!([{"ip": "192.0.2.1"}]));
        let waiting = ingress(json!([]));
        let state = |ingress: &Ingress, hosts: &[Host], w: &[Arc<Event>]| sentence(ingress, hosts, w, 60_000).state;
        assert_eq!(state(&served, &[], &[]), State::Good);
        assert_eq!(state(&served, &look(&served), &[]), State::Degraded);
        assert_eq!(state(&waiting, &[], &[]), State::Unknown);
        assert_eq!(sentence(&waiting, &[], &[], 1_000).state, State::Progressing);
        assert_eq!(state(&waiting, &[], &[warning("HostTaken", "x")]), State::Failing);
        assert_eq!(state(&served, &[], &[warning("Conflict", "x")]), State::Degraded);
        let others = [warning("A", "x"), warning("A", "x"), Arc::new(Event::default())];
        assert_eq!(warnings(&served, others.into_iter()).len(), 1);
    }

    #[test]
    fn a_new_one_is_as_a_person_would_have_written_it() {
        let service = Read::read(&json!({"metadata": {"name": "web", "namespace": "a"}}));
        let made = new_ingress(&service, "*.example.com", 80, true);
        assert_eq!(made["metadata"], json!({"name": "any-example-com", "namespace": "a"}));
        assert_eq!(made["spec"]["tls"], json!([{"hosts": ["*.example.com"]}]));
        assert!(new_ingress(&service, "a", 80, false)["spec"].get("tls").is_none());
    }
}
