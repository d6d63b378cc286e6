//! Our nftables tables: one in the cluster's namespace, one on the host, each replaced as a whole in one transaction and
//! only when it isn't what it should be (its comment carries the fingerprint of its rules).

use super::links::{self, Transfer};
use super::{Error, names};
use ipnet::Ipv4Net;
use nlink::netlink::namespace::Netns;
use nlink::netlink::nftables::{
    BaseChain, Chain, CtState, CtStatus, Family, FilterHook, NatHook, Priority, Rule, Transaction,
};
use nlink::netlink::{Connection, Nftables};
use sha2::{Digest, Sha256};

/// On the host. Out go the namespace's packets under the host's address; in comes only what answers them, what the host
/// itself sends (that isn't forwarded), and what was redirected here on purpose: other clusters, and machines that route
/// through this one, are no neighbours of our pods (13: administratively prohibited).
pub async fn on_host(host: &Netns, names: &names::Names, transfer: Transfer) -> Result<(), Error> {
    let (table, uplink) = (names.table(), names.uplink());
    let chains = vec![
        chain(&table, "forward", BaseChain::filter(FilterHook::Forward, Priority::Filter))?,
        chain(&table, "postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?,
    ];
    let into = || rule(&table, "forward").match_oif(&uplink);
    let rules = vec![
        into().match_ct_state(CtState::ESTABLISHED | CtState::RELATED).accept(),
        into().match_ct_status(CtStatus::DST_NAT).accept(),
        into().reject_icmp(13),
        rule(&table, "postrouting").match_saddr_v4(transfer.inside(), 32).match_oif_not(&uplink).masquerade(),
    ];
    set(host, &table, chains, rules).await
}

/// Inside. What pods send out of the cluster leaves under the namespace's own address, as clusters with the same pod
/// range share the host.
pub async fn inside(namespace: &Netns, names: &names::Names, slice: Ipv4Net) -> Result<(), Error> {
    let table = names.table();
    let chains = vec![chain(&table, "postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?];
    let rules = vec![
        rule(&table, "postrouting")
            .match_saddr_v4(slice.network(), slice.prefix_len())
            .match_oif(links::UPLINK)
            .masquerade(),
    ];
    set(namespace, &table, chains, rules).await
}

pub async fn remove(host: &Netns, names: &names::Names) -> Result<(), Error> {
    let nftables = connection(host)?;
    nftables.del_table_if_exists(names.table().as_str(), Family::Ip).await.map(drop).map_err(failed)
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
    let nftables = connection(netns)?;
    let fingerprint = hex::encode(&Sha256::digest(format!("{chains:?}{rules:?}"))[..8]);
    let found = nftables.list_tables_in(Family::Ip).await.map_err(failed)?.into_iter().find(|t| t.name == table);
    if found.as_ref().is_some_and(|t| t.comment.as_deref() == Some(&fingerprint)) {
        return Ok(());
    }
    let mut change: Transaction = nftables.transaction();
    if found.is_some() {
        change = change.del_table(table, Family::Ip);
    }
    change = change.add_table_with_comment(table, Family::Ip, 0, Some(&fingerprint));
    change = chains.into_iter().fold(change, Transaction::add_chain);
    change = rules.into_iter().fold(change, Transaction::add_rule);
    change.commit(&nftables).await.map_err(failed)
}
