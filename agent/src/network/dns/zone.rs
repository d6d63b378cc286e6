//! What the cluster's own names mean, by the network map: Kubernetes's DNS specification 1.1.0, and where that leaves a
//! choice, as CoreDNS answers. Pure.

use crate::network::map::Map;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;
use longshore_api::network::{self, DOMAIN, Endpoints, Protocol, Service};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Seconds. An answer may be this much older than the map.
const TTL: u32 = 5;

#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The name is there; perhaps it has nothing of that type.
    Found { answers: Vec<Record>, additionals: Vec<Record> },
    /// There is no such name.
    Missing,
    /// It is another name for one that may lie anywhere.
    Alias { alias: Record, target: Name },
    /// Not this cluster's to say.
    Foreign,
}

impl Answer {
    fn found(answers: Vec<Record>) -> Self {
        Self::Found { answers, additionals: Vec::new() }
    }

    fn nothing() -> Self {
        Self::found(Vec::new())
    }
}

/// One endpoint of a headless Service.
struct Host {
    /// Its label below the Service's name.
    label: String,
    address: IpAddr,
    ports: Vec<(String, Protocol, u16)>,
}

pub fn answer(map: &Map, name: &Name, kind: RecordType) -> Answer {
    let labels: Vec<String> = name.iter().map(|l| String::from_utf8_lossy(l).to_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let query = Query { map, name, kind };
    match labels[..] {
        [ref rest @ .., "cluster", "local"] => query.of_cluster(rest),
        [d, c, b, a, "in-addr", "arpa"] => query.of_address([a, b, c, d].join(".").parse::<Ipv4Addr>().ok()),
        [ref digits @ .., "ip6", "arpa"] => query.of_address(reversed(digits)),
        _ => Answer::Foreign,
    }
}

/// The record that says until when a name may be taken for missing.
pub fn authority() -> Option<Record> {
    let name = |prefix: &str| Name::from_ascii(format!("{prefix}{DOMAIN}.")).ok();
    let soa = SOA::new(name("ns.dns.")?, name("hostmaster.")?, 1, 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(name("")?, TTL, RData::SOA(soa)))
}

#[derive(Clone, Copy)]
struct Query<'a> {
    map: &'a Map,
    name: &'a Name,
    kind: RecordType,
}

impl Query<'_> {
    /// `labels`: the name without the cluster's domain.
    fn of_cluster(&self, labels: &[&str]) -> Answer {
        match *labels {
            [] => match self.kind {
                RecordType::SOA => Answer::found(authority().into_iter().collect()),
                _ => Answer::nothing(),
            },
            ["dns-version"] if self.kind == RecordType::TXT => {
                Answer::found(vec![self.record(RData::TXT(TXT::new(vec!["1.1.0".into()])))])
            }
            ["svc" | "pod" | "dns-version"] | [_, "pod"] => Answer::nothing(),
            [namespace, "svc"] => match self.map.services.keys().any(|s| s.namespace == namespace) {
                true => Answer::nothing(),
                false => Answer::Missing,
            },
            [address, _, "pod"] => match dashed(address) {
                Some(ip) => self.addresses([ip]),
                None => Answer::Missing,
            },
            [name, namespace, "svc"] => self.of_service(&network::Name::new(namespace, name), None),
            [port, protocol, name, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => {
                    self.of_service(&network::Name::new(namespace, name), Some((port, protocol)))
                }
                _ => Answer::Missing,
            },
            [host, name, namespace, "svc"] => self.of_host(&network::Name::new(namespace, name), host),
            _ => Answer::Missing,
        }
    }

    /// `port`: its name and protocol.
    fn of_service(&self, name: &network::Name, port: Option<(&str, &str)>) -> Answer {
        let Some(service) = self.map.services.get(name) else { return Answer::Missing };
        if !service.external_name.is_empty() {
            let target = Name::from_ascii(format!("{}.", service.external_name.trim_end_matches('.')));
            return match (port, target) {
                (None, Ok(target)) => Answer::Alias { alias: self.record(RData::CNAME(CNAME(target.clone()))), target },
                _ => Answer::Missing,
            };
        }
        let wanted = |name: &str, protocol: Protocol| {
            port.is_none_or(|(n, p)| n == name && p == protocol.as_str().to_lowercase())
        };
        let own = format!("{}.{}.svc.{DOMAIN}.", name.name, name.namespace);
        if service.addresses.is_empty() {
            let mut hosts = self.hosts(name);
            for host in &mut hosts {
                host.ports.retain(|(name, protocol, _)| wanted(name, *protocol));
            }
            if port.is_some() {
                hosts.retain(|host| !host.ports.is_empty());
            }
            if hosts.is_empty() {
                return Answer::Missing;
            }
            return match (self.kind, port) {
                (RecordType::SRV, _) => places(self, &own, &hosts),
                (_, None) => self.addresses(hosts.iter().map(|h| h.address)),
                _ => Answer::nothing(),
            };
        }
        let ports: Vec<_> = service.ports.iter().filter(|p| wanted(&p.name, p.protocol)).collect();
        if port.is_some() && ports.is_empty() {
            return Answer::Missing;
        }
        match (self.kind, port) {
            (RecordType::SRV, _) => {
                let Ok(target) = Name::from_ascii(&own) else { return Answer::Missing };
                let weight = u16::try_from(100 / ports.len().max(1)).unwrap_or(1);
                let srv = |port: u16| self.record(RData::SRV(SRV::new(0, weight, port, target.clone())));
                let answers = ports.iter().map(|p| srv(p.port)).collect();
                Answer::Found { answers, additionals: service.addresses.iter().map(|ip| at(&target, *ip)).collect() }
            }
            (_, None) => self.addresses(service.addresses.iter().copied()),
            _ => Answer::nothing(),
        }
    }

    /// An endpoint of a headless Service.
    fn of_host(&self, service: &network::Name, label: &str) -> Answer {
        let headless = |s: &Service| s.addresses.is_empty() && s.external_name.is_empty();
        if !self.map.services.get(service).is_some_and(headless) {
            return Answer::Missing;
        }
        let found: Vec<_> = self.hosts(service).into_iter().filter(|h| h.label == label).collect();
        match (found.is_empty(), self.kind) {
            (true, _) => Answer::Missing,
            (false, RecordType::SRV) => {
                places(self, &format!("{}.{}.svc.{DOMAIN}.", service.name, service.namespace), &found)
            }
            (false, _) => self.addresses(found.iter().map(|h| h.address)),
        }
    }

    /// The ready endpoints of a Service, each once.
    fn hosts(&self, service: &network::Name) -> Vec<Host> {
        let mut hosts: BTreeMap<(String, IpAddr), Host> = BTreeMap::new();
        for slice in self.map.slices(service) {
            for (label, address) in names(slice) {
                let host = hosts.entry((label.clone(), address));
                let host = host.or_insert_with(|| Host { label, address, ports: Vec::new() });
                host.ports.extend(slice.ports.iter().map(|p| (p.name.clone(), p.protocol, p.port)));
            }
        }
        hosts.into_values().collect()
    }

    fn of_address(&self, ip: Option<impl Into<IpAddr>>) -> Answer {
        let Some(ip) = ip.map(Into::into) else { return Answer::Foreign };
        let mut found = Vec::new();
        for (name, service) in &self.map.services {
            let own = format!("{}.{}.svc.{DOMAIN}.", name.name, name.namespace);
            if service.addresses.contains(&ip) {
                found.push(own);
            } else if service.addresses.is_empty() && service.external_name.is_empty() {
                let here = self.map.slices(name).flat_map(names).filter(|(_, address)| *address == ip);
                found.extend(here.map(|(label, _)| format!("{label}.{own}")));
            }
        }
        if found.is_empty() {
            let cluster = &self.map.cluster;
            let v4 = [&cluster.pod_range, &cluster.service_range];
            let ranges = v4.into_iter().chain([&cluster.pod_range_v6, &cluster.service_range_v6]);
            let ours = ranges.filter_map(|r| r.parse::<IpNet>().ok()).any(|r| r.contains(&ip));
            return if ours { Answer::Missing } else { Answer::Foreign };
        }
        if self.kind != RecordType::PTR {
            return Answer::nothing();
        }
        let names = found.iter().filter_map(|name| Name::from_ascii(name).ok());
        Answer::found(names.map(|name| self.record(RData::PTR(PTR(name)))).collect())
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), TTL, data)
    }

    /// Those of the family that is asked for, each once.
    fn addresses(&self, ips: impl IntoIterator<Item = IpAddr>) -> Answer {
        let mut ips: Vec<IpAddr> = match self.kind {
            RecordType::A => ips.into_iter().filter(IpAddr::is_ipv4).collect(),
            RecordType::AAAA => ips.into_iter().filter(IpAddr::is_ipv6).collect(),
            _ => Vec::new(),
        };
        ips.sort_unstable();
        ips.dedup();
        Answer::found(ips.into_iter().map(|ip| at(self.name, ip)).collect())
    }
}

/// Service records of endpoints, and where these are.
fn places(query: &Query<'_>, service: &str, hosts: &[Host]) -> Answer {
    let count = hosts.iter().map(|h| h.ports.len()).sum::<usize>().max(1);
    let weight = u16::try_from(100 / count).unwrap_or(1).max(1);
    let (mut answers, mut additionals) = (Vec::new(), Vec::new());
    for host in hosts {
        let Ok(target) = Name::from_ascii(format!("{}.{service}", host.label)) else { continue };
        let srv = |port: u16| query.record(RData::SRV(SRV::new(0, weight, port, target.clone())));
        answers.extend(host.ports.iter().map(|(_, _, port)| srv(*port)));
        additionals.push(at(&target, host.address));
    }
    Answer::Found { answers, additionals }
}

/// The labels of a slice's ready endpoints: their hostnames, or their addresses with dashes.
fn names(slice: &Endpoints) -> impl Iterator<Item = (String, IpAddr)> + use<'_> {
    slice.endpoints.iter().filter(|e| e.ready).map(|e| match e.hostname.is_empty() {
        true => (e.address.to_string().replace(['.', ':'], "-"), e.address),
        false => (e.hostname.to_lowercase(), e.address),
    })
}

fn at(name: &Name, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// `10-244-0-7`, or an IPv6 address with dashes.
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = || label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::from);
    v4().or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::from)).ok()
}

/// The address of a name below `ip6.arpa`: 32 hexadecimal digits, the last one first (RFC 3596).
fn reversed(digits: &[&str]) -> Option<Ipv6Addr> {
    let digit = |text: &&str| text.chars().next().filter(|_| text.len() == 1).and_then(|c| c.to_digit(16));
    let digits: Vec<u32> = digits.iter().rev().map(digit).collect::<Option<_>>()?;
    let number = digits.iter().fold(0u128, |number, digit| number << 4 | u128::from(*digit));
    (digits.len() == 32).then(|| number.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_api::network::{Cluster, Endpoint, EndpointPort, Frame, ServicePort};

    fn map() -> Map {
        let service = |name: &str, addresses: &[&str], external_name: &str| {
            let port = |name: &str, port| ServicePort {
                name: name.into(),
                protocol: Protocol::Tcp,
                port,
                node_port: None,
                app_protocol: String::new(),
            };
            Frame::Service(Service {
                namespace: "ns".into(),
                name: name.into(),
                addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
                external_name: external_name.into(),
                ports: vec![port("http", 80), port("admin", 81)],
                ..Service::default()
            })
        };
        let endpoint = |address: &str, hostname: &str, ready| Endpoint {
            address: address.parse().unwrap(),
            ready,
            serving: ready,
            terminating: false,
            hostname: hostname.into(),
            node: "n1".into(),
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        };
        let slice = Frame::Endpoints(Endpoints {
            namespace: "ns".into(),
            name: "db-1".into(),
            service: "db".into(),
            ports: vec![EndpointPort { name: "sql".into(), protocol: Protocol::Tcp, port: 5432 }],
            endpoints: vec![
                endpoint("10.244.0.5", "db-0", true),
                endpoint("10.244.0.6", "", true),
                endpoint("10.244.0.7", "db-2", false),
            ],
        });
        let ranges =
            Cluster { pod_range: "10.244.0.0/16".into(), service_range: "10.96.0.0/16".into(), ..Cluster::default() };
        let ranges = Cluster { pod_range_v6: "fd00::/48".into(), service_range_v6: "fd01::/112".into(), ..ranges };
        let both = Frame::Endpoints(Endpoints {
            namespace: "ns".into(),
            name: "db-2".into(),
            service: "db".into(),
            ports: vec![EndpointPort { name: "sql".into(), protocol: Protocol::Tcp, port: 5432 }],
            endpoints: vec![endpoint("fd00::5", "db-0", true), endpoint("fd00::6", "", true)],
        });
        Map::of([
            Frame::Cluster(ranges),
            both,
            service("web", &["10.96.0.7"], ""),
            service("dual", &["10.96.0.8", "fd01::8"], ""),
            service("db", &[], ""),
            service("out", &[], "example.com"),
            service("empty", &[], ""),
            slice,
        ])
    }

    /// The answers as text, `-` for none, `NXDOMAIN`, or `FOREIGN`.
    fn ask(name: &str, kind: RecordType) -> String {
        let told = |records: &[Record]| {
            let all: Vec<_> = records.iter().map(|r| r.data.to_string().trim_end_matches('.').to_owned()).collect();
            if all.is_empty() { "-".to_owned() } else { all.join(", ") }
        };
        match answer(&map(), &Name::from_ascii(name).unwrap(), kind) {
            Answer::Found { answers, additionals } if additionals.is_empty() => told(&answers),
            Answer::Found { answers, additionals } => format!("{} + {}", told(&answers), told(&additionals)),
            Answer::Missing => "NXDOMAIN".into(),
            Answer::Alias { target, .. } => format!("= {target}"),
            Answer::Foreign => "FOREIGN".into(),
        }
    }

    fn reverse(ip: &str) -> String {
        let number = u128::from(ip.parse::<Ipv6Addr>().unwrap());
        (0..32).map(|at| format!("{:x}.", number >> (4 * at) & 15)).collect::<String>() + "ip6.arpa."
    }

    #[test]
    fn names_mean_what_kubernetes_says() {
        use RecordType::{A, AAAA, PTR, SRV, TXT};
        for (name, kind, told) in [
            ("web.ns.svc.cluster.local.", A, "10.96.0.7"),
            ("WEB.ns.Svc.cluster.local.", A, "10.96.0.7"),
            ("web.ns.svc.cluster.local.", AAAA, "-"),
            ("web.other.svc.cluster.local.", A, "NXDOMAIN"),
            ("nobody.ns.svc.cluster.local.", A, "NXDOMAIN"),
            ("ns.svc.cluster.local.", A, "-"),
            ("other.svc.cluster.local.", A, "NXDOMAIN"),
            ("cluster.local.", A, "-"),
            ("web.ns.svc.cluster.local.cluster.local.", A, "NXDOMAIN"),
            ("_http._tcp.web.ns.svc.cluster.local.", SRV, "0 100 80 web.ns.svc.cluster.local + 10.96.0.7"),
            ("_http._udp.web.ns.svc.cluster.local.", SRV, "NXDOMAIN"),
            (
                "web.ns.svc.cluster.local.",
                SRV,
                "0 50 80 web.ns.svc.cluster.local, 0 50 81 web.ns.svc.cluster.local + 10.96.0.7",
            ),
            ("db.ns.svc.cluster.local.", A, "10.244.0.5, 10.244.0.6"),
            ("db-0.db.ns.svc.cluster.local.", A, "10.244.0.5"),
            ("10-244-0-6.db.ns.svc.cluster.local.", A, "10.244.0.6"),
            ("db-2.db.ns.svc.cluster.local.", A, "NXDOMAIN"),
            ("empty.ns.svc.cluster.local.", A, "NXDOMAIN"),
            ("db-0.web.ns.svc.cluster.local.", A, "NXDOMAIN"),
            ("out.ns.svc.cluster.local.", A, "= example.com."),
            ("10-1-2-3.ns.pod.cluster.local.", A, "10.1.2.3"),
            ("web.ns.pod.cluster.local.", A, "NXDOMAIN"),
            ("7.0.96.10.in-addr.arpa.", PTR, "web.ns.svc.cluster.local"),
            ("5.0.244.10.in-addr.arpa.", PTR, "db-0.db.ns.svc.cluster.local"),
            ("99.0.244.10.in-addr.arpa.", PTR, "NXDOMAIN"),
            ("8.8.8.8.in-addr.arpa.", PTR, "FOREIGN"),
            ("example.com.", A, "FOREIGN"),
            ("cluster.local.example.com.", A, "FOREIGN"),
            ("dns-version.cluster.local.", TXT, "1.1.0"),
            ("dual.ns.svc.cluster.local.", AAAA, "fd01::8"),
            ("dual.ns.svc.cluster.local.", A, "10.96.0.8"),
            ("db.ns.svc.cluster.local.", AAAA, "fd00::5, fd00::6"),
            ("db-0.db.ns.svc.cluster.local.", AAAA, "fd00::5"),
            ("10-244-0-6.db.ns.svc.cluster.local.", AAAA, "-"),
            ("fd00--6.db.ns.svc.cluster.local.", AAAA, "fd00::6"),
            ("fd00--9.ns.pod.cluster.local.", AAAA, "fd00::9"),
            (&reverse("fd01::8"), PTR, "dual.ns.svc.cluster.local"),
            (&reverse("fd00::5"), PTR, "db-0.db.ns.svc.cluster.local"),
            (&reverse("fd00::99"), PTR, "NXDOMAIN"),
            (&reverse("2001:db8::1"), PTR, "FOREIGN"),
            ("1.0.ip6.arpa.", PTR, "FOREIGN"),
        ] {
            assert_eq!(ask(name, kind), told, "{name} {kind}");
        }
        let srv = ask("_sql._tcp.db.ns.svc.cluster.local.", SRV);
        assert_eq!(srv.matches(" 5432 ").count(), 4, "{srv}");
        assert!(srv.contains("0 25 5432 db-0.db.ns.svc.cluster.local"), "{srv}");
    }
}
