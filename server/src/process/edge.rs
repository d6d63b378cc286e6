//! The edge's part of a replica's settings.

use super::names;
use super::serving::ServeError;
use crate::edge;
use crate::edge::hosts::Rules;
use crate::edge::ports::PortRules;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use longshore_edge::acme::webhook::Webhook;
use longshore_edge::acme::{Authority, Proof};
use longshore_edge::host::Host;
use longshore_edge::socket::listener;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Where the world reaches apps.
#[derive(Args, Clone, Debug, Default)]
pub struct EdgeArgs {
    /// Where Ingresses are served by plain HTTP; 0.0.0.0 stands for IPv6's addresses, too
    #[arg(long, value_name = "ADDR:PORT", env = "LONGSHORE_EDGE_HTTP")]
    edge_http: Option<SocketAddr>,
    /// Where Ingresses are served over TLS; 0.0.0.0 as above
    #[arg(long, value_name = "ADDR:PORT", env = "LONGSHORE_EDGE_HTTPS")]
    edge_https: Option<SocketAddr>,
    /// Domain below which every app can have a name; *.DOMAIN must lead to the edge
    #[arg(long, value_name = "DOMAIN", env = "LONGSHORE_EDGE_DOMAIN")]
    edge_domain: Option<String>,
    /// Address or name under which the world finds the edge, as Ingresses tell it (repeatable; default: the advertised host)
    #[arg(long = "edge-address", value_name = "ADDRESS", env = "LONGSHORE_EDGE_ADDRESS", value_delimiter = ',')]
    edge_addresses: Vec<String>,
    /// Ports, of TCP and UDP, at which Services of type LoadBalancer are served
    #[arg(long, value_name = "FIRST-LAST", env = "LONGSHORE_EDGE_PORTS", value_parser = port_range)]
    edge_ports: Option<RangeInclusive<u16>>,
    /// Proxies before the edge (load balancers) that say by the PROXY protocol, version 2, who the client is; connections from
    /// there must begin with it, at all TCP ports of the edge
    #[arg(long, value_name = "CIDR,…", env = "LONGSHORE_EDGE_PROXY_PROTOCOL_FROM", value_delimiter = ',', value_parser = network)]
    edge_proxy_protocol_from: Vec<IpNet>,
    /// Any cluster may serve any host, whoever asks first; without it hosts outside of the domain are proven by DNS
    /// (default for `dev`)
    #[arg(long, env = "LONGSHORE_EDGE_OPEN", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    edge_open: Option<bool>,
    /// Name server that is asked whether a host is proven (default: those of this machine)
    #[arg(long, value_name = "ADDR:PORT", env = "LONGSHORE_EDGE_RESOLVER")]
    edge_resolver: Option<SocketAddr>,
    /// ACME directory of the authority that issues certificates (default: the installation's own CA signs them)
    #[arg(long, value_name = "URL", env = "LONGSHORE_EDGE_ACME")]
    edge_acme: Option<String>,
    /// Certificates that vouch for the ACME directory (default: those this machine trusts)
    #[arg(long, value_name = "FILE", env = "LONGSHORE_EDGE_ACME_ROOTS")]
    edge_acme_roots: Option<PathBuf>,
    /// How hosts are proven to the authority; dns-01 proves wildcards, too, and needs --edge-acme-webhook
    #[arg(long, value_enum, default_value_t, value_name = "CHALLENGE", env = "LONGSHORE_EDGE_ACME_CHALLENGE")]
    edge_acme_challenge: ChallengeKind,
    /// What makes DNS records for dns-01: it is sent POST URL/present and URL/cleanup as lego's httpreq is
    #[arg(long, value_name = "URL", env = "LONGSHORE_EDGE_ACME_WEBHOOK")]
    edge_acme_webhook: Option<String>,
    /// A file with the Authorization header for it
    #[arg(long, value_name = "FILE", env = "LONGSHORE_EDGE_ACME_WEBHOOK_AUTHORIZATION")]
    edge_acme_webhook_authorization: Option<PathBuf>,
    /// Whom the authority may write to
    #[arg(long, value_name = "EMAIL", env = "LONGSHORE_EDGE_ACME_EMAIL")]
    edge_acme_email: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ChallengeKind {
    #[default]
    #[value(name = "http-01")]
    Http,
    #[value(name = "tls-alpn-01")]
    TlsAlpn,
    #[value(name = "dns-01")]
    Dns,
}

impl EdgeArgs {
    fn proof(&self) -> Result<Proof, ServeError> {
        match self.edge_acme_challenge {
            ChallengeKind::Http => return Ok(Proof::Http),
            ChallengeKind::TlsAlpn => return Ok(Proof::TlsAlpn),
            ChallengeKind::Dns => {}
        }
        let url = self.edge_acme_webhook.as_deref().unwrap_or_default();
        let authorization = self.edge_acme_webhook_authorization.as_ref();
        let read =
            |path: &PathBuf| std::fs::read_to_string(path).map_err(|_| ServeError::EdgeWebhookFile(path.clone()));
        let authorization = authorization.map(read).transpose()?;
        let webhook = Webhook::new(url, authorization.as_deref().map(str::trim));
        webhook.map(|webhook| Proof::Dns(Arc::new(webhook))).ok_or_else(|| ServeError::EdgeWebhook(url.into()))
    }

    /// Binds the edge's ports; None where it has none. `listen` and `advertised`: of the dashboard, whose names are nobody
    /// else's. `open`: unless said otherwise.
    pub async fn prepare(
        self,
        listen: SocketAddr,
        advertised: &str,
        open: bool,
    ) -> Result<Option<edge::Settings>, ServeError> {
        if self.edge_http.is_none() && self.edge_https.is_none() {
            return Ok(None);
        }
        let proof = self.proof()?;
        let domain = match self.edge_domain.map(|domain| domain.trim_end_matches('.').to_ascii_lowercase()) {
            Some(domain) if !matches!(Host::parse(&domain), Some(Host::Exact(_))) => {
                return Err(ServeError::EdgeDomain(domain));
            }
            domain => domain,
        };
        let reserved = names::certificate_names(listen, advertised);
        let rules = Rules {
            open: self.edge_open.unwrap_or(open),
            domain,
            resolver: self.edge_resolver,
            reserved: reserved.iter().filter_map(|name| Host::parse(name)).collect(),
        };
        let addresses = if self.edge_addresses.is_empty() { vec![advertised.to_owned()] } else { self.edge_addresses };
        let roots = self.edge_acme_roots;
        let (http, https) = (bind(self.edge_http)?, bind(self.edge_https)?);
        let own = [&http, &https].map(|bound| bound.as_ref().and_then(|bound| bound.local_addr().ok()));
        let own: Vec<SocketAddr> = own.into_iter().flatten().collect();
        let reserved = own.iter().map(SocketAddr::port).chain([listen.port()]).collect();
        let ports = self.edge_ports.zip(own.first()).map(|(range, at)| PortRules { ip: at.ip(), range, reserved });
        Ok(Some(edge::Settings {
            http,
            https,
            rules,
            addresses,
            ports,
            proxies: self.edge_proxy_protocol_from,
            authority: self.edge_acme.map(|directory| Authority { directory, roots }),
            contact: self.edge_acme_email.map(|email| format!("mailto:{email}")),
            proof,
        }))
    }
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range =
        text.split_once('-').and_then(|(first, last)| Some(first.trim().parse().ok()?..=last.trim().parse().ok()?));
    range
        .filter(|range| !range.is_empty() && *range.start() > 0)
        .ok_or_else(|| format!("{text:?} is no range such as 20000-20999"))
}

/// An address is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.trim().parse::<IpAddr>().map(IpNet::from);
    text.trim().parse().or_else(|_| one()).map_err(|_| format!("{text:?} is no network such as 10.0.0.0/8"))
}

fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = address else { return Ok(None) };
    let bound = listener(address).and_then(TcpListener::from_std);
    bound.map(Some).map_err(|source| ServeError::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn a_network_may_be_one_address() {
        let read = |text: &str| network(text).map(|network| network.to_string());
        assert_eq!(read("10.0.0.0/8"), Ok("10.0.0.0/8".into()));
        assert_eq!((read("192.0.2.1"), read(" fd00::1")), (Ok("192.0.2.1/32".into()), Ok("fd00::1/128".into())));
        assert!(read("everybody").is_err());
    }

    #[tokio::test]
    async fn everywhere_is_ipv6_too() {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let arguments = EdgeArgs { edge_http: Some(everywhere), edge_ports: Some(1..=2), ..EdgeArgs::default() };
        let settings = arguments.prepare(everywhere, "localhost", true).await.unwrap().unwrap();
        assert!(settings.ports.unwrap().ip.is_unspecified());
        let listener = settings.http.unwrap();
        let bound = listener.local_addr().unwrap();
        TcpStream::connect(("127.0.0.1", bound.port())).await.unwrap();
        if bound.is_ipv6() {
            TcpStream::connect(("::1", bound.port())).await.unwrap();
        }
    }
}
