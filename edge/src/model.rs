//! What the edge serves, in the Gateway API's way: hosts, rules with conditions, filters and weighted backends. Ingress is
//! compiled to it ([`crate::ingress`]); nothing that proxies knows where a rule came from.

use crate::host::Host;
use crate::path::PathMatch;
use ipnet::IpNet;
pub use longshore_api::edge::Source as CertificateSource;
use longshore_api::network::Name;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Everything that one cluster has the edge serve.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// One for each host, any order.
    pub hosts: Vec<HostRoutes>,
    /// For what no rule is for.
    pub default: Option<Rule>,
    pub certificates: Vec<CertificateUse>,
}

#[derive(Clone, Debug)]
pub struct HostRoutes {
    pub host: Host,
    /// The first one that matches is taken: the most particular first.
    pub rules: Vec<Rule>,
    /// After every other rule that is for this host.
    pub fallback: Option<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub path: PathMatch,
    /// All must hold.
    pub conditions: Vec<Condition>,
    pub filters: Vec<Filter>,
    /// Empty where a filter answers.
    pub backends: Vec<Weighted>,
    pub policy: Policy,
    /// The object it was made of, for logs and events. Its rules share what a client may ask ([`Limits`]).
    pub source: Arc<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The name in lower case.
    Header {
        name: String,
        value: String,
    },
    Cookie {
        name: String,
        value: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Plain HTTP is sent to the same address with `https`; `always` even where this edge has no certificate for it.
    RedirectToHttps {
        always: bool,
    },
    Redirect {
        location: String,
        status: u16,
    },
    /// The whole path becomes this one; with captures of a regular expression (`$1`).
    RewritePath(String),
    /// What the rule's prefix matched becomes this.
    RewritePrefix(String),
    /// The `Host` that the backend is told.
    SetHost(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    pub backend: Backend,
    /// Relative to the others'; none of them with 0.
    pub weight: u32,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub service: Name,
    pub port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// To connect to an endpoint.
    pub connect: Duration,
    /// Until the head of the answer is there, and between two pieces of it.
    pub read: Duration,
    /// Between two pieces of the request.
    pub send: Duration,
    /// In bytes; None: no limit.
    pub body_limit: Option<u64>,
    pub protocol: Protocol,
    /// Who may come; empty: everybody.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub limits: Limits,
}

/// What one client may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub per_second: Option<Rate>,
    pub per_minute: Option<Rate>,
    /// Requests that run at once.
    pub at_once: Option<usize>,
    /// Who may ask anything.
    pub free: Vec<IpNet>,
}

/// So many requests on an average, and so many at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub requests: NonZeroU32,
    pub burst: NonZeroU32,
}

impl Limits {
    pub fn any(&self) -> bool {
        self.per_second.is_some() || self.per_minute.is_some() || self.at_once.is_some()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(60),
            send: Duration::from_secs(60),
            body_limit: None,
            protocol: Protocol::Http,
            allow: Vec::new(),
            deny: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS; any certificate will do, for the address says who it is.
    Https,
    /// HTTP/2 without TLS, which gRPC is as well.
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

impl Protocol {
    pub fn tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }
    pub fn http2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }
}

/// Whose certificate is shown for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateUse {
    pub host: Host,
    pub from: CertificateSource,
}

impl Routes {
    /// Every backend that is named.
    pub fn backends(&self) -> BTreeSet<&Backend> {
        self.all_rules().flat_map(|rule| &rule.backends).map(|weighted| &weighted.backend).collect()
    }

    pub(crate) fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.hosts.iter().flat_map(|h| h.rules.iter().chain(&h.fallback)).chain(&self.default)
    }

    /// What is left with these hosts alone. A default backend answers for all hosts that were granted.
    pub fn granted(&self, hosts: &BTreeSet<Host>) -> Self {
        let mut left = self.clone();
        left.hosts.retain(|routes| hosts.contains(&routes.host));
        left.certificates.retain(|used| hosts.iter().any(|host| host.may_show(&used.host)));
        left
    }

    /// Hosts for which a certificate is to be got.
    pub fn automatic_hosts(&self) -> BTreeSet<&str> {
        let wanted = self.certificates.iter().filter_map(|c| match &c.from {
            CertificateSource::Automatic(host) => Some(host.as_str()),
            CertificateSource::Secret(_) => None,
        });
        wanted.collect()
    }
}
