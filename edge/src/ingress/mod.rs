//! Ingress v1, compiled to routes: a pure function of a cluster's Ingresses and classes.
//!
//! - Of two Ingresses that claim the same host and path, the older one has it; the other is told.
//! - A rule stands for itself: of all that match a request's host and path the most particular host wins, then an exact path,
//!   then the longest. What no rule is for goes to the default backend of an Ingress that names this host, or of the oldest
//!   that has one.
//! - `ImplementationSpecific` is `Prefix`, unless the Ingress asks for regular expressions.
//! - What is wrong with one Ingress never touches another: it is left out, with a reason.

pub mod annotations;
pub mod class;

use crate::host::Host;
use crate::model::*;
use crate::path::PathMatch;
use annotations::{Annotations, Canary};
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass};
use longshore_api::network::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a cluster's Ingresses come to.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub routes: Routes,
    /// What was left out, in the order of age.
    pub findings: Vec<Finding>,
    /// The Ingresses of which anything is served: those whose status tells the edge's address.
    pub served: BTreeSet<Name>,
    /// All that are this edge's to serve.
    pub ours: BTreeSet<Name>,
}

/// Something that is wrong with an Ingress, for an event on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub ingress: Name,
    pub reason: Reason,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another Ingress has the same host and path already.
    Conflict,
    InvalidAnnotation,
    /// It isn't served at all.
    Refused,
    InvalidPath,
    UnsupportedBackend,
    InvalidHost,
    /// A canary without the Ingress that it is the canary of.
    LonelyCanary,
}

impl Reason {
    /// As an event has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::Refused => "Refused",
            Self::InvalidPath => "InvalidPath",
            Self::UnsupportedBackend => "UnsupportedBackend",
            Self::InvalidHost => "InvalidHost",
            Self::LonelyCanary => "LonelyCanary",
        }
    }
}

/// One path of one host, with its canary.
struct Place {
    path: PathMatch,
    backend: Backend,
    source: Arc<Name>,
    annotations: usize,
    canary: Option<(Backend, usize)>,
}

#[derive(Default)]
struct Compiler<'a> {
    hosts: BTreeMap<Host, Vec<Place>>,
    fallbacks: BTreeMap<Host, Rule>,
    annotations: Vec<Annotations>,
    out: Compiled,
    canaries: Vec<(&'a Ingress, usize)>,
}

/// All of a cluster's Ingresses, in any order; those that aren't ours are left out in silence.
pub fn compile(ingresses: &[Ingress], classes: &[IngressClass]) -> Compiled {
    let mut ours: Vec<&Ingress> = ingresses.iter().filter(|ingress| class::is_ours(ingress, classes)).collect();
    ours.sort_by_cached_key(|ingress| (created(ingress), name_of(ingress)));
    let mut compiler = Compiler::default();
    for ingress in ours {
        compiler.out.ours.insert(name_of(ingress));
        compiler.add(ingress);
    }
    for (ingress, annotations) in std::mem::take(&mut compiler.canaries) {
        compiler.add_canary(ingress, annotations);
    }
    compiler.finish()
}

fn created(ingress: &Ingress) -> Option<jiff::Timestamp> {
    // One that says no time is the youngest.
    ingress.metadata.creation_timestamp.as_ref().map(|time| time.0).or(Some(jiff::Timestamp::MAX))
}

fn name_of(ingress: &Ingress) -> Name {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    Name::new(text(&ingress.metadata.namespace), text(&ingress.metadata.name))
}

/// Each path of each rule.
fn paths(ingress: &Ingress) -> impl Iterator<Item = (&str, &HTTPIngressPath)> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    rules.flat_map(|rule| {
        let host = rule.host.as_deref().unwrap_or_default();
        rule.http.iter().flat_map(|http| &http.paths).map(move |path| (host, path))
    })
}

impl<'a> Compiler<'a> {
    fn find(&mut self, ingress: &Name, reason: Reason, message: impl Into<String>) {
        self.out.findings.push(Finding { ingress: ingress.clone(), reason, message: message.into() });
    }

    fn add(&mut self, ingress: &'a Ingress) {
        let name = name_of(ingress);
        let empty = BTreeMap::new();
        let mut read = Annotations::read(ingress.metadata.annotations.as_ref().unwrap_or(&empty));
        if let Some(why) = read.refused.take() {
            self.find(&name, Reason::Refused, why);
            return;
        }
        for problem in std::mem::take(&mut read.problems) {
            self.find(&name, Reason::InvalidAnnotation, problem);
        }
        let at = self.annotations.len();
        let canary = read.canary.is_some();
        self.annotations.push(read);
        if canary {
            self.canaries.push((ingress, at));
            return;
        }
        for (host, path) in paths(ingress) {
            self.add_path(&name, at, host, path);
        }
        self.add_default(ingress, &name, at);
        if self.out.served.contains(&name) {
            self.add_certificates(ingress, at);
        }
    }

    fn place(
        &mut self,
        name: &Name,
        at: usize,
        host: &str,
        path: &HTTPIngressPath,
    ) -> Option<(Host, PathMatch, Backend)> {
        let Some(host) = Host::parse(host) else {
            self.find(name, Reason::InvalidHost, format!("host {host:?} is none that a request could have"));
            return None;
        };
        let text = path.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let matched = match path.path_type.as_str() {
            "Exact" => PathMatch::Exact(text.to_string()),
            "ImplementationSpecific" if self.annotations[at].use_regex => match PathMatch::regex(text) {
                Ok(matched) => matched,
                Err(why) => {
                    self.find(name, Reason::InvalidPath, format!("path {text:?} is no regular expression: {why}"));
                    return None;
                }
            },
            _ => PathMatch::prefix(text),
        };
        let backend = self.backend(name, &path.backend)?;
        Some((host, matched, backend))
    }

    fn add_path(&mut self, name: &Name, at: usize, host: &str, path: &HTTPIngressPath) {
        let Some((host, path, backend)) = self.place(name, at, host, path) else { return };
        let places = self.hosts.entry(host.clone()).or_default();
        if let Some(other) = places.iter().find(|place| place.path == path) {
            let (path, other) = (path_text(&path), &other.source);
            let message = format!(
                "host {host} with path {path} belongs to Ingress {}/{}, which is older",
                other.namespace, other.name
            );
            if **other != *name {
                self.find(name, Reason::Conflict, message);
            }
            return;
        }
        places.push(Place { path, backend, source: Arc::new(name.clone()), annotations: at, canary: None });
        self.out.served.insert(name.clone());
    }

    fn add_default(&mut self, ingress: &Ingress, name: &Name, at: usize) {
        let Some(backend) = ingress.spec.as_ref().and_then(|spec| spec.default_backend.as_ref()) else { return };
        let Some(backend) = self.backend(name, backend) else { return };
        let rule = self.rule(PathMatch::prefix("/"), Vec::new(), &[(backend, 1)], name.clone().into(), at);
        for (host, _) in paths(ingress) {
            if let Some(host) = Host::parse(host)
                && host != Host::Any
            {
                self.fallbacks.entry(host).or_insert_with(|| rule.clone());
            }
        }
        self.out.served.insert(name.clone());
        self.out.routes.default.get_or_insert(rule);
    }

    fn add_certificates(&mut self, ingress: &Ingress, at: usize) {
        let name = name_of(ingress);
        let hosts_of_rules: Vec<&str> = {
            let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
            rules.filter_map(|rule| rule.host.as_deref()).filter(|host| !host.is_empty()).collect()
        };
        for tls in ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten()) {
            let named: Vec<&str> = tls.hosts.iter().flatten().map(String::as_str).collect();
            let hosts = if named.is_empty() { &hosts_of_rules } else { &named };
            for text in hosts {
                let Some(host) = Host::parse(text).filter(|host| *host != Host::Any) else {
                    self.find(&name, Reason::InvalidHost, format!("TLS host {text:?} is none"));
                    continue;
                };
                let secret = tls.secret_name.as_deref().filter(|s| !s.is_empty() && !self.annotations[at].acme);
                let from = match secret {
                    Some(secret) => CertificateSource::Secret(Name::new(&name.namespace, secret)),
                    None => CertificateSource::Automatic(host.to_string()),
                };
                let certificates = &mut self.out.routes.certificates;
                if !certificates.iter().any(|c| c.host == host) {
                    certificates.push(CertificateUse { host, from });
                }
            }
        }
    }

    fn add_canary(&mut self, ingress: &Ingress, at: usize) {
        let name = name_of(ingress);
        for (host, path) in paths(ingress) {
            let Some((host, path, backend)) = self.place(&name, at, host, path) else { continue };
            let main = self.hosts.get_mut(&host).and_then(|places| places.iter_mut().find(|place| place.path == path));
            let problem = match main {
                None => Some((Reason::LonelyCanary, "there is no Ingress with the same host and path")),
                Some(Place { canary: Some(_), .. }) => Some((Reason::Conflict, "there is an older canary")),
                Some(place) => {
                    place.canary = Some((backend, at));
                    self.out.served.insert(name.clone());
                    None
                }
            };
            if let Some((reason, why)) = problem {
                let path = path_text(&path);
                self.find(&name, reason, format!("canary for host {host} with path {path}: {why}"));
            }
        }
    }

    fn backend(&mut self, name: &Name, backend: &IngressBackend) -> Option<Backend> {
        let Some(service) = &backend.service else {
            self.find(name, Reason::UnsupportedBackend, "a backend must be a Service: resources serve nothing here");
            return None;
        };
        let port = service.port.as_ref().and_then(|port| match (&port.name, port.number) {
            (Some(name), _) if !name.is_empty() => Some(Port::Name(name.clone())),
            (_, Some(number)) => u16::try_from(number).ok().filter(|n| *n > 0).map(Port::Number),
            _ => None,
        });
        let Some(port) = port else {
            self.find(name, Reason::UnsupportedBackend, format!("the backend {} names no port", service.name));
            return None;
        };
        Some(Backend { service: Name::new(&name.namespace, &service.name), port })
    }

    fn rule(
        &self,
        path: PathMatch,
        conditions: Vec<Condition>,
        backends: &[(Backend, u32)],
        source: Arc<Name>,
        at: usize,
    ) -> Rule {
        let read = &self.annotations[at];
        let mut filters = Vec::new();
        if read.force_ssl_redirect || read.ssl_redirect != Some(false) {
            filters.push(Filter::RedirectToHttps { always: read.force_ssl_redirect });
        }
        if let Some((location, status)) = &read.redirect {
            filters.push(Filter::Redirect { location: location.clone(), status: *status });
        }
        filters.extend(read.rewrite.clone().map(Filter::RewritePath));
        filters.extend(read.rewrite_prefix.clone().map(Filter::RewritePrefix));
        filters.extend(read.host.clone().map(Filter::SetHost));
        let weighted = backends.iter().filter(|(_, weight)| *weight > 0);
        let backends =
            weighted.map(|(backend, weight)| Weighted { backend: backend.clone(), weight: *weight }).collect();
        Rule { path, conditions, filters, backends, policy: read.policy.clone(), source }
    }

    /// The rules of a place: its canary's conditions before what is shared by weight.
    fn rules(&self, place: &Place) -> Vec<Rule> {
        let rule = |conditions, backends: &[(Backend, u32)]| {
            self.rule(place.path.clone(), conditions, backends, place.source.clone(), place.annotations)
        };
        let main = || (place.backend.clone(), 1);
        let Some((backend, at)) = &place.canary else { return vec![rule(Vec::new(), &[main()])] };
        let Some(canary) = &self.annotations[*at].canary else { return vec![rule(Vec::new(), &[main()])] };
        let mut rules = Vec::new();
        for (condition, to_canary) in conditions(canary) {
            let backend = if to_canary { (backend.clone(), 1) } else { main() };
            rules.push(rule(vec![condition], &[backend]));
        }
        let shared = [(place.backend.clone(), canary.total - canary.weight), (backend.clone(), canary.weight)];
        rules.push(rule(Vec::new(), &shared));
        rules
    }

    fn finish(mut self) -> Compiled {
        for (host, mut places) in std::mem::take(&mut self.hosts) {
            places.sort_by(|a, b| a.path.precedence(&b.path));
            let rules = places.iter().flat_map(|place| self.rules(place)).collect();
            let fallback = self.fallbacks.remove(&host);
            self.out.routes.hosts.push(HostRoutes { host, rules, fallback });
        }
        for (host, rule) in std::mem::take(&mut self.fallbacks) {
            self.out.routes.hosts.push(HostRoutes { host, rules: Vec::new(), fallback: Some(rule) });
        }
        self.out
    }
}

/// What sends a request to the canary (true) or away from it, in the order in which they count.
fn conditions(canary: &Canary) -> Vec<(Condition, bool)> {
    let mut all = Vec::new();
    if let Some(name) = &canary.header {
        let header = |value: &str| Condition::Header { name: name.clone(), value: value.to_string() };
        match &canary.header_value {
            Some(value) => all.push((header(value), true)),
            None => all.extend([(header("always"), true), (header("never"), false)]),
        }
    }
    if let Some(name) = &canary.cookie {
        let cookie = |value: &str| Condition::Cookie { name: name.clone(), value: value.to_string() };
        all.extend([(cookie("always"), true), (cookie("never"), false)]);
    }
    all
}

fn path_text(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(text) => text.clone(),
        PathMatch::Prefix(text) if text.is_empty() => "/".into(),
        PathMatch::Prefix(text) => text.clone(),
        PathMatch::Regex(regex) => regex.as_str().trim_start_matches('^').to_string(),
    }
}

#[cfg(test)]
mod tests;
