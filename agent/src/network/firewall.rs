//! Our nftables tables: one in the cluster's namespace, one on the host, each replaced as a whole ([`Ruleset`]).

use super::links::{self, Ends};
use super::ruleset::{self, Ruleset, dnat, family_of, snat, whole};
use super::{Error, host, names, services};
use crate::pods::network::{HostPort, Protocol};
use ipnet::IpNet;
use nlink::netlink::namespace::Netns;
use nlink::netlink::nftables::{
    BaseChain, Chain, CtState, CtStatus, Family, FibFlags, FilterHook, NatHook, Priority, Rule,
};
use nlink::netlink::types::route::RouteType;
use nlink::netlink::{Connection, Nftables};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP's and ICMPv6's codes of an unreachable that somebody wants so.
const PROHIBITED: u8 = 13;
const PROHIBITED_V6: u8 = 1;

/// A port of the host and whose it is.
pub struct Published {
    pub port: HostPort,
    /// An address of the pod's.
    pub pod: IpAddr,
}

/// On the host. Out go the namespace's packets under the host's address; in comes only what answers them, what the host
/// itself sends (that isn't forwarded), and what came to a port that leads to a pod: other clusters, and machines that
/// route through this one, are no neighbours of our pods (administratively prohibited). The host's loopback addresses
/// stay its own. `ends` and `published` are of one family.
pub async fn on_host(netns: &Netns, names: &names::Names, ends: Ends, published: &[Published]) -> Result<(), Error> {
    let (table, uplink, family) = (names.table(), names.uplink(), family_of(ends.host));
    let rule = |chain: &str| ruleset::rule(family, &table, chain);
    let chain = |name: &str, base| chain(family, &table, name, base);
    let chains = vec![
        chain("raw", BaseChain::filter(FilterHook::Prerouting, Priority::Raw))?,
        chain("forward", BaseChain::filter(FilterHook::Forward, Priority::Filter))?,
        chain("prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat))?,
        chain("output", BaseChain::nat(NatHook::Output, Priority::DstNat))?,
        // Before any cluster's own translation of what its pods send out.
        chain("around", BaseChain::nat(NatHook::Postrouting, Priority::Custom(99)))?,
        chain("postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?,
    ];
    let (loopback, v4) = (Ipv4Addr::new(127, 0, 0, 0), family == Family::Ip);
    let transfers: IpNet = if v4 { host::TRANSFERS.into() } else { host::TRANSFERS_V6.into() };
    let of_host = |rule: Rule| rule.match_saddr_not(ends.host, whole(ends.host));
    let into = || rule("forward").match_oif(&uplink);
    let prohibited = match family {
        Family::Ip6 => into().reject_icmpv6(PROHIBITED_V6),
        _ => into().reject_icmp(PROHIBITED),
    };
    let around = rule("around").match_oif(&uplink).match_saddr(transfers.network(), transfers.prefix_len());
    // Of IPv6's the kernel sees to it.
    let strangers = rule("raw").match_iif(&uplink).match_daddr_v4(loopback, 8).drop();
    let to_itself = rule("postrouting").match_oif(&uplink).match_saddr_v4(loopback, 8).masquerade();
    let mut rules: Vec<Rule> = v4.then_some(strangers).into_iter().collect();
    rules.extend([
        into().match_ct_state(CtState::ESTABLISHED | CtState::RELATED).accept(),
        into().match_ct_status(CtStatus::DST_NAT).accept(),
        prohibited,
        // A pod, of whatever cluster, that asks for another's port on the host doesn't pass for the host.
        snat(of_host(around), ends.around),
        rule("postrouting").match_saddr(ends.inside, whole(ends.inside)).masquerade(),
    ]);
    rules.extend(v4.then_some(to_itself));
    for hook in ["prerouting", "output"] {
        for Published { port, .. } in published {
            let to_port = match port.host_ip {
                Some(ip) => to_host(rule(hook), family).match_daddr_v4(ip, 32),
                None => to_host(rule(hook), family),
            };
            rules.push(dnat(to(to_port, port), ends.host_ports, Some(port.host_port)));
        }
    }
    set(netns, &table, Ruleset { family, chains, sets: Vec::new(), rules }).await
}

/// Matches what is for the host itself. What it sends to `::1` can't leave it, and stays.
pub fn to_host(rule: Rule, family: Family) -> Rule {
    let local = rule.match_fib_type(FibFlags::DADDR, RouteType::Local);
    if family == Family::Ip6 { local.match_daddr_v6_not(Ipv6Addr::LOCALHOST, 128) } else { local }
}

/// Inside. What pods send out of the cluster leaves under the namespace's own address, as clusters with the same pod
/// range share the host; what came to a pod's port on the host goes to the pod. All is of one family.
pub async fn inside(
    namespace: &Netns,
    names: &names::Names,
    slice: IpNet,
    ends: Ends,
    published: &[Published],
) -> Result<(), Error> {
    let (table, family) = (names.table(), family_of(ends.host));
    let rule = |chain: &str| ruleset::rule(family, &table, chain);
    let chain = |name: &str, base| chain(family, &table, name, base);
    let mut chains = vec![
        chain("prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat))?,
        chain("postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?,
    ];
    let mut rules = vec![
        rule("postrouting").match_saddr(slice.network(), slice.prefix_len()).match_oif(links::UPLINK).masquerade(),
    ];
    if family == Family::Ip6 {
        // The kernel judges senders itself for IPv4 alone. What a cable's ends say to each other is of its own addresses.
        chains.push(chain("senders", BaseChain::filter(FilterHook::Prerouting, Priority::Raw))?);
        let from_pod = || rule("senders").match_iif_prefix(names::POD_LINK);
        let own: [(Ipv6Addr, u8); 2] = [(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), (Ipv6Addr::UNSPECIFIED, 128)];
        rules.extend(own.map(|(ip, prefix)| from_pod().match_saddr_v6(ip, prefix).accept()));
        rules.push(from_pod().match_fib_missing(FibFlags::SADDR | FibFlags::IIF).drop());
    }
    for Published { port, pod } in published {
        let from_host =
            rule("prerouting").match_iif(links::UPLINK).match_daddr(ends.host_ports, whole(ends.host_ports));
        rules.push(dnat(to(from_host, port), *pod, Some(port.pod_port)));
    }
    set(namespace, &table, Ruleset { family, chains, sets: Vec::new(), rules }).await
}

fn to(rule: Rule, port: &HostPort) -> Rule {
    match port.protocol {
        Protocol::Tcp => rule.match_tcp_dport(port.host_port),
        Protocol::Udp => rule.match_udp_dport(port.host_port),
    }
}

pub async fn remove(host: &Netns, names: &names::Names) -> Result<(), Error> {
    let nftables = connection(host)?;
    for table in [names.table(), services::host_table(names)] {
        for family in [Family::Ip, Family::Ip6] {
            nftables.del_table_if_exists(table.as_str(), family).await.map_err(failed)?;
        }
    }
    Ok(())
}

fn failed(e: nlink::Error) -> Error {
    Error::netlink("set nftables rules", e)
}

fn connection(netns: &Netns) -> Result<Connection<Nftables>, Error> {
    Connection::<Nftables>::new_in(netns).map_err(failed)
}

fn chain(family: Family, table: &str, name: &str, base: BaseChain) -> Result<Chain, Error> {
    Ok(Chain::new(table, name).map_err(failed)?.family(family).base(base))
}

async fn set(netns: &Netns, table: &str, ruleset: Ruleset) -> Result<(), Error> {
    ruleset.stand(&connection(netns)?, table).await.map(drop)
}
