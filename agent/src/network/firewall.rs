//! Our nftables tables: one in the cluster's namespace, one on the host, each replaced as a whole ([`Ruleset`]).

use super::links::{self, Transfer};
use super::ruleset::Ruleset;
use super::{Error, host, names, services};
use crate::pods::network::{HostPort, Protocol};
use ipnet::Ipv4Net;
use nlink::netlink::namespace::Netns;
use nlink::netlink::nftables::{
    BaseChain, Chain, CtState, CtStatus, Family, FibFlags, FilterHook, NatHook, Priority, Rule,
};
use nlink::netlink::types::route::RouteType;
use nlink::netlink::{Connection, Nftables};
use std::net::Ipv4Addr;

/// A port of the host and whose it is.
pub struct Published {
    pub port: HostPort,
    pub pod: Ipv4Addr,
}

/// On the host. Out go the namespace's packets under the host's address; in comes only what answers them, what the host
/// itself sends (that isn't forwarded), and what came to a port that leads to a pod: other clusters, and machines that
/// route through this one, are no neighbours of our pods (13: administratively prohibited). The host's loopback addresses
/// stay its own.
pub async fn on_host(
    netns: &Netns,
    names: &names::Names,
    transfer: Transfer,
    published: &[Published],
) -> Result<(), Error> {
    let (table, uplink) = (names.table(), names.uplink());
    let loopback = Ipv4Addr::new(127, 0, 0, 0);
    let chains = vec![
        chain(&table, "raw", BaseChain::filter(FilterHook::Prerouting, Priority::Raw))?,
        chain(&table, "forward", BaseChain::filter(FilterHook::Forward, Priority::Filter))?,
        chain(&table, "prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat))?,
        chain(&table, "output", BaseChain::nat(NatHook::Output, Priority::DstNat))?,
        // Before any cluster's own translation of what its pods send out.
        chain(&table, "around", BaseChain::nat(NatHook::Postrouting, Priority::Custom(99)))?,
        chain(&table, "postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?,
    ];
    let into = || rule(&table, "forward").match_oif(&uplink);
    let mut rules = vec![
        rule(&table, "raw").match_iif(&uplink).match_daddr_v4(loopback, 8).drop(),
        into().match_ct_state(CtState::ESTABLISHED | CtState::RELATED).accept(),
        into().match_ct_status(CtStatus::DST_NAT).accept(),
        into().reject_icmp(13),
        // A pod, of whatever cluster, that asks for another's port on the host doesn't pass for the host.
        rule(&table, "around")
            .match_oif(&uplink)
            .match_saddr_v4(host::TRANSFERS.network(), host::TRANSFERS.prefix_len())
            .match_saddr_v4_not(transfer.host(), 32)
            .snat(transfer.around(), None),
        rule(&table, "postrouting").match_saddr_v4(transfer.inside(), 32).masquerade(),
        rule(&table, "postrouting").match_oif(&uplink).match_saddr_v4(loopback, 8).masquerade(),
    ];
    for hook in ["prerouting", "output"] {
        for Published { port, .. } in published {
            let to_host = rule(&table, hook).match_fib_type(FibFlags::DADDR, RouteType::Local);
            let to_port = match port.host_ip {
                Some(ip) => to_host.match_daddr_v4(ip, 32),
                None => to_host,
            };
            rules.push(to(to_port, port).dnat(transfer.host_ports(), Some(port.host_port)));
        }
    }
    set(netns, &table, chains, rules).await
}

/// Inside. What pods send out of the cluster leaves under the namespace's own address, as clusters with the same pod
/// range share the host; what came to a pod's port on the host goes to the pod.
pub async fn inside(
    namespace: &Netns,
    names: &names::Names,
    slice: Ipv4Net,
    transfer: Transfer,
    published: &[Published],
) -> Result<(), Error> {
    let table = names.table();
    let chains = vec![
        chain(&table, "prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat))?,
        chain(&table, "postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?,
    ];
    let mut rules = vec![
        rule(&table, "postrouting")
            .match_saddr_v4(slice.network(), slice.prefix_len())
            .match_oif(links::UPLINK)
            .masquerade(),
    ];
    for Published { port, pod } in published {
        let from_host = rule(&table, "prerouting").match_iif(links::UPLINK).match_daddr_v4(transfer.host_ports(), 32);
        rules.push(to(from_host, port).dnat(*pod, Some(port.pod_port)));
    }
    set(namespace, &table, chains, rules).await
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
        nftables.del_table_if_exists(table.as_str(), Family::Ip).await.map_err(failed)?;
    }
    Ok(())
}

fn failed(e: nlink::Error) -> Error {
    Error::netlink("set nftables rules", e)
}

fn connection(netns: &Netns) -> Result<Connection<Nftables>, Error> {
    Connection::<Nftables>::new_in(netns).map_err(failed)
}

fn chain(table: &str, name: &str, base: BaseChain) -> Result<Chain, Error> {
    Ok(Chain::new(table, name).map_err(failed)?.family(Family::Ip).base(base))
}

fn rule(table: &str, chain: &str) -> Rule {
    Rule::new(table, chain).family(Family::Ip)
}

async fn set(netns: &Netns, table: &str, chains: Vec<Chain>, rules: Vec<Rule>) -> Result<(), Error> {
    let ruleset = Ruleset { chains, sets: Vec::new(), rules };
    ruleset.stand(&connection(netns)?, table).await.map(drop)
}
