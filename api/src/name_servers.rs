//! Whom a cluster's nodes ask for names that aren't the cluster's, where its users choose: ConfigMap `kube-dns` in
//! `kube-system`, as Kubernetes documents it ("Customizing DNS Service").
//!
//! `data.stubDomains` is a JSON object of domains with their servers, `data.upstreamNameservers` a JSON list of at most three
//! servers, for all other names instead of the nodes' own. A server is `IP` or `IP:PORT`.

use crate::names;
use crate::network::DOMAIN;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// The ConfigMap.
pub const NAMESPACE: &str = "kube-system";
pub const NAME: &str = "kube-dns";

const STUB_DOMAINS: &str = "stubDomains";
const UPSTREAMS: &str = "upstreamNameservers";
const DNS_PORT: u16 = 53;
/// Kubernetes's own bound.
const MOST_UPSTREAMS: usize = 3;
/// Each domain's servers are asked by a resolver of its own on each node.
const MOST_DOMAINS: usize = 64;
const MOST_SERVERS: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NameServers {
    /// Domains in lower case, without a last dot; each has a server.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stubs: BTreeMap<String, Vec<SocketAddr>>,
    /// None: the node's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<SocketAddr>,
}

impl NameServers {
    /// `text`: what a key of the ConfigMap's data says. Err: what is wrong, for people.
    pub fn read<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Result<Self, String> {
        let mut stubs = BTreeMap::new();
        let said: BTreeMap<String, Vec<String>> = json(STUB_DOMAINS, "a JSON object of lists", text(STUB_DOMAINS))?;
        if said.len() > MOST_DOMAINS {
            return Err(format!("{STUB_DOMAINS}: {} domains are more than {MOST_DOMAINS}", said.len()));
        }
        for (name, servers) in said {
            let domain = domain(&name).map_err(|why| format!("{STUB_DOMAINS}: domain {name:?}: {why}"))?;
            let servers =
                all(&servers, MOST_SERVERS).map_err(|why| format!("{STUB_DOMAINS}: domain {name:?}: {why}"))?;
            if servers.is_empty() {
                return Err(format!("{STUB_DOMAINS}: domain {name:?} has no server"));
            }
            if stubs.insert(domain, servers).is_some() {
                return Err(format!("{STUB_DOMAINS}: domain {name:?} is there twice"));
            }
        }
        let said: Vec<String> = json(UPSTREAMS, "a JSON list", text(UPSTREAMS))?;
        let upstreams = all(&said, MOST_UPSTREAMS).map_err(|why| format!("{UPSTREAMS}: {why}"))?;
        Ok(Self { stubs, upstreams })
    }

    /// Whether nothing is chosen.
    pub fn is_empty(&self) -> bool {
        self.stubs.is_empty() && self.upstreams.is_empty()
    }

    /// Who is asked for a name, given in lower case without a last dot: the longest domain's servers; none: the node's own.
    pub fn of(&self, name: &str) -> Option<&Vec<SocketAddr>> {
        let mut rest = (!self.stubs.is_empty()).then_some(name);
        while let Some(domain) = rest {
            if let Some(servers) = self.stubs.get(domain) {
                return Some(servers);
            }
            rest = domain.split_once('.').map(|(_, parent)| parent);
        }
        Some(&self.upstreams).filter(|servers| !servers.is_empty())
    }

    /// Each set of servers.
    pub fn sets(&self) -> impl Iterator<Item = &Vec<SocketAddr>> {
        self.stubs.values().chain(Some(&self.upstreams).filter(|servers| !servers.is_empty()))
    }
}

/// What isn't said, or is empty, is the default.
fn json<T: DeserializeOwned + Default>(key: &str, what: &str, text: Option<&str>) -> Result<T, String> {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    let read = text.map(serde_json::from_str).transpose();
    read.map(Option::unwrap_or_default).map_err(|error| format!("{key}: not {what} of strings: {error}"))
}

fn domain(name: &str) -> Result<String, String> {
    let domain = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if let Some(wrong) = names::dns1123_subdomain(&domain).into_iter().next() {
        return Err(wrong);
    }
    match domain == DOMAIN || domain.ends_with(&format!(".{DOMAIN}")) {
        true => Err(format!("{DOMAIN} is the cluster's own")),
        false => Ok(domain),
    }
}

fn all(servers: &[String], most: usize) -> Result<Vec<SocketAddr>, String> {
    if servers.len() > most {
        return Err(format!("{} servers are more than {most}", servers.len()));
    }
    servers.iter().map(|text| server(text)).collect()
}

fn server(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    let at = bare.or_else(|_| text.parse()).map_err(|_| format!("server {text:?} is neither IP nor IP:PORT"))?;
    match at.ip().is_unspecified() || at.ip().is_multicast() || at.port() == 0 {
        true => Err(format!("server {text:?} can't be asked")),
        false => Ok(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stubs: Option<&str>, upstreams: Option<&str>) -> Result<NameServers, String> {
        let stubs = stubs.map(String::from);
        let upstreams = upstreams.map(String::from);
        NameServers::read(|key| match key {
            STUB_DOMAINS => stubs.as_deref(),
            UPSTREAMS => upstreams.as_deref(),
            _ => None,
        })
    }

    fn at(text: &str) -> Vec<SocketAddr> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn the_longest_domain_has_a_name() {
        let stubs =
            r#"{"Acme.local.": ["1.2.3.4"], "eu.acme.local": ["[fd00::1]:5353"], "10.in-addr.arpa": ["10.0.0.1:54"]}"#;
        let chosen = read(Some(stubs), Some(r#"["8.8.8.8", "8.8.4.4:5353"]"#)).unwrap();
        let upstreams: Vec<SocketAddr> = [at("8.8.8.8:53"), at("8.8.4.4:5353")].concat();
        for (name, servers) in [
            ("acme.local", at("1.2.3.4:53")),
            ("www.acme.local", at("1.2.3.4:53")),
            ("a.b.eu.acme.local", at("[fd00::1]:5353")),
            ("1.2.10.in-addr.arpa", at("10.0.0.1:54")),
            ("notacme.local", upstreams.clone()),
            ("local", upstreams.clone()),
            ("", upstreams.clone()),
        ] {
            assert_eq!(chosen.of(name), Some(&servers), "{name}");
        }
        assert_eq!(chosen.sets().count(), 4);
        let stubs_alone = read(Some(stubs), None).unwrap();
        assert_eq!((stubs_alone.of("example.com"), stubs_alone.sets().count()), (None, 3));
    }

    #[test]
    fn nothing_said_is_nothing_chosen() {
        for (stubs, upstreams) in [(None, None), (Some(""), Some(" ")), (Some("{}"), Some("[]"))] {
            assert!(read(stubs, upstreams).unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (stubs, upstreams, why) in [
            (Some("{"), None, "stubDomains: not a JSON object of lists of strings: EOF"),
            (Some(r#"{"a.b": "1.2.3.4"}"#), None, "stubDomains: not a JSON object of lists of strings"),
            (Some(r#"{"a.b": []}"#), None, "domain \"a.b\" has no server"),
            (
                Some(r#"{"a.b": ["dns.example"]}"#),
                None,
                "domain \"a.b\": server \"dns.example\" is neither IP nor IP:PORT",
            ),
            (Some(r#"{"a_b": ["1.2.3.4"]}"#), None, "domain \"a_b\": a lowercase RFC 1123 subdomain"),
            (Some(r#"{".": ["1.2.3.4"]}"#), None, "domain \".\": a lowercase"),
            (Some(r#"{"a": ["1.2.3.4"], "A.": ["1.2.3.4"]}"#), None, "is there twice"),
            (Some(r#"{"svc.cluster.local": ["1.2.3.4"]}"#), None, "cluster.local is the cluster's own"),
            (Some(r#"{"Cluster.Local.": ["1.2.3.4"]}"#), None, "cluster.local is the cluster's own"),
            (
                None,
                Some(r#"["1.1.1.1","2.2.2.2","3.3.3.3","4.4.4.4"]"#),
                "upstreamNameservers: 4 servers are more than 3",
            ),
            (None, Some(r#"["0.0.0.0"]"#), "server \"0.0.0.0\" can't be asked"),
            (None, Some(r#"["1.1.1.1:0"]"#), "can't be asked"),
            (None, Some(r#"{"a": 1}"#), "upstreamNameservers: not a JSON list of strings"),
        ] {
            let said = read(stubs, upstreams).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let many: BTreeMap<String, [&str; 1]> = (0..=MOST_DOMAINS).map(|n| (format!("d{n}"), ["1.2.3.4"])).collect();
        assert!(read(Some(&serde_json::to_string(&many).unwrap()), None).unwrap_err().contains("65 domains"));
        assert!(read(Some(r#"{"local": ["1.2.3.4"]}"#), None).is_ok(), "what is above the cluster's may be chosen");
    }

    #[test]
    fn it_is_short_on_the_wire() {
        let chosen = read(Some(r#"{"a": ["1.2.3.4"]}"#), None).unwrap();
        let text = serde_json::to_string(&chosen).unwrap();
        assert_eq!(text, r#"{"stubs":{"a":["1.2.3.4:53"]}}"#);
        assert_eq!(serde_json::from_str::<NameServers>(&text).unwrap(), chosen);
    }
}
