//! What the kernel has of Services, and how it is made to have what it should.

use super::plan::{Back, Fate, Front, Pick, Plan};
use super::table::{self, Kind, Ranges, TABLE};
use crate::network::links::Ends;
use crate::network::{Error, names};
use longshore_api::network::Protocol;
use nlink::netlink::namespace::Netns;
use nlink::netlink::netfilter::{ConntrackFilter, IpProtocol};
use nlink::netlink::nftables::{Family, SetElement, SetElementData, Transaction};
use nlink::netlink::{Connection, Netfilter, Nftables};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

/// Changes in one transaction: what they take fits into a socket's buffer as Linux makes it (208 KiB).
const AT_ONCE: usize = 800;
/// Elements in one message, below the 64 KiB of a netlink attribute.
const IN_A_MESSAGE: usize = 400;
/// The part of a key that names the front: address, protocol, port.
const FRONT: usize = 12;
const FRONT_V6: usize = 24;

type Key = (Kind, Vec<u8>);

/// The tables' way in.
pub struct Kernel {
    inside: Connection<Nftables>,
    connections: Connection<Netfilter>,
    host: Connection<Nftables>,
    host_table: String,
    family: Family,
}

/// What is in the tables.
#[derive(Default)]
pub struct Model {
    elements: BTreeMap<Key, Option<SetElementData>>,
    chains: HashSet<String>,
    /// The rulesets' generations after our last change: inside, and on the host.
    generations: Option<(u32, u32)>,
    /// Two services want the same front (an external address); who has it is decided by looking at all.
    pub contested: bool,
}

/// One element's change.
struct Change {
    key: Key,
    old: bool,
    new: Option<Option<SetElementData>>,
}

impl Change {
    /// What names the front in its key.
    fn front(&self, length: usize) -> &[u8] {
        let (_, key) = &self.key;
        &key[..length.min(key.len())]
    }
}

fn failed(e: nlink::Error) -> Error {
    Error::netlink("set service addresses", e)
}

pub fn host_table(names: &names::Names) -> String {
    format!("{}-ports", names.table())
}

impl Kernel {
    /// Of one family's tables.
    pub fn new(inside: &Netns, host: &Netns, names: &names::Names, family: Family) -> Result<Self, Error> {
        Ok(Self {
            inside: Connection::new_in(inside).map_err(failed)?,
            connections: Connection::new_in(inside).map_err(failed)?,
            host: Connection::new_in(host).map_err(failed)?,
            host_table: host_table(names),
            family,
        })
    }

    fn front_length(&self) -> usize {
        if self.family == Family::Ip6 { FRONT_V6 } else { FRONT }
    }

    async fn generations(&self) -> Result<(u32, u32), Error> {
        let inside = self.inside.generation().await.map_err(failed)?;
        Ok((inside, self.host.generation().await.map_err(failed)?))
    }

    /// Whether someone else has changed a ruleset since.
    pub async fn has_changed(&self, model: &Model) -> Result<bool, Error> {
        Ok(model.generations != Some(self.generations().await?))
    }

    /// What there is; tables that aren't as they should be are made anew.
    pub async fn found(&self, gateway: IpAddr, ends: Ends, ranges: Ranges) -> Result<Model, Error> {
        let mut model = Model::default();
        let inside = table::inside(gateway, ends, ranges).map_err(failed)?;
        let on_host = table::on_host(&self.host_table, ends).map_err(failed)?;
        if inside.stand(&self.inside, TABLE).await? {
            let chains = self.inside.list_chains_in(TABLE, self.family).await.map_err(failed)?;
            model.chains.extend(chains.into_iter().map(|chain| chain.name));
            for kind in Kind::INSIDE {
                model.read(&self.inside, self.family, TABLE, kind).await?;
            }
        }
        if on_host.stand(&self.host, &self.host_table).await? {
            model.read(&self.host, self.family, &self.host_table, Kind::NodePorts).await?;
        }
        Ok(model)
    }

    fn table(&self, kind: Kind) -> (&Connection<Nftables>, &str) {
        match kind {
            Kind::NodePorts => (&self.host, &self.host_table),
            _ => (&self.inside, TABLE),
        }
    }

    /// Carries changes out: what is of one table at once, or in parts that each end with a front.
    async fn carry_out(&self, picks: Vec<Pick>, changes: Vec<Change>) -> Result<(), Error> {
        let mut first = self.inside.transaction();
        for pick in &picks {
            let (chain, rules) = table::pick(self.family, *pick).map_err(failed)?;
            first = rules.into_iter().fold(first.add_chain(chain), Transaction::add_rule);
        }
        let (ports, inside): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| c.key.0 == Kind::NodePorts);
        let mut begun = Some(first).filter(|_| !picks.is_empty());
        for part in parts(&inside, self.front_length()) {
            let transaction = begun.take().unwrap_or_else(|| self.inside.transaction());
            self.write(transaction, part).commit(&self.inside).await.map_err(failed)?;
        }
        for part in parts(&ports, self.front_length()) {
            self.write(self.host.transaction(), part).commit(&self.host).await.map_err(failed)?;
        }
        Ok(())
    }

    fn write(&self, transaction: Transaction, changes: &[Change]) -> Transaction {
        let mut of_kinds: BTreeMap<Kind, (Vec<SetElement>, Vec<SetElement>)> = BTreeMap::new();
        for Change { key: (kind, key), old, new } in changes {
            let (removed, added) = of_kinds.entry(*kind).or_default();
            removed.extend(old.then(|| table::written(key, None)));
            added.extend(new.as_ref().map(|data| table::written(key, data.as_ref())));
        }
        let set = |kind: Kind| kind.set(self.family, self.table(kind).1);
        let removed = of_kinds.iter().flat_map(|(kind, (old, _))| old.chunks(IN_A_MESSAGE).map(|c| (*kind, c)));
        let removed = removed.fold(transaction, |t, (kind, some)| t.del_set_elements(&set(kind), some));
        let added = of_kinds.iter().flat_map(|(kind, (_, new))| new.chunks(IN_A_MESSAGE).map(|c| (*kind, c)));
        added.fold(removed, |t, (kind, some)| t.add_set_elements(&set(kind), some))
    }

    /// Ends what UDP senders were sent to; `gone` is of UDP.
    pub async fn forget_connections(&self, gone: &HashSet<(Front, Back)>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let forget = |e| Error::netlink("end connections to endpoints that are gone", e);
        let all = ConntrackFilter::new().proto(IpProtocol::Udp);
        for entry in self.connections.get_conntrack_matching(&all).await.map_err(forget)? {
            let (Some(to), Some(to_port)) = (entry.orig.dst_ip, entry.orig.dst_port) else { continue };
            let (Some(by), Some(by_port)) = (entry.reply.src_ip, entry.reply.src_port) else { continue };
            let front = Front { address: to, protocol: Protocol::Udp, port: to_port };
            if gone.contains(&(front, (by, by_port))) {
                match self.connections.del_conntrack_entry(&entry).await {
                    Err(e) if !e.is_not_found() => return Err(forget(e)),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// As many whole fronts at once as go into a transaction.
fn parts(mut changes: &[Change], front: usize) -> Vec<&[Change]> {
    let mut parts = Vec::new();
    while !changes.is_empty() {
        let mut end = changes.len().min(AT_ONCE);
        if end < changes.len() {
            let last = changes[end].front(front);
            let whole = changes[..end].iter().rposition(|change| change.front(front) != last);
            end = whole.map_or(end, |at| at + 1);
        }
        let (part, rest) = changes.split_at(end);
        parts.push(part);
        changes = rest;
    }
    parts
}

impl Model {
    async fn read(
        &mut self,
        nftables: &Connection<Nftables>,
        family: Family,
        table: &str,
        kind: Kind,
    ) -> Result<(), Error> {
        let set = kind.set(family, table);
        let elements = nftables.list_set_elements(table, set.name(), family).await.map_err(failed)?;
        self.elements.extend(elements.into_iter().map(|e| ((kind, e.key().to_vec()), e.data().cloned())));
        Ok(())
    }

    /// Makes the tables have the elements of all `plans`, of these pods, and nothing else.
    pub async fn become_so<'a>(
        &mut self,
        kernel: &Kernel,
        plans: impl Iterator<Item = &'a Plan> + Clone,
        own: BTreeMap<Key, Option<SetElementData>>,
    ) -> Result<(), Error> {
        let mut wanted = own;
        self.contested = false;
        for (key, data) in plans.clone().flat_map(table::elements) {
            let other = wanted.insert(key, data.clone());
            self.contested |= other.is_some_and(|other| other != data);
        }
        let old = self.elements.keys().cloned().collect();
        self.go(kernel, picks(plans), old, wanted).await
    }

    /// Replaces the elements of `before` by those of `after`, and the pods.
    pub async fn change<'a>(
        &mut self,
        kernel: &Kernel,
        before: impl Iterator<Item = &'a Plan>,
        after: impl Iterator<Item = &'a Plan> + Clone,
        own: BTreeMap<Key, Option<SetElementData>>,
    ) -> Result<(), Error> {
        let pods = self.elements.range((Kind::Own, Vec::new())..).take_while(|((kind, _), _)| *kind == Kind::Own);
        let mut old: BTreeSet<Key> = pods.map(|(key, _)| key.clone()).collect();
        old.extend(before.flat_map(table::elements).map(|(key, _)| key));
        let mut wanted: BTreeMap<Key, Option<SetElementData>> = after.clone().flat_map(table::elements).collect();
        let others = |key: &Key| self.elements.contains_key(key) && !old.contains(key);
        if wanted.keys().any(others) {
            self.contested = true;
            wanted.retain(|key, _| !others(key));
        }
        wanted.extend(own);
        self.go(kernel, picks(after), old, wanted).await
    }

    async fn go(
        &mut self,
        kernel: &Kernel,
        mut picks: BTreeSet<Pick>,
        old: BTreeSet<Key>,
        wanted: BTreeMap<Key, Option<SetElementData>>,
    ) -> Result<(), Error> {
        picks.retain(|pick| !self.chains.contains(&table::chain_name(*pick)));
        let mut changes: Vec<Change> = Vec::new();
        for key in old.iter().filter(|key| self.elements.contains_key(*key) && !wanted.contains_key(*key)) {
            changes.push(Change { key: key.clone(), old: true, new: None });
        }
        for (key, data) in &wanted {
            match self.elements.get(key) {
                Some(now) if now == data => {}
                now => changes.push(Change { key: key.clone(), old: now.is_some(), new: Some(data.clone()) }),
            }
        }
        if !changes.is_empty() {
            let front = kernel.front_length();
            changes.sort_by(|a, b| a.front(front).cmp(b.front(front)).then_with(|| a.key.cmp(&b.key)));
            let chains: Vec<String> = picks.iter().map(|pick| table::chain_name(*pick)).collect();
            let done: Vec<(Key, Option<Option<SetElementData>>)> =
                changes.iter().map(|c| (c.key.clone(), c.new.clone())).collect();
            kernel.carry_out(picks.into_iter().collect(), changes).await?;
            self.chains.extend(chains);
            for (key, data) in done {
                match data {
                    Some(data) => self.elements.insert(key, data),
                    None => self.elements.remove(&key),
                };
            }
        }
        self.generations = Some(kernel.generations().await?);
        Ok(())
    }
}

fn picks<'a>(plans: impl Iterator<Item = &'a Plan>) -> BTreeSet<Pick> {
    let fates = plans.flat_map(|plan| plan.fates.values());
    fates
        .filter_map(|fate| match fate {
            Fate::Sent(pick) => Some(*pick),
            Fate::Refused | Fate::Dropped => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_is_changed_whole_where_it_fits() {
        let change = |front: u8, kind: Kind, n: u16| {
            let mut key = vec![front; FRONT];
            key.extend(n.to_be_bytes());
            Change { key: (kind, key), old: false, new: None }
        };
        let of = |front: u8, count: u16| (0..count).map(move |n| change(front, Kind::Slots, n));
        let changes: Vec<_> = of(1, 500).chain(of(2, 500)).chain(of(3, 900)).collect();
        let sizes: Vec<usize> = parts(&changes, FRONT).into_iter().map(<[Change]>::len).collect();
        assert_eq!(sizes, [500, 500, 800, 100], "only what is larger than a transaction is divided");
    }
}
