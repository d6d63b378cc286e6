//! A table of nftables that is made as a whole, and only when it isn't what it should be: its comment carries the
//! fingerprint of what it was made of.

use super::Error;
use nlink::netlink::nftables::{Chain, Expr, Family, LookupExpr, PayloadBase, Register, Rule, Set, Transaction};
use nlink::netlink::{Connection, Nftables};
use sha2::{Digest, Sha256};
use std::net::IpAddr;

pub struct Ruleset {
    pub family: Family,
    pub chains: Vec<Chain>,
    pub sets: Vec<Set>,
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// Makes `table` of it in one transaction, unless it is there. Whether it was.
    pub async fn stand(self, nftables: &Connection<Nftables>, table: &str) -> Result<bool, Error> {
        let Self { family, chains, sets, rules } = self;
        let fingerprint = hex::encode(&Sha256::digest(format!("{chains:?}{sets:?}{rules:?}"))[..8]);
        let tables = nftables.list_tables_in(family).await.map_err(failed)?;
        let found = tables.into_iter().find(|t| t.name == table);
        if found.as_ref().is_some_and(|t| t.comment.as_deref() == Some(&fingerprint)) {
            return Ok(true);
        }
        let mut change = nftables.transaction();
        if found.is_some() {
            change = change.del_table(table, family);
        }
        change = change.add_table_with_comment(table, family, 0, Some(&fingerprint));
        change = sets.into_iter().fold(change, Transaction::add_set);
        change = chains.into_iter().fold(change, Transaction::add_chain);
        change = rules.into_iter().fold(change, Transaction::add_rule);
        change.commit(nftables).await.map_err(failed)?;
        Ok(false)
    }
}

fn failed(e: nlink::Error) -> Error {
    Error::netlink("set nftables rules", e)
}

pub fn rule(family: Family, table: &str, chain: &str) -> Rule {
    Rule::new(table, chain).family(family)
}

/// The family of tables that see an address.
pub fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::Ip } else { Family::Ip6 }
}

/// The length of a prefix that is one address.
pub fn whole(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

pub fn dnat(rule: Rule, to: IpAddr, port: Option<u16>) -> Rule {
    match to {
        IpAddr::V4(to) => rule.dnat(to, port),
        IpAddr::V6(to) => rule.dnat_v6(to, port),
    }
}

pub fn snat(rule: Rule, to: IpAddr) -> Rule {
    match to {
        IpAddr::V4(to) => rule.snat(to, None),
        IpAddr::V6(to) => rule.snat_v6(to, None),
    }
}

pub fn with(rule: Rule, expressions: impl IntoIterator<Item = Expr>) -> Rule {
    expressions.into_iter().fold(rule, Rule::expr)
}

/// Bytes of a header into a register.
pub fn header(dreg: Register, base: PayloadBase, offset: u32, len: u32) -> Expr {
    Expr::Payload { dreg, base, offset, len }
}

/// What a register holds must be in a set; what a map has for it goes into another.
pub fn look_up(set: &str, key: Register, into: Option<Register>) -> Expr {
    let lookup = LookupExpr::new(set, key);
    match into {
        Some(register) => lookup.dreg(register).into(),
        None => lookup.into(),
    }
}
