//! Every cluster's routes in one table: which rule a request meets.
//!
//! A host belongs to one cluster, whole: the caller says which hosts a cluster may claim ([`Claims`]), and of two that claim
//! the same one the table's first has it. Rules without a host are for all hosts that the cluster may claim.

use crate::host::{Host, parent};
use crate::model::{CertificateSource, Condition, HostRoutes, Routes, Rule};
use http::HeaderMap;
use longshore_api::ids::ClusterId;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Which hosts a cluster may serve.
#[derive(Clone, Debug, Default)]
pub enum Claims {
    /// Every one: an edge that serves one cluster alone.
    #[default]
    All,
    /// These, and nothing else: names that were proven to be its own, `*.` before a name given to it.
    Only(Vec<Host>),
}

impl Claims {
    /// These hosts; with [`Host::Any`] among them, every one.
    pub fn of(hosts: &BTreeSet<Host>) -> Self {
        match hosts.contains(&Host::Any) {
            true => Self::All,
            false => Self::Only(hosts.iter().cloned().collect()),
        }
    }

    pub fn allow(&self, host: &Host) -> bool {
        match self {
            Self::All => true,
            Self::Only(hosts) => hosts.iter().any(|claimed| match host {
                Host::Exact(name) => claimed.matches(name),
                other => claimed == other,
            }),
        }
    }
}

/// One cluster in the table.
#[derive(Clone, Debug)]
pub struct Entry {
    pub cluster: ClusterId,
    pub claims: Arc<Claims>,
    pub routes: Arc<Routes>,
}

#[derive(Default)]
pub struct Table {
    entries: Vec<Entry>,
    /// For each exact host: the entry, and its place in that one's hosts.
    exact: HashMap<String, Vec<(usize, usize)>>,
    wildcard: HashMap<String, Vec<(usize, usize)>>,
    any: Vec<(usize, Option<usize>)>,
    certificates: HashMap<Host, (usize, CertificateSource)>,
    claimed: HashMap<Host, usize>,
    claims_all: Option<usize>,
}

/// What a request met.
#[derive(Clone, Debug)]
pub struct Met<'a> {
    pub cluster: &'a ClusterId,
    pub rule: &'a Rule,
}

impl Table {
    /// In the order in which they have a host that several claim. `reserved` hosts are nobody's.
    pub fn new(entries: Vec<Entry>, reserved: &[Host]) -> Self {
        let mut table = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            match &*entry.claims {
                Claims::All => {
                    table.claims_all.get_or_insert(at);
                }
                Claims::Only(hosts) => {
                    for host in hosts {
                        table.claimed.entry(host.clone()).or_insert(at);
                    }
                }
            }
            let free = |host: &Host| entry.claims.allow(host) && !reserved.contains(host);
            let mut any = None;
            for (place, HostRoutes { host, .. }) in entry.routes.hosts.iter().enumerate() {
                match host {
                    Host::Any => any = Some(place),
                    host if !free(host) => {}
                    Host::Exact(name) => table.exact.entry(name.clone()).or_default().push((at, place)),
                    Host::Wildcard(rest) => table.wildcard.entry(rest.clone()).or_default().push((at, place)),
                }
            }
            if any.is_some() || entry.routes.default.is_some() {
                table.any.push((at, any));
            }
            for wanted in entry.routes.certificates.iter().filter(|c| free(&c.host)) {
                table.certificates.entry(wanted.host.clone()).or_insert_with(|| (at, wanted.from.clone()));
            }
        }
        table.entries = entries;
        for host in reserved {
            // Nobody's, also where a wildcard or a rule without a host would be for it.
            if let Host::Exact(name) = host {
                table.exact.insert(name.clone(), Vec::new());
            }
        }
        table
    }

    /// Whose host it is: of the cluster that claims it by name, else the first with a rule for it, else whoever takes all.
    fn owner(&self, host: &str) -> Option<usize> {
        let exact = self.exact.get(host);
        if exact.is_some_and(Vec::is_empty) {
            return None;
        }
        let wildcard = parent(host).and_then(|rest| self.wildcard.get(rest));
        let claimed = || {
            let named = self.claimed.get(&Host::Exact(host.to_string()));
            named.or_else(|| self.claimed.get(&Host::Wildcard(parent(host)?.to_string()))).copied()
        };
        let first = |list: Option<&Vec<(usize, usize)>>| list.and_then(|l| l.first()).map(|(at, _)| *at);
        first(exact).or_else(|| first(wildcard)).or_else(claimed).or_else(|| self.any_taker())
    }

    /// Who serves what nobody else claims: the first that claims everything and has a rule for it.
    fn any_taker(&self) -> Option<usize> {
        self.any.iter().map(|(at, _)| *at).find(|at| matches!(*self.entries[*at].claims, Claims::All))
    }

    /// Whose this host is; None where nobody serves it.
    pub fn cluster(&self, host: &str) -> Option<&ClusterId> {
        self.owner(host).map(|at| &self.entries[at].cluster)
    }

    /// The rule for a request: host in lower case without a port, path made plain.
    pub fn find(&self, host: &str, path: &str, headers: &HeaderMap) -> Option<Met<'_>> {
        let owner = self.owner(host)?;
        let entry = &self.entries[owner];
        let of_owner = |list: Option<&Vec<(usize, usize)>>| {
            let place = list.and_then(|l| l.iter().find(|(at, _)| *at == owner)).map(|(_, place)| *place);
            place.map(|place| &entry.routes.hosts[place])
        };
        let exact = of_owner(self.exact.get(host));
        let wildcard = of_owner(parent(host).and_then(|rest| self.wildcard.get(rest)));
        let any = self.any.iter().find(|(at, _)| *at == owner).and_then(|(_, place)| *place);
        let any = any.map(|place| &entry.routes.hosts[place]);
        let fits = |rule: &&Rule| rule.path.matches(path) && rule.conditions.iter().all(|c| c.holds(headers));
        let by_rule = [exact, wildcard, any].into_iter().flatten().find_map(|routes| routes.rules.iter().find(fits));
        let rule = by_rule
            .or_else(|| [exact, wildcard].into_iter().flatten().find_map(|routes| routes.fallback.as_ref()))
            .or(entry.routes.default.as_ref())?;
        Some(Met { cluster: &entry.cluster, rule })
    }

    /// The certificate for a server name, which its cluster names.
    pub fn certificate(&self, host: &str) -> Option<(&ClusterId, &CertificateSource)> {
        let wildcard = || Some(Host::Wildcard(parent(host)?.to_string()));
        let found = self.certificates.get(&Host::Exact(host.to_string()));
        let (at, source) = found.or_else(|| self.certificates.get(&wildcard()?))?;
        (self.owner(host) == Some(*at)).then(|| (&self.entries[*at].cluster, source))
    }
}

impl Condition {
    fn holds(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Header { name, value } => headers.get_all(name).iter().any(|v| v.as_bytes() == value.as_bytes()),
            Self::Cookie { name, value } => {
                let cookies = headers.get_all(http::header::COOKIE).iter().filter_map(|v| v.to_str().ok());
                let mut pairs = cookies.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
                pairs.any(|(n, v)| n == name && v == value)
            }
        }
    }
}
